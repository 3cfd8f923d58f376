//! What a probe goes by: what a daemon would make of the configuration, without listeners, queue or files.

use std::process::ExitCode;
use std::sync::Arc;

use super::super::show_faults;
use crate::config::Config;
use crate::discovery::mta_sts::WebSource;
use crate::dns::Dns;
use crate::handshake::{IdentitySummary, TlsMaterial};
use crate::https::Https;
use crate::running_config::Snapshot;

/// A relay without listeners and queue.
pub(super) struct Apart {
    pub(super) snapshot: Snapshot,
    /// Where policies are looked up.
    pub(super) web: WebSource,
    /// Our own certificates.
    pub(super) identities: Vec<IdentitySummary>,
}

impl Apart {
    /// Loads what a daemon would load of a configuration, keys of client certificates included.
    ///
    /// # Errors
    /// The exit status, and it has been told why.
    pub(super) fn new(config: &Arc<Config>) -> Result<Self, ExitCode> {
        let dns = Dns::new(&config.dns).map_err(|error| error.fault(&config.dns));
        let ((tls, _), dns) = match (TlsMaterial::load(config), dns) {
            (Ok(loaded), Ok(dns)) => (loaded, dns),
            (material, dns) => {
                let faults: Vec<_> = material.err().into_iter().flatten().chain(dns.err()).collect();
                show_faults(&faults);
                return Err(ExitCode::from(2));
            }
        };
        let web = WebSource::new(dns.clone(), Https::new(dns.clone(), tls.https().clone()));
        let identities = tls.identities();
        Ok(Self { snapshot: Snapshot::new(Arc::clone(config), tls, dns), web, identities })
    }
}
