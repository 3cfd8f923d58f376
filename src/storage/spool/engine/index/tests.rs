//! Tests of the index: what is moved, what is left after a move, and which segments are needed.

use super::super::super::log::PartPlace;
use super::*;

fn id(number: u64) -> QueueId {
    QueueId::from_number(number).expect("small")
}

fn text(json: &str) -> EnvelopeText {
    EnvelopeText::from_json(id(1), json.into())
}

fn held(segment: u64) -> HeldMessage {
    HeldMessage {
        accepted: 0,
        size: 100,
        content_crc: 0,
        envelope: text("first"),
        content: HeldContent::Log { segment, offset: 0 },
    }
}

fn parts(texts: &[(u32, &str)]) -> Vec<EnvelopePart> {
    let part = |(at, json): &(u32, &str)| EnvelopePart {
        place: PartPlace::Recipient(*at),
        json: (*json).into(),
    };
    texts.iter().map(part).collect()
}

/// The envelope as a unit and the parts that the database does not have.
fn change(index: &LogIndex, number: u64) -> (Option<String>, Vec<(PartPlace, String)>) {
    let Some(Pending::Envelope(change)) = index.get(id(number)) else {
        panic!("no change of {number}: {:?}", index.get(id(number)))
    };
    let unit = change.unit.as_ref().map(|unit| unit.json.to_string());
    (unit, change.parts.texts())
}

fn places(texts: &[(u32, &str)]) -> Vec<(PartPlace, String)> {
    let place = |(at, text): &(u32, &str)| (PartPlace::Recipient(*at), (*text).to_owned());
    texts.iter().map(place).collect()
}

fn index(segments: u64) -> LogIndex {
    let mut index = LogIndex::default();
    for number in 1..=segments {
        index.begin_segment(number, 10);
    }
    index
}

/// A message that came and went leaves nothing to do, and frees its segment.
#[test]
fn a_removed_message_needs_no_segment() {
    let mut index = index(2);
    index.add(id(1), held(1), 1);
    index.replace(id(1), text("second"), 2);
    assert_eq!((index.retirable(), index.octets() > 0), (None, true));
    index.remove(id(1), 2);
    assert!(index.is_settled());
    assert_eq!((index.retirable(), index.octets()), (Some(1), 0));
    index.retire_segment(1);
    assert_eq!(index.retirable(), None, "the active one stays");
}

/// A crash can come between the move of a message to the database and the removal of its
/// segment. Its removal must reach the database, or the next start delivers it again.
#[test]
fn the_removal_of_a_message_of_an_earlier_process_reaches_the_database() {
    let mut index = index(2);
    index.add_found(id(1), held(1), 1);
    index.replace(id(1), text("second"), 2);
    index.remove(id(1), 2);
    assert!(matches!(index.get(id(1)), Some(Pending::Removed)));
}

/// Segments leave the log in their order, so that a removal outlives the message.
#[test]
fn a_segment_waits_for_the_older_ones() {
    let mut index = index(3);
    index.add(id(1), held(1), 1);
    index.add(id(2), held(2), 2);
    index.remove(id(2), 3);
    assert_eq!(index.retirable(), None);
    let moves = index.take(MoveScope::SealedSegments, 10_000, 10);
    index.settle(&moves, MoveEnd::Written);
    assert_eq!(index.retirable(), Some(1));
}

/// Whatever happens to a message while it is being moved is a difference to the database
/// afterwards.
#[test]
fn changes_during_a_move_are_kept() {
    let mut index = index(2);
    for number in [1, 2, 3] {
        index.add(id(number), held(1), 1);
    }
    let moves = index.take(MoveScope::All, 10_000, 10);
    assert_eq!(moves.len(), 3);
    assert!(index.take(MoveScope::All, 10_000, 10).is_empty());
    index.replace(id(1), text("second"), 2);
    index.remove(id(2), 2);
    index.settle(&moves, MoveEnd::Written);
    assert_eq!(change(&index, 1), (Some("second".to_owned()), vec![]));
    assert!(matches!(index.get(id(2)), Some(Pending::Removed)));
    assert!(index.get(id(3)).is_none());
    assert_eq!(index.retirable(), Some(1));
}

/// A move that failed changes nothing, and is tried again.
#[test]
fn a_failed_move_is_repeated() {
    let mut index = index(1);
    index.add(id(1), held(1), 1);
    let moves = index.take(MoveScope::All, 10_000, 10);
    index.settle(&moves, MoveEnd::Uncertain);
    assert!(matches!(index.get(id(1)), Some(Pending::Message(..))));
    assert_eq!(index.take(MoveScope::All, 10_000, 10).len(), 1);
}

/// A transaction has a bounded size, but always at least one entry.
#[test]
fn a_transaction_is_bounded() {
    let mut index = index(1);
    for number in 1..=5 {
        index.add(id(number), held(1), 1);
    }
    assert_eq!(index.take(MoveScope::All, 10_000, 2).len(), 2);
    assert_eq!(index.take(MoveScope::All, 1, 10).len(), 1);
}

/// Of the parts that change while their message is being moved, the later ones alone are left, with
/// the segments of their own records.
#[test]
fn parts_that_change_during_a_move_are_kept() {
    let mut index = index(3);
    index.add(id(1), held(1), 1);
    index.replace_parts(id(1), &parts(&[(0, "a"), (1, "a")]), 1);
    let moves = index.take(MoveScope::All, 10_000, 10);
    index.replace_parts(id(1), &parts(&[(1, "b"), (2, "b")]), 2);
    index.settle(&moves, MoveEnd::Written);
    assert_eq!(change(&index, 1), (None, places(&[(1, "b"), (2, "b")])));
    assert_eq!(index.retirable(), Some(1));
    // And again, in the database.
    let moves = index.take(MoveScope::All, 10_000, 10);
    index.replace_parts(id(1), &parts(&[(2, "c")]), 3);
    index.settle(&moves, MoveEnd::Written);
    assert_eq!(change(&index, 1), (None, places(&[(2, "c")])));
    let moves = index.take(MoveScope::All, 10_000, 10);
    index.settle(&moves, MoveEnd::Written);
    assert!(index.is_settled());
    assert_eq!(index.octets(), 0);
}

/// An envelope that is replaced as a unit has none of the parts from before.
#[test]
fn a_unit_replaces_all_parts() {
    let mut index = index(3);
    index.replace_parts(id(1), &parts(&[(0, "a"), (1, "a")]), 1);
    let moves = index.take(MoveScope::All, 10_000, 10);
    index.replace(id(1), text("second"), 2);
    index.replace_parts(id(1), &parts(&[(1, "b")]), 2);
    assert_eq!(index.retirable(), Some(1));
    index.settle(&moves, MoveEnd::Written);
    let expected = (Some("second".to_owned()), places(&[(1, "b")]));
    assert_eq!(change(&index, 1), expected);
}

/// A segment is needed while it has the latest record of a part, and not when all its parts were
/// replaced later.
#[test]
fn a_segment_is_needed_for_the_latest_parts_alone() {
    let mut index = index(3);
    index.replace_parts(id(1), &parts(&[(0, "a"), (1, "a")]), 1);
    index.replace_parts(id(1), &parts(&[(0, "b")]), 2);
    assert_eq!(index.retirable(), None);
    index.replace_parts(id(1), &parts(&[(1, "b")]), 3);
    assert_eq!(index.retirable(), Some(1));
    assert!(index.octets() > 0);
}

/// Parts of a message that the log alone has leave with it.
#[test]
fn a_removed_message_leaves_no_parts() {
    let mut index = index(2);
    index.add(id(1), held(1), 1);
    index.replace_parts(id(1), &parts(&[(0, "a")]), 2);
    index.remove(id(1), 2);
    assert!(index.is_settled());
    assert_eq!((index.retirable(), index.octets()), (Some(1), 0));
    index.replace_parts(id(2), &parts(&[(0, "a")]), 2);
    index.remove(id(2), 2);
    assert!(matches!(index.get(id(2)), Some(Pending::Removed)));
}

/// A change that cannot be written needs no segment, is known, and is not moved before it changes.
#[test]
fn a_change_that_cannot_be_written_is_kept() {
    let mut index = index(4);
    index.replace(id(1), text("unit"), 1);
    index.replace_parts(id(1), &parts(&[(0, "a")]), 2);
    index.remove(id(2), 2);
    let moves = index.take(MoveScope::All, 10_000, 10);
    assert!(moves.iter().all(|one| !one.is_kept));
    index.settle(&moves, MoveEnd::Kept);
    assert_eq!(index.retirable(), Some(1));
    assert!(index.is_settled());
    assert!(index.take(MoveScope::All, 10_000, 10).is_empty());
    let expected = (Some("unit".to_owned()), places(&[(0, "a")]));
    assert_eq!(change(&index, 1), expected);
    assert!(matches!(index.get(id(2)), Some(Pending::Removed)));
    // The next change is moved with all before it, and may be written.
    index.retire_segment(1);
    index.retire_segment(2);
    index.replace_parts(id(1), &parts(&[(1, "b")]), 3);
    assert_eq!((index.retirable(), index.is_settled()), (None, false));
    let moves = index.take(MoveScope::All, 10_000, 10);
    assert_eq!((moves.len(), moves[0].is_kept), (1, false));
    index.settle(&moves, MoveEnd::Written);
    assert_eq!((index.retirable(), index.is_settled()), (Some(3), true));
    assert!(index.get(id(1)).is_none());
}

/// A change that was kept by an earlier process is tried once more.
#[test]
fn a_kept_change_is_tried_again() {
    let mut index = index(1);
    index.add_kept(id(2), &KeptChange::Removed);
    let unit = Some("unit".into());
    let parts = parts(&[(0, "a")]);
    index.add_kept(id(1), &KeptChange::Envelope { unit, parts });
    assert!(!index.is_settled());
    let moves = index.take(MoveScope::All, 10_000, 10);
    assert_eq!(moves.len(), 2);
    assert!(moves.iter().all(|one| one.is_kept));
    index.replace(id(1), text("new"), 1);
    index.settle(&moves, MoveEnd::Kept);
    assert_eq!(index.take(MoveScope::All, 10_000, 10).len(), 1);
}
