//! `gatepost check --reload`: finds the changes that a running daemon rejects on a reload, such as
//! those that need a restart.

use super::super::admin_client::{AdminClient, SocketError};
use super::super::runtime;
use super::against::{CompareError, running_config};
use crate::config::{AdminSocket, Config, Fault};
use crate::daemon::rejected_changes;

/// Returns an error for each change that the daemon rejects. If the daemon's configuration cannot be
/// read, the list is empty: the daemon itself rejects the reload then, and logs the same errors.
pub(super) fn faults(new: &Config) -> Vec<Fault> {
    let AdminSocket::Path(path) = &new.admin.socket.value else {
        return Vec::new();
    };
    let runtime = runtime::single_threaded().map_err(CompareError::Runtime);
    match runtime.and_then(|runtime| runtime.block_on(running_config(&AdminClient::at(path.clone())))) {
        Ok((running, _)) => rejected_changes(&running, new),
        Err(CompareError::Socket(SocketError::NoDaemon { path, error })) => vec![Fault {
            location: new.admin.socket.location.clone(),
            message: format!("no running Gatepost answers on {} ({error})", path.display()),
            remedy: "If one runs with another [admin] socket, restart it: a reload cannot change the socket."
                .to_owned(),
        }],
        Err(error) => {
            eprintln!("gatepost check: cannot compare with the running daemon, a restart may be needed: {error}");
            Vec::new()
        }
    }
}
