//! `verify` against every way in which somebody might change what was written.

use std::fs;
use std::io::Write as _;

use gatepost::storage::evidence::{
    ChainStart, Defect, Evidence, Period, RecordHash, Verification, deliveries, verify,
};
use jiff::Timestamp;

use super::world::{KEEP, files, folder, hash, lines, name, one_delivery, put, write};
use crate::support::chain::AppendRecords as _;

/// A chain of six records, spoilt, and what is found: line and finding.
fn spoilt(spoil: impl FnOnce(&mut Vec<String>)) -> (Vec<(u64, Defect)>, Verification) {
    let folder = folder();
    tokio::runtime::Runtime::new()
        .expect("threads")
        .block_on(write(folder.path(), 5));
    let [file] = &files(folder.path())[..] else {
        panic!("a day has one file")
    };
    let mut all = lines(file);
    assert_eq!(all.len(), 6);
    spoil(&mut all);
    put(file, &all);
    let verified = verify(folder.path(), &[]).expect("readable");
    (
        verified
            .findings
            .iter()
            .map(|finding| (finding.line, finding.found.clone()))
            .collect(),
        verified,
    )
}

/// The same record with another text and the hash of that, as somebody who knows how it is done
/// would write it.
fn resealed(line: &str, from: &str, to: &str) -> String {
    let changed = line.replacen(from, to, 1);
    assert_ne!(changed, line);
    let covered = &changed[..changed.len() - 75];
    let hash = hash(covered);
    format!("{covered},\"hash\":\"{hash}\"}}")
}

#[test]
fn a_chain_that_nobody_touched_is_complete() {
    let (found, verified) = spoilt(|_| ());
    assert_eq!(
        (found, verified.records, verified.beginning),
        (vec![], 6, ChainStart::First)
    );
    assert_eq!(verified.last.expect("a last one").seq, 6);
}

/// A change to the lines of a file, and what is found in them.
type Spoilt = (&'static str, fn(&mut Vec<String>), Vec<(u64, Defect)>);

fn changed_and_moved() -> [Spoilt; 7] {
    [
        (
            "edited",
            |all| all[2] = all[2].replace("d1.example", "d7.example"),
            vec![(3, Defect::Edited { seq: 3 })],
        ),
        (
            "the last edited",
            |all| all[5] = all[5].replace("met", "exceeded"),
            vec![(6, Defect::Edited { seq: 6 })],
        ),
        (
            "edited and sealed anew",
            |all| all[2] = resealed(&all[2], "d1.example", "d7.example"),
            vec![(3, Defect::Replaced { seq: 3 })],
        ),
        (
            "cut out",
            |all| drop(all.remove(2)),
            vec![(3, Defect::Missing { from: 3, to: 3 })],
        ),
        (
            "several cut out",
            |all| drop(all.drain(2..5)),
            vec![(3, Defect::Missing { from: 3, to: 5 })],
        ),
        (
            "moved up",
            |all| all.swap(2, 3),
            vec![(4, Defect::Misplaced { seq: 3, behind: 4 })],
        ),
        (
            "moved to the end",
            |all| {
                let line = all.remove(2);
                all.push(line);
            },
            vec![(6, Defect::Misplaced { seq: 3, behind: 6 })],
        ),
    ]
}

fn repeated_and_several() -> [Spoilt; 5] {
    [
        (
            "doubled",
            |all| all.insert(3, all[2].clone()),
            vec![(4, Defect::Repeated { seq: 3 })],
        ),
        (
            "the first cut off",
            |all| drop(all.remove(0)),
            vec![(1, Defect::NoBeginning { to: 1 })],
        ),
        (
            "the beginning cut off",
            |all| drop(all.drain(..3)),
            vec![(1, Defect::NoBeginning { to: 3 })],
        ),
        (
            "moved over a gap",
            |all| {
                all.remove(1);
                let line = all.remove(1);
                all.push(line);
            },
            vec![
                (2, Defect::Missing { from: 2, to: 2 }),
                (5, Defect::Misplaced { seq: 3, behind: 6 }),
            ],
        ),
        (
            "one edited and one cut out",
            |all| {
                all[4] = all[4].replace("d3.example", "d7.example");
                all.remove(1);
            },
            vec![
                (2, Defect::Missing { from: 2, to: 2 }),
                (4, Defect::Edited { seq: 5 }),
            ],
        ),
    ]
}

#[test]
fn every_spoilt_record_is_named() {
    let cases = changed_and_moved()
        .into_iter()
        .chain(repeated_and_several());
    for (what, spoil, wanted) in cases {
        let (found, _) = spoilt(spoil);
        assert_eq!(found, wanted, "{what}");
    }
}

#[test]
fn a_line_of_nothing_but_spaces_is_named() {
    let (found, _) = spoilt(|all| all.push(String::new()));
    assert!(
        matches!(&found[..], [(7, Defect::NotARecord { seq: None, .. })]),
        "{found:?}"
    );
}

#[test]
fn a_destroyed_record_is_named_by_its_neighbours() {
    for at in [0, 2] {
        let (found, _) = spoilt(|all| all[at] = "{}".to_owned());
        let seq = Some(at as u64 + 1);
        assert!(
            matches!(&found[..], [(_, Defect::NotARecord { seq: named, .. })] if *named == seq),
            "{found:?}"
        );
    }
    let (found, _) = spoilt(|all| all.insert(2, "a line of my own".to_owned()));
    assert!(
        matches!(&found[..], [(3, Defect::NotARecord { seq: None, .. })]),
        "{found:?}"
    );
}

/// A line that is no record is named by its file and line once, and by its fault in plain words.
#[test]
fn a_line_that_is_no_record_has_one_position() {
    let (_, verified) = spoilt(|all| all.insert(2, "a line of my own".to_owned()));
    let finding = verified.findings.first().expect("a finding").to_string();
    let expected = ".jsonl:3: this line is not a record: it is not JSON";
    assert!(finding.ends_with(expected), "{finding}");
    assert!(
        !finding.contains("column") && !finding.contains("line 1"),
        "{finding}"
    );
}

#[test]
fn what_the_first_record_hangs_on_is_no_record() {
    let folder = folder();
    tokio::runtime::Runtime::new()
        .expect("threads")
        .block_on(write(folder.path(), 5));
    let zeros = RecordHash::ZERO;
    let verified = verify(folder.path(), &[zeros]).expect("readable");
    let found: Vec<_> = verified
        .findings
        .into_iter()
        .map(|finding| finding.found)
        .collect();
    assert_eq!(
        (found, verified.dropped_head),
        (vec![Defect::HeadMissing(zeros)], None)
    );
}

#[test]
fn a_cut_end_is_found_by_a_head_that_was_kept() {
    let folder = folder();
    tokio::runtime::Runtime::new()
        .expect("threads")
        .block_on(write(folder.path(), 5));
    let head = verify(folder.path(), &[])
        .expect("readable")
        .last
        .expect("a last one")
        .hash;
    assert_eq!(
        verify(folder.path(), &[head]).expect("readable").findings,
        []
    );
    let file = &files(folder.path())[0];
    let mut all = lines(file);
    all.truncate(4);
    put(file, &all);
    // Nothing in the chain itself shows it.
    assert_eq!(verify(folder.path(), &[]).expect("readable").findings, []);
    let found = verify(folder.path(), &[head]).expect("readable").findings;
    assert_eq!(
        found
            .into_iter()
            .map(|finding| finding.found)
            .collect::<Vec<_>>(),
        [Defect::HeadMissing(head)]
    );
    // All of it written anew from some record on: each hash is good, and the kept one is gone.
    assert_ne!(head, RecordHash::ZERO);
}

#[test]
fn files_are_one_chain_and_a_missing_one_is_named() {
    let folder = folder();
    tokio::runtime::Runtime::new()
        .expect("threads")
        .block_on(write(folder.path(), 5));
    let file = files(folder.path()).remove(0);
    let all = lines(&file);
    for (days_ago, part) in [(2, &all[..2]), (1, &all[2..4]), (0, &all[4..])] {
        put(&folder.path().join(name(days_ago)), part);
    }
    let verified = verify(folder.path(), &[]).expect("readable");
    assert_eq!((verified.files, verified.findings.len()), (3, 0));
    std::fs::remove_file(folder.path().join(name(1))).expect("it is ours");
    let found = verify(folder.path(), &[]).expect("readable").findings;
    let [finding] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (finding.line, &finding.found),
        (1, &Defect::Missing { from: 3, to: 4 })
    );
    assert_eq!(finding.file, folder.path().join(name(0)));
    let said = finding.to_string();
    assert!(
        said.ends_with(":1: records 3 to 4 are missing before this line"),
        "{said}"
    );
}

/// A reader may see half a line, and the other half when it looks again.
#[tokio::test]
async fn a_chain_that_grows_while_it_is_read_is_complete() {
    let (source, folder) = (folder(), folder());
    let evidence = Evidence::open(source.path(), KEEP).expect("the folder is ours");
    let many = (0..1000)
        .flat_map(|at| one_delivery(&format!("d{at}.example")))
        .collect();
    evidence
        .append(Timestamp::now(), many)
        .await
        .expect("it is written");
    let octets = fs::read(&files(source.path())[0]).expect("ours");
    // As the daemon holds it.
    let lock = fs::File::create(folder.path().join("lock")).expect("ours");
    lock.lock().expect("nobody else has it");
    let mut page = fs::File::create(folder.path().join(name(0))).expect("ours");
    let (mut growing, mut bad) = (0, 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            // Slowly, and hardly ever to the end of a line.
            for part in octets.chunks(5) {
                page.write_all(part).expect("there is room");
            }
        });
        while !writer.is_finished() {
            let verified = verify(folder.path(), &[]).expect("readable");
            assert_eq!(verified.findings, []);
            growing += u64::from(verified.is_growing);
            bad += deliveries(folder.path(), Period::ALL, |_, _, _| {})
                .expect("readable")
                .bad;
        }
    });
    assert_eq!(bad, 0, "no line is bad because it is not there yet");
    assert!(
        growing > 0,
        "it was never seen half written: this proves nothing"
    );
}
