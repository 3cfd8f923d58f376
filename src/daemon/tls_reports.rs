//! The service for TLS reports (RFC 8460): its start, and the replacement of its settings on
//! reload.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, SendReports};
use crate::net::dns::Dns;
use crate::net::https::Https;
use crate::relay::tlsrpt::{
    Bounds, CountStoreError, Internet, ReportSender, ReportService, Reporter, Schedule, Submitter,
};
use crate::storage::postgresql::Database;
use crate::storage::spool::{Claimed, Entry, Spool};

/// The settings of the service. Both are replaced on reload.
#[derive(Debug)]
pub(super) struct Reports {
    submitter: Arc<ArcSwap<Submitter>>,
    internet: Arc<Internet>,
}

impl Reports {
    pub(super) fn new(submitter: Submitter, https: Https, dns: Dns) -> Self {
        Self {
            submitter: Arc::new(ArcSwap::from_pointee(submitter)),
            internet: Arc::new(Internet::new(dns, https)),
        }
    }

    pub(super) fn replace(&self, submitter: Submitter, https: Https, dns: Dns) {
        self.submitter.store(Arc::new(submitter));
        self.internet.replace(dns, https);
    }

    /// Starts the service if there is one. It sends reports until `stop`, and counts until
    /// [`RunningReports::end`].
    pub(super) fn start(
        &self,
        service: Option<ReportService>,
        spool: &Arc<dyn Spool>,
        accepted: &mpsc::Sender<Claimed<Entry>>,
        stop: &CancellationToken,
    ) -> RunningReports {
        let end = CancellationToken::new();
        let service = service.map(|service| {
            let sender = ReportSender {
                submitter: Arc::clone(&self.submitter),
                spool: Arc::clone(spool),
                accepted: accepted.clone(),
                network: Arc::clone(&self.internet) as _,
            };
            tokio::spawn(service.run(sender, stop.clone(), end.clone()))
        });
        RunningReports { end, service }
    }
}

/// The running service.
pub(super) struct RunningReports {
    end: CancellationToken,
    service: Option<JoinHandle<()>>,
}

impl RunningReports {
    /// Counts the last sessions and ends.
    pub(super) async fn end(self) {
        self.end.cancel();
        if let Some(service) = self.service
            && let Err(death) = service.await
        {
            tracing::error!(%death, "the TLS report service panicked; its latest results are lost");
        }
    }
}

/// Opens the service if `[tlsrpt] send` asks for it. Mail does not depend on it: if the counts
/// cannot be read or written, there are no TLS reports until the next start.
///
/// # Errors
/// The counts are sound but of another version or program.
pub(super) fn open_service(
    config: &Config,
    shared: Option<Database>,
) -> Result<(Reporter, Option<ReportService>), CountStoreError> {
    let send = &config.tlsrpt.send;
    if send.value == SendReports::Off {
        return Ok((Reporter::off(), None));
    }
    if let Some(database) = shared {
        let (bounds, schedule) = (Bounds::default(), Schedule::default());
        let (reporter, service) = ReportService::open_shared(database, bounds, schedule);
        return Ok((reporter, Some(service)));
    }
    match ReportService::open(&config.spool.value, Bounds::default(), Schedule::default()) {
        Ok((reporter, service)) => Ok((reporter, Some(service))),
        Err(error) if error.is_refusal() => Err(error),
        Err(error) => {
            let remedy = "Let the user that Gatepost runs as write to [spool] path and see that its disk has room, \
                          then restart; or write [tlsrpt] send = false.";
            tracing::error!(
                place = %send.location, %error, remedy,
                "TLS results are not counted and no TLS reports are sent until the next start; mail is not affected"
            );
            Ok((Reporter::off(), None))
        }
    }
}
