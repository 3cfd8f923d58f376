//! What a probe goes by beside the configuration: policies that it fetches for itself, and what the daemon
//! remembers, if it runs. The daemon's files are not touched.

use std::process::ExitCode;
use std::sync::Arc;

use jiff::Timestamp;
use tempfile::TempDir;

use super::super::show_faults;
use super::super::socket::{Client, percent_encoded};
use crate::address::Host;
use crate::admin::words::{HistoryItem, HistoryPage, PAGE_MAX};
use crate::config::{AdminSocket, Config};
use crate::connector::MemoryFinding;
use crate::discovery::Discovery;
use crate::discovery::history::{History, Level};
use crate::discovery::mta_sts::{MtaSts, Web};
use crate::dns::Dns;
use crate::handshake::{IdentitySummary, Material};
use crate::https::Https;
use crate::outbound::Settings;
use crate::route::Router;

/// A relay without listeners and queue.
pub(super) struct Apart {
    pub(super) settings: Settings,
    pub(super) discovery: Discovery,
    /// Our own certificates.
    pub(super) identities: Vec<IdentitySummary>,
    daemon: Option<Client>,
    /// What is found is written here and goes with it.
    _folder: TempDir,
}

/// What the daemon remembers of a domain.
#[derive(Debug)]
pub(super) enum Remembered {
    /// This.
    Told(MemoryFinding),
    /// It could not be asked; why.
    Unknown(String),
}

impl Remembered {
    /// What follows for the policy: what is not known demands nothing.
    pub(super) fn finding(&self) -> MemoryFinding {
        match self {
            Self::Told(finding) => finding.clone(),
            Self::Unknown(_) => MemoryFinding::Nothing,
        }
    }
}

impl Apart {
    /// Loads what a daemon would load of a configuration, keys of client certificates included.
    ///
    /// # Errors
    /// The exit status, and it has been told why.
    pub(super) fn new(config: &Arc<Config>) -> Result<Self, ExitCode> {
        let dns = Dns::new(&config.dns).map_err(|error| error.fault(&config.dns));
        let ((tls, _), dns) = match (Material::load(config), dns) {
            (Ok(loaded), Ok(dns)) => (loaded, dns),
            (material, dns) => {
                let faults: Vec<_> = material.err().into_iter().flatten().chain(dns.err()).collect();
                show_faults(&faults);
                return Err(ExitCode::from(2));
            }
        };
        let refused = |error: &dyn std::fmt::Display| {
            eprintln!("gatepost probe: no room for what is looked up: {error}");
            ExitCode::FAILURE
        };
        let folder = tempfile::tempdir().map_err(|error| refused(&error))?;
        let web = Web::new(dns.clone(), Https::new(dns.clone(), tls.https().clone()));
        let policies = MtaSts::open(folder.path(), web);
        let history = History::open(folder.path(), Timestamp::now()).map_err(|error| refused(&error))?;
        let router = Arc::new(Router::new(config, dns));
        let daemon = match &config.admin.socket.value {
            AdminSocket::Path(path) => Some(Client::at(path.clone())),
            AdminSocket::Off => None,
        };
        let identities = tls.identities();
        let settings = Settings::new(Arc::clone(config), tls, router);
        Ok(Self { settings, discovery: Discovery::new(policies, history), identities, daemon, _folder: folder })
    }

    /// Asks the daemon what it remembers.
    pub(super) async fn remembered(&self, recipient: &Host) -> Remembered {
        let Some(daemon) = &self.daemon else {
            return Remembered::Unknown("[admin] socket is switched off".to_owned());
        };
        let domain = percent_encoded(&recipient.to_string());
        match daemon.get::<HistoryPage>(&format!("/v1/history?limit={PAGE_MAX}&domain={domain}")).await {
            Ok(page) => Remembered::Told(finding(&page)),
            // The first sentence tells it; what to do about it is another matter here.
            Err(error) => Remembered::Unknown(
                error.to_string().lines().next().unwrap_or_default().trim_end_matches('.').to_owned(),
            ),
        }
    }
}

/// As the daemon has it: a domain took TLS where any of its hosts did.
fn finding(page: &HistoryPage) -> MemoryFinding {
    let took = page.items.iter().filter_map(|item| match item {
        HistoryItem::Host(host) if host.level > Level::Plain => Some(host.seen),
        HistoryItem::Host(host) if host.best > Level::Plain => Some(host.last),
        HistoryItem::Host(_) | HistoryItem::Alarm(_) | HistoryItem::Forgotten(_) => None,
    });
    took.max().map_or(MemoryFinding::Nothing, |last| MemoryFinding::TookTls { last })
}
