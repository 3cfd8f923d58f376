//! The way into the relay: its own listener, over loopback (RFC 5321), with one message or with a session.
//!
//! Whoever answers must greet with the relay's name: another server on that port is not handed mail. It is
//! one conversation in clear that does not leave the machine, and every step of it is bounded in time.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::exit::{Sysexit, Unsent};
use super::session;
use crate::config::{Config, ListenAddress, ListenerTls};
use crate::envelope::Envelope;
use crate::smtp::client::{
    Extensions, Mail, Opening, OpeningStep, ProtocolViolation, RecipientStatus, RequireTlsUse, StarttlsUse,
    Transaction, TransactionEnd, TransactionResults, TransactionStep,
};
use crate::smtp::data::Stuffer;
use crate::smtp::reply::{Reply, Severity};
use crate::tls::{Clearance, NoTls, TlsOutcome, TlsPolicy, Verdict, judge};

/// Loopback answers at once, or nobody is there.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Where a listener is expected whose socket systemd passes: its address is known to systemd alone.
const SMTP_PORT: u16 = 25;
/// What is proposed where that one is taken.
const LOCAL_PORTS: std::ops::RangeInclusive<u16> = 10_025..=10_099;
/// Octets written at a time.
const BLOCK: usize = 64 * 1024;

/// A conversation with the relay.
pub(super) struct Relay<'a> {
    config: &'a Config,
    stream: TcpStream,
    address: SocketAddr,
}

impl<'a> Relay<'a> {
    /// Connects to the first listener that takes mail in clear and answers.
    ///
    /// # Errors
    /// 78 where no listener could be spoken to, 75 where none answers.
    pub(super) fn connect(config: &'a Config) -> Result<Self, Unsent> {
        let addresses = addresses(config);
        let mut last = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                Ok(stream) => return Ok(Self { config, stream, address }),
                Err(error) => last = last.or(Some((address, error))),
            }
        }
        Err(match last {
            Some((address, error)) => later(format!(
                "nobody takes mail on {address} ({error}); the message was not taken.\nIs Gatepost running? See \
                 `systemctl status gatepost`, then send it again."
            )),
            None => Unsent::new(Sysexit::Config, no_way_in(config)),
        })
    }

    /// Hands a message over: to all of its recipients, or to none.
    ///
    /// # Errors
    /// Why not; nobody gets it then.
    pub(super) fn submit(mut self, envelope: &Envelope, content: &[u8]) -> Result<(), Unsent> {
        let extensions = self.open()?;
        // What leaves no machine needs no TLS: the policy is "off", and the judge says so like anybody's.
        let outcome = TlsOutcome::Clear(NoTls::NotWanted);
        let clearance = match judge(&TlsPolicy::Off, outcome, &[]) {
            Verdict::Cleared(clearance) => clearance,
            Verdict::Refused(refusal) => return Err(later(refusal.to_string())),
            Verdict::Redial(fallback) => return Err(later(fallback.reason().to_string())),
        };
        let results = self.transact(&clearance, envelope, content, extensions)?;
        let _ = self.stream.write_all(b"QUIT\r\n");
        verdict(envelope, &results)
    }

    fn open(&mut self) -> Result<Extensions, Unsent> {
        let mut opening = Opening::new(&self.config.hostname, StarttlsUse::Never);
        let limit = self.config.timeouts.reply;
        match self.pump(limit, |input, out| opening.receive(input, out))? {
            OpeningStep::InClear(_) if opening.is_ourselves() => Ok(opening.extensions()),
            OpeningStep::Failed { reply, .. } => Err(later(format!("the relay takes no mail now: {reply}"))),
            OpeningStep::InClear(_) | OpeningStep::Secured | OpeningStep::Handshake => Err(later(format!(
                "what answers on {} is not {}: it has another name, and is not handed the message",
                self.address, self.config.hostname
            ))),
        }
    }

    fn transact(
        &mut self,
        _leave: &Clearance,
        envelope: &Envelope,
        content: &[u8],
        extensions: Extensions,
    ) -> Result<TransactionResults, Unsent> {
        let recipients: Vec<usize> = (0..envelope.recipients.len()).collect();
        let size = content.len() as u64;
        let mail = Mail { envelope, size, recipients: &recipients, promise: RequireTlsUse::Never };
        mail.fits(extensions).map_err(|obstacle| Unsent::new(Sysexit::Unavailable, obstacle.to_string()))?;
        let mut out = Vec::new();
        let mut transaction = Transaction::start(mail, extensions, &mut out);
        self.send(&out)?;
        let limit = self.config.timeouts.reply;
        if self.pump(limit, |input, out| transaction.receive(input, out))? == TransactionStep::Over {
            return Ok(transaction.into_results());
        }
        if transaction.recipients().iter().any(|status| *status != RecipientStatus::Accepted) {
            // Before the content: whoever was accepted does not get it either.
            let results = transaction.into_results();
            verdict(envelope, &results)?;
            return Ok(results);
        }
        let mut stuffer = Stuffer::new();
        for block in content.chunks(BLOCK) {
            out.clear();
            stuffer.push(block, &mut out);
            self.send(&out)?;
        }
        out.clear();
        stuffer.finish(&mut out);
        self.send(&out)?;
        transaction.content_sent();
        let limit = self.config.timeouts.final_reply;
        self.pump(limit, |input, out| transaction.receive(input, out))?;
        Ok(transaction.into_results())
    }

    /// Reads and answers until a dialogue comes to its next step.
    fn pump<S>(
        &mut self,
        limit: Duration,
        mut receive: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(usize, Option<S>), ProtocolViolation>,
    ) -> Result<S, Unsent> {
        let (mut input, mut out, mut block) = (Vec::new(), Vec::new(), [0; 2048]);
        self.stream.set_read_timeout(Some(limit)).map_err(|error| self.broken(&error))?;
        loop {
            let length = match self.stream.read(&mut block) {
                Ok(0) => return Err(self.broken(&io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(&error)),
            };
            input.extend_from_slice(&block[..length]);
            while !input.is_empty() {
                let (used, step) = receive(&input, &mut out).map_err(|violation| later(violation.to_string()))?;
                input.drain(..used);
                self.send(&out)?;
                out.clear();
                if let Some(step) = step {
                    return Ok(step);
                }
                if used == 0 {
                    break;
                }
            }
        }
    }

    fn send(&mut self, octets: &[u8]) -> Result<(), Unsent> {
        let limit = self.config.timeouts.data_block;
        let sent = self.stream.set_write_timeout(Some(limit)).and_then(|()| self.stream.write_all(octets));
        sent.map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &io::Error) -> Unsent {
        later(format!(
            "the connection to the relay on {} broke ({error}): whether the message was taken is not known, so send \
             it again",
            self.address
        ))
    }

    /// Passes the session on standard input to the relay, and its answers back, until it closes.
    ///
    /// # Errors
    /// 75 where the connection breaks.
    pub(super) fn session(self) -> Result<(), Unsent> {
        session::run(&self.stream).map_err(|error| self.broken(&error))
    }
}

/// What the relay's answers mean for the caller.
fn verdict(envelope: &Envelope, results: &TransactionResults) -> Result<(), Unsent> {
    let mut refused = Vec::new();
    let mut status = None;
    for (recipient, result) in envelope.recipients.iter().zip(&results.recipients) {
        let (said, new) = match result {
            RecipientStatus::Rejected(reply) => (reply.to_string(), severity(reply, Sysexit::NoUser)),
            RecipientStatus::Overflow => ("too many recipients".to_owned(), Sysexit::TemporaryFailure),
            RecipientStatus::Pending | RecipientStatus::Accepted => continue,
        };
        refused.push(format!("{}: {said}", recipient.mailbox));
        // What will pass wins: the same again may do then.
        status = Some(if status == Some(Sysexit::TemporaryFailure) { Sysexit::TemporaryFailure } else { new });
    }
    if let Some(status) = status {
        let message = format!("the message was sent to nobody, for the relay refuses\n{}", refused.join("\n"));
        return Err(Unsent::new(status, message));
    }
    match &results.ending {
        TransactionEnd::Accepted(_) => Ok(()),
        TransactionEnd::Rejected { stage, reply } | TransactionEnd::Closing { stage, reply } => {
            let message = format!("the relay refuses the message after {stage}: {reply}");
            Err(Unsent::new(severity(reply, Sysexit::Unavailable), message))
        }
        TransactionEnd::Unfinished | TransactionEnd::NoRecipient => {
            Err(later("the relay took no recipient".to_owned()))
        }
    }
}

fn later(message: String) -> Unsent {
    Unsent::new(Sysexit::TemporaryFailure, message)
}

fn severity(reply: &Reply, permanent: Sysexit) -> Sysexit {
    match reply.severity() {
        Severity::Permanent => permanent,
        Severity::Transient | Severity::Intermediate | Severity::Success => Sysexit::TemporaryFailure,
    }
}

/// Where to knock, loopback first: that is where every client may send to any domain by default.
fn addresses(config: &Config) -> Vec<SocketAddr> {
    let listeners = config.listeners.iter().filter(|listener| match listener.tls {
        ListenerTls::Off | ListenerTls::Opportunistic => true,
        ListenerTls::Forced | ListenerTls::Implicit => false,
    });
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in listeners.flat_map(|listener| &listener.addresses) {
        let (ips, port) = match &address.value {
            ListenAddress::Systemd(_) => (vec![v4, v6], SMTP_PORT),
            ListenAddress::Bind(own) if own.ip().is_unspecified() && own.is_ipv6() => (vec![v4, v6], own.port()),
            ListenAddress::Bind(own) if own.ip().is_unspecified() => (vec![v4], own.port()),
            ListenAddress::Bind(own) => (vec![own.ip()], own.port()),
        };
        all.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port)));
    }
    all.sort_by_key(|address| !address.ip().is_loopback());
    all
}

/// That every listener wants TLS, which is not spoken here, and what to write so that there is one that does not:
/// on a port of loopback that none of the others has.
fn no_way_in(config: &Config) -> String {
    let names: Vec<_> = config.listeners.iter().map(|listener| format!("\"{}\"", listener.name)).collect();
    let is_taken = |port: u16| {
        let addresses = config.listeners.iter().flat_map(|listener| &listener.addresses);
        addresses.into_iter().any(|address| match &address.value {
            ListenAddress::Bind(own) => own.port() == port,
            ListenAddress::Systemd(_) => port == SMTP_PORT,
        })
    };
    let ports = [SMTP_PORT].into_iter().chain(LOCAL_PORTS);
    let port = ports.into_iter().find(|port| !is_taken(*port)).unwrap_or(SMTP_PORT);
    format!(
        "every listener ({}) wants TLS, which sendmail does not speak; the message was not taken.\nAdd a listener for \
         this machine alone to the configuration, then run `systemctl restart gatepost`:\n\n[[listener]]\nname = \
         \"local\"\naddress = [\"127.0.0.1:{port}\"]\ntls = \"off\"",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn loopback_comes_first_and_what_needs_tls_not_at_all() {
        let text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[tls]\ncertificate = \"c\"\n\
                    key = \"k\"\n[[listener]]\nname = \"a\"\naddress = [\"192.0.2.1:25\", \"[::]:26\"]\n[[listener]]\n\
                    name = \"b\"\naddress = [\"127.0.0.1:2526\"]\ntls = \"forced\"\n[[listener]]\nname = \"c\"\n\
                    address = [\"systemd:mx\"]\ntls = \"off\"\n";
        let (config, _) = crate::config::parse(text, Path::new("gatepost.toml")).expect("it is good");
        let addresses: Vec<_> = addresses(&config).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["127.0.0.1:26", "[::1]:26", "127.0.0.1:25", "[::1]:25", "192.0.2.1:25"]);
    }

    /// A configuration whose only listeners want TLS, and `more`.
    fn with_tls_alone(more: &str) -> Config {
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n\
             [[listener]]\nname = \"mx\"\naddress = [\"[::]:25\"]\ntls = \"forced\"\n[[listener]]\nname = \"tls\"\n\
             address = [\"[::]:465\", \"127.0.0.1:10025\"]\ntls = \"implicit\"\n{more}\n"
        );
        crate::config::parse(&text, Path::new("gatepost.toml")).expect("it is good").0
    }

    #[test]
    fn where_every_listener_wants_tls_the_error_has_the_lines_that_help() {
        let config = with_tls_alone("");
        let Err(unsent) = Relay::connect(&config) else { panic!("there is nobody to speak to") };
        assert_eq!(unsent.status, Sysexit::Config);
        let said = unsent.to_string();
        assert!(said.contains("every listener (\"mx\", \"tls\") wants TLS"), "{said}");
        let (_, lines) = said.split_once("\n\n").expect("lines to copy");
        // What is proposed must be what is needed: the same configuration with it has a way in, and no clash.
        let mended = with_tls_alone(lines);
        let ways: Vec<_> = addresses(&mended).iter().map(ToString::to_string).collect();
        assert_eq!(ways, ["127.0.0.1:10026"]);
    }
}
