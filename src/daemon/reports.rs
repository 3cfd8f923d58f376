//! TLS reports: what is loaded for them, and the desk that counts and sends.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::config::{Config, Fault, SendReports};
use crate::dns::Dns;
use crate::handshake::Material;
use crate::https::Https;
use crate::spool::{Entry, SqliteSpool};
use crate::tlsrpt::{Bounds, Desk, Internet, Outbox, Reporter, Schedule, Submitter};

/// Who reports, and by what; both are replaced on reload.
#[derive(Debug)]
pub(super) struct Reports {
    submitter: Arc<ArcSwap<Submitter>>,
    internet: Arc<Internet>,
}

impl Reports {
    pub(super) fn new(submitter: Submitter, tls: &Material, dns: Dns) -> Self {
        let https = Https::new(dns.clone(), tls.https().clone());
        Self { submitter: Arc::new(ArcSwap::from_pointee(submitter)), internet: Arc::new(Internet::new(dns, https)) }
    }

    pub(super) fn replace(&self, submitter: Submitter, tls: &Material, dns: Dns) {
        let https = Https::new(dns.clone(), tls.https().clone());
        self.submitter.store(Arc::new(submitter));
        self.internet.replace(dns, https);
    }

    pub(super) fn outbox(&self, spool: Arc<SqliteSpool>, accepted: mpsc::Sender<Entry>) -> Outbox {
        let (submitter, network) = (Arc::clone(&self.submitter), Arc::clone(&self.internet));
        Outbox { submitter, spool, accepted, network }
    }
}

/// The desk, where reports are wanted, and the way to it.
pub(super) fn desk(config: &Config) -> Result<(Reporter, Option<Desk>), Fault> {
    let send = &config.tlsrpt.send;
    match send.value {
        SendReports::Off => Ok((Reporter::off(), None)),
        SendReports::Daily => {
            let opened = Desk::open(&config.spool.value, Bounds::default(), Schedule::default());
            let (reporter, desk) = opened.map_err(|error| Fault {
                place: send.place.clone(),
                message: format!("TLS results cannot be counted: {error}"),
                remedy: "Let the user that runs Gatepost write to [spool] path, or write send = false.".to_owned(),
            })?;
            Ok((reporter, Some(desk)))
        }
    }
}
