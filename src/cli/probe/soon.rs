//! What will break soon: certificates that a demand hangs on and that expire within 30 days.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::super::queue::words::plain;
use super::Done;

/// So long before it expires, a certificate is told of.
const NEAR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A certificate that expires.
#[derive(Debug)]
pub(super) struct Soon {
    /// Under which connector.
    pub(super) connector: String,
    /// Who shows it.
    pub(super) peer: String,
    /// Whose it is, in words.
    pub(super) subject: String,
    /// When.
    pub(super) expires: Timestamp,
}

/// What of a probe will break soon. What is broken already is told by its verdict.
pub(super) fn of(done: &Done) -> Vec<Soon> {
    let now = Timestamp::now();
    let hops = done.probe.hops.iter().flatten();
    let sightings = hops.filter_map(|hop| hop.seen.as_ref().ok()).flat_map(|seen| &seen.addresses);
    let near = sightings.filter_map(|sighting| {
        let (expires, subject) = sighting.breaks_at()?;
        let is_near = expires > now && now.duration_until(expires) < NEAR;
        is_near.then(|| Soon {
            connector: done.connector.name.clone(),
            peer: sighting.peer.clone(),
            subject: subject.to_owned(),
            expires,
        })
    });
    near.collect()
}

/// A line for each.
pub(super) fn lines(all: &[Soon]) -> String {
    let line = |soon: &Soon| {
        format!(
            "SOON: {} is to show a valid certificate (connector \"{}\"), and {} expires {}\n",
            soon.peer,
            soon.connector,
            plain(&soon.subject),
            expiry(soon.expires)
        )
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
