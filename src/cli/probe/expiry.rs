//! Certificates and exceptions that end within 30 days.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::super::format::{INDENT, count, plain, wrap};
use super::context::ProbeContext;
use super::domain_probe::DomainProbe;
use crate::config::TlsDemand;
use crate::policy::connector::exception;
use crate::smtp::address::Host;

/// The time before an end from which it is reported.
const NOTICE_PERIOD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A certificate or an exception that ends soon.
#[derive(Debug)]
pub(super) struct UpcomingExpiry {
    /// The name of the connector.
    pub(super) connector: String,
    pub(super) item: ExpiringItem,
    /// The time at which it ends.
    pub(super) at: Timestamp,
}

/// The kinds of things that end.
#[derive(Debug)]
pub(super) enum ExpiringItem {
    /// A certificate of a peer without which a demand is unmet.
    PeerCertificate {
        /// The peer that sends the certificate.
        peer: String,
        /// The certificate, in words.
        subject: String,
    },
    /// Our client certificate for the connector.
    OwnCertificate {
        /// The file.
        file: String,
    },
    /// The exception that is in force; TLS is forced again after it.
    Exception {
        /// The domain whose mail would not be delivered after the end, judged by the hosts as they
        /// are today.
        stops: Option<Host>,
    },
}

/// Returns what ends soon. What has ended already shows in the verdict.
pub(super) fn upcoming(result: &DomainProbe, context: &ProbeContext) -> Vec<UpcomingExpiry> {
    let now = Timestamp::now();
    let connector = &result.connector;
    let expiry = |item, at| UpcomingExpiry {
        connector: connector.name.clone(),
        item,
        at,
    };
    let hops = result.probe.hops.iter().flatten();
    let addresses = hops
        .filter_map(|hop| hop.findings.as_ref().ok())
        .flat_map(|seen| &seen.addresses);
    let of_peers = addresses.filter_map(|address| {
        let (at, subject) = address.breaks_at(now)?;
        let (peer, subject) = (address.peer.clone(), subject.to_owned());
        Some(expiry(ExpiringItem::PeerCertificate { peer, subject }, at))
    });
    let client_identity = connector.outbound.client_identity.as_ref();
    let own = context.identities.iter().filter_map(|identity| {
        let is_used = client_identity.is_some_and(|files| files.certificate.value == identity.file);
        let file = identity.file.display().to_string();
        is_used.then(|| expiry(ExpiringItem::OwnCertificate { file }, identity.not_after))
    });
    let exception = match connector.outbound.tls {
        TlsDemand::Forced { .. } => exception(connector, now),
        TlsDemand::Off | TlsDemand::Opportunistic => None,
    };
    // An exception is in force to the end of its last day in UTC.
    let exception_end = exception.and_then(|exception| {
        let day = exception.until.tomorrow().ok()?;
        TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()
    });
    let stops = result.fails_later().then(|| result.recipient.clone());
    let of_exception = exception_end.map(|at| expiry(ExpiringItem::Exception { stops }, at));
    let is_near =
        |expiry: &UpcomingExpiry| expiry.at > now && now.duration_until(expiry.at) < NOTICE_PERIOD;
    of_peers
        .chain(own)
        .chain(of_exception)
        .filter(is_near)
        .collect()
}

/// Returns a text for each item, in lines of at most `width` columns.
pub(super) fn lines(expiries: &[UpcomingExpiry], width: usize) -> String {
    let mut lines = String::new();
    for expiry in expiries {
        let (connector, at) = (&expiry.connector, date_and_days(expiry.at));
        let text = match &expiry.item {
            ExpiringItem::PeerCertificate { peer, subject } => {
                format!(
                    "{peer} must show a valid certificate (connector \"{connector}\"), and {subject} expires {at}"
                )
            }
            ExpiringItem::OwnCertificate { file } => {
                format!("our client certificate (connector \"{connector}\"), {file}, expires {at}")
            }
            ExpiringItem::Exception { stops } => {
                let stops = stops.as_ref().map(|domain| {
                    format!(", and mail for {domain} would not be delivered to its hosts as they are today")
                });
                let stops = stops.unwrap_or_default();
                // An exception is named by its last day.
                let last = date_and_days(expiry.at - SignedDuration::from_secs(1));
                format!(
                    "the exception of connector \"{connector}\" ends on {last}: TLS is forced again then{stops}"
                )
            }
        };
        wrap(
            &mut lines,
            "",
            INDENT,
            &format!("SOON: {}", plain(&text)),
            width,
        );
    }
    lines
}

/// Returns the number of full days from now, negative for the past.
pub(super) fn days_left(at: Timestamp) -> i64 {
    at.duration_since(Timestamp::now())
        .as_hours()
        .div_euclid(24)
}

/// Returns a date with the days until then: `2027-01-31, in 20 days`.
pub(super) fn date_and_days(at: Timestamp) -> String {
    let date = at.to_zoned_datetime(TimeZone::UTC).date();
    match days_left(at) {
        ..0 => format!("{date}, EXPIRED {} ago", count(-days_left(at), "day")),
        days => format!("{date}, in {}", count(days, "day")),
    }
}
