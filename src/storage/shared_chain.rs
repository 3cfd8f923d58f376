//! The chain of evidence of one node in a database, as all that extends it shares it.
//!
//! The evidence extends the chain with records of its own, and the spool with those of a change of the
//! queue, in the transaction of that change. One of them has the turn at a time, and the database
//! extends the chain only from the head that the turn knows. So a record that is sent again after a lost
//! answer cannot be in the chain twice: [`TriedHeads`] finds it there, or the earlier try can never
//! become valid.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{Timestamp, ToSpan as _};
use tokio_postgres::{Client, Row};

use super::postgresql::{Database, DatabaseError};
use super::record_chain::{ChainHead, RecordHash};

/// Makes the chain if it is new.
const MAKE: &str =
    "INSERT INTO gatepost.evidence_chain (node) VALUES ($1) ON CONFLICT (node) DO NOTHING";
const FIND: &str = "SELECT id, last_seq, last_hash FROM gatepost.evidence_chain WHERE node = $1";
/// Reads the head, after any transaction that is changing it.
const HEAD: &str =
    "SELECT last_seq, last_hash FROM gatepost.evidence_chain WHERE id = $1 FOR SHARE";
/// Finds records by their numbers and hashes, of these days on.
const STORED: &str = "SELECT EXISTS (
    SELECT FROM gatepost.evidence e
    JOIN unnest($2::bigint[], $3::text[]) AS t(seq, hash) ON e.seq = t.seq
    WHERE e.chain = $1 AND e.day >= $4::text::date AND right(e.line, 66) = t.hash || '\"}'
)";
/// The most octets by which a record is longer than its fields: its place in the chain.
const LINK_OCTETS: usize = 256;

/// The chain of one node. Empty until the evidence opens it.
#[derive(Debug, Default)]
pub struct SharedChain(tokio::sync::Mutex<Option<OpenChain>>);

#[derive(Debug, Clone, Copy)]
struct OpenChain {
    id: i32,
    head: ChainHead,
}

/// The turn to extend the chain.
#[derive(Debug)]
pub(in crate::storage) struct ChainTurn<'a>(tokio::sync::MappedMutexGuard<'a, OpenChain>);

/// Records with their links, from one head of a chain to another.
#[derive(Debug)]
pub(in crate::storage) struct ChainExtension {
    pub(in crate::storage) chain: i32,
    pub(in crate::storage) from: ChainHead,
    pub(in crate::storage) to: ChainHead,
    text: String,
}

/// The heads to which records would have led in transactions whose outcome is unknown.
#[derive(Debug, Default)]
pub(in crate::storage) struct TriedHeads {
    heads: Vec<ChainHead>,
    /// The day before the first try, in UTC.
    since: String,
}

/// Records that go into the chain in the transaction of a change of the queue. They may be handed in
/// again after an error; they are in the chain once.
#[derive(Debug)]
pub struct JoinedRecords {
    fields: Vec<String>,
    tried: Mutex<TriedHeads>,
    is_stored: AtomicBool,
}

impl SharedChain {
    /// Finds the chain of a node, or makes it. Returns its number and its head.
    pub(in crate::storage) async fn open(
        &self,
        database: &Database,
        node: &str,
    ) -> Result<(i32, ChainHead), DatabaseError> {
        let mut open = self.0.lock().await;
        let connection = database.connection().await?;
        connection.execute(MAKE, &[&node]).await?;
        let row = connection.query_one(FIND, &[&node]).await?;
        connection.give_back();
        let (id, head) = (row.get(0), head_of(&row, 1)?);
        *open = Some(OpenChain { id, head });
        Ok((id, head))
    }

    /// Waits for the turn.
    pub(in crate::storage) async fn turn(&self) -> Result<ChainTurn<'_>, DatabaseError> {
        let open = self.0.lock().await;
        match tokio::sync::MutexGuard::try_map(open, Option::as_mut) {
            Ok(turn) => Ok(ChainTurn(turn)),
            Err(_) => Err(DatabaseError::Refused(
                "the chain of evidence is not open".to_owned(),
            )),
        }
    }
}

impl ChainTurn<'_> {
    /// Starts an extension.
    pub(in crate::storage) fn extension(&self) -> ChainExtension {
        let OpenChain { id, head } = *self.0;
        ChainExtension {
            chain: id,
            from: head,
            to: head,
            text: String::new(),
        }
    }

    /// Records that the database has extended the chain.
    pub(in crate::storage) fn extended(&mut self, extension: &ChainExtension) {
        self.0.head = extension.to;
    }

    /// Reads the head again, after the database has refused to extend the chain.
    pub(in crate::storage) async fn read_head(
        &mut self,
        client: &Client,
    ) -> Result<(), DatabaseError> {
        let row = client.query_one(HEAD, &[&self.0.id]).await?;
        self.0.head = head_of(&row, 0)?;
        Ok(())
    }

    /// Returns whether one of the tries was carried out. If not, none of them can be once the chain is
    /// extended from the present head.
    pub(in crate::storage) async fn is_stored(
        &self,
        client: &Client,
        tried: &TriedHeads,
    ) -> Result<bool, DatabaseError> {
        if tried.heads.is_empty() {
            return Ok(false);
        }
        let heads = tried.heads.iter();
        let (seqs, hashes): (Vec<_>, Vec<_>) = heads
            .map(|head| (number(head.seq), head.hash.to_string()))
            .unzip();
        let row = client
            .query_one(STORED, &[&self.0.id, &seqs, &hashes, &tried.since])
            .await?;
        Ok(row.get(0))
    }
}

impl ChainExtension {
    /// Appends a record. `fields` is a JSON object without its braces.
    pub(in crate::storage) fn add(&mut self, fields: &str) {
        self.to.seal(fields, &mut self.text);
    }

    /// Returns the lines of the records.
    pub(in crate::storage) fn lines(&self) -> Vec<&str> {
        self.text.lines().collect()
    }

    /// Returns the size of the records, in octets.
    pub(in crate::storage) fn octets(&self) -> usize {
        self.text.len()
    }
}

impl TriedHeads {
    /// Remembers a try before it is sent. Returns false if there was such a try already.
    pub(in crate::storage) fn add(&mut self, head: ChainHead) -> bool {
        if self.heads.is_empty() {
            // The clock of the database may be a little behind this one.
            let now = Timestamp::now();
            let before = now.checked_sub(24.hours()).unwrap_or(now);
            self.since = before.to_string().chars().take(10).collect();
        }
        let is_new = !self.heads.contains(&head);
        if is_new {
            self.heads.push(head);
        }
        is_new
    }

    /// Forgets a try of which nothing was carried out.
    pub(in crate::storage) fn remove(&mut self, head: ChainHead) {
        self.heads.retain(|tried| *tried != head);
    }

    /// Returns a copy, for a look into the database.
    fn copy(&self) -> Self {
        Self {
            heads: self.heads.clone(),
            since: self.since.clone(),
        }
    }
}

impl JoinedRecords {
    pub(in crate::storage) fn new(fields: Vec<String>) -> Self {
        Self {
            fields,
            tried: Mutex::default(),
            is_stored: AtomicBool::new(false),
        }
    }

    /// Returns whether the records are known to be in the chain.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.is_stored.load(Ordering::Relaxed)
    }

    /// Records that the records are in the chain.
    pub(in crate::storage) fn set_stored(&self) {
        self.is_stored.store(true, Ordering::Relaxed);
    }

    /// Returns the records, each as the fields of a JSON object.
    pub(in crate::storage) fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Returns the most octets that records of these fields have in the chain.
    pub(in crate::storage) fn octets(fields: &[String]) -> usize {
        fields.iter().map(|field| field.len() + LINK_OCTETS).sum()
    }

    pub(in crate::storage) fn tried(&self) -> MutexGuard<'_, TriedHeads> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the tries whose outcome is unknown.
    pub(in crate::storage) fn tries(&self) -> TriedHeads {
        self.tried().copy()
    }
}

/// Returns the number of a record as the database has it.
pub(in crate::storage) fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Reads a head from two columns.
pub(in crate::storage) fn head_of(row: &Row, column: usize) -> Result<ChainHead, DatabaseError> {
    let (seq, hash): (i64, &str) = (row.get(column), row.get(column + 1));
    match (u64::try_from(seq), RecordHash::parse(hash)) {
        (Ok(seq), Some(hash)) => Ok(ChainHead { seq, hash }),
        _ => Err(DatabaseError::Refused(format!(
            "the head of a chain of evidence is damaged: {seq} {hash}"
        ))),
    }
}
