//! Reads the `ClientHello` of a client whose handshake failed, so that the log can name the reason.
//!
//! The library's own error can be misleading: for a client with TLS 1.0 alone it reports missing
//! signature algorithms, and for one with static RSA alone missing groups. Nothing is decided here.
//! If the `ClientHello` cannot be read, the library's error is used.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most recorded octets of a client's first data. Old clients send short `ClientHello`s.
const RECORDED_MAX: usize = 2048;
/// Signalling values in the list of cipher suites.
const SIGNALLING_SUITES: [u16; 2] = [0x00ff, 0x5600];
/// The extension that lists versions (RFC 8446 §4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_1_2: u16 = 0x0303;

/// A connection that records the first octets that are read, until `forget` is called.
#[derive(Debug)]
pub struct RecordedStream<S> {
    stream: S,
    first: Option<Vec<u8>>,
}

impl<S> RecordedStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            first: Some(Vec::new()),
        }
    }

    /// Ends the recording and drops the octets.
    pub(super) fn forget(&mut self) {
        self.first = None;
    }

    /// The recorded octets.
    pub(super) fn first(&self) -> &[u8] {
        self.first.as_deref().unwrap_or_default()
    }

    /// The inner connection.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RecordedStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        if let Some(first) = &mut this.first {
            let read = buffer.filled().get(before..).unwrap_or_default();
            first.extend_from_slice(
                &read[..read.len().min(RECORDED_MAX.saturating_sub(first.len()))],
            );
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RecordedStream<S> {
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

/// Returns the reason why the client's offer cannot lead to TLS, if its first octets show one.
/// `ours` are the cipher suites that we accept.
pub(super) fn reason(first: &[u8], ours: &[u16]) -> Option<String> {
    if is_ssl_2(first) {
        return Some("no TLS version in common: the client begins with SSL 2.0".to_owned());
    }
    let offer = ClientOffer::read(first)?;
    if offer.newest < TLS_1_2 {
        let newest = version(offer.newest);
        return Some(format!(
            "no TLS version in common: the client offers {newest} at most"
        ));
    }
    let suites: Vec<_> = offer
        .suites
        .iter()
        .filter(|suite| !SIGNALLING_SUITES.contains(suite))
        .collect();
    if suites.iter().any(|suite| ours.contains(suite)) {
        return None;
    }
    Some(if suites.iter().all(|suite| is_static_rsa(**suite)) {
        "no cipher suite in common: the client offers static RSA key exchange alone, and ECDHE is needed".to_owned()
    } else {
        "no cipher suite in common: the client offers none with ECDHE and AES-GCM or ChaCha20-Poly1305".to_owned()
    })
}

/// Returns true for an SSL 2.0 header, which very old clients send whatever version they offer in
/// it.
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

/// Returns true for key exchange by encryption to the server's RSA key, without forward secrecy
/// (`TLS_RSA_WITH_…`).
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

/// The offer in a `ClientHello`.
struct ClientOffer {
    newest: u16,
    suites: Vec<u16>,
}

impl ClientOffer {
    /// Parses a `ClientHello` that fits into one record (RFC 8446 §4.1.2); `None` if it is
    /// incomplete.
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
        let suites = message
            .take(usize::from(length))?
            .chunks_exact(2)
            .map(|two| u16::from_be_bytes([two[0], two[1]]));
        let suites = suites.collect();
        let compression = message.octet()?;
        message.take(usize::from(compression))?;
        let versions = message
            .number()
            .and_then(|length| message.take(usize::from(length)))
            .and_then(supported_versions);
        Some(Self {
            newest: versions.unwrap_or(legacy),
            suites,
        })
    }
}

/// Returns the newest version in the `supported_versions` extension, if there is one.
fn supported_versions(extensions: &[u8]) -> Option<u16> {
    let mut extensions = Octets(extensions);
    loop {
        let (kind, length) = (extensions.number()?, extensions.number()?);
        let content = extensions.take(usize::from(length))?;
        if kind == SUPPORTED_VERSIONS {
            let versions = content
                .get(1..)?
                .chunks_exact(2)
                .map(|two| u16::from_be_bytes([two[0], two[1]]));
            // GREASE values (RFC 8701) are no versions.
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
        self.take(2)
            .map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
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
    fn the_offer_of_an_old_client_gives_the_reason() {
        let old = |version: &str| {
            Some(format!(
                "no TLS version in common: the client offers {version} at most"
            ))
        };
        let words = |text: &str| Some(text.to_owned());
        let ssl_2 = "no TLS version in common: the client begins with SSL 2.0";
        let rsa = "no cipher suite in common: the client offers static RSA key exchange alone, and ECDHE is needed";
        let other = "no cipher suite in common: the client offers none with ECDHE and AES-GCM or ChaCha20-Poly1305";
        let (up_to_1_1, with_1_3) = (
            [0, 43, 0, 5, 4, 3, 2, 3, 1],
            [0, 0, 0, 0, 0, 43, 0, 5, 4, 0x0a, 0x0a, 3, 4],
        );
        for (first, said) in [
            (hello(0x0301, &[0x002f, 0x0035], &[]), old("TLS 1.0")),
            (hello(0x0302, &[0xc013], &[]), old("TLS 1.1")),
            (hello(0x0300, &[0x0004], &[]), old("SSL 3.0")),
            (hello(0x0303, &[0x002f], &up_to_1_1), old("TLS 1.1")),
            (vec![0x80, 0x2e, 1, 3, 1, 0, 0x15], words(ssl_2)),
            (hello(0x0303, &[0x002f, 0x009c, 0x00ff], &[]), words(rsa)),
            (hello(0x0303, &[0x0033, 0x002f], &[]), words(other)),
            (hello(0x0303, &[0xc013, 0xc014], &[]), words(other)),
            // The offer includes a suite that we accept.
            (hello(0x0303, &[0x002f, 0xc02f], &[]), None),
            (hello(0x0303, &[0x1301], &with_1_3), None),
            (b"EHLO client.example\r\n".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(reason(&first, &OURS), said, "{first:?}");
            // A part of it must not cause a panic.
            for end in 0..first.len() {
                let _ = reason(&first[..end], &OURS);
            }
        }
    }

    #[tokio::test]
    async fn the_first_octets_are_recorded_until_forget() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = tokio::io::duplex(2 * RECORDED_MAX);
        client
            .write_all(&vec![b'x'; RECORDED_MAX + 10])
            .await
            .expect("there is room");
        let mut recorded = RecordedStream::new(server);
        let mut read = vec![0; RECORDED_MAX + 10];
        recorded.read_exact(&mut read).await.expect("it is there");
        assert_eq!(recorded.first().len(), RECORDED_MAX);
        recorded.forget();
        client.write_all(b"more").await.expect("there is room");
        assert_eq!(recorded.read(&mut read).await.expect("it is there"), 4);
        assert_eq!(recorded.first(), b"");
    }
}
