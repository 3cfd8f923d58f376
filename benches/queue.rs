//! Measures the cost of a long queue: the memory of the daemon per waiting message, and the time
//! from its start to the first delivery, if the due message is the last in the queue.
//!
//! `cargo bench --bench queue` runs 200,000 messages, for one destination, for 20,000, and for one
//! each; `cargo bench --bench queue -- 50000` runs that number. The bars are 400 octets per message
//! and 5 s. `QUEUE_BENCH_DIR` names a folder on the disk to measure.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{
    AttemptFailure, Envelope, FailureHistory, Recipient, RecipientState,
};
use gatepost::smtp::reply::{EnhancedStatusCode, Status};
use gatepost::storage::spool::{Spool as _, SqliteSpool};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;

const MESSAGES: usize = 200_000;
const BAR_OCTETS: f64 = 400.0;
const BAR_START: Duration = Duration::from_secs(5);
/// The number of earlier attempts of each message; their history is read with it.
const TRIES: usize = 3;
/// The domain of the one message that is due.
const FIRST: &str = "first.example";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // A test runner that runs every target started this.
        println!("run me with: cargo bench --bench queue");
        return;
    }
    let messages = arguments
        .iter()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(MESSAGES);
    println!("messages   destinations   octets of memory each   start to first delivery");
    for destinations in [1, messages / 10, messages] {
        let (empty, _) = measure(1, 1);
        let (full, start) = measure(messages, destinations);
        let each = (float(full) - float(empty)) / float(messages);
        let verdict = |kept: bool| if kept { "" } else { " (over the bar)" };
        println!(
            "{messages:>8}   {destinations:>12}   {each:>12.0}{}   {:>12.2} s{}",
            verdict(each <= BAR_OCTETS),
            start.as_secs_f64(),
            verdict(start <= BAR_START),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(number: usize) -> f64 {
    number as f64
}

/// Starts the daemon on such a queue. Returns its memory after the first delivery, in octets, and
/// the time until then.
fn measure(messages: usize, destinations: usize) -> (usize, Duration) {
    let folder =
        std::env::var_os("QUEUE_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let folder = tempfile::tempdir_in(folder).expect("a folder to measure in");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(fill(&folder.path().join("spool"), messages, destinations));
    let sink = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let config = folder.path().join("gatepost.toml");
    fs::write(&config, configuration(sink.local_addr().expect("bound")))
        .expect("the folder is ours");
    let begun = Instant::now();
    let program = Program::start(&config);
    let (peer, _) = sink.accept().expect("the relay connects");
    take(peer).expect("the relay delivers");
    let start = begun.elapsed();
    (program.memory(), start)
}

fn configuration(sink: SocketAddr) -> String {
    format!(
        "hostname = \"relay.example.com\"\npostmaster = \"postmaster@example.com\"\n[spool]\npath = \"spool\"\n[evidence]\npath = \"\"\n\
         [admin]\nsocket = \"\"\nhttp = \"\"\n[[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n\
         [log]\nlevel = \"error\"\n[dns]\nservers = [\"127.0.0.1:53\"]\n\
         [[connector]]\nname = \"first\"\ndomains = [\"{FIRST}\"]\n[connector.outbound]\nroute = [\"{sink}\"]\ntls = \"off\"\n"
    )
}

/// Fills a queue as it is after hours of failures: every message was tried and waits, except the
/// last, which is due.
async fn fill(folder: &Path, messages: usize, destinations: usize) {
    let spool = Arc::new(SqliteSpool::open(folder).expect("a spool"));
    // So many messages at a time share a sync well.
    let (most, places) = (500, Arc::new(Semaphore::new(500)));
    for number in 1..messages {
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        let to = format!("user{number}@destination{}.example", number % destinations);
        let (spool, envelope) = (Arc::clone(&spool), envelope(&to, waiting(number)));
        tokio::spawn(async move {
            store(&spool, envelope).await;
            drop(place);
        });
    }
    drop(places.acquire_many(most).await.expect("open"));
    store(
        &spool,
        envelope(&format!("last@{FIRST}"), RecipientState::default()),
    )
    .await;
    spool.close().await.expect("closed");
}

async fn store(spool: &SqliteSpool, envelope: Envelope) {
    let mut draft = spool.draft();
    draft
        .write(b"Subject: test\r\n\r\nA short body.\r\n")
        .await
        .expect("room");
    spool.commit(draft, envelope).await.expect("stored");
}

fn envelope(to: &str, state: RecipientState) -> Envelope {
    let mut recipient = Recipient::new(Mailbox::parse(to).expect("an address"));
    recipient.state = state;
    Envelope::new(
        ReversePath::parse("alice@sender.example").expect("an address"),
        vec![recipient],
    )
}

fn waiting(number: usize) -> RecipientState {
    let now = Timestamp::now();
    let mut history = FailureHistory::default();
    for _ in 0..TRIES {
        let text = "mx1.destination.example [192.0.2.1]:25: cannot connect: no answer within 30 s; \
                    mx2.destination.example [192.0.2.2]:25: cannot connect: no answer within 30 s";
        let (status, host) = (
            EnhancedStatusCode::transient(Status(4, 1)),
            Some("mx2.destination.example".to_owned()),
        );
        history.push(
            AttemptFailure {
                at: now,
                status,
                text: text.to_owned(),
                explanation: None,
                host,
                reply: None,
            },
            1,
        );
    }
    // The due times are spread over an hour, in no order.
    let minutes = i64::try_from(number * 7919 % 60).unwrap_or(0);
    let next = Some(now + SignedDuration::from_mins(60 + minutes));
    RecipientState::Pending {
        attempts: 3,
        next,
        history,
        warned: true,
        apart: false,
    }
}

/// Receives one message.
fn take(stream: TcpStream) -> std::io::Result<()> {
    let mut output = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    output.write_all(b"220 sink\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let answer: &[u8] = if line == "DATA" {
            b"354 go on\r\n"
        } else {
            b"250 ok\r\n"
        };
        output.write_all(answer)?;
        if line == "DATA" {
            while lines.next().transpose()?.is_some_and(|line| line != ".") {}
            return output.write_all(b"250 taken\r\n");
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// The daemon; dropping this ends it.
struct Program(Child);

impl Program {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null());
        Self(command.spawn().expect("the program starts"))
    }

    /// Returns the memory in use, in octets.
    fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a size");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<usize>()
            .expect("a number")
            * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
