//! Measures the throughput and cost of a whole relay: Gatepost, built like the packages, between a
//! client and a sink, over loopback, with its spool on disk. A Postfix between the same two, in the
//! same run, gives the ratio. The messages are of 4 KiB, over 20 connections at once, with 50
//! messages and with 1 message on each. The use of connections to the sink is up to the relay and
//! part of the measurement, except in a last case, in which each message has its own connection on
//! both legs.
//!
//! `cargo bench --bench path` runs everything (as root, for Postfix; some minutes). `cargo bench
//! --bench path -- --help` lists the options for running parts of it. Exit status 1 means that
//! Gatepost lost, duplicated or rejected a message, or missed a bar.
//!
//! `client` and `sink` are the two ends, and `ledger` is where they record each message. `gatepost`
//! and `postfix` start a `relay` between them, `processes` measures what it used, `trial` runs one
//! from start to end, and `report` compares the trials.

#![expect(
    clippy::cast_precision_loss,
    reason = "figures for people; none comes near 2^52"
)]

#[path = "path/client.rs"]
mod client;
#[path = "path/gatepost.rs"]
mod gatepost;
#[path = "path/ledger.rs"]
mod ledger;
#[path = "path/message.rs"]
mod message;
#[path = "path/postfix.rs"]
mod postfix;
#[path = "path/processes.rs"]
mod processes;
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

use std::process::ExitCode;
use std::{io, thread};

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
    /// Gatepost keeps no evidence of its deliveries
    #[arg(long)]
    no_evidence: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
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
                tls,
                messages_per_connection,
                onward,
                evidence,
            };
            [case(None), case(Some(key_exchange))]
        };
        let all = loads.into_iter().flat_map(with);
        all.filter(|case| {
            if case.tls.is_some() {
                !self.plain
            } else {
                !self.tls
            }
        })
        .collect()
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

/// Runs every requested trial; returns whether all bars are met and no message was lost.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let cancelled = cancelled_by_signals();
    let postfix = if arguments.wants(Make::Postfix) {
        postfix::version()
    } else {
        Err("Postfix was not asked for".into())
    };
    if let (Err(reason), Some(Make::Postfix)) = (&postfix, arguments.only) {
        return Err(io::Error::other(reason.clone()));
    }
    if arguments.wants(Make::Gatepost) {
        println!("{}", gatepost::version());
    }
    println!("{}", postfix.as_ref().unwrap_or_else(|reason| reason));
    println!(
        "{} messages of {} octets a trial, {} connections, spools on {}, {} cores",
        arguments.messages,
        message::OCTETS,
        trial::CONNECTIONS,
        trial::file_system()?,
        thread::available_parallelism()?
    );
    if !arguments.plain {
        println!(
            "STARTTLS: client and sink offer {}; certificates are ECDSA on P-256",
            arguments.key_exchange().name()
        );
    }
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
        rows.push(Row {
            case,
            gatepost,
            postfix,
        });
    }
    Ok(report::print(&rows))
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
