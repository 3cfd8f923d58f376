//! The queue as the log and the database together have it: messages are loaded and listed from
//! both.
//!
//! The index of the log is read first. What moves to the database meanwhile is then seen twice, but
//! never not at all. The state of each recipient is one that it had meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::body::file_damage;
use super::super::log::LogFolder;
use super::super::{SpoolError, StoredMessage};
use super::index::{EnvelopeChange, HeldContent, HeldMessage, Pending};
use super::parts::PendingParts;
use super::paths::SpoolPaths;
use super::quarantine::{quarantine_message, quarantine_or_skip};
use super::row::{self, RowError, StoredContent};
use super::shared::Core;
use super::signal::MoverOrder;
use crate::smtp::envelope::QueueId;

/// Loads one message with its content. A damaged one is quarantined.
pub(super) fn load(
    core: &Core,
    connection: &Connection,
    id: QueueId,
) -> Result<(StoredMessage, StoredContent), SpoolError> {
    let pending = core.index().get(id).cloned();
    let change = match pending {
        Some(Pending::Removed) => return Err(SpoolError::Missing(id)),
        Some(Pending::Message(message, parts)) => {
            let held = held_content(&core.log, &core.paths, id, &message)?;
            if let (Some(stored), Some(content)) = (stored(id, &message, &parts), held) {
                return Ok((stored, content));
            }
            // It has moved to the database, or it is damaged. The row of a damaged one has its
            // checksum, so the database is where all damage is dealt with.
            flush(core)?;
            None
        }
        Some(Pending::Envelope(change)) => Some(change),
        None => None,
    };
    let loaded = row::load(connection, &core.paths, id).and_then(|(mut stored, content)| {
        if let Some(change) = change {
            change.apply(&mut stored.envelope)?;
        }
        Ok((stored, content))
    });
    loaded.map_err(|error| match error {
        RowError::Damage(fault) => quarantine_message(core, connection, id, &fault),
        RowError::Spool(error) => error,
    })
}

/// Returns the content of a message that the log alone has, if it is sound. Only the length of a body
/// file is checked. An error may pass, and says nothing of the content.
pub(super) fn held_content(
    log: &LogFolder,
    paths: &SpoolPaths,
    id: QueueId,
    message: &HeldMessage,
) -> Result<Option<StoredContent>, SpoolError> {
    let content = match message.content {
        HeldContent::Log { segment, offset } => {
            let octets = log.read_at(segment, offset, message.size)?;
            let sound = octets.filter(|octets| crc32fast::hash(octets) == message.content_crc);
            sound.map(|octets| StoredContent::Row(Bytes::from(octets)))
        }
        HeldContent::BodyFile => {
            let path = paths.body(id);
            let is_damaged = matches!(file_damage(&path, message.size), Ok(Some(_)));
            (!is_damaged).then_some(StoredContent::File {
                path,
                crc: message.content_crc,
            })
        }
    };
    Ok(content)
}

/// Returns a message that the log alone has, if its envelope can be read.
pub(super) fn stored(
    id: QueueId,
    message: &HeldMessage,
    parts: &PendingParts,
) -> Option<StoredMessage> {
    Some(StoredMessage {
        id,
        accepted: Timestamp::from_millisecond(message.accepted).ok()?,
        envelope: message.read_envelope(parts).ok()?,
        size: message.size,
    })
}

/// Moves all that the log has to the database.
pub(super) fn flush(core: &Core) -> Result<(), SpoolError> {
    let (reply, answer) = oneshot::channel();
    core.mover.order(MoverOrder::Flush(reply));
    answer.blocking_recv().unwrap_or(Err(SpoolError::Closed))
}

/// The part of the index that a list needs.
struct Differences {
    /// The first messages that the log alone has.
    messages: BTreeMap<QueueId, (Arc<HeldMessage>, PendingParts)>,
    /// The changes of messages in the database, and `None` for those that are removed.
    changes: BTreeMap<QueueId, Option<EnvelopeChange>>,
}

impl Differences {
    fn of(core: &Core, after: Option<QueueId>, limit: usize) -> Self {
        let (mut messages, mut changes) = (BTreeMap::new(), BTreeMap::new());
        for (id, pending) in core.index().after(after) {
            match pending {
                Pending::Message(message, parts) if messages.len() < limit => {
                    messages.insert(id, (Arc::clone(message), parts.clone()));
                }
                Pending::Message(..) => {}
                Pending::Envelope(change) => {
                    changes.insert(id, Some(change.clone()));
                }
                Pending::Removed => {
                    changes.insert(id, None);
                }
            }
        }
        Self { messages, changes }
    }
}

/// Returns the next messages after `after`. Damaged ones are quarantined.
pub(super) fn scan(
    core: &Core,
    connection: &Connection,
    after: Option<QueueId>,
    limit: usize,
) -> Result<Vec<StoredMessage>, SpoolError> {
    let differences = Differences::of(core, after, limit);
    let mut found: BTreeMap<QueueId, StoredMessage> = BTreeMap::new();
    for (id, (message, parts)) in &differences.messages {
        if let Some(message) = stored(*id, message, parts) {
            found.insert(*id, message);
        } else {
            tracing::error!(queue_id = %id, "envelope of a message in the log of the spool cannot be read; the next start quarantines it");
        }
    }
    let mut after = after.map_or(i64::MIN, row::row_id);
    let mut rows = 0;
    // Rows that are damaged or removed do not count, so that an empty list is the end.
    while rows < limit {
        let page = match row::page(connection, &core.paths, after, limit) {
            Ok(page) => page,
            Err(RowError::Damage(_)) => {
                row::page_around_damage(connection, &core.paths, after, limit)?
            }
            Err(RowError::Spool(error)) => return Err(error),
        };
        let Some(last) = page.last().map(|(raw, _)| *raw) else {
            break;
        };
        after = last;
        for (raw, stored) in page {
            let change = row::queue_id(raw).and_then(|id| differences.changes.get(&id));
            if let Some(None) = change {
                continue;
            }
            let stored = stored.and_then(|mut stored| {
                if let Some(Some(change)) = change {
                    change.apply(&mut stored.envelope)?;
                }
                Ok(stored)
            });
            match stored {
                Ok(stored) => {
                    rows += 1;
                    found.entry(stored.id).or_insert(stored);
                }
                Err(RowError::Damage(fault)) => quarantine_or_skip(core, connection, raw, &fault)?,
                Err(RowError::Spool(error)) => return Err(error),
            }
        }
    }
    Ok(found.into_values().take(limit).collect())
}
