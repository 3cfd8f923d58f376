//! Reads ahead under a TLS session. rustls asks the socket for one record after the other, of 16 KiB
//! at most; content comes much faster in larger pieces.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// A connection that reads more than it is asked for, while its owner wants that. Its buffer is
/// allocated only while something is in it.
#[derive(Debug)]
pub struct ReadAheadStream<S> {
    stream: S,
    /// The octets that were read and not asked for yet.
    ahead: BytesMut,
    /// The octets to read at once.
    size: usize,
}

impl<S> ReadAheadStream<S> {
    /// Creates a connection that does not read ahead.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
            size: 0,
        }
    }

    /// Sets the number of octets that are read at once; 0 ends the reading ahead.
    pub fn set_size(&mut self, octets: usize) {
        self.size = octets;
    }

    /// The inner connection.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAheadStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            if this.size <= buffer.remaining() {
                this.ahead = BytesMut::new();
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            this.ahead.clear();
            this.ahead.reserve(this.size);
            let read = pin!(this.stream.read_buf(&mut this.ahead)).poll(context);
            if this.ahead.is_empty() {
                this.ahead = BytesMut::new();
            }
            ready!(read)?;
        }
        let octets = this.ahead.len().min(buffer.remaining());
        buffer.put_slice(&this.ahead[..octets]);
        this.ahead.advance(octets);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAheadStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, octets)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn it_reads_ahead_only_while_it_shall_and_keeps_no_empty_buffer() {
        let (mut client, server) = duplex(1000);
        client.write_all(&[b'x'; 200]).await.expect("there is room");
        drop(client);
        let mut stream = ReadAheadStream::new(server);
        let (mut octets, mut read) = ([0; 10], Vec::new());
        // The size, and the octets that are ahead after 10 were read.
        for (size, ahead) in [(0, 0), (100, 90), (0, 80)] {
            stream.set_size(size);
            stream
                .read_exact(&mut octets)
                .await
                .expect("they are there");
            read.extend_from_slice(&octets);
            assert_eq!(stream.ahead.len(), ahead, "with {size}");
        }
        stream.set_size(100);
        stream.read_to_end(&mut read).await.expect("the end");
        assert_eq!(read, [b'x'; 200], "nothing is lost");
        assert_eq!(stream.ahead.capacity(), 0);
    }
}
