//! What cannot be waited for: days that turn, clocks that are wrong, and writes that fail halfway.

use std::fs::OpenOptions;
use std::io::Write as _;

use tempfile::TempDir;

use super::super::verify;
use super::*;

const DAY: Duration = Duration::from_hours(24);
const KEEP: Duration = Duration::from_hours(24 * 400);

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn open(folder: &TempDir, now: Timestamp) -> Writer {
    Writer::open(folder.path(), KEEP, now, Arc::default()).expect("the folder is ours")
}

/// What an order would hand in. The chain asks nothing of it but its form.
fn record(now: Timestamp) -> [String; 1] {
    [Statement::Begun { gatepost: "test".to_owned() }.inside(now)]
}

fn names(folder: &TempDir) -> Vec<String> {
    let files = folder::files(folder.path()).expect("readable");
    files.iter().map(|file| file.day.to_string()).collect()
}

/// Records that are whole; the chain must be.
fn whole(folder: &TempDir) -> u64 {
    let verified = verify(folder.path(), &[]).expect("readable");
    assert_eq!(verified.findings, []);
    verified.records
}

/// A write that fails with these octets in the file, as one does whose sync fails, or that a full disk cuts.
fn fail(writer: &mut Writer, left: &str, now: Timestamp) {
    let page = writer.page.as_mut().expect("it has written before");
    let able = std::mem::replace(&mut page.file, File::open(&page.of.path).expect("ours"));
    writer.append(&record(now), now).expect_err("a file that is open to be read only takes nothing");
    let page = writer.page.as_mut().expect("it is still there");
    page.file = able;
    OpenOptions::new()
        .append(true)
        .open(&page.of.path)
        .and_then(|mut file| file.write_all(left.as_bytes()))
        .expect("ours");
}

#[test]
fn what_a_failed_write_left_is_cut_off_before_the_day_turns() {
    let (evening, morning) = (at("2026-11-26T23:59:59Z"), at("2026-11-27T00:00:01Z"));
    // All of it, half of it, nothing.
    for part in [1, 2, usize::MAX] {
        let folder = TempDir::new().expect("a folder");
        let mut writer = open(&folder, evening);
        writer.append(&record(evening), evening).expect("written");
        let (mut next, mut batch) = (writer.head, String::new());
        next.seal(&record(evening)[0], &mut batch);
        fail(&mut writer, &batch[..batch.len() / part], evening);
        writer.append(&record(evening), morning).expect("the disk works again");
        assert_eq!(names(&folder), ["2026-11-26", "2026-11-27"]);
        assert_eq!(whole(&folder), 3, "one that begins it, one of the evening, one that was tried twice");
    }
}

#[test]
fn a_clock_far_ahead_at_the_start_drops_nothing() {
    let (today, ahead) = (at("2026-11-26T12:00:00Z"), at("2046-11-26T12:00:00Z"));
    for torn in ["", "{\"seq\":3,"] {
        let folder = TempDir::new().expect("a folder");
        for now in [today - DAY, today] {
            open(&folder, now).append(&record(now), now).expect("written");
        }
        let newest = folder.path().join("2026-11-26.jsonl");
        OpenOptions::new()
            .append(true)
            .open(newest)
            .and_then(|mut file| file.write_all(torn.as_bytes()))
            .expect("ours");
        drop(open(&folder, ahead));
        assert_eq!(names(&folder)[..2], ["2026-11-25", "2026-11-26"], "{torn:?}");
        // The clock is set.
        let mut writer = open(&folder, today);
        writer.append(&record(today), today).expect("written");
        assert_eq!(whole(&folder), if torn.is_empty() { 4 } else { 5 });
    }
}

#[test]
fn a_clock_that_is_right_at_the_start_drops_what_is_too_old() {
    let (today, later) = (at("2026-11-26T12:00:00Z"), at("2028-01-31T12:00:00Z"));
    let folder = TempDir::new().expect("a folder");
    for now in [today, later - DAY] {
        open(&folder, now).append(&record(now), now).expect("written");
    }
    let writer = open(&folder, later);
    assert_eq!(names(&folder), ["2028-01-30", "2028-01-31"]);
    assert_eq!(whole(&folder), writer.head.seq - 2, "the chain says what is gone");
}
