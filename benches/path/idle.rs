//! The memory of idle sessions: a client that has said EHLO, in the clear or under TLS, and now says
//! nothing.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime;
use tokio_rustls::TlsConnector;

use crate::client::{hello, hello_under_tls};
use crate::gatepost;
use crate::relay::Task;
use crate::tls::{self, KeyExchange};
use crate::trial::{CONNECTIONS, folder};

/// The sessions that are measured, and those before: threads and tables grow with these.
const SESSIONS: usize = 2000;
const WARM_UP: usize = 200;
const FILES: u64 = 8192;

/// A connection, which is open as long as this value lives.
type Idle = Box<dyn Any>;

/// Returns the memory in octets that Gatepost needs for one idle session.
///
/// # Errors
/// An error if it does not start, or a session cannot be opened.
pub(crate) fn memory_of_session(key_exchange: Option<KeyExchange>) -> io::Result<f64> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |most| most.min(FILES));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            ..limit
        },
    )?;
    let folder = folder()?;
    let relay = gatepost::start(&Task {
        folder: folder.path(),
        sink: SocketAddr::from(([127, 0, 0, 1], 9)),
        tls: key_exchange.is_some(),
        connections: CONNECTIONS,
        messages_per_connection: None,
        evidence: true,
        database: None,
    })?;
    let connector = key_exchange.map(tls::connector).transpose()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let open = |count| runtime.block_on(sessions(count, relay.address, connector.as_ref()));
    let warm = open(WARM_UP)?;
    thread::sleep(Duration::from_secs(1));
    let before = relay.memory();
    let measured = open(SESSIONS)?;
    thread::sleep(Duration::from_secs(1));
    let grown = relay.memory().saturating_sub(before);
    drop((warm, measured));
    Ok(grown as f64 / SESSIONS as f64)
}

async fn sessions(
    count: usize,
    address: SocketAddr,
    connector: Option<&TlsConnector>,
) -> io::Result<Vec<Idle>> {
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let wire = hello(address).await?;
        let idle: Idle = match connector {
            None => Box::new(wire),
            Some(connector) => Box::new(hello_under_tls(wire, connector).await?),
        };
        all.push(idle);
    }
    Ok(all)
}
