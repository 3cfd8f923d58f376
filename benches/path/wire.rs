//! The input and output of a connection, without an allocation per line: both ends of the benchmark
//! share two cores with the relay, which lacks what they use. It knows lines and no protocol.

use std::io;

use memchr::{memchr, memmem};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::message::END;

/// The octets of the input buffer beside a message: all that a relay adds to it, and as much as one
/// read returns.
pub(crate) const BESIDE_MESSAGE: usize = 28 << 10;
/// The size of the buffer for replies.
pub(crate) const FOR_REPLIES: usize = 2 << 10;

/// A connection with its unprocessed input.
pub(crate) struct Wire<S> {
    stream: S,
    octets: Box<[u8]>,
    from: usize,
    to: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Creates the connection. `room` is the size in octets of the longest line or message with the
    /// input after it.
    pub(crate) fn new(stream: S, room: usize) -> Self {
        Self {
            stream,
            octets: vec![0; room].into_boxed_slice(),
            from: 0,
            to: 0,
        }
    }

    /// Returns the connection itself, for the TLS handshake.
    ///
    /// # Errors
    /// An error if input is buffered: after STARTTLS that would be an injection.
    pub(crate) fn into_stream(self) -> io::Result<S> {
        if self.from == self.to {
            Ok(self.stream)
        } else {
            Err(io::Error::other("octets in the clear behind STARTTLS"))
        }
    }

    /// Returns one line without its CRLF, if a complete one is buffered.
    pub(crate) fn line(&mut self) -> Option<&[u8]> {
        let start = self.from;
        let end = start + memchr(b'\n', &self.octets[start..self.to])?;
        self.from = end + 1;
        let line = &self.octets[start..end];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Returns the content of a message without the CRLF before the dot, if its end is buffered.
    /// `searched` is the length that was searched before; it is updated.
    pub(crate) fn content(&mut self, searched: &mut usize) -> Option<&[u8]> {
        let unread = &self.octets[self.from..self.to];
        let skip = searched.saturating_sub(END.len() - 1);
        let Some(found) = memmem::find(&unread[skip..], END) else {
            *searched = unread.len();
            return None;
        };
        let start = self.from;
        self.from = start + skip + found + END.len();
        *searched = 0;
        Some(&self.octets[start..start + skip + found])
    }

    /// Returns so many octets, if they are buffered.
    pub(crate) fn chunk(&mut self, octets: usize) -> Option<&[u8]> {
        let start = self.from;
        let end = start.checked_add(octets).filter(|&end| end <= self.to)?;
        self.from = end;
        Some(&self.octets[start..end])
    }

    /// Waits for more octets.
    ///
    /// # Errors
    /// Those of the connection; its end; a line or message that is longer than any that is sent
    /// here.
    pub(crate) async fn fill(&mut self) -> io::Result<()> {
        if self.from > 0 {
            self.octets.copy_within(self.from..self.to, 0);
        }
        (self.from, self.to) = (0, self.to - self.from);
        if self.to == self.octets.len() {
            return Err(io::Error::other("longer than anything that is sent here"));
        }
        match self.stream.read(&mut self.octets[self.to..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.to += count;
                Ok(())
            }
        }
    }

    /// Writes all octets.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) async fn say(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets).await?;
        self.stream.flush().await
    }

    /// Reads a complete reply and checks its code.
    ///
    /// # Errors
    /// Those of [`Self::fill`], and the reply's last line if it has another code.
    pub(crate) async fn expect(&mut self, code: &str) -> io::Result<()> {
        loop {
            while let Some(line) = self.line() {
                if line.get(3) == Some(&b'-') {
                    continue;
                }
                if line.starts_with(code.as_bytes()) {
                    return Ok(());
                }
                return Err(io::Error::other(format!(
                    "{code} expected, got: {}",
                    line.escape_ascii()
                )));
            }
            self.fill().await?;
        }
    }
}
