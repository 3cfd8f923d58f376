//! Proxies and load balancers between the client and the relay: XCLIENT, and unexpected PROXY
//! headers.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::select;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{ClientSession, relay_access};
use crate::relay::inbound::clients::{SeatAnswer, SeatStage};
use crate::relay::inbound::proxied::{self, Origin};
use crate::smtp::command::{Attribute, XClient, is_proxy_header};
use crate::smtp::reply::Reply;
use crate::smtp::server::{CloseReason, XClientRights};

/// The number of octets by which a PROXY header is recognised.
const HEADER_START: usize = 12;

impl ClientSession {
    /// Replaces the session's client by the one that a proxy names with XCLIENT. Rights and seat
    /// depend on the new address; a client without a known address has no rights.
    ///
    /// # Errors
    /// Returns the last reply to a client that a limit refuses; the session ends with it.
    pub(super) async fn xclient(&mut self, command: XClient) -> Result<Reply, Reply> {
        let proxy = *self.proxy.get_or_insert(self.peer);
        match command.address {
            Attribute::Absent => {}
            Attribute::Unavailable => self.client = None,
            Attribute::Is(address) => {
                self.client = Some(address);
                self.peer = SocketAddr::new(address, 0);
            }
        }
        if command.address != Attribute::Absent {
            self.request_seat(SeatStage::XClient).await?;
        }
        match command.port {
            Attribute::Is(port) => self.peer.set_port(port),
            Attribute::Absent | Attribute::Unavailable => {}
        }
        match &command.name {
            Attribute::Absent => {}
            Attribute::Unavailable => self.client_name = None,
            Attribute::Is(name) => self.client_name = Some(name.clone()),
        }
        self.sender_clearance = None;
        self.user = None;
        self.draft = None;
        debug!(listener = %self.listener.name, %proxy, peer = %self.peer, "proxy has named its client");
        let rights = XClientRights {
            completed: relay_access::is_own_client(&self.settings.config.relay, self.client),
            xclient: self
                .client
                .is_some_and(|client| proxied::is_listed(&self.listener.xclient, client)),
        };
        Ok(self.server.apply_xclient(command, rights))
    }

    /// Requests a usual seat for a proxy or load balancer that sends MAIL without having named a
    /// client.
    ///
    /// # Errors
    /// Returns the last reply to a client that gets no seat; the session ends with it.
    pub(super) async fn ensure_seat(&mut self) -> Result<(), Reply> {
        if self.seat.is_provisional() {
            self.request_seat(SeatStage::Mail).await
        } else {
            Ok(())
        }
    }

    /// Replaces the session's seat by a new one, and waits for it if all are in use.
    async fn request_seat(&mut self, stage: SeatStage) -> Result<(), Reply> {
        let origin = self
            .client
            .map_or(Origin::Balancer(self.peer), |_| Origin::Client(self.peer));
        let seat = match self.inbound.clients.connect(
            &self.settings.config,
            &self.listener,
            origin,
            stage,
        ) {
            Ok(SeatAnswer::Seat(seat)) => Ok(seat),
            Ok(SeatAnswer::Waiting(wait)) => select! {
                () = self.stop.cancelled() => return Err(self.server.closing_reply(CloseReason::Shutdown)),
                seat = wait.seat() => seat,
            },
            Err(refusal) => Err(refusal),
        };
        self.seat = seat.map_err(|refusal| self.hold_back(&refusal))?;
        let now = Instant::now();
        (self.command_since, self.message_since) = (now, now);
        Ok(())
    }

    /// Logs that a PROXY header came from an address that `proxy_protocol` does not list.
    pub(super) fn warn_proxy_header(&mut self) {
        self.is_logged = true;
        if self.should_log("connection closed: unexpected PROXY header", "") {
            warn!(
                listener = %self.listener.name, peer = %self.peer,
                remedy = "add the load balancer's address to proxy_protocol of this [[listener]], or let it send no PROXY header",
                "connection closed: it begins with a PROXY header, and proxy_protocol does not list its address"
            );
        }
    }

    /// Returns true, and logs a warning, if the connection begins with a PROXY header; the session
    /// must end then.
    pub(super) async fn has_proxy_header(&mut self, tcp: &TcpStream) -> bool {
        let has_header = self.begins_with_header(tcp).await;
        if has_header {
            self.warn_proxy_header();
        }
        has_header
    }

    /// Returns true if the connection begins with a PROXY header. It waits for the first octets and
    /// does not consume them.
    async fn begins_with_header(&self, tcp: &TcpStream) -> bool {
        let mut octets = [0; HEADER_START];
        let peek = timeout(self.timeouts().handshake, tcp.peek(&mut octets));
        select! {
            () = self.stop.cancelled() => false,
            () = self.seat.evicted() => false,
            // Other input, or none in time, is left to the handshake.
            peeked = peek => matches!(peeked, Ok(Ok(count)) if is_proxy_header(&octets[..count])),
        }
    }
}
