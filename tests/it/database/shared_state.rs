//! Two nodes of one database share what they know, and each has a chain of evidence in it.

use std::path::Path;
use std::process::Command;

use gatepost::daemon::RunningDaemon;

use super::server::TestServer;
use super::start::{make_schema, start};
use crate::support::config::ConfigBuilder;
use crate::support::counting_sink::Sink;
use crate::support::in_process::until;
use crate::support::relay::program;
use crate::support::session::Client;

/// Returns the configuration of a node, whose evidence would go to a folder without the database.
fn node(name: &str, url: &str, sink: &Sink) -> ConfigBuilder {
    ConfigBuilder::new()
        .listener("127.0.0.1:0")
        .table("spool", &format!("path = \"spool\"\nurl = \"{url}\""))
        .table("cluster", &format!("node = \"{name}\""))
        .table("admin", "socket = \"\"\nhttp = \"\"")
        .table("evidence", "path = \"evidence\"")
        .table("dns", "servers = [\"127.0.0.1:9\"]")
        .relays_to(sink.address)
}

async fn send(daemon: &RunningDaemon, recipient: &str) {
    let (_, listener) = daemon.addresses.first().expect("a listener");
    let mut client = Client::connect(*listener).await;
    client.sends_message(recipient).await;
}

/// Runs `gatepost evidence` and returns its exit status and all that it printed.
fn evidence(configuration: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program())
        .arg("evidence")
        .args(arguments)
        .arg("--config")
        .arg(configuration)
        .output()
        .expect("gatepost runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn the_evidence_of_all_nodes_is_read_from_any() {
    let (server, sink) = (TestServer::new().await, Sink::start(2).await);
    make_schema(&server);
    let url = server.url(server.database());
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (mut daemons, mut files) = (Vec::new(), Vec::new());
    for (folder, name) in folders.iter().zip(["relay-1", "relay-2"]) {
        let config = node(name, &url, &sink);
        files.push(config.write(folder.path()));
        daemons.push(
            start(config.parse_in(folder.path()))
                .await
                .expect("it starts"),
        );
    }
    send(&daemons[0], "b@a.example").await;
    send(&daemons[1], "c@a.example").await;
    until("both messages are delivered", || {
        (sink.taken() == 2).then_some(())
    })
    .await;
    for daemon in &mut daemons {
        daemon.stop();
        daemon.ended().await.expect("an orderly end");
    }
    for file in &files {
        let (status, text) = evidence(file, &["verify"]);
        assert_eq!(status, Some(0), "{text}");
        // Each chain has its beginning, an accepted message, and its delivery.
        for words in [
            "node relay-1:",
            "node relay-2:",
            "the chain is whole: 3 records in 1 file",
        ] {
            assert!(text.contains(words), "{words:?} is missing from\n{text}");
        }
    }
    let (status, text) = evidence(&files[0], &["list", "--node", "relay-2", "--json"]);
    assert!(status == Some(0) && text.contains("c@a.example"), "{text}");
    assert!(
        !text.contains("b@a.example"),
        "that is of the other node:\n{text}"
    );
    let (status, text) = evidence(&files[0], &["list", "--json"]);
    assert!(
        status == Some(2) && text.contains("name one with --node: relay-1, relay-2"),
        "{text}"
    );
    let (status, text) = evidence(&files[0], &["archive", "elsewhere"]);
    assert!(
        status == Some(1) && text.contains("the evidence is in the database"),
        "{text}"
    );
    let no_folder = folders
        .iter()
        .all(|folder| !folder.path().join("evidence").exists());
    assert!(no_folder, "[evidence] path is not used");
    // One record of a node that was edited is found, and that of the other node is whole.
    let edit = "UPDATE gatepost.evidence SET line = replace(line, 'c@a.example', 'd@a.example')";
    server.execute(edit).await;
    let (status, text) = evidence(&files[0], &["verify"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("relay-2/") && text.contains("was edited"),
        "{text}"
    );
    assert!(
        text.contains("the chain is whole") && !text.contains("relay-1/"),
        "{text}"
    );
}
