//! Tests with simulated time: the turn of the day, wrong clocks, and writes that fail halfway.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::super::verify;
use super::*;

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const KEEP: Duration = Duration::from_hours(24 * 400);
/// The start of the process, whichever day it is.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn at(text: &str) -> Moment {
    Moment {
        wall: text.parse().expect("a time"),
        monotonic: *START,
    }
}

/// Sets the system clock.
fn set(now: Moment, text: &str) -> Moment {
    Moment {
        wall: text.parse().expect("a time"),
        ..now
    }
}

/// Advances both clocks.
fn after(now: Moment, time: Duration) -> Moment {
    Moment {
        wall: now.wall + time,
        monotonic: now.monotonic + time,
    }
}

fn open(folder: &TempDir, now: Moment) -> EvidenceWriter {
    EvidenceWriter::open(folder.path(), KEEP, now, Default::default()).expect("the folder is ours")
}

/// Creates a folder with a record of each of these days.
fn recorded(days: &[&str]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for day in days {
        let noon = at(&format!("{day}T12:00:00Z"));
        open(&folder, noon)
            .append(&record(noon), noon)
            .expect("written");
    }
    folder
}

/// Returns a record such as a caller hands in. The chain requires nothing but its form.
fn record(now: Moment) -> [String; 1] {
    [EvidenceRecord::Begun {
        gatepost: "test".to_owned(),
    }
    .to_text(now.wall)
    .fields]
}

fn names(folder: &TempDir) -> Vec<String> {
    let files = days::files(folder.path()).expect("readable");
    files.iter().map(|file| file.day.to_string()).collect()
}

/// Returns the number of records, and asserts that the chain is whole.
fn whole(folder: &TempDir) -> u64 {
    let verified = verify(folder.path(), &[]).expect("readable");
    assert_eq!(verified.findings, []);
    verified.records
}

/// Makes a write fail and leaves these octets in the file, as a failed sync or a full disk does.
fn fail(writer: &mut EvidenceWriter, left: &str, now: Moment) {
    let log = writer.log.as_mut().expect("it has written before");
    let able = std::mem::replace(&mut log.file, File::open(&log.day_file.path).expect("ours"));
    writer
        .append(&record(now), now)
        .expect_err("a file that is open to be read only takes nothing");
    let log = writer.log.as_mut().expect("it is still there");
    log.file = able;
    OpenOptions::new()
        .append(true)
        .open(&log.day_file.path)
        .and_then(|mut file| file.write_all(left.as_bytes()))
        .expect("ours");
}

#[test]
fn leftovers_of_a_failed_write_are_cut_off_before_the_day_changes() {
    let (evening, morning) = (at("2026-11-26T23:59:59Z"), at("2026-11-27T00:00:01Z"));
    // All of the batch, half of it, nothing.
    for part in [1, 2, usize::MAX] {
        let folder = TempDir::new().expect("a folder");
        let mut writer = open(&folder, evening);
        writer.append(&record(evening), evening).expect("written");
        let (mut next, mut batch) = (writer.head, String::new());
        next.seal(&record(evening)[0], &mut batch);
        fail(&mut writer, &batch[..batch.len() / part], evening);
        writer
            .append(&record(evening), morning)
            .expect("the disk works again");
        assert_eq!(names(&folder), ["2026-11-26", "2026-11-27"]);
        assert_eq!(
            whole(&folder),
            3,
            "one that begins it, one of the evening, one that was tried twice"
        );
    }
}

#[test]
fn leftovers_of_a_failed_write_are_cut_off_before_a_day_is_closed() {
    let evening = at("2026-11-26T23:00:00Z");
    let folder = TempDir::new().expect("a folder");
    let mut writer = open(&folder, evening);
    writer.append(&record(evening), evening).expect("written");
    let (mut next, mut batch) = (writer.head, String::new());
    next.seal(&record(evening)[0], &mut batch);
    fail(&mut writer, &batch, evening);
    let closed = writer.close_day().expect("the disk works again");
    assert_eq!(
        closed.map(|day| day.to_string()).as_deref(),
        Some("2026-11-26")
    );
    writer.append(&record(evening), evening).expect("written");
    assert_eq!(names(&folder), ["2026-11-26", "2026-11-27"]);
    assert_eq!(whole(&folder), 3);
}

#[test]
fn a_clock_far_ahead_at_the_start_deletes_nothing() {
    let (today, ahead) = (at("2026-11-26T12:00:00Z"), at("2046-11-26T12:00:00Z"));
    for torn in ["", "{\"seq\":3,"] {
        let folder = recorded(&["2026-11-25", "2026-11-26"]);
        let newest = folder.path().join("2026-11-26.jsonl");
        OpenOptions::new()
            .append(true)
            .open(newest)
            .and_then(|mut file| file.write_all(torn.as_bytes()))
            .expect("ours");
        drop(open(&folder, ahead));
        assert_eq!(
            names(&folder)[..2],
            ["2026-11-25", "2026-11-26"],
            "{torn:?}"
        );
        // The clock is corrected.
        let mut writer = open(&folder, today);
        writer.append(&record(today), today).expect("written");
        assert_eq!(whole(&folder), if torn.is_empty() { 4 } else { 5 });
    }
}

#[test]
fn a_correct_clock_at_the_start_deletes_expired_files() {
    let folder = recorded(&["2026-11-26", "2028-01-28", "2028-01-29", "2028-01-30"]);
    let writer = open(&folder, at("2028-01-31T12:00:00Z"));
    assert_eq!(
        names(&folder),
        ["2028-01-28", "2028-01-29", "2028-01-30", "2028-01-31"]
    );
    assert_eq!(
        whole(&folder),
        writer.head.seq - 2,
        "the chain says what is gone"
    );
}

#[test]
fn a_clock_far_ahead_deletes_nothing_before_it_has_run_on_for_a_day() {
    let folder = recorded(&["2026-11-25", "2026-11-26"]);
    let ahead = at("2046-11-26T23:30:00Z");
    let mut writer = open(&folder, ahead);
    writer.append(&record(ahead), ahead).expect("written");
    // The periodic check, a reload, another day, and another start, whose newest record is from
    // yesterday.
    for now in [after(ahead, HOUR / 4), after(ahead, HOUR)] {
        writer.expire(now);
        writer.append(&record(now), now).expect("written");
    }
    drop(writer);
    let again = after(ahead, 2 * HOUR);
    let mut writer = open(&folder, again);
    writer.keep = 30 * DAY;
    writer.expire(after(again, 23 * HOUR));
    let all = ["2026-11-25", "2026-11-26", "2046-11-26", "2046-11-27"];
    assert_eq!(names(&folder), all);
    assert_eq!(whole(&folder), 6);
    writer.expire(after(again, DAY));
    assert_eq!(
        names(&folder),
        ["2046-11-26", "2046-11-27", "2046-11-28"],
        "so late it is"
    );
    whole(&folder);
}

#[test]
fn a_clock_that_jumps_ahead_deletes_nothing_and_is_trusted_again_once_corrected() {
    let folder = recorded(&[
        "2025-10-25",
        "2025-10-26",
        "2026-11-24",
        "2026-11-25",
        "2026-11-26",
    ]);
    let morning = at("2026-11-26T14:00:00Z");
    let mut writer = open(&folder, morning);
    let ahead = set(after(morning, HOUR), "2027-11-26T15:00:00Z");
    writer.append(&record(ahead), ahead).expect("written");
    writer.expire(after(ahead, 5 * HOUR));
    // Not so far ahead that everything would expire; then again within the day, to another year.
    let other = set(after(ahead, 20 * HOUR), "2036-11-26T15:00:00Z");
    writer.expire(other);
    writer.expire(after(other, 12 * HOUR));
    let all = [
        "2025-10-25",
        "2025-10-26",
        "2026-11-24",
        "2026-11-25",
        "2026-11-26",
        "2027-11-26",
    ];
    assert_eq!(names(&folder), all);
    let right = set(after(other, 13 * HOUR), "2026-11-28T00:00:00Z");
    writer.expire(right);
    assert_eq!(names(&folder), all, "nothing is older than 400 days yet");
    writer.expire(after(right, 2 * DAY));
    assert_eq!(names(&folder), all[1..], "by now one is");
    whole(&folder);
}

#[test]
fn a_machine_that_was_off_for_long_deletes_after_a_day_or_a_few_starts() {
    let days = ["2026-11-25", "2026-11-26"];
    let folder = recorded(&days);
    let on = at("2028-06-01T08:00:00Z");
    let mut writer = open(&folder, on);
    writer.append(&record(on), on).expect("written");
    writer.expire(after(on, 23 * HOUR));
    assert_eq!(names(&folder)[..2], days);
    writer.expire(after(on, DAY));
    assert_eq!(names(&folder), ["2028-06-01", "2028-06-02"]);
    // The machine runs for a few hours a day.
    let folder = recorded(&days);
    for (day, left) in [(0, &days[..]), (1, &days), (2, &days), (3, &[])] {
        let now = after(on, day * DAY);
        let mut writer = open(&folder, now);
        writer.append(&record(now), now).expect("written");
        writer.expire(after(now, 8 * HOUR));
        let old: Vec<_> = names(&folder)
            .into_iter()
            .filter(|name| name.starts_with("2026"))
            .collect();
        assert_eq!(old, left, "on day {day}");
    }
    whole(&folder);
}

#[test]
fn a_quiet_week_and_a_clock_that_is_behind_are_not_jumps() {
    let days = ["2025-10-01", "2026-11-18", "2026-11-19", "2026-11-20"];
    let folder = recorded(&days);
    let behind = at("1970-01-01T00:01:00Z");
    let mut writer = open(&folder, behind);
    assert_eq!(names(&folder), days);
    writer.expire(set(after(behind, HOUR), "2026-11-27T12:00:00Z"));
    assert_eq!(
        names(&folder)[..3],
        days[1..],
        "the record vouches for the twentieth"
    );
    whole(&folder);
}

#[test]
fn the_periodic_check_on_a_new_day_deletes_expired_files_once() {
    let folder = recorded(&["2028-01-28", "2028-01-29", "2028-01-30"]);
    let evening = at("2028-01-30T20:00:00Z");
    let mut writer = open(&folder, evening);
    writer.append(&record(evening), evening).expect("written");
    writer.keep = 2 * DAY;
    writer.expire(after(evening, 6 * HOUR));
    assert_eq!(names(&folder), ["2028-01-29", "2028-01-30", "2028-01-31"]);
    assert_eq!(
        whole(&folder),
        4,
        "three that are left, and one that says what is gone"
    );
}

#[test]
fn the_first_record_of_a_day_deletes_expired_files() {
    let folder = TempDir::new().expect("a folder");
    let now = Moment::now();
    let yesterday = Moment {
        wall: now.wall - DAY,
        ..now
    };
    let mut writer = open(&folder, yesterday);
    let old = folder.path().join("2020-01-01.jsonl");
    fs::write(&old, "").expect("ours");
    writer
        .append(&record(yesterday), yesterday)
        .expect("written");
    assert!(old.exists());
    let (_sender, commands) = std::sync::mpsc::channel();
    let ending = AtomicBool::new(false);
    writer.write_batch(&record(now), Vec::new(), (&commands, &ending));
    assert!(!old.exists());
    assert_eq!(
        whole(&folder),
        4,
        "one that begins it, one of each day, one that says what is gone"
    );
}

/// Expired evidence makes the space for the record that it is gone, if the disk has none. A kill before
/// that record leaves a marker, by which the chain is whole.
#[test]
fn expired_files_are_deleted_on_a_full_disk() {
    let now = at("2026-11-26T12:00:00Z");
    for is_killed in [false, true] {
        let folder = recorded(&["2026-11-19", "2026-11-20", "2026-11-25"]);
        let mut writer = open(&folder, now);
        let files = days::files(folder.path()).expect("readable");
        let last = super::super::archive::head_before(&files[2..]).expect("readable");
        let (old, last) = (&files[..2], last.expect("a record"));
        let marker = folder.path();
        let marker = marker.join(format!("expired-2026-11-20-{}-{}", last.seq, last.hash));
        if is_killed {
            drop(writer);
            fs::rename(&old[0].path, &marker).expect("ours");
            fs::remove_file(&old[1].path).expect("ours");
            let found = verify(folder.path(), &[]).expect("readable");
            let dropped = last.seq;
            assert_eq!(found.findings, []);
            assert_eq!(
                found.beginning,
                super::super::ChainStart::Expired { dropped }
            );
            drop(open(&folder, now));
        } else {
            let full = Err(io::ErrorKind::StorageFull.into());
            writer.delete_files(full, old, last, now).expect("deleted");
        }
        assert_eq!(names(&folder)[0], "2026-11-25", "{is_killed}");
        assert!(!marker.exists(), "{is_killed}");
        whole(&folder);
        let newest = days::files(folder.path()).expect("readable").pop();
        let text = fs::read_to_string(newest.expect("a file").path).expect("records");
        let removals = text
            .lines()
            .filter(|line| line.contains("\"kind\":\"dropped\""));
        let removals: Vec<_> = removals.collect();
        assert_eq!(removals.len(), 1, "{is_killed}: {text}");
        let seq = format!("\"last_seq\":{}", last.seq);
        assert!(removals[0].contains(&seq), "{is_killed}: {text}");
        assert!(!removals[0].contains("archived_to"), "{is_killed}: {text}");
        let files = if is_killed { 1 } else { 2 };
        assert!(
            removals[0].contains(&format!("\"files\":{files}")),
            "{text}"
        );
    }
}

#[test]
fn periodic_checks_run_however_busy_the_writer_is() {
    let now = at("2026-11-26T12:00:00Z");
    let folder = recorded(&["2026-11-19", "2026-11-25"]);
    let mut writer = open(&folder, now);
    let reserve = folder.path().join("reserve");
    assert!(folder::remove_reserve(folder.path()));
    writer.run_periodic(after(now, RESERVE_INTERVAL / 2));
    assert!(!reserve.exists());
    writer.run_periodic(after(now, RESERVE_INTERVAL));
    assert!(reserve.exists());
    // The first file is older than that.
    writer.keep = 5 * DAY;
    writer.run_periodic(after(now, EXPIRE_INTERVAL / 2));
    assert_eq!(names(&folder)[0], "2026-11-19");
    writer.run_periodic(after(now, EXPIRE_INTERVAL));
    assert!(
        !names(&folder).contains(&"2026-11-19".to_owned()),
        "{:?}",
        names(&folder)
    );
}
