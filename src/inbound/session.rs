//! One SMTP session: passes octets between a connection and the state machine [`Server`], and enforces the timeouts.

mod closing;
mod lost;
mod message;
mod proxy;
mod watched;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use lost::{Sender, Slow, unsent};

use super::Inbound;
use super::clients::Seat;
use super::pace::Pace;
use super::patience::{Patience, Progress};
use super::policy::{self, Standing};
use super::proxied::{self, Origin};
use super::wire::{Transport, Wire};
use crate::access;
use crate::address::Domain;
use crate::config::{ListenerConfig, ListenerTls, Rate};
use crate::connector::inbound_policy;
use crate::handshake::{CompletedHandshake, RecordedStream, Role};
use crate::monitor::RefusalReason;
use crate::monitor::certificates::CertificateSummary;
use crate::running_config::Snapshot;
use crate::smtp::command::{CommandError, MailFrom, RcptTo};
use crate::smtp::reply::Reply;
use crate::smtp::server::{Channel, Profile, Server, ServerStep};
use crate::tls::{NoTls, PeerCertificate, TlsFacts, TlsOutcome};

/// The TLS state of the connection.
enum Layer {
    /// The connection is in the clear: the client has not sent STARTTLS.
    Clear,
    /// The connection is under TLS; the value holds the facts of the handshake.
    Tls(CompletedHandshake),
}

/// The reason for which a session ended.
#[derive(Debug)]
enum End {
    /// Our last reply was sent: to QUIT, or to a client whose session cannot continue.
    Said,
    /// The client has sent STARTTLS; the session goes on after the handshake.
    StartTls,
    /// The TLS handshake failed.
    Handshake(String),
    /// The client was too slow.
    Timeout(Slow),
    /// The client sent no message for too long.
    NoMessage,
    /// The seat was given to another client.
    Crowded,
    /// The daemon is stopping.
    Shutdown,
    /// The connection was lost.
    Gone(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said | Self::StartTls => f.write_str("the relay closed the connection after its last reply"),
            Self::Handshake(fault) => write!(f, "the TLS handshake failed: {fault}"),
            Self::Timeout(slow) => slow.fmt(f),
            Self::NoMessage => f.write_str("the client sent no message within [timeouts] message"),
            Self::Crowded => {
                f.write_str("the client sent no message for a while, and its seat was needed for another client")
            }
            Self::Shutdown => f.write_str("the service is shutting down"),
            Self::Gone(how) => f.write_str(how),
        }
    }
}

/// The state of one session.
struct Session {
    inbound: Arc<Inbound>,
    settings: Arc<Snapshot>,
    listener: ListenerConfig,
    peer: SocketAddr,
    /// The client's address, if it is known and may give rights.
    client: Option<IpAddr>,
    /// The client's name in DNS, if a proxy has reported it.
    client_name: Option<Domain>,
    /// The proxy that has named the client with XCLIENT.
    proxy: Option<SocketAddr>,
    local: IpAddr,
    stop: CancellationToken,
    server: Server,
    layer: Layer,
    /// The judge's clearance for the last accepted MAIL.
    standing: Option<Standing>,
    /// The sender of the transaction, or of the MAIL that is being answered.
    sender: Option<Sender>,
    /// The message that is being received.
    draft: Option<message::Arriving>,
    pace: Pace,
    /// The time at which the wait for the next command began.
    command_since: Instant,
    /// The time of the last accepted message, or of the session's beginning.
    message_since: Instant,
    progress: Progress,
    seat: Seat,
    /// True if the refusal that is sent next was already logged or counted with its reason.
    is_logged: bool,
}

/// The wait for more of refused content that seems to be complete: its client may have ended it with bare LFs.
const SEEMS_ENDED: Duration = Duration::from_secs(3);

/// Runs one session to its end.
pub(super) async fn run(
    inbound: Arc<Inbound>,
    settings: Arc<Snapshot>,
    listener: ListenerConfig,
    stream: TcpStream,
    (origin, seat): (Origin, Seat),
    stop: CancellationToken,
) {
    let (peer, client) = (origin.address(), origin.client());
    // Nagle's algorithm only causes delay, since `Wire` collects replies itself.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().map_or(peer.ip(), |address| address.ip());
    let config = &settings.config;
    let profile = Profile {
        hostname: config.hostname.clone(),
        message_size: config.limits.message_size,
        recipients: config.limits.recipients,
        errors: config.limits.errors,
        received: config.limits.received,
        completed: access::is_own_client(&config.relay, client),
        xclient: client.is_some_and(|client| proxied::is_expected(&listener.xclient, client)),
    };
    let channel = match listener.tls {
        ListenerTls::Off => Channel::Clear,
        ListenerTls::Opportunistic => Channel::Offered,
        ListenerTls::Forced => Channel::Required,
        ListenerTls::Implicit => Channel::Tls,
    };
    let now = Instant::now();
    let mut session = Session {
        server: Server::new(profile, channel),
        inbound,
        settings,
        listener,
        peer,
        client,
        client_name: None,
        proxy: None,
        local,
        stop,
        layer: Layer::Clear,
        standing: None,
        sender: None,
        draft: None,
        pace: Pace::default(),
        command_since: now,
        message_since: now,
        progress: Progress::default(),
        seat,
        is_logged: false,
    };
    debug!(listener = %session.listener.name, %peer, "session opened");
    let open = session.inbound.monitor.open_session(&session.listener.name);
    let end = session.whole(stream).await;
    drop(open);
    session.ended(&end);
    debug!(listener = %session.listener.name, %peer, reason = %end, "session closed");
}

impl Session {
    /// Runs the session on its connection, through STARTTLS, and closes it.
    async fn whole(&mut self, tcp: TcpStream) -> End {
        if self.listener.tls == ListenerTls::Implicit {
            // With implicit TLS no reply can be sent before the handshake.
            if self.count(Rate::Handshakes).is_err() || self.refuses_proxy_header(&tcp).await {
                return End::Said;
            }
            return match self.shake_hands(tcp).await {
                Ok(tls) => self.rest(Wire::new(tls), true).await,
                Err(end) => end,
            };
        }
        let mut wire = Wire::new(tcp);
        if wire.has_input() && self.refuses_proxy_header(wire.stream()).await {
            wire.say(&CommandError::ProxyHeader.reply());
            return self.close(wire, End::Said).await;
        }
        match self.greet_and_talk(&mut wire).await {
            End::StartTls => match self.shake_hands(wire.into_stream()).await {
                Ok(tls) => {
                    self.server.continue_under_tls();
                    self.standing = None;
                    self.seat.free();
                    self.rest(Wire::new(tls), false).await
                }
                Err(end) => end,
            },
            end => self.close(wire, end).await,
        }
    }

    /// Runs the session under TLS to its end; `greet` is true if the client has not been greeted.
    async fn rest<S: Transport>(&mut self, mut wire: Wire<S>, greet: bool) -> End {
        let end = if greet { self.greet_and_talk(&mut wire).await } else { self.talk(&mut wire).await };
        self.close(wire, end).await
    }

    /// Greets the client, or rejects one that has sent something before the greeting, and continues with commands.
    async fn greet_and_talk<S: Transport>(&mut self, wire: &mut Wire<S>) -> End {
        match self.server.greet(wire.has_input()) {
            Ok(greeting) => {
                wire.say(&greeting);
                self.talk(wire).await
            }
            Err(reply) => {
                self.say(wire, &reply);
                End::Said
            }
        }
    }

    /// Runs the TLS handshake within its timeout.
    async fn shake_hands(&mut self, tcp: TcpStream) -> Result<TlsStream<RecordedStream<TcpStream>>, End> {
        let patience = self.patience().handshake;
        let shaking = self.settings.tls.accept(tcp, self.listener.request_client_certificate);
        let shaken = select! {
            () = self.stop.cancelled() => return Err(End::Shutdown),
            () = self.seat.evicted() => return Err(End::Crowded),
            shaken = timeout(patience, shaking) => shaken,
        };
        self.shaken(shaken.as_ref().ok().and_then(|shaken| shaken.as_ref().ok()).map(|(_, seen)| seen));
        match shaken {
            Ok(Ok((tls, seen))) => {
                self.layer = Layer::Tls(seen);
                self.command_since = Instant::now();
                Ok(tls)
            }
            Ok(Err(fault)) => Err(End::Handshake(fault.to_string())),
            Err(_) => Err(End::Handshake(format!("not complete after {} seconds", patience.as_secs_f32()))),
        }
    }

    /// Executes the client's commands until the session ends or the client sends STARTTLS.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> End {
        loop {
            if self.server.transaction().is_none() && !self.server.expects_content() {
                self.sender = None;
            }
            let (used, step) = self.server.step(&wire.input);
            let reply = match step {
                ServerStep::Read => {
                    wire.input.advance(used);
                    match self.more(wire).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                ServerStep::Content(octets) => {
                    self.content(octets).await;
                    wire.input.advance(used);
                    continue;
                }
                ServerStep::Reply(reply) => reply,
                ServerStep::Mail(from) => match self.mail(from).await {
                    Ok(reply) => reply,
                    Err(refusal) => return self.end_with(wire, &refusal),
                },
                ServerStep::Rcpt(rcpt) => self.rcpt(rcpt),
                ServerStep::Commit(envelope) => {
                    wire.input.advance(used);
                    match self.commit(wire, *envelope).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                ServerStep::StartTls(reply) => {
                    wire.input.advance(used);
                    return self.start_tls(wire, &reply).await;
                }
                ServerStep::XClient(said) => match self.xclient(*said).await {
                    Ok(reply) => reply,
                    Err(refusal) => return self.end_with(wire, &refusal),
                },
                ServerStep::ProxyHeader(reply) => {
                    self.warn_proxy_header();
                    return self.end_with(wire, &reply);
                }
                ServerStep::Close(reply) => return self.end_with(wire, &reply),
            };
            wire.input.advance(used);
            self.say(wire, &reply);
            self.command_since = Instant::now();
            if wire.is_full()
                && let Err(end) = self.flush(wire).await
            {
                return end;
            }
        }
    }

    /// Answers STARTTLS, within the limit on handshakes.
    async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, reply: &Reply) -> End {
        if let Err(refusal) = self.count(Rate::Handshakes) {
            return self.end_with(wire, &refusal);
        }
        self.say(wire, reply);
        self.flush(wire).await.map_or_else(|end| end, |()| End::StartTls)
    }

    /// Returns the session's timeouts at this moment.
    fn patience(&self) -> Patience {
        self.seat.patience(&self.settings.config.timeouts)
    }

    /// Sends the collected replies.
    async fn flush<S: AsyncRead + AsyncWrite + Unpin>(&self, wire: &mut Wire<S>) -> Result<(), End> {
        select! {
            biased;
            sent = wire.flush(self.patience().command) => sent.map_err(|fault| unsent(&fault)),
            () = self.seat.evicted() => Err(End::Crowded),
        }
    }

    /// Sends the collected replies and waits for more input, since all pipelined commands are processed.
    async fn more<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        self.flush(wire).await?;
        let content = self.server.expects_content();
        // Content that is already refused does not count as progress.
        let is_message = content && self.server.is_storing();
        let since = Instant::now();
        let read = loop {
            let (due, end) = self.due(content, since);
            select! {
                biased;
                // A stop waits for a message that is being received.
                () = self.stop.cancelled(), if !content => return Err(End::Shutdown),
                is_evicted = self.seat.changed() => if is_evicted { return Err(End::Crowded) },
                read = timeout_at(due, wire.fill(content)) => match read {
                    Ok(read) => break read,
                    Err(_) => return Err(self.give_up(wire, end)),
                },
            }
        };
        if content {
            let octets = read.as_ref().map_or(0, |octets| *octets);
            self.pace.note(since.elapsed(), octets);
            if is_message && self.progress.note(octets) {
                self.seat.brought();
            }
        }
        match read {
            Ok(0) => Err(End::Gone("closed by the client without QUIT".into())),
            Ok(_) => Ok(()),
            Err(fault) => Err(End::Gone(fault.to_string())),
        }
    }

    /// Judges the sender and returns the reply to MAIL.
    ///
    /// # Errors
    /// Returns the last reply to a client that gets no seat; the session ends with it.
    async fn mail(&mut self, from: MailFrom) -> Result<Reply, Reply> {
        self.seat_sender().await?;
        let connector = Arc::clone(policy::connector(&self.settings.connectors, &from.reverse_path, self.peer.ip()));
        self.sender = Some(Sender { from: from.reverse_path.clone(), connector: Arc::clone(&connector) });
        if let Err(refusal) = self.count(Rate::Messages) {
            return Ok(self.server.mail(from, Err(refusal)));
        }
        let (settings, connector) = (&self.settings, &connector);
        let outcome = match &self.layer {
            Layer::Clear => TlsOutcome::Clear(NoTls::NotUsed),
            Layer::Tls(seen) => {
                let against = settings.tls.client(connector).checks(None).for_policy(&inbound_policy(connector));
                let facts = seen.facts(against, Role::Client, Timestamp::now()).await;
                // A proxy's certificate proves nothing about the client that it has named.
                let certificate = if self.proxy.is_some() { PeerCertificate::Nothing } else { facts.certificate };
                TlsOutcome::Tls(TlsFacts { certificate, ..facts })
            }
        };
        let shown = CertificateSummary::of(&outcome);
        let judged = policy::judge(connector, &self.listener, &from.reverse_path, self.client, outcome);
        self.judged(connector, &from.reverse_path, shown, &judged);
        let judged = judged.and_then(|standing| {
            let room = self.inbound.spool.admit(from.size.unwrap_or(0));
            room.map_err(|fault| self.cannot_store(&fault)).map(|()| standing)
        });
        Ok(match judged {
            Ok(standing) => {
                self.standing = Some(standing);
                self.pace = Pace::default();
                self.seat.free();
                self.server.mail(from, Ok(()))
            }
            Err(refusal) => self.server.mail(from, Err(refusal)),
        })
    }

    /// Returns the facts about the client that the relay rules need.
    fn client_rights(&self) -> access::RelayClient {
        let may_relay = self.standing.as_ref().is_some_and(|standing| standing.may_relay);
        access::RelayClient { address: self.client, local: self.local, may_relay }
    }

    /// Applies the relay rules and limits to a recipient, and returns the reply to RCPT.
    fn rcpt(&mut self, rcpt: RcptTo) -> Reply {
        if let Err(refusal) = self.count(Rate::Recipients) {
            return self.server.rcpt(rcpt, Err(refusal));
        }
        let peer = self.client_rights();
        let rules = access::RelayRules::new(&self.settings.config, &self.settings.connectors);
        let answer = access::resolve_recipient(rules, peer, &rcpt.forward_path);
        if let Err(denied) = &answer {
            let connector = self.standing.as_ref().map(|standing| standing.connector.name.clone()).unwrap_or_default();
            self.refused(&connector, RefusalReason::Recipient, denied.to_string());
            let recipient = rcpt.forward_path.to_string();
            if self.should_log("recipient refused", &recipient) {
                let (from, from_connector) = self.named();
                info!(
                    listener = %self.listener.name, peer = %self.peer, from, from_connector, recipient, reason = %denied,
                    "recipient refused"
                );
            }
            self.is_logged = true;
        }
        let answer = answer.map_err(access::RelayDenied::reply);
        let answer = answer.and_then(|mailbox| self.reserve(&mailbox, rcpt.orcpt.as_deref()).map(|()| mailbox));
        self.server.rcpt(rcpt, answer)
    }
}
