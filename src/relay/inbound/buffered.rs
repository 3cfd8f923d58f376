//! A connection with its two buffers: received octets that are not processed yet, and replies that
//! are not sent yet.

use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::net::tls_io::RecordedStream;
use crate::smtp::reply::Reply;

/// The size of the input buffer for commands. It is small, since most sessions are idle.
const COMMAND_BUFFER: usize = 4 * 1024;
/// The size of the input buffer for content: at first, and at most. It grows while the client fills
/// it, since most messages are small.
const CONTENT_BUFFER: (usize, usize) = (8 * 1024, 64 * 1024);
/// The octets of replies to a pipeline of commands that are collected before they are sent.
const UNSENT_MAX: usize = 16 * 1024;
/// The maximum time for which input is read and discarded after our last reply. Closing at once
/// would reset the connection, and the client might lose the reply.
const LINGER: Duration = Duration::from_secs(2);
/// The maximum number of octets that are discarded so.
const LINGER_OCTETS: usize = 256 * 1024;

/// A connection with its buffers, in the clear or under TLS.
pub(super) struct BufferedStream<S> {
    stream: S,
    /// The received octets that are not processed yet.
    pub(super) input: BytesMut,
    unsent: Vec<u8>,
    /// The present size of the input buffer for content.
    content_buffer: usize,
}

/// The operations at the beginning and at the end of a connection, which differ in the clear and
/// under TLS.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// Returns true if the client has sent something already. It neither reads nor waits.
    fn has_input(&mut self) -> bool;

    /// Moves replies out of `replies` that can be sent in one write with the end of the TLS
    /// session.
    fn write_last(&mut self, replies: &mut Vec<u8>);
}

impl ClientStream for TcpStream {
    fn has_input(&mut self) -> bool {
        // This asks the system itself, since tokio does not know yet that a new connection is
        // readable.
        let mut one = [MaybeUninit::uninit()];
        SockRef::from(&*self)
            .peek(&mut one)
            .is_ok_and(|octets| octets > 0)
    }

    fn write_last(&mut self, _replies: &mut Vec<u8>) {}
}

impl ClientStream for TlsStream<RecordedStream<TcpStream>> {
    fn has_input(&mut self) -> bool {
        let (tcp, tls) = self.get_mut();
        tls.process_new_packets()
            .is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
            || tcp.get_mut().has_input()
    }

    /// Sends our 221 and `close_notify` (RFC 8446 §6.1) in one write.
    fn write_last(&mut self, replies: &mut Vec<u8>) {
        let (_, tls) = self.get_mut();
        if let Ok(taken) = tls.writer().write(replies) {
            replies.drain(..taken);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> BufferedStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            unsent: Vec::new(),
            content_buffer: CONTENT_BUFFER.0,
        }
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
        S: ClientStream,
    {
        self.stream.has_input()
    }

    /// Adds a reply to those that are not sent yet.
    pub(super) fn add_reply(&mut self, reply: &Reply) {
        reply.write_to(&mut self.unsent);
    }

    /// Returns true if so many replies are collected that they must be sent now.
    pub(super) fn must_flush(&self) -> bool {
        self.unsent.len() > UNSENT_MAX
    }

    /// Sends the collected replies within `time_limit`. If the future is dropped, the next call
    /// sends the remainder.
    pub(super) async fn flush(&mut self, time_limit: Duration) -> io::Result<()> {
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
        timeout(time_limit, sending)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.unsent.shrink_to(COMMAND_BUFFER);
        Ok(())
    }

    /// Reads once into the input buffer. Returns the number of octets, 0 at the end of the
    /// connection.
    pub(super) async fn fill(&mut self, content: bool) -> io::Result<usize> {
        let size = if content {
            self.content_buffer
        } else {
            COMMAND_BUFFER
        };
        if self.input.is_empty() && self.input.capacity() > COMMAND_BUFFER && !content {
            self.input = BytesMut::new();
        }
        self.input
            .reserve(size.saturating_sub(self.input.len()).max(COMMAND_BUFFER));
        let octets = self.stream.read_buf(&mut self.input).await?;
        if content && self.input.len() >= self.content_buffer {
            self.content_buffer = (2 * self.content_buffer).min(CONTENT_BUFFER.1);
        }
        Ok(octets)
    }

    /// Closes the connection in order: sends the collected replies, ends TLS, shuts the connection
    /// down, and discards input for a short time.
    pub(super) async fn close(mut self, time_limit: Duration)
    where
        S: ClientStream,
    {
        self.stream.write_last(&mut self.unsent);
        if self.flush(time_limit).await.is_err()
            || timeout(time_limit, self.stream.shutdown()).await.is_err()
        {
            return;
        }
        let discarding = async {
            let mut discarded = 0;
            while discarded < LINGER_OCTETS {
                self.input.clear();
                match self.fill(false).await {
                    Ok(octets) if octets > 0 => discarded += octets,
                    _ => break,
                }
            }
        };
        // A client that does not close its side is disconnected after `LINGER`.
        let _ = timeout(LINGER, discarding).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Status;

    #[tokio::test]
    async fn the_buffer_grows_for_fast_content_and_shrinks_for_commands() {
        let (mut client, server) = tokio::io::duplex(4 * CONTENT_BUFFER.1);
        client
            .write_all(&vec![b'x'; 3 * CONTENT_BUFFER.1])
            .await
            .expect("there is room");
        let mut stream = BufferedStream::new(server);
        let first = stream.fill(true).await.expect("it is there");
        assert!(
            (CONTENT_BUFFER.0..CONTENT_BUFFER.1).contains(&first),
            "{first} octets at once for a small message"
        );
        let mut largest = 0;
        for _ in 0..4 {
            stream.input.clear();
            largest = stream.fill(true).await.expect("there is more").max(largest);
        }
        assert!(
            largest >= CONTENT_BUFFER.1,
            "a large message comes in pieces of {largest} octets"
        );
        stream.input.clear();
        stream.fill(false).await.expect("there is more");
        assert!(
            stream.input.capacity() < CONTENT_BUFFER.0,
            "{} octets for commands",
            stream.input.capacity()
        );
    }

    #[tokio::test]
    async fn the_remainder_of_a_partly_sent_reply_is_sent_next() {
        let (mut client, server) = tokio::io::duplex(10);
        let mut stream = BufferedStream::new(server);
        stream.add_reply(&Reply::new(250, Status(0, 0), "Ok: queued as 42"));
        // The client does not read, and the first flush is cancelled.
        let given_up = timeout(Duration::from_millis(20), stream.flush(LINGER)).await;
        assert!(given_up.is_err());
        stream.add_reply(&Reply::new(421, Status(3, 2), "Too busy"));
        let mut received = String::new();
        let sending = async move { stream.flush(LINGER).await };
        let (sent, read) = tokio::join!(sending, client.read_to_string(&mut received));
        assert!(sent.is_ok() && read.is_ok());
        assert_eq!(
            received,
            "250 2.0.0 Ok: queued as 42\r\n421 4.3.2 Too busy\r\n"
        );
    }
}
