//! The certificate watch: our own, and the last one that each partner on a forced connector has shown.
//!
//! It warns 30, 14, 7 and 1 days before a certificate ends and when it has, once each, and says at once
//! where a partner has changed its certificate so that its connector refuses it. It judges nothing: what is
//! refused was refused by [`crate::tls`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::labels::Direction;
use crate::tls::{PeerCertificate, TlsFacts, TlsOutcome};

/// Days before the end at which is warned; 0 says that it has ended.
const STEPS: [i64; 5] = [30, 14, 7, 1, 0];
/// Partners that are kept; beyond it the one that was not seen for the longest time goes.
const PARTNERS_MAX: usize = 5000;
/// A partner that was not seen for so long is forgotten: nobody knows what it shows now.
const PARTNER_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Names of a certificate that are kept, and characters of its issuer.
const NAMES_MAX: usize = 20;
const ISSUER_MAX: usize = 200;

/// What a certificate says, as far as it is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its names.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// The hash of its key.
    pub key: String,
    /// When it ends.
    pub not_after: Timestamp,
}

impl Shown {
    /// The certificate of a session; nothing where none was shown.
    #[must_use]
    pub fn of(outcome: &TlsOutcome) -> Option<Self> {
        let TlsOutcome::Tls(TlsFacts { certificate: PeerCertificate::Certificate(facts), .. }) = outcome else {
            return None;
        };
        Some(Self {
            names: facts.names.iter().take(NAMES_MAX).map(ToString::to_string).collect(),
            issuer: facts.issuer.chars().take(ISSUER_MAX).collect(),
            key: facts.key.to_string(),
            not_after: facts.not_after,
        })
    }

    /// What is different in another, in words.
    fn changes(&self, new: &Self) -> Option<String> {
        let mut changes = Vec::new();
        if self.names != new.names {
            changes.push(format!("its names were {} and are {}", listed(&self.names), listed(&new.names)));
        }
        if self.issuer != new.issuer {
            changes.push(format!("its issuer was {} and is {}", self.issuer, new.issuer));
        }
        if changes.is_empty() && self.key != new.key {
            changes.push("its key is another".to_owned());
        }
        (!changes.is_empty()).then(|| changes.join("; "))
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A partner: one host, or one sender's server, on a connector that forces TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partner {
    /// What it showed last.
    pub shown: Shown,
    /// When.
    pub seen: Timestamp,
    /// Why its connector refused that, where it did.
    pub refused: Option<String>,
    /// From where it called when it was last taken; nothing where we call it.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// What it showed when it was last taken.
    taken: Option<Shown>,
    /// The key of a changed certificate that was told of.
    told: Option<String>,
    /// The smallest step that was warned at, for `shown`.
    warned: Option<i64>,
}

/// What a partner has shown.
#[derive(Debug)]
pub struct Sighting<'a> {
    /// Its connector.
    pub connector: &'a str,
    /// Whether it was a next hop or a client.
    pub direction: Direction,
    /// The host, or the sender's domain.
    pub host: String,
    /// From where it called; nothing where we call it.
    pub from: Option<IpAddr>,
    /// Its certificate.
    pub shown: Shown,
    /// Why the judge refused it, in words.
    pub refused: Option<String>,
}

/// One of our own certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its file.
    pub file: String,
    /// When it ends.
    pub not_after: Timestamp,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    partners: BTreeMap<String, Partner>,
    /// By file: until when it held, and the smallest step that was warned at.
    own: BTreeMap<String, (Timestamp, i64)>,
}

/// Every certificate that is watched.
#[derive(Debug, Default)]
pub struct Certificates {
    kept: Kept,
    is_dirty: bool,
}

/// The step that has come, if any.
fn step(not_after: Timestamp, now: Timestamp) -> Option<i64> {
    let left = not_after.as_second().saturating_sub(now.as_second());
    STEPS.into_iter().filter(|days| left <= days * 86_400).min()
}

/// The time that a certificate has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// So many whole days.
    Days(i64),
    /// None: it has expired.
    Expired,
}

impl Left {
    fn of(not_after: Timestamp, now: Timestamp) -> Self {
        match not_after.as_second().saturating_sub(now.as_second()) {
            ..=0 => Self::Expired,
            seconds => Self::Days(seconds / 86_400),
        }
    }
}

/// The step to warn at now: one that has come and was not warned at.
fn due(not_after: Timestamp, warned: Option<i64>, now: Timestamp) -> Option<i64> {
    step(not_after, now).filter(|step| warned.is_none_or(|warned| *step < warned))
}

impl Certificates {
    pub(super) fn restored(mut kept: Kept) -> Self {
        while kept.partners.len() > PARTNERS_MAX {
            kept.partners.pop_last();
        }
        Self { kept, is_dirty: false }
    }

    pub(super) fn kept(&self) -> Kept {
        self.kept.clone()
    }

    pub(super) fn take_dirt(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// The partners: direction, connector, host; and what each has shown.
    pub fn partners(&self) -> impl Iterator<Item = (Direction, &str, &str, &Partner)> {
        self.kept.partners.iter().filter_map(|(key, partner)| {
            let mut parts = key.splitn(3, '\n');
            let direction = if parts.next()? == "inbound" { Direction::Inbound } else { Direction::Outbound };
            Some((direction, parts.next()?, parts.next()?, partner))
        })
    }

    /// A partner has shown its certificate. Where it is another than it was, and the connector refuses it,
    /// that is said at once, and once.
    pub fn seen(&mut self, sighting: Sighting<'_>, now: Timestamp) {
        if let Some(changes) = self.enter(&sighting, now) {
            tracing::error!(
                connector = sighting.connector,
                direction = sighting.direction.word(),
                host = sighting.host,
                changes,
                reason = sighting.refused.unwrap_or_default(),
                "a partner has changed its certificate, and the connector refuses the new one: ask the partner, then change names, trust or pins of the connector"
            );
        }
    }

    /// What has changed, where it is to be told.
    fn enter(&mut self, sighting: &Sighting<'_>, now: Timestamp) -> Option<String> {
        let Sighting { connector, direction, host, from, shown, refused } = sighting;
        let key = format!("{}\n{connector}\n{host}", direction.word());
        // Who calls us is whoever he is: only from where the partner was taken before, a refused certificate
        // is the partner's own.
        if refused.is_some() && *direction == Direction::Inbound {
            let known = self.kept.partners.get(&key).and_then(|partner| partner.from);
            if known.is_none() || known != *from {
                return None;
            }
        }
        self.is_dirty = true;
        if !self.kept.partners.contains_key(&key) && self.kept.partners.len() >= PARTNERS_MAX {
            let oldest = self.kept.partners.iter().min_by_key(|(_, partner)| partner.seen);
            let oldest = oldest.map(|(key, _)| key.clone())?;
            self.kept.partners.remove(&oldest);
        }
        let partner = self.kept.partners.entry(key).or_insert_with(|| Partner {
            shown: shown.clone(),
            seen: now,
            refused: None,
            from: None,
            taken: None,
            told: None,
            warned: None,
        });
        if partner.shown.not_after != shown.not_after || partner.shown.key != shown.key {
            partner.warned = None;
        }
        (partner.shown, partner.seen, partner.refused) = (shown.clone(), now, refused.clone());
        if refused.is_none() {
            partner.from = *from;
            (partner.taken, partner.told) = (Some(shown.clone()), None);
            return None;
        }
        let changes = partner.taken.as_ref()?.changes(shown)?;
        let is_news = partner.told.as_ref() != Some(&shown.key);
        partner.told = Some(shown.key.clone());
        is_news.then_some(changes)
    }

    /// Warns of what ends soon, each certificate once at each step, with the days that are left. Partners that a
    /// connector no longer forces are forgotten, and those that were not seen for 90 days: `is_forced` tells by name
    /// and direction.
    pub fn look(&mut self, own: &[Own], is_forced: impl Fn(Direction, &str) -> bool, now: Timestamp) {
        for (file, ends, left) in self.own_due(own, now) {
            let remedy = "renew it; Gatepost loads the new file by itself";
            match left {
                Left::Expired => tracing::error!(file, %ends, remedy, "our own certificate has expired"),
                Left::Days(days) => tracing::warn!(file, days, %ends, remedy, "our own certificate expires soon"),
            }
        }
        for (connector, host, left, shown) in self.partners_due(is_forced, now) {
            let (names, ends) = (listed(&shown.names), shown.not_after);
            match left {
                Left::Expired => {
                    tracing::warn!(connector, host, names, %ends, "a partner's certificate has expired; its connector may refuse it now");
                }
                Left::Days(days) => {
                    tracing::warn!(connector, host, names, days, %ends, "a partner's certificate expires soon; remind the partner");
                }
            }
        }
    }

    fn own_due(&mut self, own: &[Own], now: Timestamp) -> Vec<(String, Timestamp, Left)> {
        let mut warnings = Vec::new();
        let before = self.kept.own.len();
        self.kept.own.retain(|file, _| own.iter().any(|one| one.file == *file));
        self.is_dirty |= before != self.kept.own.len();
        for Own { file, not_after } in own {
            let warned = self.kept.own.get(file).filter(|(ended, _)| ended == not_after).map(|(_, step)| *step);
            if let Some(step) = due(*not_after, warned, now) {
                self.kept.own.insert(file.clone(), (*not_after, step));
                self.is_dirty = true;
                warnings.push((file.clone(), *not_after, Left::of(*not_after, now)));
            }
        }
        warnings
    }

    fn partners_due(
        &mut self,
        is_forced: impl Fn(Direction, &str) -> bool,
        now: Timestamp,
    ) -> Vec<(String, String, Left, Shown)> {
        let is_gone = |partner: &Partner| partner.seen.duration_until(now) >= PARTNER_KEPT;
        let gone: Vec<String> = self
            .partners()
            .filter(|(direction, connector, _, partner)| !is_forced(*direction, connector) || is_gone(partner))
            .map(|(direction, connector, host, _)| format!("{}\n{connector}\n{host}", direction.word()))
            .collect();
        self.is_dirty |= !gone.is_empty();
        for key in gone {
            self.kept.partners.remove(&key);
        }
        let mut warnings = Vec::new();
        for (key, partner) in &mut self.kept.partners {
            let Some(step) = due(partner.shown.not_after, partner.warned, now) else { continue };
            partner.warned = Some(step);
            self.is_dirty = true;
            let mut parts = key.splitn(3, '\n').skip(1).map(str::to_owned);
            let (connector, host) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            warnings.push((connector, host, Left::of(partner.shown.not_after, now), partner.shown.clone()));
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
