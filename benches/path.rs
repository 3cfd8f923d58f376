//! Measures the throughput and cost of a whole relay: Gatepost, built like the packages, between a
//! client and a sink, over loopback, with its spool on disk. A Postfix between the same two, in the
//! same run, gives the ratio; the client straight into the sink gives the ceiling. The messages are
//! of 4 KiB, over 20 connections at once, with 50 messages and with 1 message on each, and then of
//! 5 MiB, over 4 connections under TLS. The use of connections to the sink is up to the relay and
//! part of the measurement, except in a last case, in which each message has its own connection on
//! both legs. Of Gatepost alone it measures the memory of idle sessions, the time in which a backlog
//! is delivered once the next hop is up, and one message to 1,000 domains.
//!
//! `cargo bench --bench path` runs everything (as root, for Postfix; some minutes). `cargo bench
//! --bench path -- --help` lists the options for running parts of it. Exit status 1 means that
//! Gatepost lost, duplicated or rejected a message, missed a bar, or needs more of the processor than
//! in the run that `--compare` names.
//!
//! `client` and `sink` are the two ends, and `ledger` is where they record each message. `gatepost`
//! and `postfix` start a `relay` between them, `processes` measures what it used, `trial` runs one
//! from start to end, and `report` compares the trials. `cluster` measures relays whose queue is in a
//! `database`, a PostgreSQL server of the bench's own. `disk` measures the disk alone; `idle` and
//! `domains` are cases of their own; `record` has all figures as JSON.

#![expect(
    clippy::cast_precision_loss,
    reason = "figures for people; none comes near 2^52"
)]

#[path = "path/client.rs"]
mod client;
#[path = "path/cluster.rs"]
mod cluster;
#[path = "path/database.rs"]
mod database;
#[path = "path/disk.rs"]
mod disk;
#[path = "path/domains.rs"]
mod domains;
#[path = "path/gatepost.rs"]
mod gatepost;
#[path = "path/idle.rs"]
mod idle;
#[path = "path/ledger.rs"]
mod ledger;
#[path = "path/message.rs"]
mod message;
#[path = "path/postfix.rs"]
mod postfix;
#[path = "path/processes.rs"]
mod processes;
#[path = "path/record.rs"]
mod record;
#[path = "path/relay.rs"]
mod relay;
#[path = "path/report.rs"]
mod report;
#[path = "path/sink.rs"]
mod sink;
#[path = "path/tls.rs"]
mod tls;
#[path = "path/trial.rs"]
mod trial;
#[path = "path/wire.rs"]
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::{io, thread};

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use record::Record;
use report::Row;
use tls::KeyExchange;
use trial::{Case, Make, Onward};

/// A fast allocator for both ends of the benchmark, which share the cores with the relay and must
/// use little of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The throughput of Gatepost, compared with Postfix.
#[derive(clap::Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[command(name = "cargo bench --bench path --")]
struct Arguments {
    /// The number of messages that each trial sends
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = at_least_one)]
    messages: usize,
    /// One relay alone, without a ratio
    #[arg(long)]
    only: Option<Make>,
    /// Only the cases with STARTTLS on both legs
    #[arg(long, conflicts_with = "plain")]
    tls: bool,
    /// Only the cases without TLS
    #[arg(long)]
    plain: bool,
    /// The bench's two ends prefer X25519MLKEM768, for relays that have it; else X25519 is all that
    /// they offer
    #[arg(long)]
    post_quantum: bool,
    /// Messages on each of the load's connections, instead of 50 and then 1
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    per_connection: Option<usize>,
    /// Only the case where the relay's connections to the sink, too, carry no more messages than
    /// the load's
    #[arg(long)]
    both_legs: bool,
    /// Only these measurements
    #[arg(long, value_name = "KIND", num_args = 1.., conflicts_with_all = ["per_connection", "both_legs"])]
    kind: Vec<Kind>,
    /// The messages of the backlog; by default five times those of a trial
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    backlog: Option<usize>,
    /// All figures as one JSON document on standard output; everything else goes to standard error
    #[arg(long)]
    json: bool,
    /// Compares the figures with those of an earlier run, written with --json
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Gatepost keeps no evidence of its deliveries
    #[arg(long)]
    no_evidence: bool,
    /// The place of Gatepost's queue. With postgresql, one to three nodes with one database are
    /// measured beside a Gatepost with a folder and Postfix, all on this computer, in one case: 4 KiB
    /// in the clear, 50 messages a connection. Needs PostgreSQL's server programs
    #[arg(long, value_enum, default_value_t = SpoolKind::Folder)]
    spool: SpoolKind,
    /// The database has a synchronous standby, on the same disk
    #[arg(long)]
    standby: bool,
    /// With --spool postgresql, the trials of each row, whose medians are shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    trials: usize,
    /// With --spool postgresql, only the time in which two nodes adopt so many messages of a third
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    adoption: Option<usize>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The place of a queue.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SpoolKind {
    /// A folder of the relay.
    Folder,
    /// A PostgreSQL database.
    Postgresql,
}

/// A kind of measurement.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Messages of 4 KiB.
    Small,
    /// Messages of 5 MiB.
    Large,
    /// The memory of idle sessions.
    Idle,
    /// A backlog whose next hop comes up.
    Backlog,
    /// One message to 1,000 domains.
    Domains,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| "a number of messages, 1 or more".to_owned())
}

impl Arguments {
    fn cases(&self) -> Vec<Case> {
        let free = [50, 1].map(|count| (count, Onward::AsItLikes));
        let loads = match (self.per_connection, self.both_legs) {
            (None, false) => [&free[..], &[(1, Onward::AsTheLoad)]].concat(),
            (Some(count), false) => vec![(count, Onward::AsItLikes)],
            (count, true) => vec![(count.unwrap_or(1), Onward::AsTheLoad)],
        };
        let (key_exchange, evidence) = (self.key_exchange(), !self.no_evidence);
        let with = |(messages_per_connection, onward)| {
            let case = move |tls| Case {
                size: message::SMALL,
                tls,
                messages_per_connection,
                onward,
                evidence,
            };
            [case(None), case(Some(key_exchange))]
        };
        let large = Case {
            size: message::LARGE,
            tls: Some(key_exchange),
            messages_per_connection: 10,
            onward: Onward::AsItLikes,
            evidence,
        };
        let small = loads.into_iter().flat_map(with);
        let small = small.filter(|_| self.wants_kind(Kind::Small));
        let large = [large].into_iter().filter(|_| self.wants_kind(Kind::Large));
        small
            .chain(large)
            .filter(|case| self.wants_tls(case.tls.is_some()))
            .collect()
    }

    fn wants_tls(&self, tls: bool) -> bool {
        if tls { !self.plain } else { !self.tls }
    }

    fn wants_kind(&self, kind: Kind) -> bool {
        let only_small = self.per_connection.is_some() || self.both_legs;
        let only_ours = matches!(kind, Kind::Idle | Kind::Backlog | Kind::Domains);
        (!only_small || kind == Kind::Small)
            && (!only_ours || self.wants(Make::Gatepost))
            && (self.kind.is_empty() || self.kind.contains(&kind))
    }

    fn key_exchange(&self) -> KeyExchange {
        if self.post_quantum {
            KeyExchange::PostQuantum
        } else {
            KeyExchange::Classical
        }
    }

    fn wants(&self, make: Make) -> bool {
        self.only.is_none_or(|only| only == make)
    }
}

fn main() -> ExitCode {
    // A test runner that runs every target passes arguments of its own.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run me with: cargo bench --bench path");
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs every requested measurement; returns whether all bars are met and no message was lost.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let cancelled = cancelled_by_signals();
    if arguments.spool == SpoolKind::Postgresql {
        return in_database(arguments, &cancelled);
    }
    let postfix = if arguments.wants(Make::Postfix) {
        postfix::version()
    } else {
        Err("Postfix was not asked for".into())
    };
    if let (Err(reason), Some(Make::Postfix)) = (&postfix, arguments.only) {
        return Err(io::Error::other(reason.clone()));
    }
    let disk = disk::bare_rate()?;
    let mut text = introduction(arguments, &postfix, disk)?;
    let mut record = Record::default();
    record.add("disk", "messages/s that it makes durable", disk);
    let mut rows = Vec::new();
    for case in arguments.cases() {
        let measure = |make: Make, wanted: bool| {
            if !wanted {
                return Ok(None);
            }
            eprintln!("{}, {} …", make.name(), case.name());
            trial::run(make, case, arguments.messages, &cancelled).map(Some)
        };
        let gatepost = measure(Make::Gatepost, arguments.wants(Make::Gatepost))?;
        let postfix = measure(Make::Postfix, postfix.is_ok())?;
        eprintln!("no relay, {} …", case.name());
        rows.push(Row {
            case,
            gatepost,
            postfix,
            ceiling: trial::ceiling(case, arguments.messages, &cancelled)?,
        });
    }
    let is_good = report::add(&rows, &mut text, &mut record);
    gatepost_alone(arguments, &cancelled, &mut text, &mut record)?;
    if arguments.json {
        eprintln!("{text}");
        println!("{}", record.json());
    } else {
        println!("{text}");
    }
    let compared = arguments
        .compare
        .as_deref()
        .map_or(Ok(true), |file| record.compare(file))?;
    Ok(is_good && compared)
}

/// Measures relays whose queue is in a database; returns whether all bars are met.
fn in_database(arguments: &Arguments, cancelled: &CancellationToken) -> io::Result<bool> {
    let plan = cluster::ClusterPlan {
        messages: arguments.messages,
        trials: arguments.trials,
        standby: arguments.standby,
        evidence: !arguments.no_evidence,
    };
    let mut record = Record::default();
    let (text, is_good) = match arguments.adoption {
        Some(messages) => plan.adoption(messages, cancelled, &mut record)?,
        None => plan.throughput(arguments.only, cancelled, &mut record)?,
    };
    eprintln!("{text}");
    if arguments.json {
        println!("{}", record.json());
    }
    Ok(is_good)
}

/// Returns what is measured, on what.
fn introduction(
    arguments: &Arguments,
    postfix: &Result<String, String>,
    disk: f64,
) -> io::Result<String> {
    let mut lines = Vec::new();
    if arguments.wants(Make::Gatepost) {
        lines.push(gatepost::version());
    }
    lines.push(postfix.as_ref().unwrap_or_else(|reason| reason).clone());
    lines.push(format!(
        "{} messages of {} octets a trial (of 5 MiB, a hundredth), {} connections, spools on {}, {} cores",
        arguments.messages,
        message::SMALL,
        trial::CONNECTIONS,
        trial::file_system()?,
        thread::available_parallelism()?
    ));
    lines.push(format!(
        "The disk alone makes {disk:.0} messages/s durable: one file, one fdatasync for {} messages",
        trial::CONNECTIONS
    ));
    if !arguments.plain {
        lines.push(format!(
            "STARTTLS: client and sink offer {}; certificates are ECDSA on P-256",
            arguments.key_exchange().name()
        ));
    }
    Ok(lines.join("\n") + "\n")
}

/// Runs the measurements of Gatepost alone.
fn gatepost_alone(
    arguments: &Arguments,
    cancelled: &CancellationToken,
    text: &mut String,
    record: &mut Record,
) -> io::Result<()> {
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    let case = Case {
        size: message::SMALL,
        tls: None,
        messages_per_connection: 50,
        onward: Onward::AsItLikes,
        evidence: !arguments.no_evidence,
    };
    for (name, tls) in [
        ("idle session, plain", None),
        ("idle session, STARTTLS", Some(arguments.key_exchange())),
    ] {
        if !arguments.wants_kind(Kind::Idle) || !arguments.wants_tls(tls.is_some()) {
            continue;
        }
        eprintln!("{name} …");
        let kibibytes = idle::memory_of_session(tls)? / 1024.0;
        record.add(name, "KiB", kibibytes);
        say(&format!("{name}: {kibibytes:.1} KiB"));
    }
    if arguments.wants_kind(Kind::Backlog) {
        let messages = arguments.backlog.unwrap_or(5 * arguments.messages);
        let name = format!("backlog of {messages}");
        eprintln!("{name} …");
        let rate = trial::backlog(case, messages, cancelled)?;
        record.add(&name, "delivered/s", rate);
        say(&format!(
            "{name}: {rate:.0} delivered/s from the moment at which the next hop is up"
        ));
    }
    if arguments.wants_kind(Kind::Domains) {
        let name = "one message to 1,000 domains";
        eprintln!("{name} …");
        let spread = domains::run(case)?;
        let mebibytes = spread.written as f64 / f64::from(1 << 20);
        record.add(name, "s", spread.took.as_secs_f64());
        record.add(name, "MiB written", mebibytes);
        say(&format!(
            "{name}: {:.2} s, {mebibytes:.1} MiB written",
            spread.took.as_secs_f64()
        ));
    }
    Ok(())
}

/// Returns a token that Ctrl-C and SIGTERM cancel, so that no relay keeps running: Postfix is no
/// child of this process.
fn cancelled_by_signals() -> CancellationToken {
    let cancelled = CancellationToken::new();
    let cancel = cancelled.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted,
                _ = terminate.recv() => Ok(()),
            }
        })?;
        cancel.cancel();
        io::Result::Ok(())
    });
    cancelled
}
