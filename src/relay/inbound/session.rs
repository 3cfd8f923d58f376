//! One SMTP session: passes octets between a connection and the state machine [`Server`], and
//! enforces the timeouts.

mod client_log;
mod closing;
mod login;
mod message;
mod metrics;
mod proxy;
mod recipient;
mod state;

use std::sync::Arc;

use bytes::Buf as _;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Inbound;
use super::buffered::{BufferedStream, ClientStream, TlsClientStream};
use super::clients::Seat;
use super::min_rate::ContentRate;
use super::policy::{self};
use super::proxied::{self, Origin};
use super::timeouts::{Progress, SessionTimeouts};
use crate::config::{ListenerConfig, ListenerTls, Rate};
use crate::net::tls_io::{ReadAheadStream, Role};
use crate::policy::connector::inbound_policy;
use crate::policy::relay_access;
use crate::policy::tls::{NoTls, PeerCertificate, TlsFacts, TlsOutcome};
use crate::relay::running_config::Snapshot;
use crate::smtp::command::{CommandError, MailFrom};
use crate::smtp::reply::Reply;
use crate::smtp::server::{Channel, Profile, Server, ServerStep};
use crate::telemetry::certificates::WatchedCertificate;
use client_log::send_failed;
use recipient::RcptStep;
use state::{ClientSession, ConnectionTls, SessionEndReason, TransactionSender};

/// Runs one session to its end.
pub(super) async fn run(
    inbound: Arc<Inbound>,
    settings: Arc<Snapshot>,
    listener: Arc<ListenerConfig>,
    stream: TcpStream,
    (origin, seat): (Origin, Seat),
    stop: CancellationToken,
) {
    let (peer, client) = (origin.address(), origin.client());
    // Nagle's algorithm only causes delay, since `BufferedStream` collects replies itself.
    let _ = stream.set_nodelay(true);
    let local = stream
        .local_addr()
        .map_or(peer.ip(), |address| address.ip());
    let config = &settings.config;
    let profile = Profile {
        hostname: config.hostname.clone(),
        message_size: config.limits.message_size,
        recipients: config.limits.recipients,
        errors: config.limits.errors,
        received: config.limits.received,
        completed: relay_access::is_own_client(&config.relay, client),
        xclient: client.is_some_and(|client| proxied::is_listed(&listener.xclient, client)),
        mechanisms: listener.auth,
        auth_required: listener.auth_required,
    };
    let channel = match listener.tls {
        ListenerTls::Off => Channel::Clear,
        ListenerTls::Opportunistic => Channel::Offered,
        ListenerTls::Forced => Channel::Required,
        ListenerTls::Implicit => Channel::Tls,
    };
    let now = Instant::now();
    let mut session = ClientSession {
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
        connection_tls: ConnectionTls::Clear,
        sender_clearance: None,
        user: None,
        sender: None,
        proving: None,
        draft: None,
        content_rate: ContentRate::default(),
        command_since: now,
        message_since: now,
        progress: Progress::default(),
        seat,
        is_logged: false,
    };
    debug!(listener = %session.listener.name, %peer, "session opened");
    let open = session.inbound.monitor.open_session(&session.listener.name);
    let end = session.run(stream).await;
    drop(open);
    session.record_end(&end);
    debug!(listener = %session.listener.name, %peer, reason = %end, "session closed");
}

// Thousands of sessions wait for their next command, and each needs its future in memory. What a
// session needs for a short time only is therefore boxed, and so is all that it needs under TLS.
impl ClientSession {
    /// Runs the session on its connection, through STARTTLS, and closes it.
    async fn run(&mut self, tcp: TcpStream) -> SessionEndReason {
        if self.listener.tls == ListenerTls::Implicit {
            // With implicit TLS no reply can be sent before the handshake.
            if self.count(Rate::Handshakes).is_err() || Box::pin(self.has_proxy_header(&tcp)).await
            {
                return SessionEndReason::Replied;
            }
            return Box::pin(self.run_under_tls(tcp, true)).await;
        }
        let mut connection = BufferedStream::new(tcp);
        if connection.has_input() && Box::pin(self.has_proxy_header(connection.stream())).await {
            connection.add_reply(&CommandError::ProxyHeader.reply());
            return Box::pin(self.close(connection, SessionEndReason::Replied)).await;
        }
        let end = match self.greet(&mut connection) {
            Ok(()) => self.dialogue(&mut connection).await,
            Err(end) => end,
        };
        if matches!(end, SessionEndReason::StartTls) {
            return Box::pin(self.run_under_tls(connection.into_stream(), false)).await;
        }
        Box::pin(self.close(connection, end)).await
    }

    /// Runs the TLS handshake and the session under TLS to its end; `greet` is true if the client
    /// has not been greeted.
    async fn run_under_tls(&mut self, tcp: TcpStream, greet: bool) -> SessionEndReason {
        let mut connection = match Box::pin(self.negotiate_tls(tcp)).await {
            Ok(tls) => BufferedStream::new(tls),
            Err(end) => return end,
        };
        let greeted = if greet {
            self.greet(&mut connection)
        } else {
            self.server.continue_under_tls();
            self.sender_clearance = None;
            self.user = None;
            self.seat.free();
            Ok(())
        };
        let end = match greeted {
            Ok(()) => self.dialogue(&mut connection).await,
            Err(end) => end,
        };
        Box::pin(self.close(connection, end)).await
    }

    /// Greets the client.
    ///
    /// # Errors
    /// Returns the end of the session with a client that has sent something before the greeting.
    // Rule: RFC 5321 §4.3.1.
    fn greet<S: ClientStream>(
        &mut self,
        connection: &mut BufferedStream<S>,
    ) -> Result<(), SessionEndReason> {
        match self.server.greet(connection.has_input()) {
            Ok(greeting) => {
                connection.add_reply(&greeting);
                Ok(())
            }
            Err(reply) => {
                self.reply(connection, &reply);
                Err(SessionEndReason::Replied)
            }
        }
    }

    /// Runs the TLS handshake within its timeout.
    async fn negotiate_tls(&mut self, tcp: TcpStream) -> Result<TlsClientStream, SessionEndReason> {
        let time_limit = self.timeouts().handshake;
        let handshake = self.settings.tls.accept(
            ReadAheadStream::new(tcp),
            self.listener.request_client_certificate,
        );
        let result = select! {
            () = self.stop.cancelled() => return Err(SessionEndReason::Shutdown),
            () = self.seat.evicted() => return Err(SessionEndReason::Evicted),
            result = timeout(time_limit, handshake) => result,
        };
        let fault = match result {
            Ok(Ok((tls, seen))) => {
                self.count_handshake(Some(&seen));
                if seen.channel_binding().is_none() {
                    self.server.without_channel_binding();
                }
                self.connection_tls = ConnectionTls::Tls(seen);
                self.command_since = Instant::now();
                return Ok(tls);
            }
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => format!("not complete after {} seconds", time_limit.as_secs_f32()),
        };
        self.count_handshake(None);
        Err(SessionEndReason::Handshake(fault))
    }

    /// Executes the client's commands until the session ends or the client sends STARTTLS.
    async fn dialogue<S: ClientStream>(
        &mut self,
        connection: &mut BufferedStream<S>,
    ) -> SessionEndReason {
        loop {
            if self.server.transaction().is_none() && !self.server.expects_content() {
                self.sender = None;
            }
            let (used, step) = self.server.step(&connection.input);
            let reply = match step {
                ServerStep::Read => {
                    connection.input.advance(used);
                    match self.read_more(connection).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                ServerStep::Content(octets) => {
                    let is_full = self.add_content(octets, connection.is_large());
                    connection.input.advance(used);
                    if is_full {
                        Box::pin(self.write_content()).await;
                    }
                    continue;
                }
                ServerStep::Reply(reply) => reply,
                ServerStep::Mail(from) => match Box::pin(self.mail(from)).await {
                    Ok(reply) => reply,
                    Err(refusal) => return self.end_with(connection, &refusal),
                },
                ServerStep::Rcpt(rcpt) => match self.rcpt(rcpt) {
                    RcptStep::Reply(reply) => reply,
                    RcptStep::Ask(asked) => match Box::pin(self.ask_recipient(asked)).await {
                        Ok(reply) => reply,
                        Err(end) => return end,
                    },
                },
                ServerStep::Commit(envelope) => {
                    connection.input.advance(used);
                    match Box::pin(self.commit(connection, *envelope)).await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                ServerStep::StartTls(reply) => {
                    connection.input.advance(used);
                    return self.start_tls(connection, &reply).await;
                }
                ServerStep::XClient(command) => match Box::pin(self.xclient(*command)).await {
                    Ok(reply) => reply,
                    Err(refusal) => return self.end_with(connection, &refusal),
                },
                ServerStep::Login(request) => Box::pin(self.login(request)).await,
                ServerStep::ProxyHeader(reply) => {
                    self.warn_proxy_header();
                    return self.end_with(connection, &reply);
                }
                ServerStep::Close(reply) => return self.end_with(connection, &reply),
            };
            connection.input.advance(used);
            self.reply(connection, &reply);
            self.command_since = Instant::now();
            if connection.must_flush()
                && let Err(end) = self.flush(connection).await
            {
                return end;
            }
        }
    }

    /// Answers STARTTLS, within the limit on handshakes.
    async fn start_tls<S: ClientStream>(
        &mut self,
        connection: &mut BufferedStream<S>,
        reply: &Reply,
    ) -> SessionEndReason {
        if let Err(refusal) = self.count(Rate::Handshakes) {
            return self.end_with(connection, &refusal);
        }
        self.reply(connection, reply);
        self.flush(connection)
            .await
            .map_or_else(|end| end, |()| SessionEndReason::StartTls)
    }

    /// Returns the session's timeouts at this moment.
    fn timeouts(&self) -> SessionTimeouts {
        self.seat.timeouts(&self.settings.config.timeouts)
    }

    /// Sends the collected replies.
    async fn flush<S: ClientStream>(
        &self,
        connection: &mut BufferedStream<S>,
    ) -> Result<(), SessionEndReason> {
        select! {
            biased;
            sent = connection.flush(self.timeouts().command) => sent.map_err(|fault| send_failed(&fault)),
            () = self.seat.evicted() => Err(SessionEndReason::Evicted),
        }
    }

    /// Sends the collected replies and waits for more input, since all pipelined commands are
    /// processed.
    async fn read_more<S: ClientStream>(
        &mut self,
        connection: &mut BufferedStream<S>,
    ) -> Result<(), SessionEndReason> {
        self.flush(connection).await?;
        let content = self.server.expects_content();
        // Content that is already refused does not count as progress.
        let is_message = content && self.server.is_storing();
        let since = Instant::now();
        let read = loop {
            let (deadline, end) = self.deadline(content, since);
            select! {
                biased;
                // A stop waits for a message that is being received.
                () = self.stop.cancelled(), if !content => return Err(SessionEndReason::Shutdown),
                is_evicted = self.seat.changed() => if is_evicted { return Err(SessionEndReason::Evicted) },
                read = timeout_at(deadline, connection.fill(content)) => match read {
                    Ok(read) => break read,
                    Err(_) => return Err(self.give_up(connection, end)),
                },
            }
        };
        if content {
            let octets = read.as_ref().map_or(0, |octets| *octets);
            let waited = since.elapsed();
            connection.adapt(waited);
            self.content_rate.add_wait(waited, octets);
            if is_message && self.progress.add(octets) {
                self.seat.record_activity();
            }
        }
        match read {
            Ok(0) => Err(SessionEndReason::ConnectionLost(
                "closed by the client without QUIT".into(),
            )),
            Ok(_) => Ok(()),
            Err(fault) => Err(SessionEndReason::ConnectionLost(fault.to_string())),
        }
    }

    /// Judges the sender and returns the reply to MAIL. The configuration in use now holds for the
    /// transaction.
    ///
    /// # Errors
    /// Returns the last reply to a client that gets no seat; the session ends with it.
    // Rule: policy table (revocation).
    async fn mail(&mut self, from: MailFrom) -> Result<Reply, Reply> {
        self.ensure_seat().await?;
        self.settings = self.inbound.running.load();
        let connector = Arc::clone(policy::connector(
            &self.settings.connectors,
            &from.reverse_path,
            self.peer.ip(),
        ));
        self.sender = Some(TransactionSender {
            from: from.reverse_path.clone(),
            connector: Arc::clone(&connector),
        });
        if let Err(refusal) = self.count(Rate::Messages) {
            return Ok(self.server.mail(from, Err(refusal)));
        }
        if let Err(refusal) = self.check_sender(&from.reverse_path) {
            return Ok(self.server.mail(from, Err(refusal)));
        }
        let (settings, connector) = (&self.settings, &connector);
        let outcome = match &self.connection_tls {
            ConnectionTls::Clear => TlsOutcome::Clear(NoTls::NotUsed),
            ConnectionTls::Tls(seen) => {
                let against = settings
                    .tls
                    .client(connector)
                    .checks(None)
                    .for_policy(&inbound_policy(connector))
                    .with_points(&settings.points);
                let facts = seen.facts(against, Role::Client, Timestamp::now()).await;
                // A proxy's certificate proves nothing about the client that it has named.
                let certificate = if self.proxy.is_some() {
                    PeerCertificate::Nothing
                } else {
                    facts.certificate
                };
                TlsOutcome::Tls(TlsFacts {
                    certificate,
                    ..facts
                })
            }
        };
        let shown = WatchedCertificate::of(&outcome);
        let verdict = policy::judge(
            connector,
            &self.listener,
            &from.reverse_path,
            self.client,
            outcome,
        );
        self.record_verdict(connector, &from.reverse_path, shown, &verdict);
        let verdict =
            verdict.and_then(|cleared| self.admit_mail(from.size.unwrap_or(0)).map(|()| cleared));
        Ok(match verdict {
            Ok(cleared) => {
                self.sender_clearance = Some(Box::new(cleared));
                self.content_rate = ContentRate::default();
                self.seat.free();
                self.server.mail(from, Ok(()))
            }
            Err(refusal) => self.server.mail(from, Err(refusal)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, E, F, Run: Future>(
        _: impl FnOnce(A, B, C, D, E, F) -> Run,
    ) -> usize {
        size_of::<Run>()
    }

    /// A session that waits for its next command needs this memory and no buffers.
    #[test]
    fn the_future_of_a_session_is_small() {
        let octets = size_of_future(run);
        assert!(octets <= 3 << 10, "{octets} octets");
    }
}
