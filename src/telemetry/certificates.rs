//! The certificate watch: our own certificates, and the latest certificate of each partner on a
//! forced connector.
//!
//! It warns 30, 14, 7 and 1 days before a certificate expires and when it has expired, once each.
//! It reports at once if a partner changed its certificate and the connector refuses the new one.
//! It makes no decisions: [`crate::policy::tls`] refuses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::labels::Direction;
use crate::policy::tls::{PeerCertificate, TlsFacts, TlsOutcome};

/// The days before the end at which a warning is logged; 0 means that the certificate has expired.
const WARNING_DAYS: [i64; 5] = [30, 14, 7, 1, 0];
/// The most partners that are stored. For a further one, the partner that was not seen for the
/// longest time is removed.
const PARTNERS_MAX: usize = 5000;
/// The time after which a partner that was not seen is forgotten, because its present certificate
/// is unknown.
const PARTNER_MAX_AGE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// The most names of a certificate that are stored.
const NAMES_MAX: usize = 20;
/// The most characters of an issuer that are stored.
const ISSUER_MAX: usize = 200;

/// The facts of a certificate that the watch compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedCertificate {
    /// The names of the certificate.
    pub names: Vec<String>,
    /// The issuer.
    pub issuer: String,
    /// The hash of the public key.
    pub key: String,
    /// The end of the validity.
    pub not_after: Timestamp,
}

impl WatchedCertificate {
    /// Returns the certificate of a session, or `None` if the peer sent none.
    #[must_use]
    pub fn of(outcome: &TlsOutcome) -> Option<Self> {
        let TlsOutcome::Tls(TlsFacts {
            certificate: PeerCertificate::Certificate(facts),
            ..
        }) = outcome
        else {
            return None;
        };
        Some(Self {
            names: facts
                .names
                .iter()
                .take(NAMES_MAX)
                .map(ToString::to_string)
                .collect(),
            issuer: facts.issuer.chars().take(ISSUER_MAX).collect(),
            key: facts.key.to_string(),
            not_after: facts.not_after,
        })
    }

    /// Describes how a new certificate differs from this one, or returns `None` if it does not.
    fn changes(&self, new: &Self) -> Option<String> {
        let mut changes = Vec::new();
        if self.names != new.names {
            changes.push(format!(
                "its names were {} and are {}",
                join_names(&self.names),
                join_names(&new.names)
            ));
        }
        if self.issuer != new.issuer {
            changes.push(format!(
                "its issuer was {} and is {}",
                self.issuer, new.issuer
            ));
        }
        if changes.is_empty() && self.key != new.key {
            changes.push("its key has changed".to_owned());
        }
        (!changes.is_empty()).then(|| changes.join("; "))
    }
}

fn join_names(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// A partner on a connector that forces TLS: one host, or one sender domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partner {
    /// The certificate that the partner sent last.
    pub shown: WatchedCertificate,
    /// The time at which it was sent.
    pub seen: Timestamp,
    /// The reason why its connector refused the certificate, if it did.
    pub refused: Option<String>,
    /// The address from which the partner last connected with an accepted certificate; `None` for
    /// outbound partners.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// The certificate that was accepted last.
    #[serde(rename = "taken")]
    accepted: Option<WatchedCertificate>,
    /// The key of the changed certificate that was reported last.
    #[serde(rename = "told")]
    reported_key: Option<String>,
    /// The smallest step at which a warning about the present certificate was logged.
    warned: Option<i64>,
}

/// A certificate that a partner sent.
#[derive(Debug)]
pub struct PartnerCertificate<'a> {
    /// The connector of the partner.
    pub connector: &'a str,
    /// The direction: outbound for a next hop, inbound for a client.
    pub direction: Direction,
    /// The host, or the domain of the sender.
    pub host: String,
    /// The address of the client; `None` for outbound sessions.
    pub from: Option<IpAddr>,
    /// The certificate.
    pub shown: WatchedCertificate,
    /// The refusal of the TLS judge in words, if it refused the session.
    pub refused: Option<String>,
}

/// One of our own certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The path of its file.
    pub file: String,
    /// The end of its validity.
    pub not_after: Timestamp,
}

/// The certificates in the form in which they are saved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredCertificates {
    partners: BTreeMap<String, Partner>,
    /// Keyed by file: the end of validity, and the smallest step at which a warning was logged.
    own: BTreeMap<String, (Timestamp, i64)>,
}

/// All certificates that are watched.
#[derive(Debug, Default)]
pub struct Certificates {
    stored: StoredCertificates,
    is_changed: bool,
}

/// Returns the smallest step that has been reached, if any.
fn warning_step(not_after: Timestamp, now: Timestamp) -> Option<i64> {
    let left = not_after.as_second().saturating_sub(now.as_second());
    WARNING_DAYS
        .into_iter()
        .filter(|days| left <= days * 86_400)
        .min()
}

/// The time for which a certificate is still valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeLeft {
    /// The number of complete days that remain.
    Days(i64),
    /// The certificate has expired.
    Expired,
}

impl TimeLeft {
    fn of(not_after: Timestamp, now: Timestamp) -> Self {
        match not_after.as_second().saturating_sub(now.as_second()) {
            ..=0 => Self::Expired,
            seconds => Self::Days(seconds / 86_400),
        }
    }
}

/// Returns the step to warn at now: the smallest one reached, unless a warning at it was logged
/// already.
fn due_step(not_after: Timestamp, warned: Option<i64>, now: Timestamp) -> Option<i64> {
    warning_step(not_after, now).filter(|step| warned.is_none_or(|warned| *step < warned))
}

impl Certificates {
    pub(super) fn from_stored(mut stored: StoredCertificates) -> Self {
        while stored.partners.len() > PARTNERS_MAX {
            stored.partners.pop_last();
        }
        Self {
            stored,
            is_changed: false,
        }
    }

    pub(super) fn to_stored(&self) -> StoredCertificates {
        self.stored.clone()
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    /// Returns each partner with its direction, connector and host.
    pub fn partners(&self) -> impl Iterator<Item = (Direction, &str, &str, &Partner)> {
        self.stored.partners.iter().filter_map(|(key, partner)| {
            let mut parts = key.splitn(3, '\n');
            let direction = if parts.next()? == "inbound" {
                Direction::Inbound
            } else {
                Direction::Outbound
            };
            Some((direction, parts.next()?, parts.next()?, partner))
        })
    }

    /// Stores the certificate of a partner. If it differs from the accepted one and the connector
    /// refuses it, this is logged once.
    pub fn store_sent(&mut self, sent: PartnerCertificate<'_>, now: Timestamp) {
        if let Some(changes) = self.update_partner(&sent, now) {
            tracing::error!(
                connector = sent.connector,
                direction = sent.direction.as_str(),
                host = sent.host,
                changes,
                reason = sent.refused.unwrap_or_default(),
                "a partner changed its certificate and the connector refuses the new one; ask the partner, then change names, trust or pins of the connector"
            );
        }
    }

    /// Stores the certificate and returns the changes that should be logged.
    fn update_partner(&mut self, sent: &PartnerCertificate<'_>, now: Timestamp) -> Option<String> {
        let PartnerCertificate {
            connector,
            direction,
            host,
            from,
            shown,
            refused,
        } = sent;
        let key = format!("{}\n{connector}\n{host}", direction.as_str());
        // Anybody can use the partner's domain as a sender. A refused certificate is attributed to
        // the partner only if it comes from the address at which the partner's certificate was
        // accepted before.
        if refused.is_some() && *direction == Direction::Inbound {
            let known = self
                .stored
                .partners
                .get(&key)
                .and_then(|partner| partner.from);
            if known.is_none() || known != *from {
                return None;
            }
        }
        self.is_changed = true;
        if !self.stored.partners.contains_key(&key) && self.stored.partners.len() >= PARTNERS_MAX {
            let oldest = self
                .stored
                .partners
                .iter()
                .min_by_key(|(_, partner)| partner.seen);
            let oldest = oldest.map(|(key, _)| key.clone())?;
            self.stored.partners.remove(&oldest);
        }
        let partner = self.stored.partners.entry(key).or_insert_with(|| Partner {
            shown: shown.clone(),
            seen: now,
            refused: None,
            from: None,
            accepted: None,
            reported_key: None,
            warned: None,
        });
        if partner.shown.not_after != shown.not_after || partner.shown.key != shown.key {
            partner.warned = None;
        }
        (partner.shown, partner.seen, partner.refused) = (shown.clone(), now, refused.clone());
        if refused.is_none() {
            partner.from = *from;
            (partner.accepted, partner.reported_key) = (Some(shown.clone()), None);
            return None;
        }
        let changes = partner.accepted.as_ref()?.changes(shown)?;
        let is_new = partner.reported_key.as_ref() != Some(&shown.key);
        partner.reported_key = Some(shown.key.clone());
        is_new.then_some(changes)
    }

    /// Logs warnings about certificates that expire soon, once for each step. Forgets partners that
    /// were not seen for 90 days, and partners of connectors for which `is_forced` returns false.
    pub fn warn_expiring(
        &mut self,
        own: &[OwnCertificate],
        is_forced: impl Fn(Direction, &str) -> bool,
        now: Timestamp,
    ) {
        for (file, ends, left) in self.own_due(own, now) {
            let remedy = "renew it; Gatepost loads the new file by itself";
            match left {
                TimeLeft::Expired => {
                    tracing::error!(file, %ends, remedy, "our own certificate has expired");
                }
                TimeLeft::Days(days) => {
                    tracing::warn!(file, days, %ends, remedy, "our own certificate expires soon");
                }
            }
        }
        for (connector, host, left, shown) in self.partners_due(is_forced, now) {
            let (names, ends) = (join_names(&shown.names), shown.not_after);
            match left {
                TimeLeft::Expired => {
                    tracing::warn!(connector, host, names, %ends, "a partner's certificate has expired; its connector may now refuse it");
                }
                TimeLeft::Days(days) => {
                    tracing::warn!(connector, host, names, days, %ends, "a partner's certificate expires soon; remind the partner");
                }
            }
        }
    }

    fn own_due(
        &mut self,
        own: &[OwnCertificate],
        now: Timestamp,
    ) -> Vec<(String, Timestamp, TimeLeft)> {
        let mut warnings = Vec::new();
        let before = self.stored.own.len();
        self.stored
            .own
            .retain(|file, _| own.iter().any(|one| one.file == *file));
        self.is_changed |= before != self.stored.own.len();
        for OwnCertificate { file, not_after } in own {
            let warned = self
                .stored
                .own
                .get(file)
                .filter(|(ended, _)| ended == not_after)
                .map(|(_, step)| *step);
            if let Some(step) = due_step(*not_after, warned, now) {
                self.stored.own.insert(file.clone(), (*not_after, step));
                self.is_changed = true;
                warnings.push((file.clone(), *not_after, TimeLeft::of(*not_after, now)));
            }
        }
        warnings
    }

    fn partners_due(
        &mut self,
        is_forced: impl Fn(Direction, &str) -> bool,
        now: Timestamp,
    ) -> Vec<(String, String, TimeLeft, WatchedCertificate)> {
        let is_stale = |partner: &Partner| partner.seen.duration_until(now) >= PARTNER_MAX_AGE;
        let removed: Vec<String> = self
            .partners()
            .filter(|(direction, connector, _, partner)| {
                !is_forced(*direction, connector) || is_stale(partner)
            })
            .map(|(direction, connector, host, _)| {
                format!("{}\n{connector}\n{host}", direction.as_str())
            })
            .collect();
        self.is_changed |= !removed.is_empty();
        for key in removed {
            self.stored.partners.remove(&key);
        }
        let mut warnings = Vec::new();
        for (key, partner) in &mut self.stored.partners {
            let Some(step) = due_step(partner.shown.not_after, partner.warned, now) else {
                continue;
            };
            partner.warned = Some(step);
            self.is_changed = true;
            let mut parts = key.splitn(3, '\n').skip(1).map(str::to_owned);
            let (connector, host) = (
                parts.next().unwrap_or_default(),
                parts.next().unwrap_or_default(),
            );
            warnings.push((
                connector,
                host,
                TimeLeft::of(partner.shown.not_after, now),
                partner.shown.clone(),
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
