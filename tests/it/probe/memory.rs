//! A probe uses what the daemon remembers of a domain while the daemon runs; and nothing of a probe
//! is remembered.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gatepost::discovery::history::{History, TlsLevel};
use gatepost::smtp::address::Host;
use jiff::Timestamp;

use super::world::{World, smart};
use crate::support::peer::{Manner, Peer, Starttls};

/// A child that does not outlive us.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn daemon(world: &World) -> Daemon {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .arg("run")
        .arg("--config")
        .arg(world.file())
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().map(Daemon).expect("gatepost runs")
}

#[tokio::test]
async fn a_domain_that_lost_its_tls_is_refused_where_the_daemon_remembers_it() {
    let world = World::new().await;
    let peer = Peer::start(Manner::new(Starttls::NotOffered)).await;
    let policy = "tls = \"opportunistic\"\ndowngrade = \"refuse\"";
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        policy,
    ));
    let answer = world.probe(&["partner.example"]).await;
    answer
        .ends(0)
        .has("downgrade memory  not available: no running Gatepost answers on ");

    let spool = world.folder.path().join("spool");
    std::fs::create_dir(&spool).expect("the folder is ours");
    let host = |text: &str| Host::parse(text).expect("a host");
    let history = History::open(&spool, Timestamp::now()).expect("a memory");
    let (domain, hop) = (host("partner.example"), host(crate::probe::world::HOP));
    let _ = history.record(&domain, &hop, TlsLevel::Verified, None, Timestamp::now());
    history.close().await;

    let _daemon = daemon(&world);
    let deadline = Instant::now() + Duration::from_secs(20);
    let answer = loop {
        let answer = world.probe(&["partner.example"]).await;
        if answer.out.contains("the domain used TLS, last on ") {
            break answer;
        }
        assert!(Instant::now() < deadline, "the daemon answers: {answer:?}");
    };
    answer
        .ends(1)
        .has("demand    downgrade memory: TLS")
        .has("NOT MET: the peer does not offer STARTTLS");
    let kept = history_of(&world).await;
    assert!(
        kept.contains("\"level\":\"verified\""),
        "nothing of a probe is noted: {kept}"
    );
}

async fn history_of(world: &World) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .args(["history", "list", "--json", "--config"])
        .arg(world.file())
        .stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("gatepost runs");
    String::from_utf8(ran.stdout).expect("UTF-8")
}
