//! The load: a number of connections at once, with a number of messages on each, then QUIT and a
//! new connection. The client pipelines like a mail server (MAIL, RCPT and DATA in one write) and
//! behaves the same to every relay. A rejected message is counted and not tried again.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::ledger::Ledger;
use crate::message::{ENVELOPE, Message};
use crate::wire::{FOR_REPLIES, Wire};

/// The target of the load, and its parameters.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// The TLS configuration for STARTTLS; `None` in the clear.
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) connections: usize,
    pub(crate) messages_per_connection: usize,
    /// The size of a message in octets.
    pub(crate) size: usize,
    pub(crate) ledger: Arc<Ledger>,
}

impl Load {
    /// Sends the messages with these numbers; returns when each is accepted or rejected.
    pub(crate) async fn send(self, numbers: Range<usize>) {
        let counter = Arc::new(Counter {
            next: AtomicUsize::new(numbers.start),
            end: numbers.end,
        });
        let load = Arc::new(self);
        let mut connections = JoinSet::new();
        for _ in 0..load.connections {
            connections.spawn(one_after_another(Arc::clone(&load), Arc::clone(&counter)));
        }
        connections.join_all().await;
    }

    /// Runs one connection with its messages, from this number on.
    async fn carry(
        &self,
        number: &mut Option<usize>,
        counter: &Counter,
        message: &mut Message,
    ) -> io::Result<()> {
        let wire = hello(self.address).await?;
        let Some(tls) = &self.tls else {
            return self.messages(wire, number, counter, message).await;
        };
        let wire = hello_under_tls(wire, tls).await?;
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
        // The messages are done; the reply to QUIT does not matter.
        if wire.say(b"QUIT\r\n").await.is_ok() {
            let _ = wire.expect("221").await;
        }
        Ok(())
    }
}

/// Connects and says EHLO.
///
/// # Errors
/// Those of the connection, and of other replies.
pub(crate) async fn hello(address: SocketAddr) -> io::Result<Wire<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream, FOR_REPLIES);
    wire.expect("220").await?;
    wire.say(b"EHLO client.bench.example\r\n").await?;
    wire.expect("250").await?;
    Ok(wire)
}

/// Says STARTTLS, and EHLO again under TLS.
///
/// # Errors
/// As [`hello`], and those of the handshake.
pub(crate) async fn hello_under_tls(
    mut wire: Wire<TcpStream>,
    tls: &TlsConnector,
) -> io::Result<Wire<TlsStream<TcpStream>>> {
    wire.say(b"STARTTLS\r\n").await?;
    wire.expect("220").await?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut wire = Wire::new(tls.connect(name, wire.into_stream()?).await?, FOR_REPLIES);
    wire.say(b"EHLO client.bench.example\r\n").await?;
    wire.expect("250").await?;
    Ok(wire)
}

/// The source of message numbers; it yields each number once.
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
    let mut message = Message::new(load.size);
    let mut number = counter.next();
    while number.is_some() {
        if let Err(error) = load.carry(&mut number, &counter, &mut message).await {
            // The current number failed, even if only the connection for it did.
            load.ledger.refused(&error);
            number = counter.next();
        }
    }
}
