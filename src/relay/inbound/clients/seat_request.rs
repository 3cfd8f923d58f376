//! A request for a seat, and its results.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

/// The kind of a client that requests a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// A client of `[relay] networks`.
    Own,
    /// Any other client.
    Stranger,
    /// A proxy that has not named its client yet.
    Proxy,
    /// A load balancer that checks the relay's health.
    Check,
}

/// A client that requests a seat.
#[derive(Debug, Clone)]
pub(crate) struct SeatRequest {
    pub(super) address: IpAddr,
    pub(super) kind: ClientKind,
    pub(super) listener: Arc<str>,
    /// The seats of strangers on this listener.
    pub(super) listener_seats: usize,
}

impl SeatRequest {
    pub(super) fn is_own(&self) -> bool {
        self.kind == ClientKind::Own
    }
}

/// The reason for which a client gets no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// All seats are in use (`[limits] connections` or `[[listener]] connections`).
    All,
    /// The client has as many sessions as `[limits] connections_per_client` allows.
    Client,
    /// The network has as many sessions as `[limits] connections_per_network` allows.
    Network(IpNet),
}

/// A granted seat: its number, and the token that is cancelled when the session is evicted.
pub(crate) type GrantedSeat = (u64, CancellationToken);

/// The present use of seats and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupancy {
    /// Sessions with a seat.
    pub sessions: usize,
    /// Sessions of strangers, a part of `sessions`.
    pub strangers: usize,
    /// The listeners on which seats are scarce.
    pub short: Vec<Arc<str>>,
    /// Clients and networks that were held back in the last hour.
    pub held: usize,
    /// Octets in use for the recipients of open transactions.
    pub memory: usize,
}

/// The point in a session at which a seat is requested; it decides how much is known about the
/// client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeatStage {
    /// The connection was accepted. A proxy may still name the client, and a load balancer that
    /// names none performs a health check.
    Connection,
    /// A proxy has named the client with XCLIENT. The client may be another proxy.
    XClient,
    /// The session sends MAIL. It counts as a client even if it is a proxy or a load balancer.
    Mail,
}
