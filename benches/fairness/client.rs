//! The clients that send mail to the relay.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// The address of a client that may send to any domain.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The address of a stranger; each is in another network.
pub(crate) fn stranger(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 5, number, 1)
}

/// An SMTP session.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) async fn connect(relay: SocketAddr, from: Ipv4Addr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::new(IpAddr::V4(from), 0))
            .expect("loopback");
        let mut client = Self(BufReader::new(
            socket.connect(relay).await.expect("the relay listens"),
        ));
        client.hears("220").await;
        client.says("EHLO client.example", "250").await;
        client
    }

    pub(crate) async fn says(&mut self, line: &str, expected: &str) {
        self.0
            .write_all(format!("{line}\r\n").as_bytes())
            .await
            .expect("a connection");
        self.hears(expected).await;
    }

    async fn hears(&mut self, expected: &str) {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.expect("a reply");
            assert!(
                line.starts_with(expected),
                "{expected} was wanted, and heard was {line:?}"
            );
            if line.as_bytes().get(3) == Some(&b' ') {
                return;
            }
        }
    }

    /// Sends one message.
    pub(crate) async fn sends(&mut self, from: &str, to: &str) {
        self.says(&format!("MAIL FROM:<{from}>"), "250").await;
        self.says(&format!("RCPT TO:<{to}>"), "250").await;
        self.says("DATA", "354").await;
        self.says("Subject: test\r\n\r\nbody\r\n.", "250").await;
    }
}

/// Sends one message in its own session.
pub(crate) async fn send(relay: SocketAddr, client: Ipv4Addr, from: &str, to: &str) {
    let mut client = Client::connect(relay, client).await;
    client.sends(from, to).await;
    client.says("QUIT", "221").await;
}
