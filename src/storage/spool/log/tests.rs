//! Tests of the log: what is read back after an orderly end, after a torn write, after damage, and
//! from a file that was used before.

use std::fs;

use bytes::Bytes;

use super::folder::grow;
use super::frame::FRAME_HEADER;
use super::*;
use crate::smtp::envelope::QueueId;
use crate::storage::spool::SpoolError;

const HEADER: SegmentHeader = SegmentHeader {
    number: 7,
    salt: 0x0123_4567_89ab_cdef,
    previous_end: 0,
};

fn id(number: u64) -> QueueId {
    QueueId::from_number(number).expect("small")
}

fn message(number: u64, content: &[u8]) -> LogRecord {
    LogRecord::Message(LoggedMessage {
        id: id(number),
        accepted: 1_700_000_000_000,
        size: content.len() as u64,
        content_crc: crc32fast::hash(content),
        envelope: format!("{{\"n\":{number}}}").into(),
        content: ContentPlace::Here(Bytes::copy_from_slice(content)),
    })
}

fn envelope(number: u64) -> LogRecord {
    LogRecord::Envelope {
        id: id(number),
        envelope: "{}".into(),
    }
}

fn parts(number: u64) -> LogRecord {
    let part = |place, json: &str| EnvelopePart {
        place,
        json: json.into(),
    };
    LogRecord::Parts {
        id: id(number),
        parts: vec![
            part(PartPlace::Message, "{}"),
            part(PartPlace::Recipient(0), ""),
            part(PartPlace::Recipient(70_000), "{\"state\":1}"),
        ],
    }
}

fn removed(number: u64) -> LogRecord {
    LogRecord::Removed { id: id(number) }
}

/// A segment with these batches, and the offset after each of them.
fn segment(header: SegmentHeader, batches: &[&[LogRecord]]) -> (Vec<u8>, Vec<u64>) {
    let mut octets = header.encode();
    octets.resize(usize::try_from(DATA_START).expect("small"), 0);
    let mut ends = Vec::new();
    for records in batches {
        let mut batch = BatchEncoder::new(header, octets.len() as u64, Vec::new());
        for record in *records {
            assert!(batch.push(record).is_some());
        }
        octets.extend(batch.finish());
        ends.push(octets.len() as u64);
    }
    octets.resize(octets.len() + 10_000, 0);
    (octets, ends)
}

/// The numbers of the messages that a segment's records are about.
fn subjects(recovered: &RecoveredSegment) -> Vec<u64> {
    let records = recovered.records.iter();
    records.map(|placed| placed.record.id().number()).collect()
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("small")
}

/// A record read back is the one written, with the place of its content instead of the content.
#[test]
fn records_are_read_back_as_they_were_written() {
    let batches: [&[LogRecord]; 2] = [
        &[
            message(1, b"Subject: x\r\n"),
            envelope(1),
            parts(1),
            removed(1),
        ],
        &[LogRecord::Message(LoggedMessage {
            content: ContentPlace::BodyFile,
            ..match message(2, b"in a file") {
                LogRecord::Message(message) => message,
                _ => unreachable!("it is a message"),
            }
        })],
    ];
    let (octets, ends) = segment(HEADER, &batches);
    let recovered = recover(&octets, &HEADER, None, &[]);
    assert_eq!((recovered.end, recovered.torn), (ends[1], 0));
    assert_eq!(recovered.damage, []);
    let mut records = recovered.records.into_iter().map(|placed| placed.record);
    let Some(LogRecord::Message(first)) = records.next() else {
        panic!("the first record is a message")
    };
    let ContentPlace::At(place) = first.content else {
        panic!("{:?}", first.content)
    };
    assert_eq!(&octets[at(place)..][..12], b"Subject: x\r\n");
    assert_eq!(
        (first.id, first.accepted, first.size, &*first.envelope),
        (id(1), 1_700_000_000_000, 12, "{\"n\":1}")
    );
    let rest: Vec<_> = records.collect();
    let expected = [envelope(1), parts(1), removed(1), batches[1][0].clone()];
    assert_eq!(rest, expected);
}

/// However much of the last batch is missing, none of it counts, and all before it does.
#[test]
fn a_torn_batch_does_not_count() {
    let batches: [&[LogRecord]; 2] = [
        &[message(1, b"one")],
        &[message(2, &[b'x'; 3000]), message(3, b"three"), removed(1)],
    ];
    let (complete, ends) = segment(HEADER, &batches);
    for cut in (ends[0]..ends[1]).step_by(8) {
        let mut torn = complete.clone();
        torn[at(cut)..].fill(0);
        let recovered = recover(&torn, &HEADER, None, &[]);
        assert_eq!(subjects(&recovered), [1], "cut at {cut}");
        assert_eq!((recovered.end, &*recovered.damage), (ends[0], &[][..]));
    }
    // The disk may write a later sector before an earlier one, even the end of the batch.
    for hole in (ends[0]..ends[1] - 8).step_by(64) {
        let mut torn = complete.clone();
        torn[at(hole)..at(hole) + 8].fill(0x55);
        let recovered = recover(&torn, &HEADER, None, &[]);
        assert_eq!(subjects(&recovered), [1], "a hole at {hole}");
    }
}

/// Every octet of a batch matters: one that is changed anywhere is noticed, and a complete batch
/// behind it shows that it was once durable. What is sound still counts.
#[test]
fn damage_before_a_complete_batch_is_reported_and_the_rest_counts() {
    let first = [message(1, b"one"), message(2, b"two"), removed(9)];
    let (sound, ends) = segment(HEADER, &[&first, &[message(3, b"three")]]);
    let unharmed = recover(&sound, &HEADER, None, &[]);
    assert_eq!(subjects(&unharmed), [1, 2, 9, 3]);
    for offset in DATA_START..ends[0] {
        let mut damaged = sound.clone();
        damaged[at(offset)] ^= 0x40;
        let recovered = recover(&damaged, &HEADER, None, &[]);
        let found = subjects(&recovered);
        assert_eq!(
            (recovered.end, found.last()),
            (ends[1], Some(&3)),
            "{offset}"
        );
        assert!(found.len() >= 3, "one record is lost at most: {found:?}");
        for damage in &recovered.damage {
            assert!(damage.from <= offset && offset < damage.to, "{damage:?}");
        }
        // Padding, content and the end of the batch harm no record.
        assert!(found.len() + recovered.damage.len() >= 4, "{offset}");
    }
}

/// Content that is damaged keeps its message in the queue, so that its sender can be informed.
#[test]
fn damaged_content_keeps_its_envelope() {
    let (mut octets, ends) = segment(HEADER, &[&[message(1, b"content")], &[message(2, b"")]]);
    let place = memchr::memmem::find(&octets, b"content").expect("written");
    octets[place] = b'C';
    let recovered = recover(&octets, &HEADER, None, &[]);
    assert_eq!((subjects(&recovered), recovered.end), (vec![1, 2], ends[1]));
    assert_eq!(recovered.damage, []);
}

/// The id of a message whose envelope is damaged is part of the report.
#[test]
fn damage_names_the_message_where_that_can_be_read() {
    let (mut octets, ends) = segment(HEADER, &[&[message(1, b"one")], &[removed(5)]]);
    let place = memchr::memmem::find(&octets, b"{\"n\"").expect("written");
    octets[place] = b'?';
    let recovered = recover(&octets, &HEADER, None, &[]);
    let lost = recovered.damage[0];
    assert_eq!((lost.id, lost.from), (Some(id(1)), DATA_START));
    assert_eq!((subjects(&recovered), recovered.end), (vec![5], ends[1]));
}

/// The next segment says how far this one reached: a last batch that is damaged is no torn one.
#[test]
fn a_damaged_last_batch_is_noticed_by_the_next_segment() {
    let (mut octets, ends) = segment(HEADER, &[&[message(1, b"one")], &[message(2, b"two")]]);
    octets[at(ends[0]) + FRAME_HEADER] ^= 1;
    let torn = recover(&octets, &HEADER, Some(ends[0]), &[]);
    assert_eq!((subjects(&torn), torn.damage.len()), (vec![1], 0));
    let damaged = recover(&octets, &HEADER, Some(ends[1]), &[]);
    assert_eq!((subjects(&damaged), damaged.end), (vec![1], ends[1]));
    assert_eq!(damaged.damage[0].from, ends[0]);
    octets.truncate(at(ends[0]));
    let cut = recover(&octets, &HEADER, Some(ends[1]), &[]);
    let lost = LogDamage {
        from: ends[0],
        to: ends[1],
        id: None,
    };
    assert_eq!(cut.damage, [lost]);
}

/// A block that the disk cannot read was readable when it was synced: what was in it is damage, also at
/// the end of the log, where nothing behind it shows that. Space that was never used is none.
#[test]
fn blocks_that_cannot_be_read_are_damage_and_no_torn_end() {
    let large = vec![b'x'; 20_000];
    let (sound, ends) = segment(HEADER, &[&[message(1, b"one")], &[message(2, &large)]]);
    let blocks = sound.len() as u64 / 4096;
    let (mut lost, mut kept) = (0, 0);
    for block in 1..blocks {
        let place = block * 4096..(block + 1) * 4096;
        let mut octets = sound.clone();
        octets[at(place.start)..at(place.end)].fill(0);
        let recovered = recover(&octets, &HEADER, None, std::slice::from_ref(&place));
        let found = subjects(&recovered);
        if place.start >= ends[1] {
            assert_eq!(recovered, recover(&sound, &HEADER, None, &[]), "{block}");
            continue;
        }
        assert_eq!(
            (recovered.end >= ends[1], recovered.torn),
            (true, 0),
            "{block}"
        );
        let has_large = found.contains(&2);
        let is_named = recovered.damage.iter().any(|damage| damage.to > ends[0]);
        assert!(has_large || is_named, "{block}: {recovered:?}");
        (lost, kept) = (
            lost + usize::from(!has_large),
            kept + usize::from(has_large),
        );
        // Without the disk's word, it looks as a kill would leave it.
        if place.start > ends[0] {
            let torn = recover(&octets, &HEADER, None, &[]);
            assert_eq!((subjects(&torn), torn.end), (vec![1], ends[0]), "{block}");
        }
    }
    assert_eq!((lost, kept), (1, 4), "the first block has the records");
}

/// Neither a file's earlier use nor content that imitates a record is accepted as one.
#[test]
fn foreign_frames_are_no_records() {
    let old = SegmentHeader {
        number: 6,
        salt: 99,
        previous_end: 0,
    };
    let (mut octets, _) = segment(old, &[&[message(1, b"old")], &[message(2, b"old")]]);
    octets[..48].copy_from_slice(&HEADER.encode());
    assert_eq!(subjects(&recover(&octets, &HEADER, None, &[])), [0; 0]);

    // A client sends what it believes to be a record of this very segment; then the write is torn.
    let forged = SegmentHeader { salt: 0, ..HEADER };
    let (imitation, _) = segment(forged, &[&[message(66, b"forged")]]);
    let (mut torn, ends) = segment(HEADER, &[&[message(1, &imitation)]]);
    torn[at(DATA_START)] ^= 1;
    let recovered = recover(&torn, &HEADER, Some(ends[0]), &[]);
    assert_eq!(subjects(&recovered), [0; 0]);
}

#[test]
fn a_header_is_sound_or_refused() {
    let octets = HEADER.encode();
    assert_eq!(SegmentHeader::decode(&octets), Ok(HEADER));
    for at in 0..44 {
        let mut damaged = octets.clone();
        damaged[at] ^= 1;
        assert_eq!(
            SegmentHeader::decode(&damaged),
            Err(HeaderFault::Damaged),
            "{at}"
        );
    }
    for (form, expected) in [
        (0, Err(HeaderFault::OtherForm(0))),
        (1, Ok(HEADER)),
        (2, Ok(HEADER)),
        (3, Err(HeaderFault::OtherForm(3))),
    ] {
        let mut other = octets.clone();
        other[8] = form;
        let crc = crc32fast::hash(&other[..40]);
        other[40..44].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&other), expected, "{form}");
    }
    assert_eq!(SegmentHeader::decode(b""), Err(HeaderFault::Damaged));
}

fn append(segment: &mut SegmentFile, records: &[LogRecord]) {
    let mut batch = segment.batch(Vec::new());
    for record in records {
        assert!(batch.push(record).is_some());
    }
    segment.append(batch).expect("room");
}

/// Segments are written, read back and reused: a file that becomes the next segment shows nothing
/// of its earlier records.
#[test]
fn a_segment_that_is_not_needed_becomes_the_next_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = LogFolder::open(&folder.path().join("log")).expect("a log");
    let mut first = log.begin(1, 0, 0).expect("room");
    append(&mut first, &[message(1, b"one"), message(2, b"two")]);
    append(&mut first, &[removed(1)]);
    let header = log.header(1).expect("read").expect("sound");
    let read = log.read(&header, None).expect("read");
    assert_eq!((subjects(&read), read.end), (vec![1, 2, 1], first.end()));
    let LogRecord::Message(second) = &read.records[1].record else {
        panic!("{:?}", read.records[1])
    };
    let ContentPlace::At(place) = second.content else {
        panic!("{:?}", second.content)
    };
    let content = log.read_at(1, place, 3).expect("read");
    assert_eq!(content.as_deref(), Some(&b"two"[..]));
    assert_eq!(log.read_at(9, place, 3).expect("no such segment"), None);
    assert_eq!(log.read_at(1, u64::MAX / 4, 3).expect("too short"), None);

    log.retire(1).expect("removed");
    assert_eq!(log.list().expect("listed"), (vec![], vec![]));
    assert!(log.has_spare());
    let next = log.begin(2, first.end(), 0).expect("room");
    assert!(!log.has_spare(), "it is in use");
    let header = log.header(2).expect("read").expect("sound");
    assert_eq!(header.previous_end, first.end());
    assert_eq!(subjects(&log.read(&header, None).expect("read")), [0; 0]);
    assert_eq!(next.room(), next.size() - DATA_START);
}

/// A batch that is larger than a segment gets a segment of its own size, which is no spare later.
#[test]
fn a_large_batch_gets_a_large_segment() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = LogFolder::open(folder.path()).expect("a log");
    let content = vec![b'x'; at(log.segment_size()) + 1];
    let large = message(1, &content);
    let needed = BatchEncoder::octets_of(&large) + BatchEncoder::overhead();
    let mut segment = log.begin(1, 0, needed).expect("room");
    append(&mut segment, &[large]);
    let header = log.header(1).expect("read").expect("sound");
    assert_eq!(subjects(&log.read(&header, None).expect("read")), [1]);
    log.retire(1).expect("removed");
    assert!(!log.has_spare());
    assert_eq!(fs::read_dir(folder.path()).expect("ours").count(), 0);
}

/// On a full disk, a file that is large enough is kept as it is, and a smaller one grows no further than
/// it must.
#[test]
fn on_a_full_disk_a_segment_is_as_large_as_it_must_be() {
    let folder = tempfile::tempdir().expect("a folder");
    // The file has, is needed for, is to have, and can have; then it has.
    for (present, needed, wanted, possible, expected) in [
        (8, 1, 16, 100, Some(16)),
        (32, 1, 16, 0, Some(32)),
        (8, 1, 16, 15, Some(8)),
        (8, 8, 16, 0, Some(8)),
        (8, 9, 16, 12, Some(9)),
        (0, 1, 16, 1, Some(1)),
        (8, 9, 16, 8, None),
        (0, 16, 16, 15, None),
    ] {
        let file = fs::File::create(folder.path().join("file")).expect("ours");
        file.set_len(present).expect("ours");
        let allocate = |file: &fs::File, size: u64| {
            // A file system may allocate all that it has before it fails.
            file.set_len(size.min(possible.max(present)))?;
            if size > possible {
                return Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
            }
            Ok(())
        };
        let grown = grow(&file, present, needed, wanted, allocate).ok();
        assert_eq!(grown, expected, "{present} {needed} {wanted} {possible}");
        if let Some(expected) = expected {
            assert_eq!(file.metadata().expect("ours").len(), expected);
        }
    }
}

/// A spare file is never lost for a smaller one, nor to a failure.
#[test]
fn the_spare_file_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = LogFolder::open(folder.path()).expect("a log");
    let length = || fs::metadata(folder.path().join("spare")).map_or(0, |file| file.len());
    drop(log.begin(1, 0, 0).expect("room"));
    // A crash came between its creation and its allocation.
    fs::write(folder.path().join("spare"), "").expect("ours");
    assert!(!log.has_spare(), "it has no space");
    log.keep_spare().expect("room");
    assert!(log.has_spare());
    let small = length();
    assert!(small > 0 && small < log.next_size(), "{small}");
    log.begin(2, 0, u64::MAX / 4).expect_err("no file has that");
    assert_eq!(length(), small);
    let large = fs::metadata(log.path(1)).expect("ours").len();
    log.retire(1).expect("removed");
    assert!(large > small && length() == large, "{}", length());
    fs::write(log.path(3), "x").expect("ours");
    log.retire(3).expect("removed");
    assert_eq!(length(), large);
}

/// A batch that does not fit is refused, and the segment is as before.
#[test]
fn a_batch_that_does_not_fit_is_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = LogFolder::open(folder.path()).expect("a log");
    let mut segment = log.begin(1, 0, 0).expect("room");
    let mut batch = segment.batch(Vec::new());
    let content = vec![b'x'; at(segment.room())];
    assert!(batch.push(&message(1, &content)).is_some());
    let refused = segment.append(batch).expect_err("too large");
    assert!(
        matches!(refused, AppendError::Rejected(SpoolError::Io(_))),
        "{refused:?}"
    );
    append(&mut segment, &[message(2, b"small")]);
}

/// Names that are none of the log's are reported and left alone.
#[test]
fn foreign_files_are_listed_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = LogFolder::open(folder.path()).expect("a log");
    drop(log.begin(0x1f, 0, 0).expect("room"));
    log.prepare().expect("room");
    let beyond = format!("{:016x}.seg", u64::MAX);
    for name in ["notes.txt", "1f.seg", "000000000000001F.seg", &beyond] {
        fs::write(folder.path().join(name), "x").expect("written");
    }
    let (numbers, foreign) = log.list().expect("listed");
    assert_eq!((numbers, foreign.len()), (vec![0x1f], 4));
    fs::rename(log.path(0x1f), log.path(0x20)).expect("ours");
    assert_eq!(
        log.header(0x20).expect("read"),
        Err(HeaderFault::Damaged),
        "a file under the name of another segment"
    );
}
