//! One session: the pump between a connection and [`Server`], with its clocks.

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

/// What the bytes travel in.
enum Layer {
    /// Nothing else; the client has not asked for TLS.
    Clear,
    /// TLS, with what its handshake showed.
    Tls(CompletedHandshake),
}

/// Why a session has ended.
#[derive(Debug)]
enum End {
    /// We have said the last word: QUIT, or a client that cannot be gone on with.
    Said,
    /// The client wants TLS: no end yet.
    StartTls,
    /// The handshake failed.
    Handshake(String),
    /// The client was too slow.
    Timeout(Slow),
    /// The client has brought no message for too long.
    NoMessage,
    /// The seat was given to somebody else.
    Crowded,
    /// We are told to stop.
    Shutdown,
    /// The client has gone, or the network.
    Gone(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said | Self::StartTls => f.write_str("closed by us after our last reply"),
            Self::Handshake(fault) => write!(f, "the TLS handshake failed: {fault}"),
            Self::Timeout(slow) => slow.fmt(f),
            Self::NoMessage => f.write_str("the client brought no message for too long"),
            Self::Crowded => f.write_str("the client brought no message for a while, and others were waiting"),
            Self::Shutdown => f.write_str("the service is shutting down"),
            Self::Gone(how) => f.write_str(how),
        }
    }
}

struct Session {
    inbound: Arc<Inbound>,
    settings: Arc<Snapshot>,
    listener: ListenerConfig,
    peer: SocketAddr,
    /// The client's address as far as it gives rights.
    client: Option<IpAddr>,
    /// The client's name in DNS, as a proxy says.
    client_name: Option<Domain>,
    /// The proxy that brings the client.
    proxy: Option<SocketAddr>,
    local: IpAddr,
    stop: CancellationToken,
    server: Server,
    layer: Layer,
    /// What the judge said at MAIL; of the last MAIL that was taken.
    standing: Option<Standing>,
    /// The sender of the transaction, or of a MAIL that is being answered.
    sender: Option<Sender>,
    /// What of a message has come.
    draft: Option<message::Arriving>,
    pace: Pace,
    /// Since when the next command is waited for.
    command_since: Instant,
    /// Since when the next message is waited for.
    message_since: Instant,
    progress: Progress,
    seat: Seat,
    /// The refusal that is about to be said was logged, or counted, with its reason.
    is_logged: bool,
}

/// The wait for more of refused content that seems to be over, for its client may have ended it with bare LFs.
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
    // Replies are short and gathered by ourselves; waiting for more would only cost time.
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
    async fn whole(&mut self, tcp: TcpStream) -> End {
        if self.listener.tls == ListenerTls::Implicit {
            // Before a handshake nothing can be said.
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

    async fn rest<S: Transport>(&mut self, mut wire: Wire<S>, greet: bool) -> End {
        let end = if greet { self.greet_and_talk(&mut wire).await } else { self.talk(&mut wire).await };
        self.close(wire, end).await
    }

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

    /// Goes on until the session ends or wants TLS.
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

    async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, reply: &Reply) -> End {
        if let Err(refusal) = self.count(Rate::Handshakes) {
            return self.end_with(wire, &refusal);
        }
        self.say(wire, reply);
        self.flush(wire).await.map_or_else(|end| end, |()| End::StartTls)
    }

    fn patience(&self) -> Patience {
        self.seat.patience(&self.settings.config.timeouts)
    }

    /// Sends what was said.
    async fn flush<S: AsyncRead + AsyncWrite + Unpin>(&self, wire: &mut Wire<S>) -> Result<(), End> {
        select! {
            biased;
            sent = wire.flush(self.patience().command) => sent.map_err(|fault| unsent(&fault)),
            () = self.seat.evicted() => Err(End::Crowded),
        }
    }

    /// Sends what was said, and waits for more: the client has nothing else in the pipeline.
    async fn more<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        self.flush(wire).await?;
        let content = self.server.expects_content();
        // Refused content brings no message nearer.
        let is_message = content && self.server.is_storing();
        let since = Instant::now();
        let read = loop {
            let (due, end) = self.due(content, since);
            select! {
                biased;
                // A message on its way in is worth more than a quick end.
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

    /// Answers MAIL.
    ///
    /// # Errors
    /// The last reply to a client for whom there is no seat.
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
                // What a proxy shows says nothing of the client that it brings.
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

    /// The client as the rules of relaying see it.
    fn client_rights(&self) -> access::RelayClient {
        let may_relay = self.standing.as_ref().is_some_and(|standing| standing.may_relay);
        access::RelayClient { address: self.client, local: self.local, may_relay }
    }

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
