//! The place of a relay: its configuration, its spool and its evidence, and what must be left of
//! them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gatepost::storage::evidence::{Period, RecordedOutcome, deliveries};
use gatepost::storage::spool::{SpoolError, read_queue};

use crate::support::relay::{End, PATIENCE, Relay, program};
use crate::support::within;

/// The segment of the spool's log that a relay on an empty spool writes to, below the spool. The
/// script does not fill it.
pub(crate) const FIRST_SEGMENT: &str = "log/0000000000000001.seg";

/// The folder of a relay, and the servers that it delivers to.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// The configuration is written here, and the evidence.
    pub(crate) folder: PathBuf,
    pub(crate) spool: PathBuf,
    /// The server for all mail …
    pub(crate) sink: SocketAddr,
    /// … but that for down.example.
    pub(crate) down: SocketAddr,
}

impl Home {
    fn configure(&self, hostname: &str) -> PathBuf {
        let text = format!(
            r#"
hostname = "{hostname}"
postmaster = "postmaster@example.com"

[admin]
socket = ""
http = ""

[spool]
path = "{spool}"

[evidence]
path = "{evidence}"

[[listener]]
name = "mx"
address = ["127.0.0.1:0"]
tls = "off"

[relay]
networks = ["127.0.0.0/8"]

[[connector]]
name = "all"
domains = ["*"]

[connector.outbound]
route = ["{sink}"]
tls = "off"

[[connector]]
name = "down"
domains = ["down.example"]

[connector.outbound]
route = ["{down}"]
tls = "off"

[queue]
retry = ["200ms"]

[log]
format = "text"
"#,
            spool = self.spool.display(),
            evidence = self.evidence().display(),
            sink = self.sink,
            down = self.down,
        );
        let file = self.configuration();
        std::fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        file
    }

    pub(crate) fn configuration(&self) -> PathBuf {
        self.folder.join("gatepost.toml")
    }

    /// Entries in the queue, from the files; while the relay runs, too.
    pub(crate) fn queued(&self) -> Result<usize, SpoolError> {
        read_queue(&self.spool).map(|queue| queue.len())
    }

    fn ask<T: rusqlite::types::FromSql>(&self, question: &str) -> Result<T, rusqlite::Error> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = rusqlite::Connection::open_with_flags(self.spool.join("queue.db"), flags)?;
        database.busy_timeout(Duration::from_secs(5))?;
        database.query_row(question, [], |row| row.get(0))
    }

    /// Waits until the queue is empty, ends the relay, and looks at what is left: nothing may be,
    /// but for the evidence, which must be complete.
    pub(crate) fn expect_clean(&self, relay: Relay) -> Result<(), String> {
        let empty = within(PATIENCE, || matches!(self.queued(), Ok(0)));
        let left = self.queued();
        let end = relay.terminate();
        end.check()?;
        let End { status, log } = end;
        let fault = |text: String| Err(format!("{text}; the relay said:\n{log}"));
        if !empty {
            return fault(format!(
                "the queue was not worked off, {left:?} entries are left"
            ));
        }
        if !status.is_some_and(|status| status.success()) {
            return fault(format!("the relay ended with {status:?}"));
        }
        match self.ask::<String>("PRAGMA integrity_check") {
            Ok(verdict) if verdict == "ok" => {}
            other => return fault(format!("the database: {other:?}")),
        }
        for folder in ["bodies", "aside"] {
            let files = names(&self.spool.join(folder));
            if !files.is_empty() {
                return fault(format!("{folder}/ holds {files:?}"));
            }
        }
        self.expect_chain().or_else(fault)
    }

    /// Beside the spool: where that is on a disk of its own, this is on the same.
    pub(crate) fn evidence(&self) -> PathBuf {
        self.folder.join("evidence")
    }

    /// `gatepost evidence verify` finds nothing wrong; while the relay runs, too.
    ///
    /// # Errors
    /// The output of the command.
    pub(crate) fn expect_chain(&self) -> Result<(), String> {
        let mut verify = Command::new(program());
        verify
            .args(["evidence", "verify", "--config"])
            .arg(self.configuration());
        let output = verify.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!(
            "the evidence is not whole: {}",
            String::from_utf8_lossy(&said)
        ))
    }

    /// The number of records of a delivery to each recipient. A record that a crash has left half
    /// written does not count.
    ///
    /// # Errors
    /// Lines that are no records.
    pub(crate) fn recorded(&self) -> Result<BTreeMap<String, usize>, String> {
        let mut recorded = BTreeMap::new();
        let reading = deliveries(&self.evidence(), Period::ALL, |_, _, delivery| {
            if delivery.outcome == RecordedOutcome::Delivered {
                *recorded.entry(delivery.to).or_default() += 1;
            }
        });
        match reading.map_err(|error| error.to_string())?.bad {
            0 => Ok(recorded),
            bad => Err(format!("{bad} lines of the evidence are no records")),
        }
    }

    /// Delivered is recorded: each of `owed` is on record. And the other way round: nobody is there
    /// more often than something `arrived` for him.
    ///
    /// # Errors
    /// The recipients without a record, or with too many.
    pub(crate) fn expect_recorded<T: AsRef<str>>(
        &self,
        owed: impl IntoIterator<Item = T>,
        arrived: &BTreeMap<String, usize>,
    ) -> Result<(), String> {
        let recorded = self.recorded()?;
        let owed = owed.into_iter().map(|to| to.as_ref().to_owned());
        let unrecorded: Vec<_> = owed.filter(|to| !recorded.contains_key(to)).collect();
        if !unrecorded.is_empty() {
            return Err(format!("delivered, and not on record: {unrecorded:?}"));
        }
        let times = |to: &String| arrived.get(to).copied().unwrap_or_default();
        let invented: Vec<_> = recorded
            .iter()
            .filter(|(to, count)| **count > times(to))
            .collect();
        if !invented.is_empty() {
            return Err(format!(
                "on record more often than it arrived: {invented:?}"
            ));
        }
        Ok(())
    }
}

impl Relay {
    /// Starts a relay, by another program where `under` names one with its arguments.
    ///
    /// # Errors
    /// [`End`] where it ended before it listened.
    pub(crate) fn start(home: &Home, hostname: &str, under: &[String]) -> Result<Self, End> {
        Self::run(&home.configure(hostname), under)
    }
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
