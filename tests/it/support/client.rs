//! A client that sends one message at a time and returns the result.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::message::{Message, SENDER};

/// The outcome of a message, as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// 250 to the final dot; with the queue id.
    Accepted(String),
    /// Anything else; the reply.
    Refused(String),
    /// The connection ended first: it may have been accepted or not.
    Lost,
}

/// The time that a reply may take.
const PATIENCE: Duration = Duration::from_secs(30);
const ACCEPTED: &str = "250 2.0.0 Ok: queued as ";

/// A connection.
#[derive(Debug)]
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects and says EHLO.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Self(BufReader::new(stream));
        client.reply()?;
        client.command("EHLO client.example")?;
        Ok(client)
    }

    /// Sends one command and gives its reply, the last line of it.
    pub(crate) fn command(&mut self, line: &str) -> io::Result<String> {
        self.0
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends octets as they are.
    pub(crate) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(octets)
    }

    /// Reads a reply, and gives the last line of it.
    pub(crate) fn reply(&mut self) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    /// Sends a message from MAIL to the answer to the final dot.
    pub(crate) fn send(&mut self, message: &Message) -> Verdict {
        self.transact(message).unwrap_or(Verdict::Lost)
    }

    /// Goes away in the middle of a message, which nobody can have accepted then.
    pub(crate) fn abandon(mut self, message: &Message) {
        let mut steps = vec![format!("MAIL FROM:<{SENDER}>")];
        steps.extend(
            message
                .recipients
                .iter()
                .map(|to| format!("RCPT TO:<{to}>")),
        );
        steps.push("DATA".to_owned());
        let content = stuffed(&message.content);
        let said = steps.iter().all(|step| {
            self.command(step)
                .is_ok_and(|reply| reply.starts_with(['2', '3']))
        });
        if said {
            // If the relay has ended first, it does not have the message either.
            let _gone = self.0.get_mut().write_all(&content[..content.len() - 5]);
        }
    }

    fn transact(&mut self, message: &Message) -> io::Result<Verdict> {
        match self.begin(message)? {
            Some(refused) => Ok(refused),
            None => self.complete(message),
        }
    }

    /// Begins a message, from MAIL to DATA. Gives the outcome where it is refused.
    pub(crate) fn begin(&mut self, message: &Message) -> io::Result<Option<Verdict>> {
        let mut steps = vec![(format!("MAIL FROM:<{SENDER}>"), "250")];
        steps.extend(
            message
                .recipients
                .iter()
                .map(|to| (format!("RCPT TO:<{to}>"), "250")),
        );
        steps.push(("DATA".to_owned(), "354"));
        for (command, expected) in steps {
            let reply = self.command(&command)?;
            if !reply.starts_with(expected) {
                self.command("RSET")?;
                return Ok(Some(Verdict::Refused(reply)));
            }
        }
        Ok(None)
    }

    /// Sends the content of a message that was begun.
    pub(crate) fn complete(&mut self, message: &Message) -> io::Result<Verdict> {
        self.0.get_mut().write_all(&stuffed(&message.content))?;
        let reply = self.reply()?;
        Ok(match reply.strip_prefix(ACCEPTED) {
            Some(id) => Verdict::Accepted(id.to_owned()),
            None if reply.starts_with('2') => panic!("{reply:?} does not begin with {ACCEPTED:?}"),
            None => Verdict::Refused(reply),
        })
    }
}

/// Sends messages one after another over one connection, and over a new one where that is lost.
pub(crate) fn send_all(address: SocketAddr, messages: &[Message]) -> Vec<Verdict> {
    let mut client = None;
    let mut send = |message: &Message| {
        let Ok(mut open) = client.take().map_or_else(|| Client::connect(address), Ok) else {
            return Verdict::Lost;
        };
        let verdict = open.send(message);
        client = Some(open).filter(|_| verdict != Verdict::Lost);
        verdict
    };
    messages.iter().map(&mut send).collect()
}

fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + content.len() / 50);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}
