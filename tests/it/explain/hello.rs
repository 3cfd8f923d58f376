//! The ClientHello that a host took lately, as the running daemon knows it.

use std::sync::Arc;
use std::time::Duration;

use gatepost::config::parse;
use gatepost::daemon::{self, SystemdSockets, TestOverrides};
use serde_json::{Value, json};

use super::mta_sts::leave_mail;
use super::world::{World, connector, in_order};
use crate::support::certificates::{Authority, BOTH, server_config};
use crate::support::operated::{code, json as document, out, raw};
use crate::support::peer::{Manner, Peer, Starttls};
use crate::support::picky::{Does, Over, Picky};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_accepts_no_large_client_hello_is_shown_as_the_daemon_knows_it() {
    let world = World::new().await;
    let config = server_config(
        &Authority::root("The Test Authority").issue(&["mx1.partner.example"]),
        BOTH,
    );
    let picky = Picky {
        over: Over::Large,
        does: Does::Resets,
    };
    let peer = Peer::start(Manner::new(Starttls::Picky(picky, config.into()))).await;
    let port = peer.address.port();
    let text = world
        .config(
            "",
            &connector("all", &["*"], &format!("port = {port}\ndiscover = []")),
        )
        .replace(":2525", ":0");
    let (config, _) =
        parse(&text, &world.folder.path().join("gatepost.toml")).expect("a good configuration");
    leave_mail(&world).await;
    let daemon = daemon::start_with(
        TestOverrides::default(),
        SystemdSockets::default(),
        config,
        Arc::new(()),
    )
    .await;
    let mut daemon = daemon.expect("it starts");

    let socket = world.folder.path().join("admin.sock");
    let known =
        || raw(&socket, "GET /v1/client-hellos HTTP/1.1\r\nHost: x\r\n\r\n").1["items"].clone();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while known() == json!([]) {
        assert!(
            std::time::Instant::now() < deadline,
            "the daemon delivers, and learns it"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        known(),
        json!([{"host": "mx1.partner.example", "port": port, "groups": "classical-all-curves", "sni": false}])
    );

    let output = world.explain_file(&text, &["bob@sts.example"]);
    assert_eq!(code(&output), 0);
    in_order(
        &out(&output),
        &[
            "offered     classical key exchange, all curves, without SNI (the daemon remembers that the host accepts no other)\n",
            "the handshake breaks, again on a fresh connection: post-quantum key exchange first\n",
        ],
    );
    let told = |arguments: &[&str]| -> Value {
        document(&world.explain_file(&text, arguments))["hops"][0]["client_hello"].clone()
    };
    assert_eq!(told(&["sts.example", "--json"])["remembered"], true);
    daemon.stop();
    daemon.ended().await.expect("an orderly end");
    assert_eq!(
        told(&["sts.example", "--json"])["first"],
        "post-quantum key exchange first"
    );
}
