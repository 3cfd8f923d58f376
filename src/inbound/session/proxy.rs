//! Proxies and load balancers before the client: XCLIENT, and PROXY headers that nobody asked for.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::select;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{Session, access};
use crate::inbound::clients::{Known, Place};
use crate::inbound::proxied::{self, Origin};
use crate::smtp::command::{Attribute, XClient, is_proxy_header};
use crate::smtp::reply::Reply;
use crate::smtp::server::{CloseReason, XClientRights};

/// Octets by which a PROXY header is known.
const BEGINNING: usize = 12;

impl Session {
    /// Takes over the client that a proxy names. Its rights go by its own address, and an address that is not known has
    /// none. So does its seat, where it is given one.
    ///
    /// # Errors
    /// The last reply to a client that is held back by a limit.
    pub(super) async fn xclient(&mut self, said: XClient) -> Result<Reply, Reply> {
        let proxy = *self.proxy.get_or_insert(self.peer);
        match said.address {
            Attribute::Absent => {}
            Attribute::Unavailable => self.client = None,
            Attribute::Is(address) => {
                self.client = Some(address);
                self.peer = SocketAddr::new(address, 0);
            }
        }
        if said.address != Attribute::Absent {
            self.take_seat(Known::Client).await?;
        }
        match said.port {
            Attribute::Is(port) => self.peer.set_port(port),
            Attribute::Absent | Attribute::Unavailable => {}
        }
        match &said.name {
            Attribute::Absent => {}
            Attribute::Unavailable => self.client_name = None,
            Attribute::Is(name) => self.client_name = Some(name.clone()),
        }
        self.standing = None;
        self.draft = None;
        debug!(listener = %self.listener.name, %proxy, peer = %self.peer, "a proxy names its client");
        let introduced = XClientRights {
            completed: access::is_own_client(&self.settings.config.relay, self.client),
            xclient: self.client.is_some_and(|client| proxied::is_expected(&self.listener.xclient, client)),
        };
        Ok(self.server.apply_xclient(said, introduced))
    }

    /// Gives a session a seat that sends mail without having named another client: of its own, and no longer as a proxy
    /// or a balancer.
    ///
    /// # Errors
    /// The last reply to a client for whom there is none.
    pub(super) async fn seat_sender(&mut self) -> Result<(), Reply> {
        if self.seat.is_provisional() { self.take_seat(Known::Sender).await } else { Ok(()) }
    }

    async fn take_seat(&mut self, known: Known) -> Result<(), Reply> {
        let origin = self.client.map_or(Origin::Balancer(self.peer), |_| Origin::Client(self.peer));
        let seat = match self.inbound.clients.connect(&self.settings.config, &self.listener, origin, known) {
            Ok(Place::Seat(seat)) => Ok(seat),
            Ok(Place::Waiting(wait)) => select! {
                () = self.stop.cancelled() => return Err(self.server.closing_reply(CloseReason::Shutdown)),
                seat = wait.seat() => seat,
            },
            Err(refusal) => Err(refusal),
        };
        self.seat = seat.map_err(|refusal| self.held_back(&refusal))?;
        let now = Instant::now();
        (self.command_since, self.message_since) = (now, now);
        Ok(())
    }

    /// Says that a PROXY header came from an address that is not listed.
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

    /// Looks whether a connection begins with a PROXY header, and if so warns of it: the session is to end.
    pub(super) async fn refuses_proxy_header(&mut self, tcp: &TcpStream) -> bool {
        let has_header = self.begins_with_header(tcp).await;
        if has_header {
            self.warn_proxy_header();
        }
        has_header
    }

    async fn begins_with_header(&self, tcp: &TcpStream) -> bool {
        let mut octets = [0; BEGINNING];
        let peek = timeout(self.patience().handshake, tcp.peek(&mut octets));
        select! {
            () = self.stop.cancelled() => false,
            () = self.seat.evicted() => false,
            // Whatever else comes, or does not, is for the handshake to say.
            peeked = peek => matches!(peeked, Ok(Ok(count)) if is_proxy_header(&octets[..count])),
        }
    }
}
