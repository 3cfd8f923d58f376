//! The demand of each layer at one hop, or the reason why the layer demands nothing.
//!
//! The demands are read from the joined policy, the reasons from the facts that were joined.

use jiff::Timestamp;

use super::document::LayerNote;
use crate::config::{Connector, OnDowngrade, TlsDemand};
use crate::policy::connector::{ended_exception, exception};
use crate::policy::layers::{DaneFinding, HopFacts, MemoryFinding, MtaStsFinding, MtaStsListing};
use crate::policy::tls::{Layer, TlsPolicy};
use crate::smtp::address::Host;
use crate::smtp::envelope::TlsRequirement;

use super::sources::RememberedTls;

/// The facts from which the layers of one hop follow.
pub(super) struct HopLayers<'a> {
    pub(super) connector: &'a Connector,
    pub(super) hop: &'a Host,
    pub(super) findings: &'a HopFacts,
    pub(super) requirement: TlsRequirement,
    pub(super) memory: &'a RememberedTls,
    pub(super) now: Timestamp,
}

/// The reason of every other layer if the connector has `tls = "off"`.
const OFF: &str = "the connector has TLS switched off, which no layer can raise";

impl HopLayers<'_> {
    /// Returns a note on every layer, in the order in which demands are joined.
    pub(super) fn layers(&self, policy: &TlsPolicy) -> Vec<LayerNote> {
        let note = |layer, name, why: Option<String>| {
            let demands: Vec<_> = policy
                .demands()
                .filter(|demand| demand.layer == layer)
                .map(ToString::to_string)
                .collect();
            LayerNote {
                layer: name,
                demands,
                why,
            }
        };
        let off = *policy == TlsPolicy::Off;
        let or_off = |why: String| Some(if off { OFF.to_owned() } else { why });
        let floor = self.connector.floor.as_deref();
        let mut notes = vec![
            note(Layer::Connector, "connector", self.connector(policy)),
            note(Layer::Exception, "exception", Some(self.exception())),
        ];
        notes.extend(floor.map(|floor| {
            let why = Some(self.recipient(floor));
            note(Layer::RecipientConnector, "recipient", why)
        }));
        notes.extend([
            note(Layer::Dane, "dane", or_off(self.dane())),
            note(Layer::MtaSts, "mta-sts", or_off(self.mta_sts())),
            note(Layer::RequireTls, "requiretls", or_off(self.requiretls())),
            note(
                Layer::DowngradeMemory,
                "memory",
                or_off(self.memory(policy)),
            ),
        ]);
        notes
    }

    /// Returns a sentence about the recipient's own connector.
    fn recipient(&self, floor: &Connector) -> String {
        let name = &floor.name;
        match exception(floor, self.now).map_or(floor.outbound.tls, |holds| holds.tls) {
            TlsDemand::Off => format!("the recipient's connector {name} has TLS off"),
            TlsDemand::Opportunistic => {
                format!("the recipient's connector {name} has TLS opportunistic")
            }
            TlsDemand::Forced { .. } => format!("as the recipient's connector {name} says"),
        }
    }

    fn connector(&self, policy: &TlsPolicy) -> Option<String> {
        if exception(self.connector, self.now).is_some() {
            return Some("its exception replaces its own demand".to_owned());
        }
        let built_in = if self.connector.is_built_in() {
            "default: no connector of the file matches the domain; "
        } else {
            ""
        };
        let level = if policy
            .demands()
            .any(|demand| demand.layer == Layer::Connector)
        {
            return None;
        } else if self.connector.outbound.tls == TlsDemand::Off {
            "TLS off"
        } else {
            "TLS opportunistic"
        };
        Some(format!("{built_in}{level}"))
    }

    fn exception(&self) -> String {
        match (
            exception(self.connector, self.now),
            ended_exception(self.connector, self.now),
        ) {
            (Some(holds), _) => format!("until {} ({})", holds.until, holds.reason),
            (None, Some(ended)) => format!("ended on {} ({})", ended.until, ended.reason),
            (None, None) => "the connector has none".to_owned(),
        }
    }

    fn dane(&self) -> String {
        match &self.findings.dane {
            DaneFinding::NotLookedUp(why) => (*why).to_owned(),
            DaneFinding::Absent(why) => why.clone(),
            DaneFinding::Unusable(why) => {
                format!("no usable TLSA record, so TLS without authentication: {why}")
            }
            DaneFinding::Usable(_) if self.requirement == TlsRequirement::Relaxed => {
                "the message overrides it (TLS-Required: No)".to_owned()
            }
            DaneFinding::Usable(set) => {
                let records: Vec<_> = set
                    .records
                    .iter()
                    .take(5)
                    .map(|record| format!("\"{record}\""))
                    .collect();
                format!("TLSA records of {}: {}", set.base, records.join(", "))
            }
        }
    }

    fn mta_sts(&self) -> String {
        let listed = |listing: &MtaStsListing| match listing {
            MtaStsListing::Listed => "lists the host",
            MtaStsListing::NotListed(_) => "does not list the host",
        };
        match (&self.findings.mta_sts, &self.findings.dane) {
            (MtaStsFinding::NotLookedUp(why), _) => (*why).to_owned(),
            (MtaStsFinding::None(why), _) => why.clone(),
            (MtaStsFinding::Testing(listing), _) => {
                format!(
                    "the policy is in testing mode, which demands nothing; it {}",
                    listed(listing)
                )
            }
            (MtaStsFinding::Enforce(_), DaneFinding::Usable(_)) => {
                "the policy does not apply: DANE authenticates the host (RFC 8461 §2)".to_owned()
            }
            (MtaStsFinding::Enforce(listing), _) => {
                let literal = if self.hop.domain().is_none() {
                    "; the name of an address literal is not verified"
                } else {
                    ""
                };
                format!(
                    "the policy is in enforce mode, and {}{literal}",
                    listed(listing)
                )
            }
        }
    }

    fn requiretls(&self) -> String {
        match self.requirement {
            TlsRequirement::Ordinary => {
                "an ordinary message does not ask for it (see --requiretls)".to_owned()
            }
            TlsRequirement::Relaxed => {
                "the message says TLS-Required: No, which sets aside DANE and MTA-STS".to_owned()
            }
            TlsRequirement::Require => "the host must also offer REQUIRETLS (RFC 8689)".to_owned(),
        }
    }

    fn memory(&self, policy: &TlsPolicy) -> String {
        let downgrade = self.connector.outbound.downgrade;
        let is_forced = policy
            .demands()
            .any(|demand| demand.layer != Layer::DowngradeMemory);
        if let RememberedTls::Unavailable(why) = self.memory {
            let matters = match downgrade {
                OnDowngrade::Refuse if !is_forced => "; downgrade = \"refuse\" may demand TLS",
                OnDowngrade::Refuse => "; another layer demands TLS",
                OnDowngrade::Allow | OnDowngrade::Warn => "; it would demand nothing here",
            };
            return format!("not available: {why}{matters}");
        }
        match &self.findings.memory {
            MemoryFinding::Nothing => "no TLS of this domain is remembered".to_owned(),
            MemoryFinding::TookTls { last } => {
                let last = last.strftime("%Y-%m-%d");
                let effect = match downgrade {
                    OnDowngrade::Refuse => "so TLS is required now (downgrade = \"refuse\")",
                    OnDowngrade::Allow | OnDowngrade::Warn if is_forced => {
                        "another layer demands TLS"
                    }
                    OnDowngrade::Allow => {
                        "mail goes without TLS all the same (downgrade = \"allow\")"
                    }
                    OnDowngrade::Warn => {
                        "mail goes without TLS, which is logged (downgrade = \"warn\")"
                    }
                };
                format!("the domain used TLS, last on {last}; {effect}")
            }
        }
    }
}
