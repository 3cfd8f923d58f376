//! The evidence folder: rotation, `keep`, and the state that a crash leaves.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::Duration;

use gatepost::storage::evidence::{
    ChainStart, Defect, Evidence, Period, RecordHash, deliveries, verify,
};
use jiff::Timestamp;

use super::world::{KEEP, files, folder, lines, name, one_delivery, put, write};
use crate::support::chain::AppendRecords as _;

fn count(folder: &std::path::Path) -> u64 {
    let mut count = 0;
    let reading = deliveries(folder, Period::ALL, |_, _, _| count += 1);
    assert_eq!(reading.expect("readable").bad, 0);
    count
}

#[tokio::test]
async fn a_chain_goes_on_with_the_next_day_and_with_the_next_process() {
    let folder = folder();
    write(folder.path(), 3).await;
    fs::rename(folder.path().join(name(0)), folder.path().join(name(1))).expect("it is ours");
    write(folder.path(), 2).await;
    assert_eq!(files(folder.path()).len(), 2, "each day has its file");
    let verified = verify(folder.path(), &[]).expect("readable");
    assert_eq!(
        (
            verified.records,
            verified.findings.len(),
            count(folder.path())
        ),
        (6, 0, 5)
    );
}

#[tokio::test]
async fn what_a_crash_tore_is_set_aside_and_logged() {
    for torn in [
        "{\"seq\":5,\"prev\":\"12",
        "\0\0\0\0\0\0\0\0",
        "half\n\0\0\n",
    ] {
        let folder = folder();
        write(folder.path(), 3).await;
        let file = folder.path().join(name(0));
        let whole = fs::read(&file).expect("ours");
        fs::OpenOptions::new()
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(torn.as_bytes()))
            .expect("ours");
        let found = verify(folder.path(), &[]).expect("readable").findings;
        assert!(!found.is_empty(), "{torn:?} is no record");
        if !torn.ends_with('\n') {
            assert_eq!(found[0].found, Defect::Torn);
        }
        write(folder.path(), 1).await;
        let all = lines(&file);
        assert_eq!(
            format!("{}\n", all[..4].join("\n")).into_bytes(),
            whole,
            "nothing of what was whole is touched"
        );
        assert!(
            all[4].contains("\"kind\":\"torn\"")
                && all[4].contains(&format!("\"octets\":{}", torn.len())),
            "{all:?}"
        );
        let verified = verify(folder.path(), &[]).expect("readable");
        assert_eq!((verified.records, verified.findings.len()), (6, 0));
        let aside = all[4]
            .split("\"aside\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .expect("a name");
        assert_eq!(
            fs::read(folder.path().join(aside)).expect("it is there"),
            torn.as_bytes()
        );
    }
}

#[tokio::test]
async fn what_was_set_aside_is_logged_although_that_start_failed() {
    let folder = folder();
    write(folder.path(), 1).await;
    fs::write(folder.path().join("torn-2026-01-01-5.untold"), "half").expect("ours");
    write(folder.path(), 1).await;
    let all = lines(&folder.path().join(name(0)));
    assert!(
        all[2].contains("\"aside\":\"torn-2026-01-01-5\",\"octets\":4"),
        "{all:?}"
    );
    assert!(folder.path().join("torn-2026-01-01-5").exists());
    write(folder.path(), 1).await;
    assert_eq!(
        lines(&folder.path().join(name(0))).len(),
        5,
        "it is told of once"
    );
}

#[tokio::test]
async fn a_reserve_that_a_crash_kept_from_growing_is_made_anew() {
    let folder = folder();
    write(folder.path(), 1).await;
    let reserve = folder.path().join("reserve");
    let whole = fs::metadata(&reserve)
        .expect("a disk with a few GiB free")
        .len();
    fs::write(&reserve, "").expect("ours");
    write(folder.path(), 1).await;
    assert_eq!(fs::metadata(&reserve).expect("it is there").len(), whole);
}

#[tokio::test]
async fn an_empty_file_of_a_crash_does_not_break_the_chain() {
    let folder = folder();
    write(folder.path(), 2).await;
    fs::rename(folder.path().join(name(0)), folder.path().join(name(1))).expect("ours");
    fs::write(folder.path().join(name(0)), "").expect("ours");
    write(folder.path(), 2).await;
    let verified = verify(folder.path(), &[]).expect("readable");
    assert_eq!((verified.records, verified.findings.len()), (5, 0));
}

#[tokio::test]
async fn what_is_too_old_goes_and_the_chain_says_so() {
    let folder = folder();
    write(folder.path(), 5).await;
    let all = lines(&folder.path().join(name(0)));
    for (days_ago, part) in [(9, &all[..2]), (5, &all[2..4]), (0, &all[4..])] {
        put(&folder.path().join(name(days_ago)), part);
    }
    let evidence = Evidence::open(folder.path(), KEEP).expect("ours");
    evidence.set_keep(Duration::from_hours(24 * 7));
    evidence
        .append(Timestamp::now(), one_delivery("later.example"))
        .await
        .expect("written");
    evidence.close().await;
    assert_eq!(
        files(folder.path()).len(),
        2,
        "only what is older than seven days goes"
    );
    let verified = verify(folder.path(), &[]).expect("readable");
    assert_eq!(
        (verified.findings.len(), verified.beginning),
        (0, ChainStart::Expired { dropped: 2 })
    );
    let text = fs::read_to_string(folder.path().join(name(0))).expect("text");
    assert!(
        text.contains("\"kind\":\"dropped\",\"files\":1,\"last_seq\":2"),
        "{text}"
    );
    // The last record that went is known by its hash; the one before it is not.
    let [first, last] = [&all[0], &all[1]].map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        RecordHash::parse(record["hash"].as_str().expect("a hash")).expect("a hash")
    });
    let verified = verify(folder.path(), &[last]).expect("readable");
    assert_eq!(
        (verified.findings.len(), verified.dropped_head),
        (0, Some(last))
    );
    let found = verify(folder.path(), &[first]).expect("readable").findings;
    assert_eq!(
        found
            .into_iter()
            .map(|finding| finding.found)
            .collect::<Vec<_>>(),
        [Defect::HeadMissing(first)]
    );
    // A file that somebody else removes is reported.
    fs::remove_file(&files(folder.path())[0]).expect("ours");
    let found = verify(folder.path(), &[]).expect("readable").findings;
    assert_eq!(
        found
            .into_iter()
            .map(|finding| finding.found)
            .collect::<Vec<_>>(),
        [Defect::NoBeginning { to: 4 }]
    );
    let fourth: serde_json::Value = serde_json::from_str(&all[3]).expect("JSON");
    let fourth = RecordHash::parse(fourth["hash"].as_str().expect("a hash")).expect("a hash");
    let found = verify(folder.path(), &[fourth]).expect("readable").findings;
    let missing = [Defect::NoBeginning { to: 4 }, Defect::HeadMissing(fourth)];
    assert_eq!(
        found
            .into_iter()
            .map(|finding| finding.found)
            .collect::<Vec<_>>(),
        missing,
        "no record says that it went"
    );
}

#[tokio::test]
async fn a_file_that_somebody_takes_away_is_noticed_and_the_chain_goes_on() {
    let folder = folder();
    let evidence = Evidence::open(folder.path(), KEEP).expect("ours");
    evidence
        .append(Timestamp::now(), one_delivery("a.example"))
        .await
        .expect("written");
    fs::rename(folder.path().join(name(0)), folder.path().join("elsewhere")).expect("ours");
    evidence
        .append(Timestamp::now(), one_delivery("b.example"))
        .await
        .expect("written");
    evidence.close().await;
    let found = verify(folder.path(), &[]).expect("readable").findings;
    assert_eq!(
        found
            .into_iter()
            .map(|finding| finding.found)
            .collect::<Vec<_>>(),
        [Defect::NoBeginning { to: 2 }]
    );
    assert_eq!(
        count(folder.path()),
        1,
        "nothing went into a file that has no name"
    );
}

#[tokio::test]
async fn a_chain_has_one_writer() {
    let folder = folder();
    let first = Evidence::open(folder.path(), KEEP).expect("ours");
    let second = Evidence::open(folder.path(), KEEP)
        .expect_err("it is taken")
        .to_string();
    for words in [
        "in use by another gatepost",
        &std::process::id().to_string(),
        "[evidence] path",
    ] {
        assert!(second.contains(words), "{words:?} is missing from {second}");
    }
    first.close().await;
    drop(first);
}

#[tokio::test]
async fn a_folder_that_cannot_be_had_is_an_error_with_its_remedy() {
    let folder = folder();
    fs::write(folder.path().join("file"), "").expect("ours");
    let error = Evidence::open(&folder.path().join("file/evidence"), KEEP)
        .expect_err("no folder")
        .to_string();
    for words in ["file/evidence", "install -d", "path = \"\""] {
        assert!(error.contains(words), "{words:?} is missing from {error}");
    }
}

#[tokio::test]
async fn many_at_once_are_one_chain() {
    let folder = folder();
    let evidence = Evidence::open(folder.path(), KEEP).expect("ours");
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..200 {
        let evidence = evidence.clone();
        tasks.spawn(async move {
            evidence
                .append(Timestamp::now(), one_delivery(&format!("d{at}.example")))
                .await
        });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.expect("no panic"), Ok(()));
    }
    evidence.close().await;
    assert_eq!(
        evidence
            .append(Timestamp::now(), one_delivery("late.example"))
            .await,
        Err(gatepost::storage::evidence::NotWritten)
    );
    let verified = verify(folder.path(), &[]).expect("readable");
    assert_eq!(
        (
            verified.records,
            verified.findings.len(),
            count(folder.path())
        ),
        (201, 0, 200)
    );
}

#[tokio::test]
async fn a_full_disk_takes_the_reserve_and_no_other_trouble_does() {
    let folder = folder();
    let evidence = Evidence::open(folder.path(), KEEP).expect("ours");
    let (page, reserve) = (folder.path().join(name(0)), folder.path().join("reserve"));
    let taken = || fs::metadata(&reserve).map_or(0, |file| file.blocks() * 512);
    assert!(
        taken() >= 16 << 20,
        "the reserve takes up no room, or this disk has not 160 MiB to spare"
    );
    fs::rename(&page, folder.path().join("elsewhere"))
        .and_then(|()| fs::create_dir(&page))
        .expect("ours");
    let writing = tokio::spawn({
        let evidence = evidence.clone();
        async move {
            evidence
                .append(Timestamp::now(), one_delivery("a.example"))
                .await
        }
    });
    until(|| evidence.is_stuck()).await;
    assert!(taken() > 0, "a file that cannot be opened needs no room");
    // Takes nothing, as a full disk does.
    fs::remove_dir(&page)
        .and_then(|()| symlink("/dev/full", &page))
        .expect("ours");
    until(|| !reserve.exists()).await;
    assert!(evidence.is_stuck() && !writing.is_finished());
    fs::remove_file(&page)
        .and_then(|()| fs::rename(folder.path().join("elsewhere"), &page))
        .expect("ours");
    assert_eq!(writing.await.expect("no panic"), Ok(()));
    assert!(!evidence.is_stuck() && !reserve.exists());
    evidence.set_keep(KEEP);
    until(|| taken() >= 16 << 20).await;
    evidence.close().await;
    let verified = verify(folder.path(), &[]).expect("readable");
    assert_eq!((verified.records, verified.findings.len()), (2, 0));
}

pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    let asked = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked)
        .await
        .expect("it comes to that");
}
