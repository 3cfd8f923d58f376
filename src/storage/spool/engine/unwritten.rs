//! The states and removals of messages that cannot be written to the database, because a page of it
//! cannot be read. They are in the file `unwritten` of the quarantine before the log forgets them, and
//! each start, and a repair, writes them if it can. Without them, a message that was delivered would
//! come back when its page can be read again.
//!
//! Each line is the CRC-32 of a JSON object, and that object. Later lines about a message replace
//! earlier ones, and no other state replaces a removal. When most lines no longer count, the file is
//! written anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::SpoolError;
use super::super::file::{io_error, sync_folder};
use super::super::log::{EnvelopePart, PartPlace};
use super::index::{Move, MoveEnd};
use super::kept::KeptChange;
use super::paths::SpoolPaths;
use super::unreported::remove;
use crate::smtp::envelope::QueueId;
use crate::storage::bad_blocks;

/// The name of the file in the quarantine.
const NAME: &str = "unwritten";
/// The octets up to which the file is never written anew while it is in use.
const SMALL: u64 = 64 << 10;

/// The changes that the database does not have, by message.
pub(super) type KeptChanges = BTreeMap<QueueId, KeptChange>;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct UnwrittenLine<T> {
    id: String,
    #[serde(flatten)]
    text: T,
}

/// The part of a line that says what has changed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
enum LineText {
    /// The message was removed.
    Removed,
    /// The envelope was replaced as a unit.
    Envelope { envelope: String },
    /// A part was replaced: the one of a recipient, or everything but the recipients.
    Part {
        recipient: Option<u32>,
        status: String,
    },
    /// The database has all earlier changes.
    Written,
}

/// The file, which the mover writes.
#[derive(Debug)]
pub(super) struct UnwrittenFile {
    path: PathBuf,
    /// The octets of its lines.
    octets: u64,
    /// The octets above which it is written anew.
    limit: u64,
    /// The changes in it that count.
    changes: KeptChanges,
}

impl UnwrittenFile {
    /// Opens the file of a spool for the mover, and removes the lines that no longer count.
    pub(super) fn open(paths: &SpoolPaths) -> Result<Self, SpoolError> {
        let mut opened = Self {
            path: paths.quarantine.join(NAME),
            octets: 0,
            limit: SMALL,
            changes: read(paths)?,
        };
        if opened.path.exists() {
            opened.write_anew()?;
        }
        Ok(opened)
    }

    /// Replaces the file by one with the lines that count, or removes it if there are none.
    fn write_anew(&mut self) -> Result<(), SpoolError> {
        let path = &self.path;
        let lines = self.changes.iter().map(|(id, change)| change.lines(*id));
        let lines: String = lines.collect();
        if lines.is_empty() {
            remove(path)?;
        } else {
            let new = path.with_extension("new");
            let written = File::create(&new).and_then(|mut file| {
                file.write_all(lines.as_bytes())?;
                file.sync_all()
            });
            written.map_err(|error| io_error("write", &new, &error))?;
            fs::rename(&new, path).map_err(|error| io_error("rename", &new, &error))?;
        }
        self.octets = lines.len() as u64;
        self.limit = SMALL.max(2 * self.octets);
        self.path.parent().map_or(Ok(()), sync_folder)
    }

    /// Records, durably, the end of moves: the database has them, or it cannot have them.
    pub(super) fn record(&mut self, moves: &[Move], end: MoveEnd) -> Result<(), SpoolError> {
        let mut news = Vec::new();
        for one in moves {
            let known = self.changes.get(&one.id);
            if end == MoveEnd::Written {
                if known.is_some() {
                    news.push((one.id, LineText::Written));
                }
            } else if !one.is_kept
                && let Some(change) = one.kept_change()
            {
                let texts = change.texts_after(known);
                news.extend(texts.into_iter().map(|text| (one.id, text)));
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        let lines: String = news.iter().map(|(id, text)| line(*id, text)).collect();
        self.append(&lines)?;
        for (id, text) in news {
            if let LineText::Written = text {
                self.changes.remove(&id);
                continue;
            }
            let change = self.changes.entry(id).or_insert_with(|| {
                tracing::error!(
                    queue_id = %id, file = %self.path.display(),
                    "state of a message cannot be written to the spool database, since a page of it cannot be read, and is kept in this file; run gatepost spool repair"
                );
                KeptChange::nothing()
            });
            change.add(text);
        }
        if self.octets > self.limit
            && let Err(error) = self.write_anew()
        {
            // It has all that counts, and is tried again when it has grown.
            tracing::warn!(file = %self.path.display(), %error, "cannot shorten a file of the spool");
            self.limit = 2 * self.octets;
        }
        Ok(())
    }

    /// Appends lines. What a write that fails leaves is not at the end of the next one.
    fn append(&mut self, lines: &str) -> Result<(), SpoolError> {
        if !self.path.exists() {
            self.octets = 0;
            if !self.changes.is_empty() {
                // Somebody has removed it.
                self.write_anew()?;
            }
        }
        let mut options = File::options();
        let appended = options
            .append(true)
            .create(true)
            .open(&self.path)
            .and_then(|mut file| {
                file.set_len(self.octets)?;
                file.write_all(lines.as_bytes())?;
                file.sync_all()
            });
        appended.map_err(|error| io_error("write", &self.path, &error))?;
        if self.octets == 0 {
            // The file may be new, and an earlier sync may have failed.
            self.path.parent().map_or(Ok(()), sync_folder)?;
        }
        self.octets += lines.len() as u64;
        Ok(())
    }
}

impl KeptChange {
    fn nothing() -> Self {
        Self::Envelope {
            unit: None,
            parts: Vec::new(),
        }
    }

    fn lines(&self, id: QueueId) -> String {
        let texts = self.texts_after(None);
        texts.iter().map(|text| line(id, text)).collect()
    }

    /// Returns the lines that make the `known` change of a message into this one.
    fn texts_after(&self, known: Option<&Self>) -> Vec<LineText> {
        let (unit, parts) = match (self, known) {
            (_, Some(Self::Removed)) => return Vec::new(),
            (Self::Removed, _) => return vec![LineText::Removed],
            (Self::Envelope { unit, parts }, _) => (unit, parts),
        };
        let (known_unit, known_parts) = match known {
            Some(Self::Envelope { unit, parts }) => (unit.as_ref(), &parts[..]),
            Some(Self::Removed) | None => (None, &[][..]),
        };
        let new_unit = unit.as_ref().filter(|unit| Some(*unit) != known_unit);
        // A unit replaces all parts before it.
        let known_parts: BTreeMap<_, _> = known_parts
            .iter()
            .filter(|_| new_unit.is_none())
            .map(|part| (part.place, &part.json))
            .collect();
        let new_parts = parts
            .iter()
            .filter(|part| known_parts.get(&part.place) != Some(&&part.json));
        let unit = new_unit.map(|unit| LineText::Envelope {
            envelope: unit.to_string(),
        });
        let parts = new_parts.map(|part| LineText::Part {
            recipient: match part.place {
                PartPlace::Message => None,
                PartPlace::Recipient(at) => Some(at),
            },
            status: part.json.to_string(),
        });
        unit.into_iter().chain(parts).collect()
    }

    /// Adds a later change of the same message.
    fn add(&mut self, text: LineText) {
        match (text, &mut *self) {
            (LineText::Written, _) => *self = Self::nothing(),
            (_, Self::Removed) => {}
            (LineText::Removed, _) => *self = Self::Removed,
            (LineText::Envelope { envelope }, Self::Envelope { unit, parts }) => {
                *unit = Some(envelope.into());
                parts.clear();
            }
            (LineText::Part { recipient, status }, Self::Envelope { parts, .. }) => {
                let place = recipient.map_or(PartPlace::Message, PartPlace::Recipient);
                parts.retain(|part| part.place != place);
                let json = status.into();
                parts.push(EnvelopePart { place, json });
            }
        }
    }
}

fn line(id: QueueId, text: &LineText) -> String {
    let id = id.to_string();
    // It has strings and numbers alone.
    let json = serde_json::to_string(&UnwrittenLine { id, text }).unwrap_or_default();
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

/// Returns the changes that the database of a spool does not have. Lines that are damaged, or that the
/// disk cannot read, are left out and logged.
pub(super) fn read(paths: &SpoolPaths) -> Result<KeptChanges, SpoolError> {
    let path = paths.quarantine.join(NAME);
    match bad_blocks::read_file(&path) {
        Ok(found) => Ok(changes_in(&found.octets, &path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(KeptChanges::new()),
        Err(error) => Err(io_error("read", &path, &error)),
    }
}

fn changes_in(octets: &[u8], path: &Path) -> KeptChanges {
    let mut changes = KeptChanges::new();
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let Some((id, text)) = read_line(line) else {
            tracing::warn!(file = %path.display(), "damaged line left out; a recipient may get a message twice");
            continue;
        };
        let change = changes.entry(id).or_insert_with(KeptChange::nothing);
        change.add(text);
    }
    changes.retain(|_, change| *change != KeptChange::nothing());
    changes
}

/// Reads a line; `None` if it is damaged.
fn read_line(line: &[u8]) -> Option<(QueueId, LineText)> {
    let (crc, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let crc = std::str::from_utf8(crc).ok()?.strip_suffix(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(json) {
        return None;
    }
    let UnwrittenLine { id, text } =
        serde_json::from_slice::<UnwrittenLine<LineText>>(json).ok()?;
    Some((QueueId::parse(&id)?, text))
}

#[cfg(test)]
mod tests {
    use super::super::index::{LogIndex, MoveScope};
    use super::*;

    fn id(number: u64) -> QueueId {
        QueueId::from_number(number).expect("small")
    }

    fn envelope(json: &str) -> LineText {
        let envelope = json.to_owned();
        LineText::Envelope { envelope }
    }

    fn part(recipient: Option<u32>, json: &str) -> LineText {
        let status = json.to_owned();
        LineText::Part { recipient, status }
    }

    fn kept(unit: Option<&str>, parts: &[(PartPlace, &str)]) -> KeptChange {
        let part = |(place, json): &(PartPlace, &str)| EnvelopePart {
            place: *place,
            json: (*json).into(),
        };
        KeptChange::Envelope {
            unit: unit.map(Into::into),
            parts: parts.iter().map(part).collect(),
        }
    }

    #[test]
    fn later_lines_replace_earlier_ones_and_no_state_replaces_a_removal() {
        let lines: String = [
            line(id(1), &envelope("old")),
            line(id(1), &part(Some(3), "old part")),
            line(id(1), &envelope("new")),
            line(id(1), &part(Some(2), "a")),
            line(id(2), &LineText::Removed),
            line(id(1), &part(Some(2), "b")),
            line(id(1), &part(None, "all but recipients")),
            line(id(2), &envelope("x")),
            line(id(5), &LineText::Removed),
            line(id(5), &LineText::Written),
            line(id(3), &envelope("in the database since")),
            line(id(3), &LineText::Written),
            line(id(4), &LineText::Written),
            line(id(4), &part(Some(1), "later")),
        ]
        .concat();
        let expected = KeptChanges::from([
            (
                id(1),
                kept(
                    Some("new"),
                    &[
                        (PartPlace::Recipient(2), "b"),
                        (PartPlace::Message, "all but recipients"),
                    ],
                ),
            ),
            (id(2), KeptChange::Removed),
            (id(4), kept(None, &[(PartPlace::Recipient(1), "later")])),
        ]);
        let found = changes_in(lines.as_bytes(), Path::new(NAME));
        assert_eq!(found, expected);
        let again: String = found.iter().map(|(id, change)| change.lines(*id)).collect();
        assert_eq!(changes_in(again.as_bytes(), Path::new(NAME)), expected);
    }

    #[test]
    fn a_damaged_line_is_left_out_alone() {
        let lines = [1, 2, 3].map(|number| line(id(number), &LineText::Removed));
        let all = lines.concat();
        let at = lines[0].len();
        for damaged in at..at + lines[1].len() - 1 {
            let mut octets = all.clone().into_bytes();
            octets[damaged] ^= 1;
            let found = changes_in(&octets, Path::new(NAME));
            let found: Vec<_> = found.into_keys().collect();
            assert_eq!(found, [id(1), id(3)], "{damaged}");
        }
        for end in 2 * at..all.len() {
            let found = changes_in(&all.as_bytes()[..end], Path::new(NAME));
            assert_eq!(found.len(), 2, "{end}");
        }
    }

    /// A move of a message with these parts in its segment of the log.
    fn move_of(index: &mut LogIndex, number: u64, parts: &[EnvelopePart]) -> Vec<Move> {
        index.replace_parts(id(number), parts, 1);
        index.take(MoveScope::All, u64::MAX, 10)
    }

    fn recipient(at: u32, json: &str) -> EnvelopePart {
        EnvelopePart {
            place: PartPlace::Recipient(at),
            json: json.into(),
        }
    }

    /// Each of many recipients costs one line, and lines that no longer count do not stay.
    #[test]
    fn the_file_has_each_state_once_and_stays_within_its_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = SpoolPaths::new(folder.path());
        fs::create_dir(&paths.quarantine).expect("ours");
        let mut file = UnwrittenFile::open(&paths).expect("nothing is there");
        let mut index = LogIndex::default();
        let lines = |file: &UnwrittenFile| {
            let text = fs::read_to_string(&file.path).expect("there");
            assert_eq!(text.len() as u64, file.octets);
            text.lines().count()
        };
        for at in 0..50 {
            let moves = move_of(&mut index, 1, &[recipient(at, "delivered")]);
            file.record(&moves, MoveEnd::Kept).expect("written");
            index.settle(&moves, MoveEnd::Kept);
            assert_eq!(lines(&file), at as usize + 1);
        }
        let json = "x".repeat(1000);
        for round in 0..1000 {
            let moves = move_of(&mut index, 1, &[recipient(7, &format!("{round}{json}"))]);
            file.record(&moves, MoveEnd::Kept).expect("written");
            index.settle(&moves, MoveEnd::Kept);
        }
        assert!(file.octets < 2 * SMALL, "{}", file.octets);
        let found = read(&paths).expect("readable");
        assert_eq!(found, file.changes);
        let Some(KeptChange::Envelope { parts, .. }) = found.get(&id(1)) else {
            panic!("{found:?}")
        };
        assert_eq!(parts.len(), 50);
        assert!(parts.contains(&recipient(7, &format!("999{json}"))));
    }

    /// Somebody removes the file: what is known of it is in the next one.
    #[test]
    fn a_file_that_was_removed_is_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = SpoolPaths::new(folder.path());
        fs::create_dir(&paths.quarantine).expect("ours");
        let mut file = UnwrittenFile::open(&paths).expect("nothing is there");
        let mut index = LogIndex::default();
        for number in [1, 2] {
            let moves = move_of(&mut index, number, &[recipient(0, "delivered")]);
            file.record(&moves, MoveEnd::Kept).expect("written");
            index.settle(&moves, MoveEnd::Kept);
            assert_eq!(read(&paths).expect("readable"), file.changes);
            assert_eq!(file.changes.len() as u64, number);
            fs::remove_file(&file.path).expect("there");
        }
    }
}
