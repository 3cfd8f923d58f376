//! The compression of closed days, as the writer directs it.

use super::super::compress::CompressedDay;
use super::super::days;
use super::EvidenceWriter;

impl EvidenceWriter {
    /// Puts a compressed day in its place, and begins with the next closed day.
    pub(super) fn compress_closed(&mut self) {
        let Some(compressor) = &mut self.compressor else {
            return;
        };
        let mut compressed = false;
        if let Some(CompressedDay { plain, result }) = compressor.take_result() {
            self.compression_due = true;
            match result.and_then(|replacement| replacement.finish(&plain)) {
                Ok(()) => {
                    compressed = true;
                    tracing::info!(file = %plain.path.display(), "compressed a day of evidence");
                }
                Err(error) => {
                    self.uncompressed.insert(plain.day);
                    // The day may have expired meanwhile.
                    if plain.path.exists() {
                        tracing::warn!(file = %plain.path.display(), %error, "cannot compress a day of evidence; it stays as it is, and is tried again within the hour");
                    }
                }
            }
        }
        if compressed {
            self.measure();
        }
        self.begin_compression();
    }

    /// Begins to compress the next closed day, if there is one and no other is under way.
    fn begin_compression(&mut self) {
        let Some(compressor) = self
            .compressor
            .as_mut()
            .filter(|compressor| self.compression_due && !compressor.is_busy())
        else {
            return;
        };
        self.compression_due = false;
        match days::files(&self.folder) {
            Ok(mut files) => {
                // The newest day is the one that is written to.
                files.pop();
                let next = files
                    .into_iter()
                    .find(|file| !file.is_compressed && !self.uncompressed.contains(&file.day));
                if let Some(next) = next {
                    compressor.begin(next);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for days of evidence to compress; trying again within the hour");
            }
        }
    }
}
