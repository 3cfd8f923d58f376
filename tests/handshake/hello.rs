//! What our ClientHello offers, and what a session has of it.

use gatepost::handshake::Role;
use gatepost::tls::{Acquaintance, Groups, Hello, TlsFacts};
use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::picky::{SEGMENT, Waiting};
use crate::world::*;

const NAME: &str = "mail.partner.example";

const fn hello(groups: Groups, sni: bool) -> Hello {
    Hello { groups, sni }
}

#[tokio::test]
async fn each_client_hello_has_its_groups_and_a_classical_one_fits_into_a_segment() {
    use Groups::{Classical, PostQuantumFirst, PostQuantumOnly};
    let folder = tempfile::tempdir().expect("a folder");
    let (material, connector) = material_trusting(&Authority::root("Partner CA"), folder.path());
    for (hello, words, is_large) in [
        (USUAL, "(hello hybrid+classical sni)", true),
        (hello(PostQuantumFirst, false), "(hello hybrid+classical)", true),
        (hello(Classical, true), "(hello classical sni)", false),
        (hello(Classical, false), "(hello classical)", false),
        (hello(PostQuantumOnly, true), "(hello hybrid sni)", true),
        (hello(PostQuantumOnly, false), "(hello hybrid)", true),
    ] {
        for acquaintance in [Acquaintance::Made, Acquaintance::Renewed] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let address = listener.local_addr().expect("bound");
            let server = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.expect("a client");
                Waiting::on(&stream).await.expect("a ClientHello")
            });
            let ours = connect_with(&material, &connector, address, NAME, (hello, acquaintance));
            assert!(ours.await.is_err(), "the server goes");
            let shown = server.await.expect("the server");
            assert_eq!(shown.words(), words);
            assert_eq!(shown.octets > SEGMENT, is_large, "{hello}: {}", shown.octets);
            // The longest host name has 253 octets.
            assert!(is_large || shown.octets + 253 < SEGMENT, "{hello}: {}", shown.octets);
        }
    }
}

/// TLS 1.3 alone is resumed, and only with a key exchange of its own (RFC 8446 §2.2).
#[tokio::test]
async fn a_resumed_session_has_a_key_exchange_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::root("Partner CA");
    let (material, connector) = material_trusting(&authority, folder.path());
    for (groups, group) in [
        (Groups::PostQuantumFirst, "X25519MLKEM768"),
        (Groups::PostQuantumOnly, "X25519MLKEM768"),
        (Groups::Classical, "X25519"),
    ] {
        let (address, _peer) = serve(server_config(&authority.issue(&[NAME]), &TLS13), 2).await;
        let mut seen: Vec<TlsFacts> = Vec::new();
        for _ in 0..2 {
            let with = (hello(groups, true), Acquaintance::Renewed);
            let session = connect_with(&material, &connector, address, NAME, with).await.expect("a handshake");
            let against = material.client(&connector).against(None);
            seen.push(session.facts(against, Role::Server, Timestamp::now()).await);
        }
        // What a server gave for one set of groups is not used with another.
        let acquaintances = [&seen[0], &seen[1]].map(|facts| facts.acquaintance);
        assert_eq!(acquaintances, [Acquaintance::Made, Acquaintance::Renewed], "{groups:?}");
        assert!(seen.iter().all(|facts| facts.key_exchange == Some(group)), "{groups:?}: {seen:?}");
    }
}
