//! A client of the relay that speaks SMTP line by line, over any connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::in_process::SENDER;

/// Only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the relay. It is dropped before the relay is stopped: for an open one the stop
/// waits some seconds.
pub(crate) struct Client<S> {
    pub(crate) stream: BufReader<S>,
}

impl Client<TcpStream> {
    /// Connects, and says EHLO.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("the relay listens");
        // Without a delay: the final dot would wait for an acknowledgement of the content.
        stream.set_nodelay(true).expect("a connection");
        let mut client = Self::new(stream);
        client.hears("220").await;
        client.asks("EHLO client.example", "250").await;
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Says lines, in one piece.
    pub(crate) async fn says(&mut self, lines: &str) {
        self.sends(format!("{}\r\n", lines.replace('\n', "\r\n")).as_bytes())
            .await;
    }

    pub(crate) async fn sends(&mut self, octets: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(octets))
            .await
            .expect("in time")
            .expect("a connection");
        self.stream.flush().await.expect("a connection");
    }

    /// The next reply, all its lines.
    pub(crate) async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let octets = timeout(PATIENCE, self.stream.read_line(&mut line))
                .await
                .expect("in time")
                .expect("text");
            assert!(
                octets > 0,
                "the relay has closed the connection, after {reply:?}"
            );
            reply.push_str(&line);
            if line.as_bytes().get(3) == Some(&b' ') {
                return reply.trim_end().to_owned();
            }
        }
    }

    /// The next reply begins so.
    pub(crate) async fn hears(&mut self, words: &str) {
        let reply = self.reply().await;
        assert!(
            reply.starts_with(words),
            "{words:?} was wanted, and heard was {reply:?}"
        );
    }

    /// Nothing is said, in a time in which something would have been.
    pub(crate) async fn hears_nothing(&mut self) {
        let heard = timeout(Duration::from_millis(300), self.stream.fill_buf()).await;
        assert!(heard.is_err(), "the relay said {heard:?}");
    }

    /// The relay closes the connection, and says nothing more.
    pub(crate) async fn hears_the_end(mut self) {
        let mut rest = String::new();
        let read = timeout(PATIENCE, self.stream.read_to_string(&mut rest))
            .await
            .expect("in time");
        assert!(rest.is_empty(), "the relay also said {rest:?}");
        read.expect("closed in order");
    }

    /// The relay closes the connection; what it may say first (a TLS alert) is no reply.
    pub(crate) async fn hears_no_reply(mut self) {
        let mut rest = Vec::new();
        // Closed or reset: both are an end.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest))
            .await
            .expect("in time");
        let code = |octets: &[u8]| octets.iter().all(u8::is_ascii_digit);
        assert!(
            !rest.windows(3).any(code),
            "the relay said {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// EHLO, MAIL, RCPT and DATA, all taken.
    pub(crate) async fn begins(&mut self, from: &str, to: &str) {
        self.says("EHLO client.example").await;
        self.hears("250-relay.example.com").await;
        self.says(&format!("MAIL FROM:<{from}>\nRCPT TO:<{to}>\nDATA"))
            .await;
        self.hears("250 2.1.0").await;
        self.hears("250 2.1.5").await;
        self.hears("354").await;
    }

    /// Says a line; the reply begins so.
    pub(crate) async fn asks(&mut self, line: &str, expected: &str) -> String {
        self.says(line).await;
        let reply = self.reply().await;
        assert!(
            reply.starts_with(expected),
            "{line}: {expected:?} was wanted, and heard was {reply:?}"
        );
        reply
    }

    /// DATA, and content that has no line with a leading dot; gives the queue id.
    pub(crate) async fn content(&mut self, content: &str) -> String {
        self.asks("DATA", "354").await;
        self.sends(content.as_bytes()).await;
        let accepted = self.asks(".", "250 2.0.0 Ok: queued as ").await;
        accepted.rsplit(' ').next().expect("an id").to_owned()
    }

    /// A message from the usual sender, in one go; gives the queue id.
    pub(crate) async fn sends_message(&mut self, to: &str) -> String {
        self.asks(&format!("MAIL FROM:<{SENDER}>"), "250").await;
        self.asks(&format!("RCPT TO:<{to}>"), "250").await;
        self.content("Subject: test\r\n\r\nbody\r\n").await
    }
}
