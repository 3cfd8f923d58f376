//! `gatepost evidence archive --today`: the present day moves to another folder before it is over, and
//! its further records go to the file of the next day.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use gatepost::storage::evidence::{
    ArchiveError, ArchivedDays, ChainStart, Evidence, copy_days_until, newest_day,
    remove_archived_days, verify,
};
use jiff::Timestamp;

use super::archive::{FullRelay, is_whole, names};
use super::world::{KEEP, folder, name, one_delivery, write};
use crate::support::chain::AppendRecords as _;

/// Copies all days of a folder that no writer uses to `archive` in it.
fn copied(folder: &Path, accepts_damage: bool) -> Result<ArchivedDays, ArchiveError> {
    let day = newest_day(folder).expect("readable").expect("a record");
    assert_eq!(format!("{day}.jsonl"), name(0));
    let copied = copy_days_until(folder, &folder.join("archive"), day, accepts_damage);
    copied.map(|archived| archived.expect("a day"))
}

fn tomorrow() -> String {
    let at = Timestamp::now() + Duration::from_hours(24);
    format!("{}.jsonl", at.strftime("%Y-%m-%d"))
}

#[tokio::test]
async fn further_records_of_an_archived_day_go_to_the_file_of_the_next_day() {
    let folder = folder();
    let path = folder.path();
    write(path, 3).await;
    let evidence = Evidence::open(path, KEEP).expect("ours");
    let record = async |to: &str| {
        let written = evidence.append(Timestamp::now(), one_delivery(to)).await;
        written.expect("written");
    };
    record("before.example").await;
    let closed = evidence.close_day().await.expect("closed");
    record("between.example").await;
    let closed = closed.expect("it has records");
    let archived = copy_days_until(path, &path.join("archive"), closed, false);
    let archived = archived.expect("copied").expect("a day");
    assert_eq!((archived.until, archived.last_seq), (closed, 5));
    evidence.remove_archived(archived).await.expect("removed");
    record("after.example").await;
    evidence.close().await;
    let left = [tomorrow(), "archive".to_owned()];
    assert_eq!(names(path), left);
    // Another start on the same day.
    write(path, 1).await;
    assert_eq!(names(path), left);
    is_whole(path, 9, 5);
}

#[tokio::test]
async fn without_a_daemon_the_next_start_goes_on_in_the_file_of_the_next_day() {
    let folder = folder();
    let path = folder.path();
    write(path, 3).await;
    let archived = copied(path, false).expect("copied");
    remove_archived_days(path, &archived).expect("removed");
    write(path, 1).await;
    assert_eq!(names(path), [tomorrow(), "archive".to_owned()]);
    is_whole(path, 6, 4);
}

/// A crash on a full disk tears a record, and the next start has no space to move it aside.
#[tokio::test]
async fn a_day_with_a_torn_end_is_archived_as_it_is_on_demand() {
    let folder = folder();
    let path = folder.path();
    write(path, 3).await;
    let torn = b"{\"seq\":5,\"prev\":";
    fs::File::options()
        .append(true)
        .open(path.join(name(0)))
        .and_then(|mut page| page.write_all(torn))
        .expect("ours");
    let refused = copied(path, false);
    assert!(
        matches!(refused, Err(ArchiveError::Damaged(_))),
        "{refused:?}"
    );
    let archived = copied(path, true).expect("copied");
    assert_eq!(archived.last_seq, 4);
    remove_archived_days(path, &archived).expect("removed");
    write(path, 1).await;
    let rest = verify(path, &[archived.last_hash]).expect("readable");
    assert_eq!(
        (rest.findings, rest.beginning),
        (vec![], ChainStart::Archived { archived: 4 })
    );
}

/// The command was interrupted after the copy, and the daemon started anew.
#[tokio::test]
async fn a_copy_of_a_day_that_went_on_is_replaced() {
    let folder = folder();
    let path = folder.path();
    write(path, 2).await;
    let before = copied(path, false).expect("copied");
    write(path, 2).await;
    assert!(
        matches!(
            remove_archived_days(path, &before),
            Err(ArchiveError::Changed)
        ),
        "the day has records that the copy has not"
    );
    let archived = copied(path, false).expect("copied once more");
    assert_eq!((before.last_seq, archived.last_seq), (3, 5));
    remove_archived_days(path, &archived).expect("removed");
    write(path, 1).await;
    is_whole(path, 7, 5);
}

/// A copy with a sound beginning that cannot be read to its end may have had more than the day.
#[tokio::test]
async fn a_damaged_copy_is_not_replaced() {
    let folder = folder();
    let path = folder.path();
    write(path, 2).await;
    copied(path, false).expect("copied");
    let copy = path.join("archive").join(format!("{}.gz", name(0)));
    let octets = fs::read(&copy).expect("ours");
    fs::write(&copy, &octets[..octets.len() - 9]).expect("ours");
    write(path, 1).await;
    let refused = copied(path, false);
    assert!(
        matches!(refused, Err(ArchiveError::Differs { .. })),
        "{refused:?}"
    );
}

/// On a full disk the next file is there, and empty. The day before it is the one to be archived.
#[tokio::test]
async fn a_day_is_closed_once_while_nothing_can_be_written() {
    let folder = folder();
    let path = folder.path();
    write(path, 2).await;
    let evidence = Evidence::open(path, KEEP).expect("ours");
    let closed = evidence.close_day().await.expect("closed");
    fs::write(path.join(tomorrow()), "").expect("ours");
    assert_eq!(evidence.close_day().await.expect("closed"), closed);
    let record = one_delivery("after.example");
    let written = evidence.append(Timestamp::now(), record).await;
    written.expect("written");
    evidence.close().await;
    assert_eq!(names(path), [name(0), tomorrow()]);
    assert_eq!(verify(path, &[]).expect("readable").findings, []);
}

/// The records of one day fill the limit, and deliveries wait. Everything goes on without a restart.
#[test]
fn a_relay_that_is_full_of_the_present_day_goes_on_after_archive_today() {
    let folder = folder();
    let mut full = FullRelay::start(folder.path(), 0);
    full.archives_nothing("--today");
    full.goes_on_after(&["--today"]);
    full.ends_with(&[(&["verify"], "37 recipients")]);
}
