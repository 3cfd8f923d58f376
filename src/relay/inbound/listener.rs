//! The accept loops of the listeners. Each accepted connection passes the limits on clients before
//! its session starts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::clients::{LimitReached, SeatAnswer, SeatStage};
use super::proxied::{self, Origin};
use super::{Inbound, session};
use crate::config::{ListenerConfig, ListenerTls};
use crate::policy::relay_access;
use crate::relay::running_config::Snapshot;
use crate::smtp::reply::{Reply, Status};
use crate::telemetry::LogClient;

/// The pause after a failed `accept`: the first one, and the maximum. It doubles with each failure.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Serves one listener on its sockets until `stop` is cancelled, and returns after its last session
/// has ended. Each session first finishes the message that it is receiving, and then replies 421.
///
/// # Panics
/// Panics if an accept loop panicked, so that the daemon ends instead of going on with a listener
/// that accepts nothing.
// Rule: RFC 5321 §4.5.4.2.
pub async fn serve(
    inbound: Arc<Inbound>,
    name: String,
    sockets: Vec<TcpListener>,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut accept_loops = JoinSet::new();
    for socket in sockets {
        let acceptor = Acceptor {
            inbound: Arc::clone(&inbound),
            name: name.clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        accept_loops.spawn(async move { acceptor.accept(socket).await });
    }
    while let Some(end) = accept_loops.join_next().await {
        if let Err(error) = end
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// The accept loop of one socket, and the steps from a connection to its session.
#[derive(Clone)]
struct Acceptor {
    inbound: Arc<Inbound>,
    name: String,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Acceptor {
    async fn accept(&self, socket: TcpListener) {
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let accepted = select! {
                () = self.stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = ACCEPT_PAUSE.0;
                    self.handle_connection(stream, peer);
                }
                Err(error) if is_connection_error(&error) => {
                    debug!(listener = %self.name, %error, "connection lost before it was accepted");
                }
                Err(error) => {
                    self.warn_cannot_accept(&error);
                    select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(ACCEPT_PAUSE.1),
                    }
                }
            }
        }
    }

    /// Logs, at most once a minute, that connections cannot be accepted.
    fn warn_cannot_accept(&self, error: &io::Error) {
        if self
            .inbound
            .monitor
            .should_log("connections cannot be accepted", &self.name, error)
        {
            warn!(
                listener = %self.name, %error,
                "cannot accept connections; if this persists, raise the limit on open files (LimitNOFILE) or lower [limits] connections"
            );
        }
    }

    /// Starts the session of a new connection, after reading its PROXY header if it comes from a
    /// load balancer.
    fn handle_connection(&self, stream: TcpStream, peer: SocketAddr) {
        let settings = self.inbound.running.load();
        let hostname = &settings.config.hostname;
        let Some(listener) = settings
            .config
            .listeners
            .iter()
            .find(|listener| listener.name == self.name)
            .cloned()
        else {
            // A reload has removed the listener from the configuration; the daemon is about to stop
            // it.
            debug!(listener = %self.name, %peer, "listener is no longer configured");
            return refuse(
                stream,
                None,
                &Reply::new(
                    421,
                    Status(3, 2),
                    format!("{hostname} Service not available"),
                ),
            );
        };
        if !proxied::is_listed(&listener.proxy_protocol, peer.ip()) {
            return self.admit(stream, Origin::Client(peer), settings, listener);
        }
        // A load balancer is not a client, so limits for one client do not apply to it. The number
        // of connections without a header is limited by `connections`.
        let limits = &settings.config.limits.clients;
        let Some(permit) = self.inbound.clients.permit_header_wait(limits.connections) else {
            debug!(listener = %self.name, %peer, "connection closed: too many others are waiting for their PROXY headers");
            return;
        };
        let acceptor = self.clone();
        self.tasks.spawn(async move {
            let Some((stream, origin)) = acceptor.read_proxy_header(stream, peer, &settings).await
            else {
                return;
            };
            drop(permit);
            acceptor.admit(stream, origin, settings, listener);
        });
    }

    /// Reads the PROXY header of a load balancer. Returns the connection and its origin, or `None`
    /// if it must be closed.
    async fn read_proxy_header(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        settings: &Snapshot,
    ) -> Option<(TcpStream, Origin)> {
        let time_limit = settings.config.timeouts.handshake;
        let read = select! {
            () = self.stop.cancelled() => return None,
            read = timeout(time_limit, proxied::read_header(&mut stream)) => read,
        };
        let fault = match read {
            Ok(Ok(client)) => {
                return Some((
                    stream,
                    client.map_or(Origin::Balancer(peer), Origin::Client),
                ));
            }
            Ok(Err(proxied::ProxyFault::Empty)) => {
                debug!(listener = %self.name, %peer, "connection closed before its PROXY header");
                return None;
            }
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => format!(
                "no complete PROXY header within {} seconds",
                time_limit.as_secs_f32()
            ),
        };
        let balancer = LogClient {
            address: peer.ip(),
            is_own: true,
        };
        let monitor = &self.inbound.monitor;
        if monitor.should_log_client("connection closed: no valid PROXY header", balancer, &fault) {
            warn!(
                listener = %self.name, %peer, error = fault,
                "connection closed: no valid PROXY header; configure the load balancer to send one, or remove its network from proxy_protocol"
            );
        }
        None
    }

    /// Requests a seat for the connection, and runs its session when it has one.
    fn admit(
        &self,
        stream: TcpStream,
        origin: Origin,
        settings: Arc<Snapshot>,
        listener: Arc<ListenerConfig>,
    ) {
        match self.inbound.clients.connect(
            &settings.config,
            &listener,
            origin,
            SeatStage::Connection,
        ) {
            Ok(SeatAnswer::Seat(seat)) => {
                let (inbound, stop) = (Arc::clone(&self.inbound), self.stop.clone());
                self.tasks.spawn(session::run(
                    inbound,
                    settings,
                    listener,
                    stream,
                    (origin, seat),
                    stop,
                ));
            }
            Ok(SeatAnswer::Waiting(wait)) => {
                let acceptor = self.clone();
                self.tasks.spawn(async move {
                    let waited = select! {
                        () = acceptor.stop.cancelled() => return,
                        waited = wait.seat() => waited,
                    };
                    match waited {
                        Ok(seat) => {
                            let Acceptor { inbound, stop, .. } = acceptor;
                            session::run(inbound, settings, listener, stream, (origin, seat), stop)
                                .await;
                        }
                        Err(refusal) => {
                            acceptor.turn_away(stream, origin, &settings, &listener, &refusal);
                        }
                    }
                });
            }
            Err(refusal) => self.turn_away(stream, origin, &settings, &listener, &refusal),
        }
    }

    /// Logs and counts that a limit refuses the connection, and closes it with a reply.
    fn turn_away(
        &self,
        stream: TcpStream,
        origin: Origin,
        settings: &Snapshot,
        listener: &ListenerConfig,
        refusal: &LimitReached,
    ) {
        let peer = origin.address();
        debug!(listener = %self.name, %peer, limit = refusal.limit.key(), "connection refused: a limit is reached");
        let is_own = relay_access::is_own_client(&settings.config.relay, origin.client());
        let client = LogClient {
            address: peer.ip(),
            is_own,
        };
        self.inbound
            .clients
            .log_refusal(&self.inbound.monitor, &self.name, client, refusal);
        refuse(
            stream,
            Some(listener),
            &refusal.reply(&settings.config.hostname),
        );
    }
}

/// Sends one reply, if the socket can take it without waiting, and closes the connection. It starts
/// no task.
fn refuse(stream: TcpStream, listener: Option<&ListenerConfig>, reply: &Reply) {
    // With implicit TLS no reply can be sent before the handshake.
    if listener.is_some_and(|listener| listener.tls == ListenerTls::Implicit) {
        return;
    }
    let mut line = Vec::new();
    reply.write_to(&mut line);
    // The send buffer of a new socket has space for one line. If it has not, closing without a
    // reply is enough.
    if let Ok(mut stream) = stream.into_std() {
        let _ = io::Write::write(&mut stream, &line);
    }
}

/// Returns true if only this connection failed, and others can be accepted.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
