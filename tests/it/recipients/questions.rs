//! Questions at a mailbox server that takes its time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::world::{Relay, ask, file, mailboxes_at};
use crate::support::in_process::until;

/// A mailbox server that answers RCPT when it is let.
pub(super) struct SlowServer {
    pub(super) address: SocketAddr,
    /// The RCPT commands that it has received.
    asked: Arc<Mutex<Vec<String>>>,
    pub(super) leave: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for SlowServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SlowServer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (asked, leave) = (
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::new(Semaphore::new(0)),
        );
        let (heard, permits) = (Arc::clone(&asked), Arc::clone(&leave));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                let (heard, permits) = (Arc::clone(&heard), Arc::clone(&permits));
                tokio::spawn(async move {
                    // The relay may close the connection at any time.
                    let _ = serve(stream, &heard, &permits).await;
                });
            }
        });
        Self {
            address,
            asked,
            leave,
            task,
        }
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn serve(
    stream: TcpStream,
    asked: &Mutex<Vec<String>>,
    leave: &Semaphore,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 slow ESMTP\r\n").await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let answer = if line.starts_with("RCPT TO:<user") {
            asked.lock().expect("no panic").push(line.clone());
            leave.acquire().await.expect("open").forget();
            "250 ok\r\n"
        } else if line.starts_with("RCPT") {
            "550 5.1.1 no such user\r\n"
        } else {
            "250 ok\r\n"
        };
        stream.write_all(answer.as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

#[tokio::test]
async fn one_question_is_asked_for_all_that_wait() {
    let server = SlowServer::start().await;
    let relay = Relay::start(&ask(""), &[mailboxes_at(server.address, "")]).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = relay.client().await;
        client.asks("MAIL FROM:<a@sender.example>", "250").await;
        client.says("RCPT TO:<user@example.com>").await;
        clients.push(client);
    }
    until("the server is asked", || {
        (!server.asked().is_empty()).then_some(())
    })
    .await;
    // Who asks first may go; the others hear the answer nevertheless.
    drop(clients.remove(0));
    for client in &mut clients {
        client.hears_nothing().await;
    }
    server.leave.add_permits(1);
    for client in &mut clients {
        client.hears("250 2.1.5").await;
    }
    assert_eq!(server.asked().len(), 1, "{:?}", server.asked());
    drop(clients);
    relay.ends().await;
}

/// A server that hangs holds up the clients that ask it. Others are answered, also about other
/// mailboxes that are known.
#[tokio::test]
async fn a_server_that_hangs_holds_up_nobody_else() {
    let server = SlowServer::start().await;
    let elsewhere = file("known@elsewhere.example\n").replace(
        "\"example.com\", \"all.example.com\"",
        "\"elsewhere.example\"",
    );
    let tables = format!("{}{elsewhere}", ask(""));
    let relay = Relay::start(&tables, &[mailboxes_at(server.address, "")]).await;
    let mut waiting = relay.client().await;
    waiting.asks("MAIL FROM:<a@sender.example>", "250").await;
    waiting.says("RCPT TO:<user@example.com>").await;
    until("the server is asked", || {
        (!server.asked().is_empty()).then_some(())
    })
    .await;
    for (to, wanted) in [
        ("known@elsewhere.example", "250"),
        ("nobody@elsewhere.example", "550 5.1.1"),
        ("nobody@unchecked.example", "250"),
        ("nobody@example.com", "550 5.1.1"),
        ("postmaster@example.com", "250"),
    ] {
        let reply = relay.rcpt(to).await;
        assert!(reply.starts_with(wanted), "{to}: {reply}");
    }
    waiting.hears_nothing().await;
    server.leave.add_permits(1);
    waiting.hears("250 2.1.5").await;
    drop(waiting);
    relay.ends().await;
}

/// With sixteen sessions, four may wait for answers. The next one is answered at once.
#[tokio::test]
async fn the_number_of_clients_that_wait_is_bounded() {
    let server = SlowServer::start().await;
    let tables = format!("{}[limits]\nconnections = 16\n", ask(""));
    let relay = Relay::start(&tables, &[mailboxes_at(server.address, "")]).await;
    let mut clients = Vec::new();
    for at in 0..4 {
        let mut client = relay.client().await;
        client.asks("MAIL FROM:<a@sender.example>", "250").await;
        client
            .says(&format!("RCPT TO:<user{at}@example.com>"))
            .await;
        clients.push(client);
        until("the server is asked", || {
            (server.asked().len() == at + 1).then_some(())
        })
        .await;
    }
    let reply = relay.rcpt("user9@example.com").await;
    assert!(reply.starts_with("451 4.4.3"), "{reply}");
    server.leave.add_permits(4);
    for client in &mut clients {
        client.hears("250 2.1.5").await;
    }
    drop(clients);
    relay.ends().await;
}

#[tokio::test]
async fn a_stop_ends_the_wait_for_an_answer() {
    let server = SlowServer::start().await;
    let relay = Relay::start(&ask(""), &[mailboxes_at(server.address, "")]).await;
    let mut client = relay.client().await;
    client.asks("MAIL FROM:<a@sender.example>", "250").await;
    client.says("RCPT TO:<user@example.com>").await;
    until("the server is asked", || {
        (!server.asked().is_empty()).then_some(())
    })
    .await;
    relay.running.stop();
    client
        .hears("421 4.3.2 relay.example.com Service is shutting down")
        .await;
    client.hears_the_end().await;
    relay.ends().await;
}
