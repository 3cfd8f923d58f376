//! Servers that stumble over some ClientHellos, or something on the way to them that does.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{NamedGroup, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A larger ClientHello may need more than one TCP segment: the smallest MTU of IPv6. Every
/// hybrid's key alone has 1216 octets.
pub(crate) const SEGMENT: usize = 1280;

/// A curve that no key exchange is done with.
pub(crate) const SECP256K1: NamedGroup = NamedGroup::Unknown(22);

/// `ecdsa_brainpoolP256r1tls13_sha256` (RFC 8734 §3), a scheme that no key of ours signs with.
const BRAINPOOL: SignatureScheme = SignatureScheme::Unknown(0x081a);

/// The ClientHello that a server cannot bear, and its reaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picky {
    pub(crate) over: Over,
    pub(crate) does: Does,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// A ClientHello of more than one segment.
    Large,
    /// A server name.
    Sni,
    /// A ClientHello without a server name.
    NoSni,
    /// A ClientHello that does not list this curve, on which it has its key, as OpenSSL does.
    NoCurve(NamedGroup),
    /// Every one.
    Every,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Resets,
    Ends,
    /// It reads on and says nothing until the client goes.
    Swallows,
    /// It sends the alert of this number.
    Alerts(u8),
}

/// A ClientHello that waits to be read.
pub(crate) struct Waiting {
    pub(crate) octets: usize,
    sni: Option<String>,
    pub(crate) groups: Vec<NamedGroup>,
    pub(crate) schemes: Vec<SignatureScheme>,
}

impl Waiting {
    /// Looks at it without reading it.
    pub(crate) async fn on(stream: &TcpStream) -> io::Result<Self> {
        let mut buffer = vec![0; 16 * 1024];
        let octets = loop {
            let there = stream.peek(&mut buffer).await?;
            if there == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let whole = 5 + usize::from(u16::from_be_bytes([buffer[3], buffer[4]]));
            if there >= 5 && there >= whole {
                break whole;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &buffer[..octets])?;
        let accepted = acceptor
            .accept()
            .map_err(|(error, _)| io::Error::other(error))?
            .expect("a whole ClientHello");
        let hello = accepted.client_hello();
        let groups = hello.named_groups().expect("TLS 1.3 has groups").to_vec();
        let schemes = hello.signature_schemes().to_vec();
        Ok(Self {
            octets,
            sni: hello.server_name().map(str::to_owned),
            groups,
            schemes,
        })
    }

    /// `(hello hybrid+classical sni)` and the like.
    pub(crate) fn words(&self) -> String {
        let hybrid = self.groups.contains(&NamedGroup::X25519MLKEM768);
        let groups = match (hybrid, self.groups.contains(&NamedGroup::X25519)) {
            (true, true) => "hybrid+classical",
            (true, false) => "hybrid",
            (false, _) => "classical",
        };
        let all = self.groups.contains(&SECP256K1) && self.schemes.contains(&BRAINPOOL);
        let curves = if all { "+curves" } else { "" };
        format!(
            "(hello {groups}{curves}{})",
            if self.sni.is_some() { " sni" } else { "" }
        )
    }
}

impl Picky {
    /// Returns true if the server cannot bear it.
    pub(crate) fn stumbles(self, hello: &Waiting) -> bool {
        match self.over {
            Over::Large => hello.octets > SEGMENT,
            Over::Sni => hello.sni.is_some(),
            Over::NoSni => hello.sni.is_none(),
            Over::NoCurve(curve) => !hello.groups.contains(&curve),
            Over::Every => true,
        }
    }

    /// The end of the connection.
    pub(crate) async fn play(self, mut stream: TcpStream) -> io::Result<()> {
        if self.does == Does::Resets {
            // Unread octets make the end a reset.
            return Ok(());
        }
        let mut hello = vec![0; 16 * 1024];
        let mut there = stream.read(&mut hello).await?;
        match self.does {
            Does::Resets | Does::Ends => Ok(()),
            Does::Swallows => {
                while there > 0 {
                    there = stream.read(&mut hello).await?;
                }
                Ok(())
            }
            Does::Alerts(number) => {
                stream
                    .write_all(&[0x15, 0x03, 0x03, 0, 2, 2, number])
                    .await?;
                stream.shutdown().await
            }
        }
    }
}
