//! The `ClientHello` of a client that did not come to TLS: what it offers, so that the log can name the reason.
//!
//! The library ends some handshakes for a reason that is not what keeps the two apart: of a client that knows TLS 1.0
//! alone it says that signature algorithms are missing, of one with static RSA alone that groups are. Nothing here
//! decides anything; what cannot be read leaves the library's own reason.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Octets that are kept of what a client sends first: old clients send short ones.
const KEPT: usize = 2048;
/// Cipher suites that signal something, and are none.
const SIGNALS: [u16; 2] = [0x00ff, 0x5600];
/// The extension that lists versions (RFC 8446 §4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_1_2: u16 = 0x0303;

/// A connection that keeps the first octets it reads, until it is told to forget them.
#[derive(Debug)]
pub struct Recorded<S> {
    stream: S,
    first: Option<Vec<u8>>,
}

impl<S> Recorded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, first: Some(Vec::new()) }
    }

    /// Keeps nothing any more.
    pub(super) fn forget(&mut self) {
        self.first = None;
    }

    /// The octets that came first.
    pub(super) fn first(&self) -> &[u8] {
        self.first.as_deref().unwrap_or_default()
    }

    /// The connection itself.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if let Some(first) = &mut this.first {
            let read = buffer.filled().get(before..).unwrap_or_default();
            first.extend_from_slice(&read[..read.len().min(KEPT.saturating_sub(first.len()))]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
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

/// The reason in the client's own offer that there is no TLS with it, where its first octets show one. `ours` are the
/// cipher suites that are accepted here.
pub(super) fn reason(first: &[u8], ours: &[u16]) -> Option<String> {
    if is_ssl_2(first) {
        return Some("no TLS version in common: the client begins with SSL 2.0".to_owned());
    }
    let offer = Offer::read(first)?;
    if offer.newest < TLS_1_2 {
        let newest = version(offer.newest);
        return Some(format!("no TLS version in common: the client offers {newest} at most"));
    }
    let suites: Vec<_> = offer.suites.iter().filter(|suite| !SIGNALS.contains(suite)).collect();
    if suites.iter().any(|suite| ours.contains(suite)) {
        return None;
    }
    Some(if suites.iter().all(|suite| is_static_rsa(**suite)) {
        "no cipher suite in common: the client offers static RSA key exchange alone, and ECDHE is needed".to_owned()
    } else {
        "no cipher suite in common: the client offers none with ECDHE and AES-GCM or ChaCha20-Poly1305".to_owned()
    })
}

/// An SSL 2.0 header, as clients of the last century send it whatever they offer in it.
fn is_ssl_2(first: &[u8]) -> bool {
    matches!(first, [0x80..=0xbf, _, 1, 0 | 2 | 3, ..])
}

fn version(number: u16) -> &'static str {
    match number {
        0x0302 => "TLS 1.1",
        0x0301 => "TLS 1.0",
        0x0300 => "SSL 3.0",
        _ => "a version older than SSL 3.0",
    }
}

/// Key exchange by encryption to the server's RSA key, without forward secrecy (`TLS_RSA_WITH_…`).
fn is_static_rsa(suite: u16) -> bool {
    matches!(
        suite,
        0x0001..=0x000a
            | 0x002f
            | 0x0035
            | 0x003b..=0x003d
            | 0x0041
            | 0x0060..=0x0062
            | 0x0064
            | 0x0084
            | 0x0096
            | 0x009c
            | 0x009d
            | 0x00ba
            | 0x00c0
            | 0xc03c
            | 0xc03d
            | 0xc050
            | 0xc051
            | 0xc07a
            | 0xc07b
            | 0xc09c
            | 0xc09d
            | 0xc0a0
            | 0xc0a1
            | 0xfefe
            | 0xfeff
    )
}

/// The offer of a `ClientHello`.
struct Offer {
    newest: u16,
    suites: Vec<u16>,
}

impl Offer {
    /// Reads a `ClientHello` that stands in one record (RFC 8446 §4.1.2); nothing where it is not whole.
    fn read(first: &[u8]) -> Option<Self> {
        let mut record = Octets(first);
        let (kind, _, length) = (record.octet()?, record.number()?, record.number()?);
        let mut message = Octets(record.take(usize::from(length))?);
        let (message_kind, _, _) = (message.octet()?, message.octet()?, message.number()?);
        if (kind, message_kind) != (22, 1) {
            return None;
        }
        let legacy = message.number()?;
        message.take(32)?;
        let session = message.octet()?;
        message.take(usize::from(session))?;
        let length = message.number()?;
        let suites = message.take(usize::from(length))?.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        let suites = suites.collect();
        let compression = message.octet()?;
        message.take(usize::from(compression))?;
        let versions =
            message.number().and_then(|length| message.take(usize::from(length))).and_then(supported_versions);
        Some(Self { newest: versions.unwrap_or(legacy), suites })
    }
}

/// The newest version of the extension that lists them, where it is there.
fn supported_versions(extensions: &[u8]) -> Option<u16> {
    let mut extensions = Octets(extensions);
    loop {
        let (kind, length) = (extensions.number()?, extensions.number()?);
        let content = extensions.take(usize::from(length))?;
        if kind == SUPPORTED_VERSIONS {
            let versions = content.get(1..)?.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
            // GREASE (RFC 8701) is no version.
            return versions.filter(|version| version & 0x0f0f != 0x0a0a).max();
        }
    }
}

/// Octets that are read from the front.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn octet(&mut self) -> Option<u8> {
        self.take(1).map(|octets| octets[0])
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [u16; 2] = [0x1301, 0xc02f];

    /// A `ClientHello` of this version, with these suites and extensions.
    fn hello(legacy: u16, suites: &[u16], extensions: &[u8]) -> Vec<u8> {
        let mut body = legacy.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(u16::try_from(2 * suites.len()).expect("few").to_be_bytes());
        body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
        body.extend([1, 0]);
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).expect("few").to_be_bytes());
            body.extend(extensions);
        }
        let length = u16::try_from(body.len()).expect("short");
        let mut message = vec![1, 0];
        message.extend(length.to_be_bytes());
        message.extend(body);
        let mut record = vec![22, 3, 1];
        record.extend((length + 4).to_be_bytes());
        record.extend(message);
        record
    }

    #[test]
    fn the_offer_of_an_old_client_says_what_is_missing() {
        let old = |version: &str| Some(format!("no TLS version in common: the client offers {version} at most"));
        let words = |text: &str| Some(text.to_owned());
        let ssl_2 = "no TLS version in common: the client begins with SSL 2.0";
        let rsa = "no cipher suite in common: the client offers static RSA key exchange alone, and ECDHE is needed";
        let other = "no cipher suite in common: the client offers none with ECDHE and AES-GCM or ChaCha20-Poly1305";
        let (up_to_1_1, with_1_3) = ([0, 43, 0, 5, 4, 3, 2, 3, 1], [0, 0, 0, 0, 0, 43, 0, 5, 4, 0x0a, 0x0a, 3, 4]);
        for (first, said) in [
            (hello(0x0301, &[0x002f, 0x0035], &[]), old("TLS 1.0")),
            (hello(0x0302, &[0xc013], &[]), old("TLS 1.1")),
            (hello(0x0300, &[0x0004], &[]), old("SSL 3.0")),
            (hello(0x0303, &[0x002f], &up_to_1_1), old("TLS 1.1")),
            (vec![0x80, 0x2e, 1, 3, 1, 0, 0x15], words(ssl_2)),
            (hello(0x0303, &[0x002f, 0x009c, 0x00ff], &[]), words(rsa)),
            (hello(0x0303, &[0x0033, 0x002f], &[]), words(other)),
            (hello(0x0303, &[0xc013, 0xc014], &[]), words(other)),
            // What is offered here would do.
            (hello(0x0303, &[0x002f, 0xc02f], &[]), None),
            (hello(0x0303, &[0x1301], &with_1_3), None),
            (b"EHLO client.example\r\n".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(reason(&first, &OURS), said, "{first:?}");
            // Half of it says nothing, and breaks nothing.
            for end in 0..first.len() {
                let _ = reason(&first[..end], &OURS);
            }
        }
    }

    #[tokio::test]
    async fn of_what_a_client_sends_a_beginning_is_kept_and_forgotten() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = tokio::io::duplex(2 * KEPT);
        client.write_all(&vec![b'x'; KEPT + 10]).await.expect("there is room");
        let mut recorded = Recorded::new(server);
        let mut read = vec![0; KEPT + 10];
        recorded.read_exact(&mut read).await.expect("it is there");
        assert_eq!(recorded.first().len(), KEPT);
        recorded.forget();
        client.write_all(b"more").await.expect("there is room");
        assert_eq!(recorded.read(&mut read).await.expect("it is there"), 4);
        assert_eq!(recorded.first(), b"");
    }
}
