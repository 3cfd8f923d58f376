//! The sockets of the listeners: bound here, or bound by systemd and passed by name
//! (`systemd:NAME`).
//!
//! systemd passes sockets as in `sd_listen_fds(3)`. With them port 25 needs no privilege, and
//! connections wait during a restart. This module accepts no connections.

use std::net::{SocketAddr, TcpListener as StdListener};

use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net::TcpListener;

use crate::config::{Config, Fault, ListenAddress, Located, Location};

/// The sockets of each listener, with its name.
pub(super) type Bound = Vec<(String, Vec<TcpListener>)>;

/// The reason why a listener has no socket from systemd.
#[derive(Debug, thiserror::Error)]
enum PassedSocketError {
    /// systemd passed no socket at all.
    #[error("systemd passed no socket")]
    None,
    /// systemd passed sockets of other names.
    #[error("systemd passed {0} only")]
    Others(String),
    /// Another listener has the socket.
    #[error("another listener uses it already")]
    InUse,
    /// The socket accepts no connections.
    #[error("it is a connection, not a socket to accept them on; set Accept=no")]
    Connection,
    /// The socket cannot be used.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The sockets that systemd passed to this process.
#[derive(Debug, Default)]
pub struct SystemdSockets {
    sockets: Vec<(String, Result<StdListener, PassedSocketError>)>,
}

impl SystemdSockets {
    /// Takes the sockets that the environment announces (`LISTEN_PID`, `LISTEN_FDS`,
    /// `LISTEN_FDNAMES`).
    ///
    /// Call it once in a process, before the process has threads: it removes the variables, so that
    /// nothing else takes the same sockets.
    #[must_use]
    pub fn from_environment() -> Self {
        // Without LISTEN_PID the variables may be meant for the parent process.
        if std::env::var_os("LISTEN_PID").is_none() {
            return Self::default();
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).map(|at| {
            let name = names
                .next()
                .filter(|name| !name.is_empty())
                .unwrap_or("unknown");
            (name.to_owned(), take_listener(&mut passed, at))
        });
        Self {
            sockets: sockets.collect(),
        }
    }

    /// Takes the sockets of one name. A socket unit with several `ListenStream=` passes as many.
    fn take_named(&mut self, name: &str) -> Result<Vec<TcpListener>, PassedSocketError> {
        let (mine, others) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|(other, _)| other == name);
        self.sockets = others;
        let mine: Vec<(String, _)> = mine;
        if mine.is_empty() {
            let mut names: Vec<_> = self
                .sockets
                .iter()
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            names.dedup();
            return Err(if names.is_empty() {
                PassedSocketError::None
            } else {
                PassedSocketError::Others(names.join(", "))
            });
        }
        let listen = |socket: StdListener| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        };
        mine.into_iter()
            .map(|(_, socket)| Ok(listen(socket?)?))
            .collect()
    }

    /// Returns the names of the sockets that no listener uses.
    fn unused(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        names
    }
}

/// Takes one descriptor if it is a listening socket.
fn take_listener(passed: &mut ListenFd, at: usize) -> Result<StdListener, PassedSocketError> {
    let socket = passed
        .take_tcp_listener(at)?
        .ok_or(PassedSocketError::InUse)?;
    if SockRef::from(&socket).is_listener()? {
        Ok(socket)
    } else {
        Err(PassedSocketError::Connection)
    }
}

/// Binds every address of every listener and takes the passed sockets that they name. On a fault,
/// nothing stays bound.
pub(super) async fn bind(config: &Config, mut passed: SystemdSockets) -> Result<Bound, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut all = Vec::new();
    for listener in &config.listeners {
        let mut sockets = Vec::new();
        for address in &listener.addresses {
            match &address.value {
                ListenAddress::Bind(to) => match TcpListener::bind(to).await {
                    Ok(socket) => sockets.push(socket),
                    Err(error) => {
                        faults.push(bind_fault(&listener.name, *to, &address.location, &error));
                    }
                },
                ListenAddress::Systemd(name) => match passed.take_named(name) {
                    Ok(named) => sockets.extend(named),
                    Err(why) => faults.push(passed_fault(&listener.name, name, address, &why)),
                },
            }
        }
        all.push((listener.name.clone(), sockets));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    for name in passed.unused() {
        tracing::warn!(
            socket = name,
            remedy = format!(
                "write address = [\"systemd:{name}\"] in a listener, or disable the socket unit"
            ),
            "systemd passed a socket that no listener names; connections to it are never accepted"
        );
    }
    Ok(all)
}

fn passed_fault(
    listener: &str,
    name: &str,
    address: &Located<ListenAddress>,
    why: &PassedSocketError,
) -> Fault {
    let message = format!("listener \"{listener}\" has no socket \"{name}\" from systemd: {why}");
    let remedy = format!(
        "Write FileDescriptorName={name} and Service=gatepost.service into a socket unit, and start that: `systemctl \
         enable --now gatepost.socket`. Or write an address and a port here."
    );
    Fault {
        location: address.location.clone(),
        message,
        remedy,
    }
}

fn bind_fault(
    listener: &str,
    address: SocketAddr,
    location: &Location,
    error: &std::io::Error,
) -> Fault {
    let port = address.port();
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "Another program listens there; find it with `ss -ltnp 'sport = :{port}'` and stop it, or choose another port."
        ),
        std::io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need a privilege: write address = [\"systemd:mx\"] and let gatepost.socket listen there, or \
             choose a higher port."
                .to_owned()
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "No interface of this machine has that address; `ip address` shows those there are.".to_owned()
        }
        _ => "Choose an address and port that this machine can listen on.".to_owned(),
    };
    let message = format!("listener \"{listener}\" cannot listen on {address}: {error}");
    Fault {
        location: location.clone(),
        message,
        remedy,
    }
}
