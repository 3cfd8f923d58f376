//! The evidence: its size and its limit.

use super::api::evidence::EvidenceStatus;
use super::state::AdminState;
use crate::storage::evidence::EvidenceLevel;
use crate::telemetry::EvidenceReading;

/// Returns the size of the evidence and its limit; `None` if none is kept.
pub(super) fn status(admin: &AdminState) -> Option<EvidenceStatus> {
    let usage = admin.evidence.usage()?;
    Some(EvidenceStatus {
        octets: usage.octets,
        max_octets: usage.max,
        percent: usage.percent(),
        level: usage.level().as_str().to_owned(),
        rejects_mail: usage.level() >= EvidenceLevel::RejectsMail,
        stuck: admin.evidence.is_stuck(),
    })
}

/// Returns the values for the metrics.
pub(super) fn reading(admin: &AdminState) -> Option<EvidenceReading> {
    status(admin).map(|status| EvidenceReading {
        octets: status.octets,
        max_octets: status.max_octets,
        rejects_mail: status.rejects_mail,
        stuck: status.stuck,
    })
}
