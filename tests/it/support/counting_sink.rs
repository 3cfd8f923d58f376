//! A server that counts its sessions, and takes messages only as fast as it is let.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, Recipient};
use gatepost::storage::spool::{Spool as _, SqliteSpool};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use super::in_process::SENDER;

/// Everything that a sink has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Sessions that have not said QUIT.
    open: usize,
    /// The most there were at a time.
    pub(crate) peak: usize,
    /// Messages that each session brought.
    pub(crate) per_session: Vec<usize>,
    /// The number of messages that have arrived for each recipient.
    pub(crate) taken: BTreeMap<String, usize>,
}

/// A server, as long as the test runs.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    /// A permit for each message that is taken.
    pub(crate) leave: Arc<Semaphore>,
    /// The reply to RCPT.
    rcpt: &'static str,
    seen: Arc<Mutex<Seen>>,
}

impl Sink {
    pub(crate) async fn start(leave: usize) -> Self {
        Self::replying(leave, "250 ok\r\n").await
    }

    /// Starts a server with this reply to each RCPT.
    pub(crate) async fn replying(leave: usize, rcpt: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback");
        let address = listener.local_addr().expect("bound");
        let sink = Self {
            address,
            leave: Arc::new(Semaphore::new(leave)),
            rcpt,
            seen: Arc::default(),
        };
        let serving = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let session = serving.seen(|seen| {
                    seen.open += 1;
                    seen.peak = seen.peak.max(seen.open);
                    seen.per_session.push(0);
                    seen.per_session.len() - 1
                });
                let sink = serving.clone();
                tokio::spawn(async move {
                    // A client that closes without QUIT is gone, too.
                    if sink.serve(stream, session).await.is_none() {
                        sink.seen(|seen| seen.open -= 1);
                    }
                });
            }
        });
        sink
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().expect("no panic"))
    }

    /// Messages that were taken.
    pub(crate) fn taken(&self) -> usize {
        self.seen(|seen| seen.taken.values().sum())
    }

    async fn serve(&self, stream: TcpStream, session: usize) -> Option<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 sink\r\n").await.ok()?;
        let (mut line, mut to) = (String::new(), Vec::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let answer: &[u8] = match line.get(..4)? {
                "EHLO" => b"250-sink\r\n250 PIPELINING\r\n",
                "MAIL" => {
                    to.clear();
                    b"250 ok\r\n"
                }
                "RCPT" => {
                    if self.rcpt.starts_with("250") {
                        to.push(line.split(['<', '>']).nth(1)?.to_owned());
                    }
                    self.rcpt.as_bytes()
                }
                "DATA" if to.is_empty() => b"554 nobody\r\n",
                "DATA" => b"354 go on\r\n",
                "QUIT" => {
                    self.seen(|seen| seen.open -= 1);
                    stream.write_all(b"221 bye\r\n").await.ok();
                    return Some(());
                }
                _ => b"500 what\r\n",
            };
            stream.write_all(answer).await.ok()?;
            if answer.starts_with(b"354") {
                while line != ".\r\n" {
                    line.clear();
                    if stream.read_line(&mut line).await.ok()? == 0 {
                        return None;
                    }
                }
                self.leave.acquire().await.ok()?.forget();
                self.seen(|seen| {
                    seen.per_session[session] += 1;
                    to.drain(..)
                        .for_each(|to| *seen.taken.entry(to).or_default() += 1);
                });
                stream.write_all(b"250 taken\r\n").await.ok()?;
            }
        }
    }
}

/// Puts messages into a spool that no relay has, one for each recipient; `change` makes of each
/// envelope what it will.
pub(crate) async fn fill(
    spool: &std::path::Path,
    recipients: impl IntoIterator<Item = String>,
    change: impl Fn(&mut Envelope),
) {
    let spool = Arc::new(SqliteSpool::open(spool).expect("nobody else has it"));
    let (done, mut all_done) = mpsc::channel::<()>(1);
    for recipient in recipients {
        let recipient = Recipient::new(Mailbox::parse(&recipient).expect("an address"));
        let mut envelope = Envelope::new(
            ReversePath::parse(SENDER).expect("an address"),
            vec![recipient],
        );
        change(&mut envelope);
        let (spool, done) = (Arc::clone(&spool), done.clone());
        tokio::spawn(async move {
            let mut draft = spool.draft();
            draft
                .write(b"Subject: test\r\n\r\nbody\r\n")
                .await
                .expect("room");
            spool.commit(draft, envelope).await.expect("stored");
            drop(done);
        });
    }
    drop(done);
    assert!(all_done.recv().await.is_none());
    spool.close().await.expect("closed");
}
