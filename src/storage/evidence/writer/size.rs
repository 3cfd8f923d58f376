//! The size of the evidence: it is measured when files change, and its levels are logged.

use super::super::days;
use super::super::size_level::log_level;
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
        let folder = self.folder.display().to_string();
        self.level = log_level(&self.size, self.level, (&folder, REMEDY));
    }
}
