//! A connection with its two buffers: received octets that are not processed yet, and replies that are not sent yet.

use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::handshake::RecordedStream;
use crate::smtp::reply::Reply;

/// The size of the input buffer for commands. It is small, since most sessions are idle.
const FOR_COMMANDS: usize = 4 * 1024;
/// The size of the input buffer for content: at first, and at most. It grows while the client fills it, since most
/// messages are small.
const FOR_CONTENT: (usize, usize) = (8 * 1024, 64 * 1024);
/// The octets of replies to a pipeline of commands that are collected before they are sent.
const UNSENT_MAX: usize = 16 * 1024;
/// The time, and below the number of octets, for which input is read and discarded after our last reply. Closing
/// at once would reset the connection, and the client might lose the reply.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OCTETS: usize = 256 * 1024;

/// A connection with its buffers, in the clear or under TLS.
pub(super) struct Wire<S> {
    stream: S,
    /// The received octets that are not processed yet.
    pub(super) input: BytesMut,
    unsent: Vec<u8>,
    /// The present size of the input buffer for content.
    for_content: usize,
}

/// The operations at the beginning and at the end of a connection, which differ in the clear and under TLS.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Returns true if the client has sent something already. It neither reads nor waits.
    fn has_input(&mut self) -> bool;

    /// Moves replies out of `words` that can be sent in one write with the end of the TLS session.
    fn take_last(&mut self, words: &mut Vec<u8>);
}

impl Transport for TcpStream {
    fn has_input(&mut self) -> bool {
        // This asks the system itself, since tokio does not know yet that a new connection is readable.
        let mut one = [MaybeUninit::uninit()];
        SockRef::from(&*self).peek(&mut one).is_ok_and(|octets| octets > 0)
    }

    fn take_last(&mut self, _words: &mut Vec<u8>) {}
}

impl Transport for TlsStream<RecordedStream<TcpStream>> {
    fn has_input(&mut self) -> bool {
        let (tcp, tls) = self.get_mut();
        tls.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0) || tcp.get_mut().has_input()
    }

    /// Sends our 221 and `close_notify` (RFC 8446 §6.1) in one write.
    fn take_last(&mut self, words: &mut Vec<u8>) {
        let (_, tls) = self.get_mut();
        if let Ok(taken) = tls.writer().write(words) {
            words.drain(..taken);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), unsent: Vec::new(), for_content: FOR_CONTENT.0 }
    }

    /// Returns the connection without its buffers, which must be empty.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// Returns the connection for inspection.
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Returns true if the client has sent something already.
    pub(super) fn has_input(&mut self) -> bool
    where
        S: Transport,
    {
        self.stream.has_input()
    }

    /// Adds a reply to those that are not sent yet.
    pub(super) fn say(&mut self, reply: &Reply) {
        reply.write_to(&mut self.unsent);
    }

    /// Returns true if so many replies are collected that they must be sent now.
    pub(super) fn is_full(&self) -> bool {
        self.unsent.len() > UNSENT_MAX
    }

    /// Sends the collected replies within `patience`. If the future is dropped, the next call sends the remainder.
    pub(super) async fn flush(&mut self, patience: Duration) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let sending = async {
            while !self.unsent.is_empty() {
                let sent = self.stream.write(&self.unsent).await?;
                if sent == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.unsent.drain(..sent);
            }
            self.stream.flush().await
        };
        timeout(patience, sending).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.unsent.shrink_to(FOR_COMMANDS);
        Ok(())
    }

    /// Reads once into the input buffer. Returns the number of octets, 0 at the end of the connection.
    pub(super) async fn fill(&mut self, content: bool) -> io::Result<usize> {
        let room = if content { self.for_content } else { FOR_COMMANDS };
        if self.input.is_empty() && self.input.capacity() > FOR_COMMANDS && !content {
            self.input = BytesMut::new();
        }
        self.input.reserve(room.saturating_sub(self.input.len()).max(FOR_COMMANDS));
        let octets = self.stream.read_buf(&mut self.input).await?;
        if content && self.input.len() >= self.for_content {
            self.for_content = (2 * self.for_content).min(FOR_CONTENT.1);
        }
        Ok(octets)
    }

    /// Closes the connection in order: sends the collected replies, ends TLS, shuts the connection down, and discards
    /// input for a short time.
    pub(super) async fn close(mut self, patience: Duration)
    where
        S: Transport,
    {
        self.stream.take_last(&mut self.unsent);
        if self.flush(patience).await.is_err() || timeout(patience, self.stream.shutdown()).await.is_err() {
            return;
        }
        let dropping = async {
            let mut dropped = 0;
            while dropped < LINGER_OCTETS {
                self.input.clear();
                match self.fill(false).await {
                    Ok(octets) if octets > 0 => dropped += octets,
                    _ => break,
                }
            }
        };
        // A client that does not close its side is disconnected after `LINGER`.
        let _ = timeout(LINGER, dropping).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Status;

    #[tokio::test]
    async fn the_buffer_grows_for_fast_content_and_shrinks_for_commands() {
        let (mut client, server) = tokio::io::duplex(4 * FOR_CONTENT.1);
        client.write_all(&vec![b'x'; 3 * FOR_CONTENT.1]).await.expect("there is room");
        let mut wire = Wire::new(server);
        let first = wire.fill(true).await.expect("it is there");
        assert!((FOR_CONTENT.0..FOR_CONTENT.1).contains(&first), "{first} octets at once for a small message");
        let mut largest = 0;
        for _ in 0..4 {
            wire.input.clear();
            largest = wire.fill(true).await.expect("there is more").max(largest);
        }
        assert!(largest >= FOR_CONTENT.1, "a large message comes in pieces of {largest} octets");
        wire.input.clear();
        wire.fill(false).await.expect("there is more");
        assert!(wire.input.capacity() < FOR_CONTENT.0, "{} octets for commands", wire.input.capacity());
    }

    #[tokio::test]
    async fn the_remainder_of_a_partly_sent_reply_is_sent_next() {
        let (mut client, server) = tokio::io::duplex(10);
        let mut wire = Wire::new(server);
        wire.say(&Reply::new(250, Status(0, 0), "Ok: queued as 42"));
        // The client does not read, and the first flush is cancelled.
        let given_up = timeout(Duration::from_millis(20), wire.flush(LINGER)).await;
        assert!(given_up.is_err());
        wire.say(&Reply::new(421, Status(3, 2), "Too busy"));
        let mut heard = String::new();
        let sending = async move { wire.flush(LINGER).await };
        let (sent, read) = tokio::join!(sending, client.read_to_string(&mut heard));
        assert!(sent.is_ok() && read.is_ok());
        assert_eq!(heard, "250 2.0.0 Ok: queued as 42\r\n421 4.3.2 Too busy\r\n");
    }
}
