//! The order to read the configuration again, on its way from an operator to whoever runs the daemon.

use tokio::sync::{mpsc, oneshot};

use super::api::ReloadOutcome;

/// An order to read the configuration again, which whoever runs the daemon carries out.
#[derive(Debug)]
pub struct ReloadOrder {
    outcome: oneshot::Sender<ReloadOutcome>,
}

impl ReloadOrder {
    pub(super) fn new(outcome: oneshot::Sender<ReloadOutcome>) -> Self {
        Self { outcome }
    }

    /// Reports what came of it. The operator may be gone by then.
    pub fn carried_out(self, outcome: ReloadOutcome) {
        let _ = self.outcome.send(outcome);
    }
}

/// Makes the way of orders: where operators give them, and where they are carried out. One waits at a
/// time.
#[must_use]
pub fn reload_orders() -> (mpsc::Sender<ReloadOrder>, mpsc::Receiver<ReloadOrder>) {
    mpsc::channel(1)
}
