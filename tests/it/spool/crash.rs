//! A start on what a crash or damage has left of the log.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use gatepost::smtp::envelope::{Envelope, QueueId, RecipientState};
use gatepost::storage::spool::log::{
    BatchEncoder, ContentPlace, EnvelopePart, LogFolder, LogRecord, LoggedMessage, PartPlace,
    SegmentFile,
};
use gatepost::storage::spool::{Spool as _, SpoolError};

use super::{content, envelope, everything, names, open, read};

const SIZE: usize = 2_000;

fn id(number: u64) -> QueueId {
    QueueId::from_number(number << 22).expect("small")
}

/// An envelope of so many recipients that it has parts.
fn many(sender: &str) -> Envelope {
    let mut many = envelope(sender);
    many.recipients = vec![many.recipients.remove(0); 20];
    many
}

fn json(sender: &str) -> std::sync::Arc<str> {
    let json = serde_json::to_string(&many(sender)).expect("JSON");
    json.into()
}

fn message(number: u64) -> LogRecord {
    let content = content(number, SIZE);
    LogRecord::Message(LoggedMessage {
        id: id(number),
        accepted: 1_700_000_000_000,
        size: content.len() as u64,
        content_crc: crc32fast::hash(&content),
        envelope: json("a@example.org"),
        content: ContentPlace::Here(Bytes::from(content)),
    })
}

fn changed(number: u64, sender: &str) -> LogRecord {
    LogRecord::Envelope {
        id: id(number),
        envelope: json(sender),
    }
}

/// A change of the sender, and of recipients, who are delivered.
fn settled(number: u64, sender: &str, delivered: &[u32]) -> LogRecord {
    let mut alone = many(sender);
    alone.recipients.clear();
    let message = EnvelopePart {
        place: PartPlace::Message,
        json: serde_json::to_string(&alone).expect("JSON").into(),
    };
    let recipients = delivered.iter().map(|at| EnvelopePart {
        place: PartPlace::Recipient(*at),
        json: "{\"state\":\"delivered\"}".into(),
    });
    LogRecord::Parts {
        id: id(number),
        parts: std::iter::once(message).chain(recipients).collect(),
    }
}

fn removed(number: u64) -> LogRecord {
    LogRecord::Removed { id: id(number) }
}

/// Appends one batch.
fn append(segment: &mut SegmentFile, records: &[LogRecord]) {
    let mut batch: BatchEncoder = segment.batch(Vec::new());
    for record in records {
        assert!(batch.push(record).is_some());
    }
    segment.append(batch).expect("room");
}

/// Writes a segment with these batches to the log of a spool.
fn write(folder: &Path, number: u64, batches: &[Vec<LogRecord>]) -> Vec<u64> {
    let log = LogFolder::open(&folder.join("log")).expect("a log");
    let mut segment = log.begin(number, 0, 0).expect("room");
    let mut ends = vec![segment.end()];
    for records in batches {
        append(&mut segment, records);
        ends.push(segment.end());
    }
    ends
}

/// The numbers of the messages in the queue, and the local parts of their senders with a star for
/// each recipient that is delivered. Each has its content.
async fn queue(folder: &Path) -> Vec<(u64, String)> {
    let spool = open(folder);
    let mut found = Vec::new();
    for stored in everything(&spool).await {
        let number = stored.id.number() >> 22;
        let entry = spool.load(stored.id).await.expect("sound");
        assert_eq!(
            read(&entry.body).await.expect("sound"),
            content(number, SIZE)
        );
        assert_eq!(entry.envelope, stored.envelope);
        let sender = stored.envelope.reverse_path.to_string();
        let recipients = stored.envelope.recipients.iter();
        let delivered = recipients.filter(|one| one.state == RecipientState::Delivered);
        let local = sender.split('@').next().expect("an address");
        found.push((number, format!("{local}{}", "*".repeat(delivered.count()))));
    }
    found
}

/// A batch, and the queue after it.
type Step = (Vec<LogRecord>, &'static [(u64, &'static str)]);

/// The steps of a process that is killed after any of them.
fn history() -> Vec<Step> {
    vec![
        (vec![], &[]),
        (vec![message(1)], &[(1, "a")]),
        (
            vec![message(2), message(3)],
            &[(1, "a"), (2, "a"), (3, "a")],
        ),
        (
            vec![changed(2, "b@example.org")],
            &[(1, "a"), (2, "b"), (3, "a")],
        ),
        (
            vec![removed(1), changed(3, "c@example.org")],
            &[(2, "b"), (3, "c")],
        ),
        (vec![message(4), removed(4), removed(2)], &[(3, "c")]),
        (vec![changed(3, "d@example.org")], &[(3, "d")]),
        (vec![settled(3, "d@example.org", &[0, 4])], &[(3, "d**")]),
        (
            vec![message(5), settled(5, "e@example.org", &[19])],
            &[(3, "d**"), (5, "e*")],
        ),
        (
            vec![
                changed(5, "f@example.org"),
                settled(3, "g@example.org", &[0, 5]),
            ],
            &[(3, "g***"), (5, "f")],
        ),
    ]
}

fn expected(queue: &[(u64, &str)]) -> Vec<(u64, String)> {
    let full = |(number, sender): &(u64, &str)| (*number, (*sender).to_owned());
    queue.iter().map(full).collect()
}

/// A process is killed after each batch, and in the middle of each. The queue is the one of the
/// last batch that was complete, at the next start and at the one after it.
#[tokio::test]
async fn a_kill_at_any_point_of_the_log_leaves_the_last_complete_batch() {
    let history = history();
    let batches: Vec<_> = history[1..]
        .iter()
        .map(|(batch, _)| batch.clone())
        .collect();
    for complete in 0..history.len() {
        for is_torn in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            drop(open(folder.path()));
            let ends = write(folder.path(), 1, &batches);
            let path = LogFolder::existing(&folder.path().join("log")).path(1);
            let mut octets = fs::read(&path).expect("a segment");
            let (from, next) = (ends[complete], ends.get(complete + 1));
            let cut = match next {
                Some(next) if is_torn => from + (next - from) / 2,
                _ => from,
            };
            octets[usize::try_from(cut).expect("small")..].fill(0);
            fs::write(&path, octets).expect("ours");
            for start in ["first", "second"] {
                let found = queue(folder.path()).await;
                assert_eq!(
                    found,
                    expected(history[complete].1),
                    "{start} start after batch {complete}, torn: {is_torn}"
                );
            }
            assert_eq!(names(&folder.path().join("aside")), [""; 0]);
        }
    }
}

/// A kill between the transaction of the database and the removal of the segments leaves both. The
/// segments are applied again, and nothing comes back.
#[tokio::test]
async fn segments_that_were_moved_already_are_moved_again() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    let batches: Vec<_> = history().into_iter().map(|(batch, _)| batch).collect();
    for moved in [3, 5, 6, 7, 8, 9, 10] {
        write(folder.path(), 1, &batches[..moved]);
        drop(open(folder.path()));
        write(folder.path(), 1, &batches);
        // The first start finds it in the log, and the second in the database.
        for start in ["first", "second"] {
            let found = queue(folder.path()).await;
            let last = expected(&[(3, "g***"), (5, "f")]);
            assert_eq!(found, last, "{start} start, {moved}");
        }
    }
}

/// Damage in the middle of the log costs what stood there. It is kept aside, and all else goes on.
#[tokio::test]
async fn damage_in_the_log_is_set_aside_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    write(
        folder.path(),
        1,
        &[vec![message(1), message(2)], vec![message(3)]],
    );
    let path = LogFolder::existing(&folder.path().join("log")).path(1);
    let mut octets = fs::read(&path).expect("a segment");
    let place = memchr::memmem::find(&octets, b"reverse_path").expect("an envelope");
    octets[place] ^= 1;
    fs::write(&path, octets).expect("ours");
    let found = queue(folder.path()).await;
    assert_eq!(found, expected(&[(2, "a"), (3, "a")]));
    let aside = names(&folder.path().join("aside"));
    assert!(aside[0].starts_with("log-0000000000000001-"), "{aside:?}");
}

/// A message whose content is damaged in the log stays until its sender is informed.
#[tokio::test]
async fn damaged_content_in_the_log_is_set_aside_with_its_message() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    write(folder.path(), 1, &[vec![message(1)], vec![message(2)]]);
    let path = LogFolder::existing(&folder.path().join("log")).path(1);
    let mut octets = fs::read(&path).expect("a segment");
    let place = memchr::memmem::find(&octets, b"Subject: 1").expect("content");
    octets[place] ^= 1;
    fs::write(&path, octets).expect("ours");
    let spool = open(folder.path());
    assert_eq!(everything(&spool).await.len(), 2);
    let damaged = spool.load(id(1)).await.expect_err("damaged");
    assert!(
        matches!(
            &damaged,
            SpoolError::Damaged {
                remaining: Some(_),
                ..
            }
        ),
        "{damaged}"
    );
    let aside = names(&folder.path().join("aside"));
    assert!(aside.contains(&format!("{}.eml", id(1))), "{aside:?}");
    spool.load(id(2)).await.expect("sound");
}

/// A segment without a sound header is kept aside; one of a newer form refuses the start.
#[tokio::test]
async fn a_segment_that_cannot_be_read_is_set_aside_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    write(folder.path(), 1, &[vec![message(1)]]);
    let path = LogFolder::existing(&folder.path().join("log")).path(1);
    let sound = fs::read(&path).expect("a segment");
    let mut newer = sound.clone();
    newer[8] = 9;
    let crc = crc32fast::hash(&newer[..40]);
    newer[40..44].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &newer).expect("ours");
    let refused = gatepost::storage::spool::SqliteSpool::open(folder.path())
        .expect_err("newer")
        .to_string();
    assert!(refused.contains("run the newer gatepost"), "{refused}");
    assert!(fs::read(&path).expect("there") == newer, "it was changed");

    let mut damaged = sound;
    damaged[20] ^= 1;
    fs::write(&path, damaged).expect("ours");
    assert_eq!(queue(folder.path()).await, []);
    let aside = names(&folder.path().join("aside"));
    let copy = "log-0000000000000001.seg";
    assert_eq!(aside, [copy, &format!("{copy}.unreported")]);
}

/// Ids go on above those in the log, also of messages that are gone.
#[tokio::test]
async fn an_id_of_the_log_is_not_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    let far = QueueId::MAX >> 22;
    write(folder.path(), 1, &[vec![message(far), removed(far)]]);
    let spool = open(folder.path());
    assert!(spool.draft().id() > id(far));
}

/// A message with its content in a body file, which is there.
fn in_file(folder: &Path, number: u64) -> LogRecord {
    let path = folder.join("bodies").join(id(number).to_string());
    fs::write(path, content(number, SIZE)).expect("ours");
    match message(number) {
        LogRecord::Message(message) => LogRecord::Message(LoggedMessage {
            content: ContentPlace::BodyFile,
            ..message
        }),
        other => other,
    }
}

/// The body file of a message whose record is damaged is all that is left of it, and a start or a
/// repair keeps it. One that was removed is not needed, and one without a record in a sound log was
/// never accepted.
#[tokio::test]
async fn a_body_file_whose_record_may_be_lost_is_set_aside() {
    for (is_damaged, is_repair) in [(false, false), (true, false), (true, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        drop(open(folder.path()));
        let [first, second, _] = [1, 2, 3].map(|number| in_file(folder.path(), number));
        let batches = [vec![first], vec![second, removed(2)], vec![message(4)]];
        write(folder.path(), 1, &batches);
        if is_damaged {
            let path = LogFolder::existing(&folder.path().join("log")).path(1);
            let mut octets = fs::read(&path).expect("a segment");
            let place = memchr::memmem::find(&octets, b"reverse_path").expect("an envelope");
            octets[place] ^= 1;
            fs::write(&path, octets).expect("ours");
        }
        if is_repair {
            let lost = super::repair::repaired(folder.path()).lost;
            for number in [1, 3] {
                let line = format!("{}: its envelope was in a damaged part", id(number));
                assert!(lost.iter().any(|lost| lost.starts_with(&line)), "{lost:?}");
            }
        }
        let known: &[_] = if is_damaged {
            &[(4, "a")]
        } else {
            &[(1, "a"), (4, "a")]
        };
        assert_eq!(queue(folder.path()).await, expected(known), "{is_damaged}");
        for number in [1, 2, 3] {
            let aside = folder.path().join(format!("aside/{}.eml", id(number)));
            let kept = fs::read(aside).ok();
            let is_kept = is_damaged && number != 2;
            assert_eq!(kept, is_kept.then(|| content(number, SIZE)), "{number}");
            let body = folder.path().join("bodies").join(id(number).to_string());
            assert_eq!(body.exists(), !is_damaged && number == 1, "{number}");
        }
    }
}

/// The postmaster is informed once of a damaged part of the log, however often a start finds it.
#[tokio::test]
async fn the_same_damage_in_the_log_is_reported_once() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    write(folder.path(), 1, &[vec![message(1)], vec![message(2)]]);
    let path = LogFolder::existing(&folder.path().join("log")).path(1);
    let sound = fs::read(&path).expect("a segment");
    let place = memchr::memmem::find(&sound, b"reverse_path").expect("an envelope");
    let aside = folder.path().join("aside");
    let marks = |kind: &str| {
        let names = names(&aside);
        names.iter().filter(|name| name.ends_with(kind)).count()
    };
    for (flipped, unreported) in [(1, 1), (1, 0), (2, 1)] {
        let mut damaged = sound.clone();
        damaged[place] ^= flipped;
        fs::write(&path, damaged).expect("ours");
        drop(open(folder.path()));
        assert_eq!(marks(".unreported"), unreported, "{flipped}");
        for name in names(&aside) {
            if let Some(name) = name.strip_suffix(".unreported") {
                let mark = |kind| aside.join(format!("{name}.{kind}"));
                fs::rename(mark("unreported"), mark("reported")).expect("ours");
            }
        }
        assert_eq!((marks(".reported"), marks(".bin")), (1, 1), "{flipped}");
    }
}

/// A state that the database cannot take is in the quarantine. If the log has it in a damaged part, and
/// an older one before that, the older one does not count; a newer one behind it does.
#[tokio::test]
async fn a_kept_state_outlives_damage_in_the_log() {
    let gone: &[LogRecord] = &[removed(1)];
    for (later, found) in [
        (&[][..], &[(1, "k"), (9, "a")][..]),
        (
            &[changed(1, "new@example.org")][..],
            &[(1, "new"), (9, "a")][..],
        ),
        (
            &[settled(1, "new@example.org", &[3])][..],
            &[(1, "new*"), (9, "a")][..],
        ),
        (gone, &[(9, "a")][..]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        drop(open(folder.path()));
        write(folder.path(), 1, &[vec![message(1)]]);
        // It is in the database then.
        assert_eq!(queue(folder.path()).await, expected(&[(1, "a")]));
        let line = serde_json::json!({
            "id": id(1).to_string(),
            "change": "envelope",
            "envelope": &*json("k@example.org"),
        });
        let line = line.to_string();
        let line = format!("{:08x} {line}\n", crc32fast::hash(line.as_bytes()));
        fs::write(folder.path().join("aside/unwritten"), line).expect("ours");
        let mut batches = vec![
            vec![changed(1, "old@example.org")],
            vec![changed(1, "k@example.org")],
            vec![message(9)],
        ];
        if !later.is_empty() {
            batches.push(later.to_vec());
        }
        let ends = write(folder.path(), 2, &batches);
        let path = LogFolder::existing(&folder.path().join("log")).path(2);
        let mut octets = fs::read(&path).expect("a segment");
        octets[usize::try_from(ends[1]).expect("small") + 40] ^= 1;
        fs::write(&path, octets).expect("ours");
        for start in ["first", "second"] {
            assert_eq!(
                queue(folder.path()).await,
                expected(found),
                "{start}: {later:?}"
            );
        }
    }
}
