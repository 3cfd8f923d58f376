//! Relays whose queue is in a PostgreSQL database: one to three nodes, the database, client and sink on
//! one computer, beside a Gatepost with its queue in a folder and Postfix in the same run; and the time
//! in which two nodes adopt what a third one leaves.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio_util::sync::CancellationToken;

use crate::client::hello;
use crate::database::{Database, DatabaseUse};
use crate::ledger::Ledger;
use crate::message::{ENVELOPE, Message, SMALL};
use crate::record::Record;
use crate::relay::{NodeOfDatabase, Relay, Task, free_address};
use crate::trial::{self, Case, Figures, Make, Onward, Sink};
use crate::{gatepost, postfix};

/// The most nodes.
const NODES: usize = 3;
/// The bar of one node: how many times Postfix's messages a second it delivers.
const FASTER: f64 = 3.0;
/// The bar of the commits for a message.
const COMMITS: f64 = 0.1;
/// The bar of an adoption of 200,000 messages, with the default lease.
const ADOPTION: Duration = Duration::from_mins(1);
/// The time after which an adoption counts as failed.
const PATIENCE: Duration = Duration::from_mins(10);

/// The measurement that is asked for.
pub(crate) struct ClusterPlan {
    pub(crate) messages: usize,
    pub(crate) trials: usize,
    pub(crate) standby: bool,
    pub(crate) evidence: bool,
}

/// The figures of one trial, or the medians of several.
#[derive(Clone, Copy, Default)]
struct Sample {
    accepted: f64,
    delivered: f64,
    p99: f64,
    /// The processor time of relays and of the database, in seconds for 1,000 messages.
    cpu: f64,
    database_cpu: f64,
    /// The commits, and below them the octets of WAL, for each message.
    commits: f64,
    wal: f64,
    is_clean: bool,
}

impl Sample {
    fn of(figures: &Figures, used: &[DatabaseUse]) -> Self {
        let passage = &figures.passage;
        let messages = passage.delivered.messages as f64;
        let [before, after] = match used {
            [before, after] => [*before, *after],
            _ => [DatabaseUse::default(); 2],
        };
        Self {
            accepted: passage.accepted.rate(),
            delivered: passage.delivered.rate(),
            p99: passage.p99.as_secs_f64() * 1000.0,
            cpu: figures.cpu,
            database_cpu: (after.cpu.saturating_sub(before.cpu)).as_secs_f64() * 1000.0 / messages,
            commits: (after.commits - before.commits) / messages,
            wal: (after.wal - before.wal) / messages,
            is_clean: passage.is_clean(),
        }
    }

    /// Returns the median of each figure.
    fn median(samples: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut all: Vec<f64> = samples.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        Self {
            accepted: of(|it| it.accepted),
            delivered: of(|it| it.delivered),
            p99: of(|it| it.p99),
            cpu: of(|it| it.cpu),
            database_cpu: of(|it| it.database_cpu),
            commits: of(|it| it.commits),
            wal: of(|it| it.wal),
            is_clean: samples.iter().all(|it| it.is_clean),
        }
    }

    fn line(&self, name: &str) -> String {
        format!(
            "{name:24} {:9.0} {:10.0} {:8.1} {:8.3} {:8.3} {:10.3} {:9.0}  {}",
            self.accepted,
            self.delivered,
            self.p99,
            self.cpu,
            self.database_cpu,
            self.commits,
            self.wal,
            if self.is_clean { "" } else { "LOST OR TWICE" }
        )
    }

    fn record(&self, name: &str, record: &mut Record) {
        record.add(name, "accepted/s", self.accepted);
        record.add(name, "delivered/s", self.delivered);
        record.add_cpu(name, self.cpu);
        record.add(name, "CPU of the database, s for 1,000", self.database_cpu);
        record.add(name, "commits for a message", self.commits);
        record.add(name, "octets of WAL for a message", self.wal);
    }
}

impl ClusterPlan {
    fn case(&self) -> Case {
        Case {
            size: SMALL,
            tls: None,
            messages_per_connection: 50,
            onward: Onward::AsItLikes,
            evidence: self.evidence,
        }
    }

    /// Measures all rows; returns the text, and whether the bars are met and nothing was lost.
    ///
    /// # Errors
    /// An error if a part does not start, or the bench is cancelled.
    pub(crate) fn throughput(
        &self,
        only: Option<Make>,
        cancelled: &CancellationToken,
        record: &mut Record,
    ) -> io::Result<(String, bool)> {
        let mut text = format!(
            "{}, {} messages of {SMALL} octets in the clear, 50 a connection; medians of {}\n{:24} {:>9} {:>10} {:>8} {:>8} {:>8} {:>10} {:>9}\n",
            gatepost::version(),
            self.messages,
            self.trials,
            "",
            "accept/s",
            "deliver/s",
            "p99 ms",
            "CPU s",
            "db CPU s",
            "commits",
            "WAL B"
        );
        let mut add = |name: &str, sample: &Sample| {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{}", sample.line(name));
            sample.record(name, record);
        };
        let reference = match (postfix::version(), only) {
            (Ok(_), None | Some(Make::Postfix)) => {
                let sample = self.repeat("Postfix", || {
                    let figures = trial::run(Make::Postfix, self.case(), self.messages, cancelled)?;
                    Ok(Sample::of(&figures, &[]))
                })?;
                add("Postfix", &sample);
                Some(sample)
            }
            _ => None,
        };
        let folder = self.repeat("Gatepost, folder", || {
            let figures = trial::run(Make::Gatepost, self.case(), self.messages, cancelled)?;
            Ok(Sample::of(&figures, &[]))
        })?;
        add("Gatepost, folder", &folder);
        let mut is_good = folder.is_clean;
        for count in 1..=NODES {
            let name = format!("{count} of PostgreSQL");
            let sample = self.repeat(&name, || self.trial(count, cancelled))?;
            add(&name, &sample);
            is_good &= sample.is_clean && sample.commits <= COMMITS;
            if let Some(postfix) = reference.filter(|_| count == 1) {
                is_good &= sample.delivered >= FASTER * postfix.delivered;
            }
        }
        let verdict = if is_good { "met" } else { "MISSED" };
        let _ = writeln!(
            text,
            "bars (one node {FASTER} x Postfix, {COMMITS} commits a message, nothing lost or twice): {verdict}"
        );
        Ok((text, is_good))
    }

    fn repeat(&self, name: &str, trial: impl Fn() -> io::Result<Sample>) -> io::Result<Sample> {
        let mut samples = Vec::new();
        for number in 1..=self.trials {
            eprintln!("{name}, {number} of {} …", self.trials);
            samples.push(trial()?);
        }
        Ok(Sample::median(&samples))
    }

    /// Runs one trial with so many nodes and a database that is new.
    fn trial(&self, nodes: usize, cancelled: &CancellationToken) -> io::Result<Sample> {
        let folder = trial::folder()?;
        let case = self.case();
        let ledger = Arc::new(Ledger::new(case.all_messages(self.messages)));
        let sink = Sink::start(case, None, &ledger)?;
        let database = Database::start(folder.path(), self.standby)?;
        let relays: Vec<_> = (1..=nodes)
            .map(|number| self.node(folder.path(), &database, number, sink.address))
            .collect::<io::Result<_>>()?;
        let mut used = Vec::new();
        let mut snapshot = || {
            used.push(database.used()?);
            Ok(())
        };
        let figures = trial::measure(
            &relays,
            &sink,
            &ledger,
            case,
            self.messages,
            cancelled,
            &mut snapshot,
        )?;
        drop(relays);
        Ok(Sample::of(&figures, &used))
    }

    fn node(
        &self,
        folder: &Path,
        database: &Database,
        number: usize,
        sink: std::net::SocketAddr,
    ) -> io::Result<Relay> {
        let name = format!("node-{number}");
        let own = folder.join(&name);
        fs::create_dir(&own)?;
        gatepost::start(&Task {
            folder: &own,
            sink,
            tls: false,
            connections: self.case().connections(),
            messages_per_connection: None,
            evidence: self.evidence,
            database: Some(NodeOfDatabase {
                url: database.url(),
                name,
            }),
        })
    }

    /// Measures how long two nodes need to adopt the messages of a third one, from its death; returns
    /// the text, and whether the bar is met.
    ///
    /// The third node accepts one message by SMTP. Its other messages are copies of that row, made by
    /// SQL with the ids that follow (60,000 for each millisecond above the number of the node), so they
    /// are what the node would have stored. The next hop is down.
    ///
    /// # Errors
    /// An error if a part does not start, or the messages are not adopted in time.
    pub(crate) fn adoption(
        &self,
        messages: usize,
        cancelled: &CancellationToken,
        record: &mut Record,
    ) -> io::Result<(String, bool)> {
        let folder = trial::folder()?;
        let database = Database::start(folder.path(), self.standby)?;
        let sink = free_address()?;
        let mut relays: Vec<_> = (1..=NODES)
            .map(|number| self.node(folder.path(), &database, number, sink))
            .collect::<io::Result<_>>()?;
        let mut dead = relays.remove(0);
        send_one(&dead)?;
        database.query(&format!(
            "INSERT INTO gatepost.message (id, node, epoch, accepted, size, crc, envelope, body) \
             SELECT id + (n::bigint / 60000 << 22) + n % 60000, node, epoch, accepted, size, crc, envelope, body \
             FROM gatepost.message CROSS JOIN generate_series(1, {}) AS n; \
             ANALYZE gatepost.message",
            messages - 1
        ))?;
        let number = database.query("SELECT number FROM gatepost.node WHERE name = 'node-1'")?;
        let left = format!("SELECT count(*) FROM gatepost.message WHERE node = {number}");
        eprintln!(
            "{} messages wait; their node dies …",
            database.query(&left)?
        );
        dead.kill()?;
        let (died, mut first) = (Instant::now(), None);
        loop {
            let waiting: usize = database.query(&left)?.parse().map_err(io::Error::other)?;
            if waiting < messages && first.is_none() {
                first = Some(died.elapsed());
            }
            if waiting == 0 {
                break;
            }
            if cancelled.is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if died.elapsed() > PATIENCE {
                return Err(dead.with_log(&format!("{waiting} messages were not adopted")));
            }
            thread::sleep(Duration::from_millis(100));
        }
        let (took, first) = (died.elapsed(), first.unwrap_or_default());
        let is_met = took <= ADOPTION;
        let rate = messages as f64 / took.saturating_sub(first).as_secs_f64();
        record.add("adoption", "s from the death", took.as_secs_f64());
        record.add("adoption", "messages/s", rate);
        let text = format!(
            "PostgreSQL {}: two nodes adopted {messages} messages of a third in {:.1} s after its death, of which {:.1} s were its lease; {rate:.0} messages/s; bar {:.0} s for 200,000: {}\n",
            database.version()?,
            took.as_secs_f64(),
            first.as_secs_f64(),
            ADOPTION.as_secs_f64(),
            if is_met { "met" } else { "MISSED" }
        );
        drop(relays);
        Ok((text, is_met))
    }
}

/// Sends one message to a relay.
fn send_one(relay: &Relay) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut wire = hello(relay.address).await?;
        wire.say(ENVELOPE).await?;
        wire.expect("250").await?;
        wire.expect("250").await?;
        wire.expect("354").await?;
        wire.say(Message::new(SMALL).numbered(0)).await?;
        wire.expect("250").await
    })
}
