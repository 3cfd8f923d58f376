//! Nothing is sent to a server that is not proved to be the database: no password, and no name.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost::config::Config;
use gatepost::storage::postgresql::{Database, DatabaseAccess, DatabaseError, read_durability};
use tempfile::TempDir;

use super::front::{Front, Manner};
use crate::support::certificates::{Authority, BOTH, Pair, server_config};
use crate::support::config::ConfigBuilder;

/// Only a test that fails waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "tanstaafl";

/// A folder with the password, and the authority that the configuration trusts.
struct World {
    folder: TempDir,
    authority: Authority,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::root("Database CA");
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("a file");
        write_password(folder.path(), PASSWORD);
        Self { folder, authority }
    }

    /// The configuration with the database at these hosts, with these further lines of `[spool]`.
    fn config(&self, hosts: &str, sslmode: &str, more: &str) -> Config {
        let spool = format!(
            "url = \"postgresql://gatepost@{hosts}/mail?sslmode={sslmode}\"\n{more}\n[cluster]\nlease = \"6s\""
        );
        ConfigBuilder::new()
            .table("spool", &spool)
            .parse_in(self.folder.path())
    }

    fn database(&self, hosts: &str) -> Database {
        let more = "password_file = \"password\"\ntrust = \"ca.pem\"";
        open(&self.config(hosts, "verify-full", more))
    }
}

fn write_password(folder: &Path, password: &str) {
    let file = folder.join("password");
    std::fs::write(&file, format!("{password}\n")).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("ours");
}

fn open(config: &Config) -> Database {
    let (access, warnings) = DatabaseAccess::load(config).expect("its files are sound");
    assert!(warnings.is_empty(), "{warnings:?}");
    access.expect("a database").database().expect("a runtime")
}

async fn failure(database: &Database) -> String {
    match read_durability(database).await {
        Err(DatabaseError::Unreachable(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn at(address: SocketAddr) -> String {
    format!("localhost:{}", address.port())
}

fn tls(pair: &Pair) -> Manner {
    Manner::Tls(Arc::new(server_config(pair, BOTH)))
}

#[tokio::test]
async fn the_password_is_sent_to_a_server_that_is_trusted_and_has_the_name() {
    let world = World::new();
    let mut server = Front::start(tls(&world.authority.issue(&["localhost"]))).await;
    let database = world.database(&at(server.address));
    let reason = failure(&database).await;
    assert!(
        reason.ends_with(": wrong one; see [spool] password_file"),
        "{reason}"
    );
    let heard = String::from_utf8(server.heard().await).expect("ASCII");
    for part in [
        "user\0gatepost\0",
        "database\0mail\0",
        "application_name\0gatepost relay.example.com\0",
        "statement_timeout=4000",
    ] {
        assert!(heard.contains(part), "{part:?} is not in {heard:?}");
    }
    assert!(heard.ends_with("tanstaafl\0"), "{heard:?}");
    // The file is read for each connection.
    write_password(world.folder.path(), "another");
    failure(&database).await;
    let heard = String::from_utf8(server.heard().await).expect("ASCII");
    assert!(heard.ends_with("another\0"), "{heard:?}");
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_is_not_the_database() {
    let world = World::new();
    let other = Authority::root("Other CA");
    for (manner, wanted) in [
        (
            tls(&world.authority.issue(&["db.example.com"])),
            "the certificate is for db.example.com; see [spool] trust",
        ),
        (
            tls(&other.issue(&["localhost"])),
            "the certificate is not trusted: ",
        ),
        (Manner::WithoutTls, "the server has no TLS; set ssl = on"),
    ] {
        let mut server = Front::start(manner).await;
        let reason = failure(&world.database(&at(server.address))).await;
        assert!(reason.contains(wanted), "{wanted}: {reason}");
        assert_eq!(server.heard().await, b"", "{wanted}");
    }
}

/// Each host is named with its own reason, and one that hangs keeps no other from being tried.
#[tokio::test]
async fn all_hosts_are_tried_in_their_order() {
    let world = World::new();
    let hanging = Front::start(Manner::Hanging).await;
    let mut last = Front::start(tls(&world.authority.issue(&["localhost"]))).await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("it is bound")
    };
    let hosts = [at(closed), at(hanging.address), at(last.address)];
    let reason = failure(&world.database(&hosts.join(","))).await;
    let reasons: Vec<_> = reason.split("; ").collect();
    assert!(
        reasons[0].starts_with(&format!("{}: Connection refused", hosts[0])),
        "{reason}"
    );
    assert_eq!(reasons[1], format!("{}: no answer within 1 s", hosts[1]));
    assert_eq!(reasons[2], format!("{}: wrong one", hosts[2]));
    assert!(last.heard().await.ends_with(b"tanstaafl\0"));
}

#[tokio::test]
async fn a_server_that_asks_for_a_password_without_one_is_named() {
    let world = World::new();
    let server = Front::start(tls(&world.authority.issue(&["localhost"]))).await;
    let config = world.config(&at(server.address), "verify-full", "trust = \"ca.pem\"");
    let reason = failure(&open(&config)).await;
    assert!(
        reason.ends_with("the server asks for a password; add [spool] password_file"),
        "{reason}"
    );
}

#[test]
fn files_that_are_missing_are_faults() {
    let world = World::new();
    let more = "password_file = \"none\"\ntrust = \"none.pem\"";
    let config = world.config("localhost", "verify-full", more);
    let faults = DatabaseAccess::load(&config).expect_err("they are missing");
    let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("none does not exist"), "{texts:?}");
    assert!(
        texts[0].contains("the password of the database"),
        "{texts:?}"
    );
    assert!(texts[1].contains("none.pem"), "{texts:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn the_real_server_is_reached_behind_tls() {
    let world = World::new();
    let server = super::server::TestServer::new().await;
    let pair = world.authority.issue(&["localhost"]);
    let config = Arc::new(server_config(&pair, BOTH));
    let front = Front::start(Manner::Before(config, server.address())).await;
    let url = format!(
        "url = \"postgresql://{}@{}/{}?sslmode=verify-full\"\ntrust = \"ca.pem\"",
        server.user(),
        at(front.address),
        server.database()
    );
    let config = ConfigBuilder::new().table("spool", &url);
    let database = open(&config.parse_in(world.folder.path()));
    let durability = read_durability(&database).await.expect("an answer");
    assert!(durability.check(true).is_ok(), "{durability:?}");
}
