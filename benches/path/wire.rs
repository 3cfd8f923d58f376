//! Octets in and out of a connection, without an allocation per line: both ends of the bench share two
//! cores with the relay, and what they use is not there for it. Not a protocol: lines only.

use std::io;

use memchr::{memchr, memmem};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::message::END;

/// More than a message with all that a relay adds to it, and as much as one read can bring.
pub(crate) const FOR_MESSAGES: usize = 32 << 10;
/// More than any reply.
pub(crate) const FOR_REPLIES: usize = 2 << 10;

/// A connection with what has been read from it and not yet been taken.
pub(crate) struct Wire<S> {
    stream: S,
    octets: Box<[u8]>,
    from: usize,
    to: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// `room`: octets, for the longest line or message and what comes behind it at once.
    pub(crate) fn new(stream: S, room: usize) -> Self {
        Self { stream, octets: vec![0; room].into_boxed_slice(), from: 0, to: 0 }
    }

    /// The connection itself, to shake hands on.
    ///
    /// # Errors
    /// If something was read ahead: behind STARTTLS that would be injection.
    pub(crate) fn into_stream(self) -> io::Result<S> {
        if self.from == self.to { Ok(self.stream) } else { Err(io::Error::other("octets in clear behind STARTTLS")) }
    }

    /// Takes one line, without its CRLF, if a whole one is there.
    pub(crate) fn line(&mut self) -> Option<&[u8]> {
        let start = self.from;
        let end = start + memchr(b'\n', &self.octets[start..self.to])?;
        self.from = end + 1;
        let line = &self.octets[start..end];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Takes the content of a message, without the CRLF before the dot, if its end is there. `searched`
    /// tells how much was looked at before, and is brought up to date.
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

    /// Waits for more octets.
    ///
    /// # Errors
    /// Those of the connection; its end; a line or message that is longer than anything sent here.
    pub(crate) async fn fill(&mut self) -> io::Result<()> {
        self.octets.copy_within(self.from..self.to, 0);
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

    /// Writes it all.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) async fn say(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets).await?;
        self.stream.flush().await
    }

    /// Takes a whole reply, and wants this code of it.
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
                return Err(io::Error::other(format!("{code} expected, got: {}", line.escape_ascii())));
            }
            self.fill().await?;
        }
    }
}
