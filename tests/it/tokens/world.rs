//! A token server with its authority and name, and sources that ask it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gatepost::config::{TokenSettings, parse_token_settings};
use gatepost::net::dns::Dns;
use gatepost::net::https::Https;
use gatepost::net::oauth::{TokenCaches, TokenClock, TokenSource};
use gatepost::net::tls_io::TlsMaterial;
use jiff::{SignedDuration, Timestamp};

use super::server::{Conduct, TokenServer};
use crate::support::certificates::{Authority, PATIENCE};
use crate::support::config::ConfigBuilder;
use crate::support::dns::NameServer;

/// The settings that most tests use, behind `token_url`.
pub(crate) const BY_SECRET: &str =
    "grant = \"client_credentials\"\nclient_id = \"client-1\"\nclient_secret_file = \"secret\"";
/// The content of the file `secret`.
pub(crate) const SECRET: &str = "s3cret~&=%";

/// A clock that a test sets.
#[derive(Clone)]
pub(crate) struct Clock {
    start: Timestamp,
    seconds: Arc<AtomicI64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Timestamp::now(),
            seconds: Arc::default(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.start + SignedDuration::from_secs(self.seconds.load(Ordering::SeqCst))
    }

    pub(crate) fn advance(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn source(&self) -> TokenClock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

pub(crate) struct World {
    pub(crate) server: TokenServer,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Clock,
    pub(crate) caches: TokenCaches,
    authority: Authority,
    names: NameServer,
}

impl World {
    pub(crate) async fn new(script: Vec<Conduct>) -> Self {
        let authority = Authority::root("tokens");
        let server = TokenServer::start(&authority.issue(&["login.example"]), script).await;
        let world = Self {
            server,
            folder: tempfile::tempdir().expect("a folder"),
            clock: Clock::new(),
            caches: TokenCaches::default(),
            names: NameServer::start(&[("example", "login.example A 127.0.0.1")]).await,
            authority,
        };
        std::fs::create_dir(world.spool()).expect("the folder is ours");
        world.write("secret", SECRET);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder in which refresh tokens are stored.
    pub(crate) fn spool(&self) -> PathBuf {
        self.path("spool")
    }

    /// Writes a file that nobody else can read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        write_private(&self.path(name), text);
    }

    pub(crate) fn token_url(&self) -> String {
        format!("https://login.example:{}/tenant/token", self.server.port)
    }

    /// Parses the table `oauth2` with these lines.
    pub(crate) fn settings(&self, lines: &str) -> TokenSettings {
        let text = format!("[oauth2]\ntoken_url = \"{}\"\n{lines}\n", self.token_url());
        parse_token_settings(&text, &self.path("gatepost.toml"))
            .unwrap_or_else(|faults| panic!("{faults:#?}"))
    }

    /// A client that trusts the authority alone.
    pub(crate) fn https(&self) -> Https {
        self.write("trust.pem", &self.authority.pem());
        let dns = format!("servers = [\"{}\"]\ndnssec = \"off\"", self.names.address);
        let config = ConfigBuilder::new()
            .table("tls", "trust = \"trust.pem\"")
            .table("dns", &dns)
            .parse_in(self.folder.path());
        let dns = Dns::new(&config.dns).expect("a resolver");
        let (tls, _) =
            TlsMaterial::load_https_server(&config.tls, &config.tls.trust).expect("a good file");
        Https::new(dns, tls)
    }

    /// A source with these settings, as after a start or a reload.
    pub(crate) fn source(&self, lines: &str) -> TokenSource {
        self.source_within(lines, PATIENCE)
    }

    pub(crate) fn source_within(&self, lines: &str, limit: Duration) -> TokenSource {
        let settings = self.settings(lines);
        let (source, warnings) =
            TokenSource::load(&settings, self.https(), &self.spool(), &self.caches)
                .unwrap_or_else(|faults| panic!("{faults:#?}"));
        assert_eq!(warnings, []);
        source.with_clock_and_timeout(self.clock.source(), limit)
    }
}

pub(crate) fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the folder is ours");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, mode).expect("the file is ours");
}
