//! One message to a thousand domains: the time from its 250 to the last of them, and the octets that
//! it makes the relay write.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;

use crate::client::hello;
use crate::gatepost;
use crate::ledger::Ledger;
use crate::message::{DESTINATION, Message};
use crate::relay::Task;
use crate::trial::{CONNECTIONS, Case, Sink, folder};

const DOMAINS: usize = 1000;
const PATIENCE: Duration = Duration::from_mins(1);

/// The results of the message.
pub(crate) struct Spread {
    pub(crate) took: Duration,
    /// The octets written to disks, by the kernel's account.
    pub(crate) written: u64,
}

/// Sends the message through Gatepost.
///
/// # Errors
/// An error if it does not start, refuses the message, or does not deliver it to each domain.
pub(crate) fn run(case: Case) -> io::Result<Spread> {
    let folder = folder()?;
    let ledger = Arc::new(Ledger::new(1));
    let sink = Sink::start(case, None, &ledger)?;
    let relay = gatepost::start(&Task {
        folder: folder.path(),
        sink: sink.address,
        tls: false,
        connections: CONNECTIONS,
        messages_per_connection: None,
        evidence: case.evidence,
        database: None,
    })?;
    let mut envelope = "MAIL FROM:<sender@bench.example>\r\n".to_owned();
    for domain in 0..DOMAINS {
        let _ = write!(envelope, "RCPT TO:<r@d{domain}.{DESTINATION}>\r\n");
    }
    envelope += "DATA\r\n";
    let written = relay.written();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let accepted = runtime.block_on(async {
        let mut wire = hello(relay.address).await?;
        wire.say(envelope.as_bytes()).await?;
        for _ in 0..=DOMAINS {
            wire.expect("250").await?;
        }
        wire.expect("354").await?;
        wire.say(Message::new(case.size).numbered(0)).await?;
        wire.expect("250").await?;
        io::Result::Ok(Instant::now())
    })?;
    while ledger.recipients() < DOMAINS {
        if accepted.elapsed() > PATIENCE || !relay.lives() {
            let arrived = ledger.recipients();
            return Err(relay.with_log(&format!("{arrived} of {DOMAINS} domains have the message")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let took = accepted.elapsed();
    // The records of the last deliveries are written after their arrival.
    thread::sleep(Duration::from_secs(1));
    Ok(Spread {
        took,
        written: relay.written().saturating_sub(written),
    })
}
