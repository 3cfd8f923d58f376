//! The size of the evidence: it is measured when files change, and its levels are logged.

use super::super::days;
use super::super::usage::{EvidenceLevel, EvidenceUsage};
use super::EvidenceWriter;

/// The remedy for evidence that fills its limit.
const REMEDY: &str =
    "run gatepost evidence archive FOLDER, or raise [evidence] max_size and reload";

impl EvidenceWriter {
    /// Measures the size of all records. That is a look at each file, so it happens only when files
    /// were replaced or removed, or may have been.
    pub(super) fn measure(&mut self) {
        match days::size_of_records(&self.folder) {
            Ok(octets) => self.size.set_octets(octets),
            Err(error) => {
                tracing::warn!(%error, "cannot measure the evidence; its last known size counts");
            }
        }
        self.log_level();
    }

    /// Logs each change of the level of the size, once.
    pub(super) fn log_level(&mut self) {
        let usage = self.size.usage();
        let before = std::mem::replace(&mut self.level, usage.level());
        if before == self.level {
            return;
        }
        let (folder, percent) = (self.folder.display(), usage.percent());
        let EvidenceUsage { octets, max } = usage;
        match self.level {
            EvidenceLevel::Normal => {
                tracing::info!(%folder, octets, max, percent, "evidence is under 80 % of [evidence] max_size again");
            }
            EvidenceLevel::Filling | EvidenceLevel::NearlyFull => {
                tracing::warn!(%folder, octets, max, percent, remedy = REMEDY, "evidence fills [evidence] max_size; at 95 % new mail is rejected");
            }
            EvidenceLevel::RejectsMail => {
                tracing::error!(%folder, octets, max, percent, remedy = REMEDY, "evidence has reached 95 % of [evidence] max_size; new mail is rejected");
            }
            EvidenceLevel::Full => {
                tracing::error!(%folder, octets, max, percent, remedy = REMEDY, "evidence has reached [evidence] max_size; new mail is rejected, and deliveries wait");
            }
        }
    }
}
