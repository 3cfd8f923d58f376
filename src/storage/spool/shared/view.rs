//! Loads and lists messages.

use bytes::Bytes;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::super::body::Body;
use super::super::claim::OwnerEpoch;
use super::super::envelope_parts::{merge_part, place_of};
use super::super::ids::{queue_id, row_id};
use super::super::{Claim, Claimed, Entry, SpoolError, StoredMessage};
use super::core::SharedCore;
use crate::smtp::envelope::{Envelope, QueueId};
use crate::storage::postgresql::DatabaseError;

/// The parts of the envelope of message `m`: the places, and in the same order the texts.
pub(super) const PARTS: &str = "
    (SELECT array_agg(part ORDER BY part) FROM gatepost.recipient WHERE message = m.id),
    (SELECT array_agg(status ORDER BY part) FROM gatepost.recipient WHERE message = m.id)";

/// The columns of message `m` that [`FoundRow`] reads.
fn head() -> String {
    format!("m.id, m.accepted, m.size, m.crc, m.envelope, {PARTS}")
}

/// A message as the database has it.
pub(super) struct FoundRow {
    row_id: i64,
    accepted: i64,
    size: i64,
    pub(super) crc: u32,
    envelope: String,
    parts: Vec<(i32, String)>,
}

impl FoundRow {
    pub(super) fn of(row: &Row) -> Self {
        let places: Option<Vec<i32>> = row.get(5);
        let texts: Option<Vec<String>> = row.get(6);
        Self {
            row_id: row.get(0),
            accepted: row.get(1),
            size: row.get(2),
            // The check of the content finds a wrong one.
            crc: u32::try_from(row.get::<_, i64>(3)).unwrap_or_default(),
            envelope: row.get(4),
            parts: places
                .unwrap_or_default()
                .into_iter()
                .zip(texts.unwrap_or_default())
                .collect(),
        }
    }

    pub(super) fn id(&self) -> Option<QueueId> {
        queue_id(self.row_id)
    }

    pub(super) fn row_id(&self) -> i64 {
        self.row_id
    }

    /// Reads the message.
    ///
    /// # Errors
    /// A description of the damage.
    pub(super) fn read(&self) -> Result<StoredMessage, String> {
        let envelope: Result<Envelope, _> = serde_json::from_str(&self.envelope);
        let mut envelope =
            envelope.map_err(|error| format!("its envelope cannot be read: {error}"))?;
        for (number, text) in &self.parts {
            let place = place_of(i64::from(*number))
                .ok_or_else(|| format!("its envelope has no part {number}"))?;
            merge_part(&mut envelope, place, text)?;
        }
        Ok(StoredMessage {
            id: self
                .id()
                .ok_or_else(|| format!("{} is not the id of a message", self.row_id))?,
            accepted: Timestamp::from_millisecond(self.accepted)
                .map_err(|error| format!("its time of acceptance cannot be read: {error}"))?,
            envelope,
            size: u64::try_from(self.size).map_err(|_| "its size is negative".to_owned())?,
        })
    }
}

impl SharedCore {
    /// Returns the message of a row, or sets it aside if it is damaged.
    pub(super) async fn readable(
        &self,
        found: FoundRow,
    ) -> Result<Option<StoredMessage>, SpoolError> {
        match found.read() {
            Ok(message) => Ok(Some(message)),
            Err(fault) => {
                self.set_aside_message(found.row_id(), fault).await?;
                Ok(None)
            }
        }
    }

    /// Runs a query of messages.
    async fn rows(
        &self,
        condition: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<Row>, SpoolError> {
        let connection = self.connection().await?;
        let read = async {
            let statement = format!(
                "SELECT {}, m.node, m.epoch, m.body FROM gatepost.message m {condition}",
                head()
            );
            let statement = connection.prepare_cached(&statement).await?;
            Ok::<_, DatabaseError>(connection.query(&statement, parameters).await?)
        };
        let rows = read.await.map_err(|error| self.failed(&error))?;
        connection.give_back();
        Ok(rows)
    }

    pub(super) async fn load_entry(&self, id: QueueId) -> Result<Entry, SpoolError> {
        let rows = self.rows("WHERE m.id = $1", &[&row_id(id)]).await?;
        let row = rows.first().ok_or(SpoolError::Missing(id))?;
        let found = FoundRow::of(row);
        let crc = found.crc;
        let message = match found.read() {
            Ok(message) => message,
            Err(fault) => {
                return Err(self.set_aside_message(found.row_id(), fault).await?);
            }
        };
        let StoredMessage {
            id,
            accepted,
            envelope,
            size,
        } = message;
        let body = match row.get::<_, Option<Vec<u8>>>(9) {
            Some(octets) => {
                let found_crc = crc32fast::hash(&octets);
                if octets.len() as u64 != size || found_crc != crc {
                    let fault = format!(
                        "its content has {} octets and the checksum {found_crc:08x} where {size} and {crc:08x} were stored",
                        octets.len()
                    );
                    return Err(self.set_aside_content(id, fault).await?);
                }
                Body::Memory(Bytes::from(octets))
            }
            None => self.piece_body(id, size, crc)?,
        };
        Ok(Entry {
            id,
            accepted,
            envelope,
            size,
            body,
        })
    }

    /// Lists messages. Damaged ones are set aside and left out.
    pub(super) async fn list(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<StoredMessage>, SpoolError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut after = after.map_or(-1, row_id);
        loop {
            let connection = self.connection().await?;
            let read = async {
                let statement = format!(
                    "SELECT {} FROM gatepost.message m WHERE m.id > $1 ORDER BY m.id LIMIT $2",
                    head()
                );
                let statement = connection.prepare_cached(&statement).await?;
                connection.query(&statement, &[&after, &limit]).await
            };
            let rows = read.await.map_err(|error| self.failed(&error.into()))?;
            connection.give_back();
            let mut page = Vec::with_capacity(rows.len());
            for row in &rows {
                let found = FoundRow::of(row);
                after = found.row_id();
                page.extend(self.readable(found).await?);
            }
            // A page of nothing but damaged messages is not the end.
            if !page.is_empty() || rows.is_empty() {
                return Ok(page);
            }
        }
    }

    /// Returns a message that is this node's already.
    pub(super) async fn own_message(
        &self,
        id: QueueId,
    ) -> Result<Claimed<StoredMessage>, SpoolError> {
        self.lease.check()?;
        let rows = self.rows("WHERE m.id = $1", &[&row_id(id)]).await?;
        let row = rows.first().ok_or(SpoolError::Missing(id))?;
        let (node, epoch): (i16, i64) = (row.get(7), row.get(8));
        let epoch = OwnerEpoch::of_store(u64::try_from(epoch).unwrap_or_default());
        if node != self.identity.number || epoch < self.identity.first_epoch {
            return Err(SpoolError::OfAnother(format!(
                "message {id} is another node's, or nobody's"
            )));
        }
        let message = self.readable(FoundRow::of(row)).await?;
        Ok(Claimed {
            claim: Claim::of_owner(id, epoch),
            message: message.ok_or(SpoolError::Missing(id))?,
        })
    }
}
