//! A folder with a chain in it, and hands to spoil it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::chain::AppendRecords as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use gatepost::storage::evidence::{Evidence, EvidenceRecord};
use jiff::Timestamp;
use tempfile::TempDir;

pub(crate) use crate::support::chain::{delivery, hash, name, put, write_chain, write_large_day};

pub(crate) const KEEP: Duration = Duration::from_hours(24 * 400);

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

/// Creates the folder of a relay's evidence before its first start.
pub(crate) fn evidence_folder(folder: &Path) -> PathBuf {
    let evidence = folder.join("evidence");
    let created = fs::DirBuilder::new().mode(0o700).create(&evidence);
    created.expect("ours");
    evidence
}

pub(crate) fn one_delivery(to: &str) -> Vec<EvidenceRecord> {
    vec![EvidenceRecord::Delivery(Box::new(delivery(to, "internet")))]
}

/// Writes so many records, one by one, behind what is there; the very first is that the chain
/// begins.
pub(crate) async fn write(folder: &Path, count: usize) {
    let evidence = Evidence::open(folder, KEEP).expect("the folder is ours");
    for at in 0..count {
        evidence
            .append(Timestamp::now(), one_delivery(&format!("d{at}.example")))
            .await
            .expect("it is written");
    }
    evidence.close().await;
}

/// The files with records, the oldest first, compressed or not.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.ends_with(".jsonl") || name.ends_with(".jsonl.gz"))
    });
    files.sort();
    files
}

/// Compresses a file with gzip, as the relay does when its day is over.
pub(crate) fn compress(file: &Path) -> PathBuf {
    let content = fs::read(file).expect("a day");
    let compressed = file.with_extension("jsonl.gz");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let octets = encoder
        .write_all(&content)
        .and_then(|()| encoder.finish())
        .expect("memory");
    fs::write(&compressed, octets)
        .and_then(|()| fs::remove_file(file))
        .expect("the folder is ours");
    compressed
}

pub(crate) fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file)
        .expect("text")
        .lines()
        .map(str::to_owned)
        .collect()
}
