//! The database goes and comes back beneath a relay that runs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::safety::PATIENCE;
use super::server::TestServer;
use super::start::{config, get, make_schema, start};
use crate::support::counting_sink::Sink;
use crate::support::in_process::until;
use crate::support::session::Client;

/// Waits until `/readyz` answers so, and returns the answer.
async fn readiness_becomes(http: SocketAddr, status: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = get(http, "/readyz").await;
        if answer.starts_with(&format!("HTTP/1.1 {status}")) {
            return answer;
        }
        assert!(Instant::now() < deadline, "no {status}: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// While the database is gone, longer than the lease, nothing is accepted; then the relay goes on by
/// itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_relay_outlives_its_database() {
    let (server, sink) = (TestServer::new().await, Sink::start(1).await);
    let folder = tempfile::tempdir().expect("a folder");
    make_schema(&server);
    let role = server.database();
    let started = start(config(folder.path(), &server.url(role), &sink)).await;
    let mut daemon = started.expect("it starts");
    let http = daemon.http.expect("an address");
    let (_, listener) = daemon.addresses[0];
    readiness_becomes(http, "200").await;

    server
        .execute(&format!(
            "ALTER ROLE {role} NOLOGIN;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        ))
        .await;
    let answer = readiness_becomes(http, "503").await;
    assert!(
        answer.contains("the database does not answer: "),
        "{answer}"
    );
    let mut client = Client::connect(listener).await;
    client
        .asks("MAIL FROM:<a@sender.example>", "451 4.3.0")
        .await;
    // The lease is over by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    client
        .asks("MAIL FROM:<a@sender.example>", "451 4.3.0")
        .await;

    server.execute(&format!("ALTER ROLE {role} LOGIN")).await;
    readiness_becomes(http, "200").await;
    client.sends_message("b@a.example").await;
    until("the message is delivered", || {
        (sink.taken() == 1).then_some(())
    })
    .await;
    daemon.stop();
    daemon.ended().await.expect("an orderly end");
}
