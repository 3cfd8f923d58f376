//! `gatepost check --reload`: what the running daemon would refuse of a configuration that can be taken, for it
//! takes a restart.

use super::super::socket::{Client, SocketError};
use super::against::{AgainstError, in_force};
use crate::config::{AdminSocket, Config, Fault};
use crate::daemon::needs_restart;

/// Every such thing. What the daemon cannot be asked is left to it: it says the same, in its log alone.
pub(super) fn faults(new: &Config) -> Vec<Fault> {
    let AdminSocket::Path(path) = &new.admin.socket.value else { return Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AgainstError::System);
    match runtime.and_then(|runtime| runtime.block_on(in_force(&Client::at(path.clone())))) {
        Ok((running, _)) => needs_restart(&running, new),
        Err(AgainstError::Socket(SocketError::NoDaemon { path, error })) => vec![Fault {
            location: new.admin.socket.location.clone(),
            message: format!("no running Gatepost answers on {} ({error})", path.display()),
            remedy: "If one runs with another [admin] socket, restart it: that cannot change while it runs.".to_owned(),
        }],
        Err(error) => {
            eprintln!("gatepost check: whether the running daemon needs a restart for this is not known: {error}");
            Vec::new()
        }
    }
}
