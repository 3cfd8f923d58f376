//! What will break within 30 days: certificates that a demand hangs on, theirs and ours, and exceptions.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::super::queue::words::plain;
use super::Done;
use super::apart::Apart;
use crate::address::Host;
use crate::config::TlsDemand;
use crate::connector::exception;

/// So long before it ends, something is told of.
const NEAR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Something that ends.
#[derive(Debug)]
pub(super) struct Soon {
    /// Of which connector.
    pub(super) connector: String,
    pub(super) what: What,
    /// When.
    pub(super) at: Timestamp,
}

/// What ends.
#[derive(Debug)]
pub(super) enum What {
    /// A certificate that a peer sends, and that a demand hangs on.
    Theirs {
        /// Who sends it.
        peer: String,
        /// Whose it is, in words.
        subject: String,
    },
    /// The certificate that we show them.
    Ours {
        /// Its file.
        file: String,
    },
    /// The exception that holds now: TLS is forced again behind it.
    Exception {
        /// The domain whose mail would not go on then, where that is so.
        stops: Option<Host>,
    },
}

/// What of a probe will break soon. What is broken already is told by its verdict.
pub(super) fn of(done: &Done, apart: &Apart) -> Vec<Soon> {
    let now = Timestamp::now();
    let connector = &done.connector;
    let soon = |what, at| Soon { connector: connector.name.clone(), what, at };
    let hops = done.probe.hops.iter().flatten();
    let sightings = hops.filter_map(|hop| hop.seen.as_ref().ok()).flat_map(|seen| &seen.addresses);
    let theirs = sightings.filter_map(|sighting| {
        let (at, subject) = sighting.breaks_at(now)?;
        Some(soon(What::Theirs { peer: sighting.peer.clone(), subject: subject.to_owned() }, at))
    });
    let identity = connector.outbound.client_identity.as_ref();
    let ours = apart.identities.iter().filter_map(|ours| {
        let is_shown = identity.is_some_and(|files| files.certificate.value == ours.file);
        is_shown.then(|| soon(What::Ours { file: ours.file.display().to_string() }, ours.not_after))
    });
    let lowered = match connector.outbound.tls {
        TlsDemand::Forced { .. } => exception(connector, now),
        TlsDemand::Off | TlsDemand::Opportunistic => None,
    };
    // To the end of its last day, in UTC.
    let ends = lowered.and_then(|exception| {
        let day = exception.until.tomorrow().ok()?;
        TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok()
    });
    let stops = done.fails_later().then(|| done.recipient.clone());
    let exceptions = ends.map(|at| soon(What::Exception { stops }, at));
    let is_near = |soon: &Soon| soon.at > now && now.duration_until(soon.at) < NEAR;
    theirs.chain(ours).chain(exceptions).filter(is_near).collect()
}

/// A line for each.
pub(super) fn lines(all: &[Soon]) -> String {
    let line = |soon: &Soon| {
        let (connector, at) = (&soon.connector, expiry(soon.at));
        let text = match &soon.what {
            What::Theirs { peer, subject } => {
                format!("{peer} is to show a valid certificate (connector \"{connector}\"), and {subject} expires {at}")
            }
            What::Ours { file } => {
                format!("the certificate that we show them (connector \"{connector}\"), {file}, expires {at}")
            }
            What::Exception { stops } => {
                let stops = stops
                    .as_ref()
                    .map(|domain| format!(", and mail for {domain} would not go on as its hosts are today"));
                let stops = stops.unwrap_or_default();
                format!("the exception of connector \"{connector}\" ends {at}: TLS is forced again then{stops}")
            }
        };
        format!("SOON: {}\n", plain(&text))
    };
    all.iter().map(line).collect()
}

/// Whole days from now; negative for the past.
pub(super) fn days_left(at: Timestamp) -> i64 {
    at.duration_since(Timestamp::now()).as_hours().div_euclid(24)
}

/// `2027-01-31, in 20 days`.
pub(super) fn expiry(at: Timestamp) -> String {
    let date = at.to_zoned_datetime(TimeZone::UTC).date();
    let days = days_left(at);
    match days.signum() {
        -1 => format!("{date}, EXPIRED {} ago", days_in_words(-days)),
        _ => format!("{date}, in {}", days_in_words(days)),
    }
}

fn days_in_words(days: i64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}
