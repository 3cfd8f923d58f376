//! Tests of the replacement of a plain day, at each moment of a crash.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use flate2::read::GzDecoder;
use jiff::civil::{Date, date};
use tempfile::TempDir;

use super::*;

const DAY: Date = date(2026, 11, 26);
const CONTENT: &str = "one\ntwo\nthree\n";

/// Creates a folder with a plain day.
fn folder(content: &str) -> (TempDir, DayFile) {
    let folder = TempDir::new().expect("a folder");
    let plain = DayFile::of(folder.path(), DAY);
    fs::write(&plain.path, content).expect("ours");
    (folder, plain)
}

fn gzip(content: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content.as_bytes()).expect("memory");
    encoder.finish().expect("memory")
}

fn gunzip(path: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(path).expect("a compressed file"))
        .read_to_string(&mut text)
        .expect("sound");
    text
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).expect("readable");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn go_on() -> AtomicBool {
    AtomicBool::new(false)
}

#[test]
fn a_compressed_day_replaces_the_plain_one_with_the_same_content() {
    let (folder, plain) = folder(CONTENT);
    let replacement = compress(&plain, &go_on()).expect("compressed");
    assert_eq!(
        names(&folder),
        ["2026-11-26.jsonl", "2026-11-26.jsonl.gz.new"],
        "the plain day exists until the other is complete"
    );
    replacement.finish(&plain).expect("replaced");
    assert_eq!(names(&folder), ["2026-11-26.jsonl.gz"]);
    let compressed = DayFile::compressed(folder.path(), DAY).path;
    assert_eq!(gunzip(&compressed), CONTENT);
    let mode = fs::metadata(&compressed)
        .expect("it exists")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// A crash leaves both files of a day, and so does an administrator who unpacks one.
#[test]
fn a_day_with_both_files_keeps_the_complete_one() {
    let cut = gzip(CONTENT)[..20].to_vec();
    for (plain, compressed, kept) in [
        (CONTENT, gzip(CONTENT), "2026-11-26.jsonl.gz"),
        ("one\ntw", gzip(CONTENT), "2026-11-26.jsonl.gz"),
        (CONTENT, gzip("one\ntw"), "2026-11-26.jsonl.gz"),
        (CONTENT, cut, "2026-11-26.jsonl.gz"),
        (CONTENT, Vec::new(), "2026-11-26.jsonl.gz"),
    ] {
        let (folder, file) = folder(plain);
        let target = DayFile::compressed(folder.path(), DAY).path;
        fs::write(&target, compressed).expect("ours");
        compress(&file, &go_on())
            .and_then(|replacement| replacement.finish(&file))
            .expect("resolved");
        assert_eq!(names(&folder), [kept], "{plain:?}");
        assert_eq!(gunzip(&target), CONTENT, "{plain:?}");
    }
}

#[test]
fn two_files_of_a_day_with_different_content_both_stay() {
    let (folder, plain) = folder(CONTENT);
    let target = DayFile::compressed(folder.path(), DAY).path;
    fs::write(&target, gzip("one\ntoo\nthree\n")).expect("ours");
    let error = compress(&plain, &go_on())
        .expect_err("they differ")
        .to_string();
    assert!(error.contains("2026-11-26.jsonl.gz at octet 5"), "{error}");
    assert_eq!(names(&folder), ["2026-11-26.jsonl", "2026-11-26.jsonl.gz"]);
}

#[test]
fn a_day_that_changes_while_it_is_compressed_stays() {
    let (folder, plain) = folder(CONTENT);
    let replacement = compress(&plain, &go_on()).expect("compressed");
    fs::write(&plain.path, format!("{CONTENT}four\n")).expect("ours");
    replacement.finish(&plain).expect("left as it is");
    assert_eq!(names(&folder), ["2026-11-26.jsonl"]);
}

#[test]
fn a_stop_ends_the_compression_and_leaves_nothing() {
    let (folder, plain) = folder(CONTENT);
    let error = compress(&plain, &AtomicBool::new(true)).expect_err("stopped");
    assert!(error.to_string().contains("stopping"), "{error}");
    assert_eq!(names(&folder), ["2026-11-26.jsonl"]);
}

#[test]
fn a_day_is_compressed_only_if_the_disk_keeps_some_space() {
    const GIB: u64 = 1 << 30;
    for (free, all, day, leaves) in [
        (100 * GIB, 1000 * GIB, 8 * GIB, true),
        (3 * GIB, 1000 * GIB, 8 * GIB, true),
        (3 * GIB - 1, 1000 * GIB, 8 * GIB, false),
        (5, 100, 0, true),
        (4, 100, 0, false),
        (0, 0, 0, true),
    ] {
        assert_eq!(
            leaves_space(free, all, day),
            leaves,
            "{free} of {all}, {day}"
        );
    }
}
