//! A connection with its two buffers: received octets that are not processed yet, and replies that
//! are not sent yet.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::net::tls_io::{ReadAheadStream, RecordedStream};
use crate::relay::buffer_memory::{BufferMemory, SLOW};
use crate::smtp::reply::Reply;
use crate::storage::spool::LARGE_BLOCK;

/// The largest input that is read through the stack, in octets: commands and small messages. A
/// session that waits for them has no input buffer.
const SMALL_INPUT: usize = 8 * 1024;
/// The size of the input buffer for content that fills [`SMALL_INPUT`].
const CONTENT_BUFFER: usize = 64 * 1024;
/// The size of the input buffer of a client that fills [`CONTENT_BUFFER`] as well.
const LARGE_BUFFER: usize = 128 * 1024;
/// The octets that are read at once under the TLS session of such a client.
const READ_AHEAD: usize = 128 * 1024;
/// The memory that such a client needs in addition, with the block that its draft collects.
const LARGE_MEMORY: usize = LARGE_BUFFER + READ_AHEAD + LARGE_BLOCK;
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
    /// The memory for large buffers, if the client is fast.
    large: Option<BufferMemory>,
}

/// A client's connection under TLS.
pub(super) type TlsClientStream = TlsStream<RecordedStream<ReadAheadStream<TcpStream>>>;

/// The operations at the beginning and at the end of a connection, which differ in the clear and
/// under TLS.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// Returns true if the client has sent something already. It neither reads nor waits.
    fn has_input(&mut self) -> bool;

    /// Moves replies out of `replies` that can be sent in one write with the end of the TLS
    /// session.
    fn write_last(&mut self, replies: &mut Vec<u8>);

    /// Sets the number of octets that are read at once under the TLS session; 0 leaves it to TLS.
    fn read_ahead(&mut self, octets: usize);
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

    fn read_ahead(&mut self, _octets: usize) {}
}

impl ClientStream for TlsClientStream {
    fn has_input(&mut self) -> bool {
        let (tcp, tls) = self.get_mut();
        tls.process_new_packets()
            .is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
            || tcp.get_mut().get_mut().has_input()
    }

    /// Sends our 221 and `close_notify` (RFC 8446 §6.1) in one write.
    fn write_last(&mut self, replies: &mut Vec<u8>) {
        let (_, tls) = self.get_mut();
        if let Ok(taken) = tls.writer().write(replies) {
            replies.drain(..taken);
        }
    }

    fn read_ahead(&mut self, octets: usize) {
        self.get_mut().0.get_mut().set_size(octets);
    }
}

impl<S: ClientStream> BufferedStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            unsent: Vec::new(),
            content_buffer: SMALL_INPUT,
            large: None,
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
    pub(super) fn has_input(&mut self) -> bool {
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
        self.unsent = Vec::new();
        Ok(())
    }

    /// Reads once into the input buffer. Returns the number of octets, 0 at the end of the
    /// connection.
    pub(super) async fn fill(&mut self, content: bool) -> io::Result<usize> {
        if !content {
            self.content_buffer = SMALL_INPUT;
            if self.large.is_some() {
                self.use_large(None);
            }
        }
        let size = self.content_buffer;
        poll_fn(|context| {
            // Nothing that is empty stays allocated while the client sends nothing.
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            if size > SMALL_INPUT {
                self.poll_fill_directly(context, size)
            } else {
                self.poll_fill_through_stack(context)
            }
        })
        .await
    }

    fn poll_fill_through_stack(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut octets = [MaybeUninit::uninit(); SMALL_INPUT];
        let mut buffer = ReadBuf::uninit(&mut octets);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let octets = buffer.filled();
        self.input.extend_from_slice(octets);
        if octets.len() == SMALL_INPUT {
            self.content_buffer = self.content_buffer.max(CONTENT_BUFFER);
        }
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_fill_directly(
        &mut self,
        context: &mut Context<'_>,
        size: usize,
    ) -> Poll<io::Result<usize>> {
        self.input
            .reserve(size.saturating_sub(self.input.len()).max(SMALL_INPUT));
        let read = pin!(self.stream.read_buf(&mut self.input)).poll(context);
        if read.is_pending() && self.input.is_empty() {
            self.input = BytesMut::new();
        }
        read
    }

    /// Gives a client that fills its input buffer a larger one, if there is memory for it, and
    /// takes it from one that was awaited for too long.
    pub(super) fn adapt(&mut self, waited: Duration) {
        if waited > SLOW {
            self.content_buffer = SMALL_INPUT;
            self.use_large(None);
        } else if self.large.is_none() && self.input.len() >= CONTENT_BUFFER {
            self.use_large(BufferMemory::reserve(LARGE_MEMORY));
        }
    }

    /// Returns true if the client has large buffers.
    pub(super) fn is_large(&self) -> bool {
        self.large.is_some()
    }

    fn use_large(&mut self, memory: Option<BufferMemory>) {
        self.large = memory;
        let (buffer, ahead) = if self.large.is_some() {
            (LARGE_BUFFER, READ_AHEAD)
        } else {
            (self.content_buffer.min(CONTENT_BUFFER), 0)
        };
        self.content_buffer = buffer;
        self.stream.read_ahead(ahead);
    }

    /// Closes the connection in order: sends the collected replies, ends TLS, shuts the connection
    /// down, and discards input for a short time.
    pub(super) async fn close(mut self, time_limit: Duration) {
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
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::smtp::reply::Status;

    impl ClientStream for DuplexStream {
        fn has_input(&mut self) -> bool {
            false
        }

        fn write_last(&mut self, _replies: &mut Vec<u8>) {}

        fn read_ahead(&mut self, _octets: usize) {}
    }

    #[tokio::test]
    async fn the_buffer_grows_for_fast_content_and_shrinks_for_commands() {
        let (mut client, server) = duplex(8 * LARGE_BUFFER);
        client
            .write_all(&vec![b'x'; 8 * LARGE_BUFFER])
            .await
            .expect("there is room");
        let mut stream = BufferedStream::new(server);
        let mut sizes = Vec::new();
        for _ in 0..4 {
            stream.input.clear();
            sizes.push(stream.fill(true).await.expect("there is more"));
            stream.adapt(Duration::ZERO);
        }
        assert_eq!(sizes[0], SMALL_INPUT, "a small message needs no more");
        assert!(sizes[1] >= CONTENT_BUFFER, "{sizes:?}");
        assert!(stream.is_large() && sizes[3] >= LARGE_BUFFER, "{sizes:?}");
        stream.adapt(SLOW * 2);
        assert!(!stream.is_large(), "a slow client has small buffers");
        stream.input.clear();
        assert_eq!(stream.fill(true).await.expect("there is more"), SMALL_INPUT);
        stream.input.clear();
        stream.fill(true).await.expect("there is more");
        stream.adapt(Duration::ZERO);
        assert!(stream.is_large(), "it is fast again");
        stream.input.clear();
        let command = stream.fill(false).await.expect("there is more");
        assert!(
            command <= SMALL_INPUT && !stream.is_large(),
            "{command} octets of commands"
        );
    }

    #[tokio::test]
    async fn a_session_without_input_has_no_buffers() {
        let (mut client, server) = duplex(LARGE_BUFFER);
        let mut stream = BufferedStream::new(server);
        for content in [false, true] {
            stream.add_reply(&Reply::new(250, Status(0, 0), "Ok"));
            stream.flush(LINGER).await.expect("the client takes it");
            client.write_all(b"NOOP\r\n").await.expect("there is room");
            stream.fill(content).await.expect("it is there");
            stream.input.clear();
            stream.content_buffer = CONTENT_BUFFER;
            let waiting = timeout(Duration::from_millis(1), stream.fill(content)).await;
            assert!(waiting.is_err(), "nothing is there");
            assert_eq!((stream.input.capacity(), stream.unsent.capacity()), (0, 0));
        }
    }

    #[tokio::test]
    async fn the_remainder_of_a_partly_sent_reply_is_sent_next() {
        let (mut client, server) = duplex(10);
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
