//! The log of the size of the evidence, for all writers.

use super::usage::{EvidenceLevel, EvidenceUsage, SizeAccount};

/// Logs a change of the level of the size since the last call, and returns the level.
pub(super) fn log_level(
    size: &SizeAccount,
    before: EvidenceLevel,
    (folder, remedy): (&str, &str),
) -> EvidenceLevel {
    let usage = size.usage();
    let level = usage.level();
    if before != level {
        let percent = usage.percent();
        let EvidenceUsage { octets, max } = usage;
        match level {
            EvidenceLevel::Normal => {
                tracing::info!(
                    folder,
                    octets,
                    max,
                    percent,
                    "evidence is under 80 % of [evidence] max_size again"
                );
            }
            EvidenceLevel::Filling | EvidenceLevel::NearlyFull => {
                tracing::warn!(
                    folder,
                    octets,
                    max,
                    percent,
                    remedy,
                    "evidence fills [evidence] max_size; at 95 % new mail is rejected"
                );
            }
            EvidenceLevel::RejectsMail => {
                tracing::error!(
                    folder,
                    octets,
                    max,
                    percent,
                    remedy,
                    "evidence has reached 95 % of [evidence] max_size; new mail is rejected"
                );
            }
            EvidenceLevel::Full => {
                tracing::error!(
                    folder,
                    octets,
                    max,
                    percent,
                    remedy,
                    "evidence has reached [evidence] max_size; new mail is rejected, and deliveries wait"
                );
            }
        }
    }
    level
}
