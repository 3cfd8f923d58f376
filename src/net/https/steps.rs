//! The steps of every request, with their time limits.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{HttpsFault, HttpsStep};
use crate::net::dns::Dns;
use crate::smtp::address::Domain;

/// The maximum number of addresses that are tried.
const ADDRESSES_MAX: usize = 4;

/// Waits for a step until the deadline of the request.
pub(super) async fn before_deadline<T>(
    deadline: Deadline,
    step: HttpsStep,
    work: impl Future<Output = T>,
) -> Result<T, HttpsFault> {
    let late = |_| HttpsFault::Timeout {
        step,
        limit: deadline.timeout,
    };
    timeout_at(deadline.at, work).await.map_err(late)
}

/// Waits for a step for at most `limit`, so that time remains for the next address.
pub(super) async fn within_limit<T>(
    deadline: Deadline,
    limit: Duration,
    step: HttpsStep,
    work: impl Future<Output = T>,
) -> Result<T, HttpsFault> {
    let own = Deadline {
        at: deadline.at.min(Instant::now() + limit),
        timeout: limit,
    };
    before_deadline(own, step, work).await
}

/// Looks up the first addresses of a host.
pub(super) async fn look_up_addresses(
    dns: &Dns,
    host: &Domain,
    deadline: Deadline,
) -> Result<Vec<IpAddr>, HttpsFault> {
    let answer = before_deadline(deadline, HttpsStep::Lookup, dns.addresses(host)).await?;
    let answer = answer.map_err(|error| HttpsFault::Lookup(error.to_string()))?;
    Ok(answer
        .records()
        .iter()
        .copied()
        .take(ADDRESSES_MAX)
        .collect())
}

/// Describes a failed connection.
pub(super) fn connect_error_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

/// The deadline of a request, with the time limit that it came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) timeout: Duration,
}
