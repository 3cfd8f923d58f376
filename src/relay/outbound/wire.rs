//! One connection: a socket, with or without TLS, its buffers, and a time limit for every step.
//!
//! It runs dialogues without knowing their content. By itself it writes only QUIT; other writers
//! need a dialogue or a clearance.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::config::OutboundConfig;
use crate::net::tls_io::{self, ClientTls, CompletedHandshake, HandshakeError};
use crate::policy::failure::{Failure, HopAddress, Scope};
use crate::policy::tls::{Clearance, Handshake, Hello};
use crate::smtp::address::Host;
use crate::smtp::client::{DialogueStage, Opening, OpeningStep, ProtocolViolation};
use crate::smtp::reply::Status;
use crate::telemetry::OpenGuard;

/// The time limit for closing a session with QUIT.
const QUIT_TIME: Duration = Duration::from_secs(5);
/// The number of octets read at once. Replies are short.
const READ_SIZE: usize = 2048;
/// The octets that the TLS session collects before it writes them: usually, and of content that is
/// sent in large blocks.
const TLS_BUFFER: usize = 64 * 1024;
pub(super) const LARGE_TLS_BUFFER: usize = 256 * 1024;
/// The largest output buffer that an idle connection keeps, in octets.
const MAX_IDLE_OUTPUT: usize = 32 * 1024;

/// A dialogue that [`Wire::converse`] runs: it receives the octets of the peer and yields the
/// octets to send.
pub(super) trait Dialogue {
    /// The step at which the dialogue stops.
    type Step;
    /// Processes input, as [`Opening::receive`] does.
    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Self::Step>), ProtocolViolation>;
    /// Returns the number of complete replies so far. The time limit begins anew with each.
    fn replies(&self) -> usize;
    /// Returns the stage whose reply is awaited.
    fn awaited(&self) -> DialogueStage;
}

impl Dialogue for Opening<'_> {
    type Step = OpeningStep;

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<OpeningStep>), ProtocolViolation> {
        Opening::receive(self, input, out)
    }

    fn replies(&self) -> usize {
        Opening::replies(self)
    }

    fn awaited(&self) -> DialogueStage {
        Opening::awaited(self)
    }
}

/// The reason for which no connection could be opened. Its text leaves out the address, which every
/// failure of a hop names.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The connection was rejected, or there is no way to the address.
    #[error("cannot connect: {source}")]
    Io { source: io::Error },
    /// The connector's `source` cannot be used.
    #[error("cannot send from {own} ([connector.outbound] source): {source}")]
    Source { own: IpAddr, source: io::Error },
    /// The host did not answer within this time.
    #[error("cannot connect: no answer within {} s", limit.as_secs())]
    NoAnswer { limit: Duration },
}

/// A failure of a connection, and the stage at which it happened.
// Rule: RFC 5321 §4.1.1.10.
#[derive(Debug)]
pub(super) struct ConnectionFailure {
    kind: FailureKind,
    stage: DialogueStage,
    /// True if the content was being sent.
    sending: bool,
}

#[derive(Debug)]
enum FailureKind {
    Closed,
    Io(io::Error),
    TimedOut(Duration),
    ProtocolViolation(ProtocolViolation),
}

impl ConnectionFailure {
    fn awaiting(stage: DialogueStage, kind: FailureKind) -> Self {
        Self {
            kind,
            stage,
            sending: false,
        }
    }

    /// The stage whose reply was awaited.
    pub(super) fn stage(&self) -> DialogueStage {
        self.stage
    }

    /// Returns whether the connection was closed or reset without a reply.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.kind, FailureKind::Closed | FailureKind::Io(_))
    }

    /// Returns a temporary failure of this hop.
    pub(super) fn failure(&self) -> Failure {
        let status = match self.kind {
            FailureKind::Closed | FailureKind::Io(_) | FailureKind::TimedOut(_) => Status(4, 2),
            FailureKind::ProtocolViolation(_) => Status(5, 0),
        };
        Failure::transient(Scope::Hop, status, self.to_string())
    }
}

impl fmt::Display for ConnectionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.stage;
        match &self.kind {
            FailureKind::ProtocolViolation(violation) => violation.fmt(f),
            FailureKind::Closed if self.sending => {
                f.write_str("the peer closed the connection in the middle of the message")
            }
            FailureKind::Io(fault) if self.sending => {
                let text = tls_io::describe_alert(fault).unwrap_or_else(|| fault.to_string());
                write!(
                    f,
                    "the connection broke in the middle of the message: {text}"
                )
            }
            FailureKind::TimedOut(limit) if self.sending => {
                write!(
                    f,
                    "the peer accepted no content within {} s",
                    limit.as_secs()
                )
            }
            FailureKind::Closed => write!(
                f,
                "the peer closed the connection instead of replying to {at}"
            ),
            FailureKind::Io(fault) => match tls_io::describe_alert(fault) {
                Some(alert) => write!(f, "instead of replying to {at}, {alert}"),
                None => write!(f, "the connection broke before the reply to {at}: {fault}"),
            },
            FailureKind::TimedOut(limit) => {
                write!(f, "no reply to {at} within {} s", limit.as_secs())
            }
        }
    }
}

/// An SMTP connection to a peer.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    input: BytesMut,
    output: Vec<u8>,
    /// The guard that counts the connection as open while it lives.
    counted: Option<OpenGuard>,
}

#[derive(Debug)]
enum Stream {
    Socket(UnixStream),
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// Connects.
    pub(super) async fn connect(
        address: &HopAddress,
        settings: &OutboundConfig,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        let stream = match timeout(limit, Stream::connect(address, settings)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(ConnectError::NoAnswer { limit }),
        };
        Ok(Self {
            stream,
            input: BytesMut::new(),
            output: Vec::new(),
            counted: None,
        })
    }

    /// Returns our own address of the connection, before TLS; `None` for a unix socket.
    pub(super) fn source(&self) -> Option<IpAddr> {
        match &self.stream {
            Stream::Clear(stream) => stream.local_addr().ok().map(|own| own.ip()),
            Stream::Socket(_) | Stream::Tls(_) => None,
        }
    }

    /// Attaches the guard that counts the connection as open.
    pub(super) fn counted(self, counted: OpenGuard) -> Self {
        Self {
            counted: Some(counted),
            ..self
        }
    }

    /// Runs the TLS handshake. Input that was received in the clear is discarded.
    pub(super) async fn start_tls(
        self,
        client: &ClientTls,
        name: &Host,
        hello: Hello,
        handshake: Handshake,
        limit: Duration,
    ) -> Result<(Self, CompletedHandshake), HandshakeError> {
        let Stream::Clear(stream) = self.stream else {
            return Err(HandshakeError::Failed(
                "the connection already uses TLS, or is a unix socket".to_owned(),
            ));
        };
        match timeout(limit, client.connect(stream, name, hello, handshake)).await {
            Ok(Ok((stream, seen))) => {
                let stream = Stream::Tls(Box::new(stream));
                Ok((
                    Self {
                        stream,
                        input: BytesMut::new(),
                        output: Vec::new(),
                        counted: self.counted,
                    },
                    seen,
                ))
            }
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(HandshakeError::CutShort(format!(
                "it was not complete within {} s",
                limit.as_secs()
            ))),
        }
    }

    /// Continues the opening after the handshake.
    pub(super) fn continue_opening(&mut self, opening: &mut Opening<'_>) {
        opening.continue_under_tls(&mut self.output);
    }

    /// The output buffer; only the holder of a clearance may write to it.
    pub(super) fn output(&mut self, _clearance: &Clearance) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Runs a dialogue to its next step. Each reply may take as long as `limit`.
    pub(super) async fn converse<D: Dialogue>(
        &mut self,
        dialogue: &mut D,
        limit: Duration,
    ) -> Result<D::Step, ConnectionFailure> {
        let mut deadline = Instant::now() + limit;
        let mut replies = dialogue.replies();
        loop {
            if let Err(kind) = self.flush_until(deadline, limit).await {
                return Err(ConnectionFailure::awaiting(dialogue.awaited(), kind));
            }
            if !self.input.is_empty() {
                let (used, step) = match dialogue.receive(&self.input, &mut self.output) {
                    Ok(progress) => progress,
                    Err(violation) => {
                        let kind = FailureKind::ProtocolViolation(violation);
                        return Err(ConnectionFailure::awaiting(dialogue.awaited(), kind));
                    }
                };
                self.input.advance(used);
                if let Some(step) = step {
                    return Ok(step);
                }
                if dialogue.replies() > replies {
                    replies = dialogue.replies();
                    deadline = Instant::now() + limit;
                }
                if !self.output.is_empty() {
                    continue;
                }
            }
            let kind = match timeout_at(deadline, self.read()).await {
                Ok(Ok(0)) => FailureKind::Closed,
                Ok(Ok(_)) => continue,
                Ok(Err(fault)) => FailureKind::of(fault),
                Err(_) => FailureKind::TimedOut(limit),
            };
            return Err(ConnectionFailure::awaiting(dialogue.awaited(), kind));
        }
    }

    /// Sends the output buffer: a block of the content.
    pub(super) async fn flush(&mut self, limit: Duration) -> Result<(), ConnectionFailure> {
        let result = self.flush_until(Instant::now() + limit, limit).await;
        result.map_err(|kind| ConnectionFailure {
            kind,
            stage: DialogueStage::Data,
            sending: true,
        })
    }

    async fn flush_until(&mut self, deadline: Instant, limit: Duration) -> Result<(), FailureKind> {
        if self.output.is_empty() {
            return Ok(());
        }
        let result = timeout_at(deadline, async {
            match &mut self.stream {
                Stream::Socket(stream) => stream.write_all(&self.output).await,
                Stream::Clear(stream) => stream.write_all(&self.output).await,
                Stream::Tls(stream) => {
                    stream.write_all(&self.output).await?;
                    stream.flush().await
                }
            }
        })
        .await;
        self.output.clear();
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(FailureKind::of(fault)),
            Err(_) => Err(FailureKind::TimedOut(limit)),
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.input.reserve(READ_SIZE);
        match &mut self.stream {
            Stream::Socket(stream) => stream.read_buf(&mut self.input).await,
            Stream::Clear(stream) => stream.read_buf(&mut self.input).await,
            Stream::Tls(stream) => stream.read_buf(&mut self.input).await,
        }
    }

    /// Returns whether the peer has neither closed the idle connection nor sent anything, such as a
    /// 421. Returns at once.
    pub(super) async fn is_quiet(&mut self) -> bool {
        let mut octet = [0_u8; 1];
        let mut buffer = ReadBuf::new(&mut octet);
        let is_ready = poll_fn(|context| {
            let read = match &mut self.stream {
                Stream::Socket(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                Stream::Clear(stream) => Pin::new(stream).poll_read(context, &mut buffer),
                Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, &mut buffer),
            };
            Poll::Ready(read.is_ready())
        })
        .await;
        !is_ready && self.input.is_empty()
    }

    /// Returns whether the peer has sent anything that was not processed yet. Returns at once.
    pub(super) async fn has_spoken(&mut self) -> bool {
        if self.input.is_empty() {
            let mut read = pin!(self.read());
            // An error, or the end of the stream, shows at the next read, too.
            let _ = poll_fn(|context| Poll::Ready(read.as_mut().poll(context))).await;
        }
        !self.input.is_empty()
    }

    /// Selects whether the TLS session collects full records for large blocks, which it then sends
    /// in one write.
    pub(super) fn use_large_blocks(&mut self, large: bool) {
        if let Stream::Tls(stream) = &mut self.stream {
            let octets = if large { LARGE_TLS_BUFFER } else { TLS_BUFFER };
            stream.get_mut().1.set_buffer_limit(Some(octets));
        }
    }

    /// Frees the memory that a large message needed.
    pub(super) fn shrink_output(&mut self) {
        if self.output.capacity() > MAX_IDLE_OUTPUT {
            self.output = Vec::new();
        }
    }

    /// Closes the session with QUIT (RFC 5321 §4.1.1.10), in a task of its own. Await the task to
    /// know that the connection is closed.
    pub(super) fn quit(mut self) -> JoinHandle<()> {
        let closing = async move {
            self.output.clear();
            self.output.extend_from_slice(b"QUIT\r\n");
            if self
                .flush_until(Instant::now() + QUIT_TIME, QUIT_TIME)
                .await
                .is_ok()
            {
                self.input.clear();
                // The reply to QUIT does not matter.
                let _ = self.read().await;
            }
            let _ = match &mut self.stream {
                Stream::Socket(stream) => stream.shutdown().await,
                Stream::Clear(stream) => stream.shutdown().await,
                Stream::Tls(stream) => stream.shutdown().await,
            };
        };
        tokio::spawn(async move {
            let _ = timeout(QUIT_TIME, closing).await;
        })
    }
}

impl Stream {
    async fn connect(
        address: &HopAddress,
        settings: &OutboundConfig,
    ) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Io { source };
        let address = match address {
            HopAddress::Tcp(address) => *address,
            HopAddress::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                return Ok(Self::Socket(stream));
            }
        };
        let stream = match settings.source_for(address) {
            None => TcpStream::connect(address).await.map_err(failed)?,
            Some(own) => {
                let socket =
                    bound_socket(own).map_err(|source| ConnectError::Source { own, source })?;
                socket.connect(address).await.map_err(failed)?
            }
        };
        // Every write is a complete group of commands or a block of content, so delaying it would
        // only cost time.
        if let Err(fault) = stream.set_nodelay(true) {
            tracing::debug!(%address, %fault, "cannot set TCP_NODELAY");
        }
        Ok(Self::Clear(stream))
    }
}

/// Creates a socket with this address and any port.
fn bound_socket(own: IpAddr) -> io::Result<TcpSocket> {
    let socket = match own {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(own, 0))?;
    Ok(socket)
}

impl FailureKind {
    fn of(fault: io::Error) -> Self {
        match fault.kind() {
            // The peer closed the connection without a TLS close_notify.
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(fault),
        }
    }
}
