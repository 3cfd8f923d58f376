//! The parts of a relay that a probe needs: the loaded configuration without listeners and queue.

use std::process::ExitCode;
use std::sync::Arc;

use super::super::output::show_faults;
use crate::config::Config;
use crate::discovery::mta_sts::WebSource;
use crate::net::dns::Dns;
use crate::net::https::{Https, PlainHttp};
use crate::net::oauth::TokenCaches;
use crate::net::revocation::{DistributionPoints, PointFiles};
use crate::net::tls_io::{IdentitySummary, TlsMaterial};
use crate::relay::running_config::Snapshot;
use crate::relay::smart_host_logins::SmartHostLogins;

/// The settings of deliveries, and the lookups that they use.
pub(in crate::cli) struct ProbeContext {
    pub(in crate::cli) snapshot: Snapshot,
    /// The lookup of MTA-STS policies.
    pub(in crate::cli) web: WebSource,
    /// Our own certificates.
    pub(in crate::cli) identities: Vec<IdentitySummary>,
}

impl ProbeContext {
    /// Loads the files that a configuration names, with keys and passwords, as the
    /// daemon does.
    ///
    /// # Errors
    /// Exit status 2, after the errors have been printed.
    pub(in crate::cli) fn new(config: &Arc<Config>) -> Result<Self, ExitCode> {
        let dns = Dns::new(&config.dns).map_err(|error| error.fault(&config.dns));
        let logins = match &dns {
            Ok(dns) => SmartHostLogins::load(config, dns, &TokenCaches::default()),
            Err(_) => Ok((Arc::default(), Vec::new())),
        };
        let loaded = (TlsMaterial::load(config), dns, logins);
        let ((tls, _), dns, (logins, _)) = match loaded {
            (Ok(tls), Ok(dns), Ok(logins)) => (tls, dns, logins),
            (material, dns, logins) => {
                let faults: Vec<_> = material
                    .err()
                    .into_iter()
                    .flatten()
                    .chain(dns.err())
                    .chain(logins.err().into_iter().flatten())
                    .collect();
                show_faults(&config.source.file, &faults);
                return Err(ExitCode::from(2));
            }
        };
        let https = Https::new(dns.clone(), tls.https().clone());
        let proxy = config.net.http_proxy.clone();
        let https = https.with_proxy(proxy.clone());
        let web = WebSource::new(dns.clone(), https);
        // The daemon's files are its own; a probe fetches what it needs.
        let http = PlainHttp::new(dns.clone(), proxy);
        let points = DistributionPoints::new(PointFiles::none(), Box::new(http));
        let identities = tls.identities();
        Ok(Self {
            snapshot: Snapshot::new(Arc::clone(config), tls, dns)
                .with_logins(logins)
                .with_points(points),
            web,
            identities,
        })
    }
}
