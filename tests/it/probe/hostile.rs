//! Peers that want to keep, fill or confuse us.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::world::{HOP, World, showing, smart};
use crate::support::certificates::PATIENCE;
use crate::support::peer::{Manner, Peer, Starttls};

/// A peer that does as it likes.
struct Wild {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Wild {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wild {
    async fn start<F: Future<Output = std::io::Result<()>> + Send + 'static>(
        manner: fn(TcpStream) -> F,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(manner(stream));
            }
        });
        Self { address, task }
    }
}

async fn probed(address: SocketAddr, words: &str) {
    let world = World::new().await;
    world.write(&forced(address));
    fails(&world, words).await;
}

/// The same with a peer that must be waited for.
async fn given_up(address: SocketAddr, words: &str) {
    let world = World::new().await;
    world.write_impatient(&forced(address));
    fails(&world, words).await;
}

fn forced(address: SocketAddr) -> String {
    let domains = ["partner.example"];
    smart("partner", &domains, address.port(), "tls = \"forced\"")
}

async fn fails(world: &World, words: &str) {
    let answer = tokio::time::timeout(PATIENCE, world.probe(&["partner.example"]))
        .await
        .expect("it ends by itself");
    answer
        .ends(1)
        .has(words)
        .has("Mail for partner.example would be DEFERRED");
    assert!(
        answer.out.len() < 8_000,
        "no peer writes pages: {}",
        answer.out
    );
}

#[tokio::test]
async fn a_greeting_without_end() {
    let peer = Wild::start(|mut stream| async move {
        loop {
            stream.write_all(b"220-and so on\r\n").await?;
        }
    })
    .await;
    probed(peer.address, "FAILS: 4.5.0 ").await;
}

#[tokio::test]
async fn a_line_without_end() {
    let peer = Wild::start(|mut stream| async move {
        loop {
            stream.write_all(&[b'2'; 4096]).await?;
        }
    })
    .await;
    probed(peer.address, "FAILS: 4.5.0 ").await;
}

#[tokio::test]
async fn silence() {
    let peer = Wild::start(|stream| async move {
        tokio::time::sleep(Duration::from_mins(1)).await;
        drop(stream);
        Ok(())
    })
    .await;
    given_up(
        peer.address,
        "FAILS: 4.4.2 no reply to the connection within 2 s",
    )
    .await;
}

#[tokio::test]
async fn an_octet_at_a_time() {
    let peer = Wild::start(|mut stream| async move {
        for octet in b"220-".iter().chain(b"slow ".iter().cycle()) {
            stream.write_all(&[*octet]).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    })
    .await;
    given_up(
        peer.address,
        "FAILS: 4.4.2 no reply to the connection within 2 s",
    )
    .await;
}

#[tokio::test]
async fn a_handshake_that_stops() {
    let peer = Wild::start(|mut stream| async move {
        let mut heard = [0; 1024];
        stream.write_all(b"220 peer\r\n").await?;
        let _ = stream.read(&mut heard).await?;
        stream.write_all(b"250-peer\r\n250 STARTTLS\r\n").await?;
        let _ = stream.read(&mut heard).await?;
        stream.write_all(b"220 go ahead\r\n").await?;
        tokio::time::sleep(Duration::from_mins(1)).await;
        Ok(())
    })
    .await;
    given_up(peer.address, "it was not complete within 2 s").await;
}

#[tokio::test]
async fn garbage_instead_of_tls() {
    let peer = Peer::start(Manner::new(Starttls::Speaks("500 this is no TLS"))).await;
    probed(
        peer.address,
        "the peer sent clear text after agreeing to STARTTLS",
    )
    .await;
}

#[tokio::test]
async fn a_giant_certificate() {
    let world = World::new().await;
    let names: Vec<String> = (0..5_000)
        .map(|number| format!("host{number}.partner.example"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let peer = showing(&world.authority.issue(&names)).await;
    probed(peer.address, "no TLS    the TLS handshake failed: ").await;
}

#[tokio::test]
async fn a_chain_of_dozens() {
    let world = World::new().await;
    let mut pair = world.authority.issue(&[HOP]);
    for _ in 0..60 {
        pair.chain.push(world.authority.certificate.clone());
    }
    let peer = showing(&pair).await;
    let policy = "tls = \"forced\"\nverify = \"none\"";
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        policy,
    ));
    world
        .probe(&["partner.example"])
        .await
        .ends(0)
        .has("cert 10")
        .lacks("cert 11");
}

#[tokio::test]
async fn a_certificate_with_hundreds_of_names_is_not_written_out() {
    let world = World::new().await;
    let names: Vec<String> = (0..300)
        .map(|number| format!("host{number}.partner.example"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let peer = showing(&world.authority.issue(&names)).await;
    let policy = "tls = \"forced\"\nverify = \"none\"";
    world.write(&smart(
        "partner",
        &["partner.example"],
        peer.address.port(),
        policy,
    ));
    world
        .probe(&["partner.example"])
        .await
        .ends(0)
        .has("and 292 more")
        .lacks("host8.");
}
