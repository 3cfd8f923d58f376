//! The load: so many connections at once, so many messages on each, then QUIT and a new one. It pipelines
//! as mail servers do (MAIL, RCPT and DATA in one write), and behaves alike to every relay. Not a mail
//! client: a message that is refused is counted and not tried again.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::ledger::Ledger;
use crate::message::{ENVELOPE, Message};
use crate::wire::{FOR_REPLIES, Wire};

/// Where to, and how.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// To use STARTTLS with; `None` in clear.
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) connections: usize,
    pub(crate) messages_per_connection: usize,
    pub(crate) ledger: Arc<Ledger>,
}

impl Load {
    /// Sends the messages of these numbers, and returns when each is accepted or refused.
    pub(crate) async fn send(self, numbers: Range<usize>) {
        let counter = Arc::new(Counter { next: AtomicUsize::new(numbers.start), end: numbers.end });
        let load = Arc::new(self);
        let mut connections = JoinSet::new();
        for _ in 0..load.connections {
            connections.spawn(one_after_another(Arc::clone(&load), Arc::clone(&counter)));
        }
        connections.join_all().await;
    }

    async fn connect(&self) -> io::Result<Wire<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut wire = Wire::new(stream, FOR_REPLIES);
        wire.expect("220").await?;
        wire.say(b"EHLO client.bench.example\r\n").await?;
        wire.expect("250").await?;
        Ok(wire)
    }

    /// One connection and what it carries, from this number on.
    async fn carry(&self, number: &mut Option<usize>, counter: &Counter, message: &mut Message) -> io::Result<()> {
        let mut wire = self.connect().await?;
        let Some(tls) = &self.tls else { return self.messages(wire, number, counter, message).await };
        wire.say(b"STARTTLS\r\n").await?;
        wire.expect("220").await?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut wire = Wire::new(tls.connect(name, wire.into_stream()?).await?, FOR_REPLIES);
        wire.say(b"EHLO client.bench.example\r\n").await?;
        wire.expect("250").await?;
        self.messages(wire, number, counter, message).await
    }

    async fn messages<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut wire: Wire<S>,
        number: &mut Option<usize>,
        counter: &Counter,
        message: &mut Message,
    ) -> io::Result<()> {
        for sent in 1.. {
            let Some(current) = *number else { break };
            wire.say(ENVELOPE).await?;
            wire.expect("250").await?;
            wire.expect("250").await?;
            wire.expect("354").await?;
            wire.say(message.numbered(current)).await?;
            wire.expect("250").await?;
            self.ledger.accepted(current);
            *number = counter.next();
            if sent == self.messages_per_connection {
                break;
            }
        }
        // The messages are through; how the relay takes its leave changes nothing.
        if wire.say(b"QUIT\r\n").await.is_ok() {
            let _ = wire.expect("221").await;
        }
        Ok(())
    }
}

/// Hands out the numbers, each once.
struct Counter {
    next: AtomicUsize,
    end: usize,
}

impl Counter {
    fn next(&self) -> Option<usize> {
        Some(self.next.fetch_add(1, Relaxed)).filter(|&number| number < self.end)
    }
}

async fn one_after_another(load: Arc<Load>, counter: Arc<Counter>) {
    let mut message = Message::new();
    let mut number = counter.next();
    while number.is_some() {
        if let Err(error) = load.carry(&mut number, &counter, &mut message).await {
            // The number in hand is the one that failed, be it only that there was no connection for it.
            load.ledger.refused(&error);
            number = counter.next();
        }
    }
}
