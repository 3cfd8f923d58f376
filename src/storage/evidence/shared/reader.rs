//! Reads the chains of all nodes, for the commands. Everything here blocks.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::civil::Date;
use tokio::runtime::Runtime;

use super::super::error::EvidenceError;
use super::super::lines::Lines;
use crate::storage::postgresql::{Database, DatabaseError};

/// The most lines that are read at once.
const PAGE: i64 = 2_000;

const CHAINS: &str =
    "SELECT id, node, removed_seq > recorded_seq FROM gatepost.evidence_chain ORDER BY node";
const NEXT_DAY: &str =
    "SELECT min(day)::text FROM gatepost.evidence WHERE chain = $1 AND day > $2::text::date";
const LINES: &str = "SELECT seq, line FROM gatepost.evidence \
     WHERE chain = $1 AND day = $2::text::date AND seq > $3 ORDER BY seq LIMIT $4";

/// The connection of a command to the chains.
pub struct EvidenceReader {
    /// The runtime of the connections, which works while a statement is awaited.
    runtime: Runtime,
    database: Database,
}

impl fmt::Debug for EvidenceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvidenceReader").finish_non_exhaustive()
    }
}

/// The chain of one node in the database.
#[derive(Debug, Clone)]
pub struct NodeChain {
    reader: Arc<EvidenceReader>,
    id: i32,
    node: PathBuf,
    /// True if records were removed for their age, and no record of the chain says so yet.
    pub(in super::super) is_removing: bool,
}

impl EvidenceReader {
    /// Returns a reader of the database that `open` gives. It must not be used by a task of a runtime.
    ///
    /// # Errors
    /// [`DatabaseError::Setup`] if no runtime can be made, and the error of `open`.
    pub fn new(
        open: impl FnOnce() -> Result<Database, DatabaseError>,
    ) -> Result<Arc<Self>, DatabaseError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| DatabaseError::Setup(error.to_string()))?;
        let database = {
            let _context = runtime.enter();
            open()?
        };
        Ok(Arc::new(Self { runtime, database }))
    }

    /// Returns the chains of all nodes that have written records, in the order of their names.
    ///
    /// # Errors
    /// [`DatabaseError`]
    pub fn chains(self: &Arc<Self>) -> Result<Vec<NodeChain>, DatabaseError> {
        let rows = self.runtime.block_on(async {
            let connection = self.database.connection().await?;
            let rows = connection.query(CHAINS, &[]).await?;
            connection.give_back();
            Ok::<_, DatabaseError>(rows)
        })?;
        let chains = rows.iter().map(|row| NodeChain {
            reader: Arc::clone(self),
            id: row.get(0),
            node: row.get::<_, String>(1).into(),
            is_removing: row.get(2),
        });
        Ok(chains.collect())
    }
}

impl NodeChain {
    /// Returns the name of the node, which stands in place of a folder.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Returns the name of the node.
    #[must_use]
    pub fn name(&self) -> &str {
        // It was made from text.
        self.node.to_str().unwrap_or_default()
    }

    /// Returns the days that have records, the oldest first.
    pub(in super::super) fn days(&self) -> Result<Vec<Date>, EvidenceError> {
        let days = self.reader.runtime.block_on(async {
            let connection = self.reader.database.connection().await?;
            let (mut days, mut last) = (Vec::new(), "0001-01-01".to_owned());
            while let Some(day) = connection
                .query_one(NEXT_DAY, &[&self.id, &last])
                .await?
                .get::<_, Option<String>>(0)
            {
                days.extend(day.parse::<Date>());
                last = day;
            }
            connection.give_back();
            Ok::<_, DatabaseError>(days)
        });
        Ok(days?)
    }

    /// Returns the lines of a day. Errors name the node and the day in place of a file.
    pub(in super::super) fn lines(&self, day: Date) -> Lines {
        let reader = DayReader {
            chain: self.clone(),
            day,
            seq: 0,
            is_at_end: false,
            octets: VecDeque::new(),
        };
        Lines::of_reader(Box::new(io::BufReader::new(reader)), self.place(day))
    }

    /// Returns the place of a day, which stands for a file in what is found.
    pub(in super::super) fn place(&self, day: Date) -> PathBuf {
        self.node.join(day.to_string())
    }
}

/// The octets of a day, page by page.
struct DayReader {
    chain: NodeChain,
    day: Date,
    /// The number of the last record that was read.
    seq: i64,
    is_at_end: bool,
    octets: VecDeque<u8>,
}

impl DayReader {
    fn read_page(&mut self) -> Result<(), DatabaseError> {
        let EvidenceReader { runtime, database } = &*self.chain.reader;
        let (day, seq) = (self.day.to_string(), self.seq);
        let rows = runtime.block_on(async {
            let connection = database.connection().await?;
            let statement = connection.prepare_cached(LINES).await?;
            let rows = connection
                .query(&statement, &[&self.chain.id, &day, &seq, &PAGE])
                .await?;
            connection.give_back();
            Ok::<_, DatabaseError>(rows)
        })?;
        self.is_at_end = rows.is_empty();
        for row in rows {
            self.seq = row.get(0);
            self.octets.extend(row.get::<_, &str>(1).as_bytes());
            self.octets.push_back(b'\n');
        }
        Ok(())
    }
}

impl Read for DayReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.octets.is_empty() && !self.is_at_end {
            self.read_page().map_err(io::Error::other)?;
        }
        self.octets.read(buffer)
    }
}
