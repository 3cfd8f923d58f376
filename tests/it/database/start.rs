//! A relay starts with a real database, or says why it does not.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use gatepost::config::Config;
use gatepost::daemon::{self, RunningDaemon, StartError, SystemdSockets, TestOverrides};

use super::server::TestServer;
use crate::support::config::ConfigBuilder;
use crate::support::counting_sink::Sink;
use crate::support::in_process::until;
use crate::support::relay::program;
use crate::support::session::Client;

pub(super) fn config(folder: &Path, url: &str, sink: &Sink) -> Config {
    ConfigBuilder::new()
        .listener("127.0.0.1:0")
        .table("spool", &format!("path = \"spool\"\nurl = \"{url}\""))
        .table("cluster", "node = \"relay-1\"\nlease = \"3s\"")
        .table("admin", "socket = \"\"\nhttp = \"127.0.0.1:0\"")
        .table("evidence", "path = \"\"")
        .table("dns", "servers = [\"127.0.0.1:9\"]")
        .relays_to(sink.address)
        .parse_in(folder)
}

pub(super) async fn start(config: Config) -> Result<RunningDaemon, StartError> {
    let test_overrides = TestOverrides {
        database_without_fsync: true,
        ..TestOverrides::default()
    };
    daemon::start_with(
        test_overrides,
        SystemdSockets::default(),
        config,
        Arc::new(()),
    )
    .await
}

/// Runs the SQL of `gatepost spool schema` as the owner of the database.
pub(super) fn make_schema(server: &TestServer) {
    let schema = Command::new(program())
        .args(["spool", "schema", "--role", server.database()])
        .output()
        .expect("gatepost runs");
    assert!(schema.status.success(), "{schema:?}");
    let mut psql = Command::new("psql")
        .args(["-v", "ON_ERROR_STOP=1", "-q"])
        .arg(server.url(server.user()))
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql runs");
    let mut input = psql.stdin.take().expect("it is a pipe");
    input.write_all(&schema.stdout).expect("psql reads");
    drop(input);
    let output = psql.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
}

/// The role of the relays needs no right but those that `gatepost spool schema` gives it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_role_that_does_not_own_the_schema_delivers_mail() {
    let (server, sink) = (TestServer::new().await, Sink::start(1).await);
    let folder = tempfile::tempdir().expect("a folder");
    let url = server.url(server.database());
    let refused = start(config(folder.path(), &url, &sink)).await;
    let refused = refused.expect_err("there is no schema").to_string();
    assert!(
        refused.contains("gatepost spool schema | psql"),
        "{refused}"
    );
    make_schema(&server);
    let mut daemon = start(config(folder.path(), &url, &sink)).await;
    let daemon = daemon.as_mut().expect("it starts");
    let (_, listener) = daemon.addresses.first().expect("a listener");
    let mut client = Client::connect(*listener).await;
    client.sends_message("b@a.example").await;
    until("the message is delivered", || {
        (sink.taken() == 1).then_some(())
    })
    .await;
    let http = daemon.http.expect("an address");
    let ready = get(http, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    daemon.stop();
    daemon.ended().await.expect("an orderly end");
}

/// Asks the HTTP server of a daemon.
pub(super) async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_may_lose_commits_is_refused() {
    let (server, sink) = (TestServer::new().await, Sink::start(1).await);
    let folder = tempfile::tempdir().expect("a folder");
    let role = server.database();
    server
        .execute(&format!("ALTER ROLE {role} SET synchronous_commit = off"))
        .await;
    let refused = start(config(folder.path(), &server.url(role), &sink)).await;
    let refused = refused
        .expect_err("250 would be a false promise")
        .to_string();
    assert!(
        refused.contains("run: ALTER ROLE … SET synchronous_commit = on"),
        "{refused}"
    );
    assert!(refused.contains("gatepost.toml:"), "{refused}");
}

/// Nothing is left behind by a start that fails, and another may succeed: no exit status 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_reached_ends_the_start() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("it is bound").port()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let spool =
        format!("path = \"spool\"\nurl = \"postgresql://gatepost@127.0.0.1:{closed}/mail\"");
    let file = ConfigBuilder::new()
        .listener("127.0.0.1:0")
        .table("spool", &spool)
        .table("admin", "socket = \"\"\nhttp = \"\"")
        .table("evidence", "path = \"\"")
        .write(folder.path());
    let output = Command::new(program())
        .args(["run", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .expect("it ends by itself");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in [
        "gatepost: not started",
        &format!("cannot reach the database: 127.0.0.1:{closed}: Connection refused"),
        "gatepost.toml:",
    ] {
        assert!(said.contains(words), "{words:?} is missing from\n{said}");
    }
}
