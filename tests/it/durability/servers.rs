//! The servers behind the relay, beside the sink: one that is down.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::support::sink::Sink;

impl Sink {
    /// Returns the number of messages that have arrived for each recipient.
    pub(crate) fn times(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for arrival in self.arrivals() {
            *times.entry(arrival.recipient).or_default() += 1;
        }
        times
    }
}

/// A port of loopback that is ours and refuses every connection, until it is opened.
#[derive(Debug)]
pub(crate) struct ClosedPort {
    pub(crate) address: SocketAddr,
    socket: socket2::Socket,
}

impl ClosedPort {
    pub(crate) fn take() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        // Bound, but not listening.
        socket
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .expect("loopback has a free port");
        let address = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket())
            .expect("it is bound");
        Self { address, socket }
    }

    pub(crate) fn open(self) -> TcpListener {
        self.socket.listen(128).expect("it is bound");
        self.socket.into()
    }
}
