//! The connection of `sendmail` to the relay: SMTP to one of its listeners, over loopback if
//! possible, for one message or one session.
//!
//! The server must greet with the relay's hostname, so that another server on that port gets no
//! mail. The session is in the clear, since it does not leave the machine, and every step has a
//! time limit.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::exit::{SendmailError, Sysexit};
use super::session;
use crate::config::{Config, ListenAddress, ListenerTls};
use crate::policy::tls::{Clearance, NoTls, TlsOutcome, TlsPolicy, Verdict, judge};
use crate::smtp::client::{
    Extensions, Mail, Opening, OpeningStep, ProtocolViolation, RecipientStatus, RequireTlsUse,
    StarttlsUse, Transaction, TransactionEnd, TransactionResults, TransactionStep,
};
use crate::smtp::data::Stuffer;
use crate::smtp::envelope::Envelope;
use crate::smtp::reply::{Reply, Severity};

/// The time limit for connecting.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The assumed port of a listener whose socket systemd passes: the configuration does not have its
/// address.
const SMTP_PORT: u16 = 25;
/// The ports that are suggested for a local listener if [`SMTP_PORT`] is in use.
const LOCAL_PORTS: std::ops::RangeInclusive<u16> = 10_025..=10_099;
/// The number of octets that are written at a time.
const BLOCK: usize = 64 * 1024;

/// An SMTP connection to the relay.
pub(super) struct RelayConnection<'a> {
    config: &'a Config,
    stream: TcpStream,
    address: SocketAddr,
}

impl<'a> RelayConnection<'a> {
    /// Connects to the first listener that accepts mail in the clear and answers.
    ///
    /// # Errors
    /// Exit status 78 if every listener requires TLS, 75 if none answers.
    pub(super) fn connect(config: &'a Config) -> Result<Self, SendmailError> {
        let addresses = addresses(config);
        let mut first_error = None;
        for address in addresses {
            match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                Ok(stream) => {
                    return Ok(Self {
                        config,
                        stream,
                        address,
                    });
                }
                Err(error) => first_error = first_error.or(Some((address, error))),
            }
        }
        Err(match first_error {
            Some((address, error)) => temporary(format!(
                "cannot connect to the relay on {address} ({error}); message not sent.\nStart it if it is not running \
                 (see `systemctl status gatepost`), then send the message again."
            )),
            None => SendmailError::new(Sysexit::Config, no_listener_message(config)),
        })
    }

    /// Sends a message to all of its recipients, or to none. Returns the final reply.
    ///
    /// # Errors
    /// The message was not accepted for any recipient.
    pub(super) fn submit(
        mut self,
        envelope: &Envelope,
        content: &[u8],
    ) -> Result<Reply, SendmailError> {
        let extensions = self.open()?;
        // The session does not leave the machine, so its policy is "off". The TLS judge makes the
        // clearance, as always.
        let outcome = TlsOutcome::Clear(NoTls::NotWanted);
        let clearance = match judge(&TlsPolicy::Off, outcome, &[]) {
            Verdict::Cleared(clearance) => clearance,
            Verdict::Refused(refusal) => return Err(temporary(refusal.to_string())),
            Verdict::Redial(fallback) => return Err(temporary(fallback.reason().to_string())),
        };
        let results = self.transact(&clearance, envelope, content, extensions)?;
        let _ = self.stream.write_all(b"QUIT\r\n");
        check(envelope, &results)
    }

    /// Reads the greeting and sends EHLO.
    fn open(&mut self) -> Result<Extensions, SendmailError> {
        let mut opening = Opening::new(&self.config.hostname, StarttlsUse::Never);
        let limit = self.config.timeouts.reply;
        match self.run_until_step(limit, |input, out| opening.receive(input, out))? {
            OpeningStep::InClear(_) if opening.is_ourselves() => Ok(opening.extensions()),
            OpeningStep::Failed { reply, .. } => {
                Err(temporary(format!("the relay accepts no mail now: {reply}")))
            }
            OpeningStep::InClear(_) | OpeningStep::Secured | OpeningStep::Handshake => {
                Err(temporary(format!(
                    "the server on {} is not {}, it greets with another name; message not sent",
                    self.address, self.config.hostname
                )))
            }
        }
    }

    /// Sends the envelope and, if every recipient is accepted, the content.
    fn transact(
        &mut self,
        _clearance: &Clearance,
        envelope: &Envelope,
        content: &[u8],
        extensions: Extensions,
    ) -> Result<TransactionResults, SendmailError> {
        let recipients: Vec<usize> = (0..envelope.recipients.len()).collect();
        let size = content.len() as u64;
        let mail = Mail {
            envelope,
            size,
            recipients: &recipients,
            promise: RequireTlsUse::Never,
        };
        mail.fits(extensions)
            .map_err(|obstacle| SendmailError::new(Sysexit::Unavailable, obstacle.to_string()))?;
        let mut out = Vec::new();
        let mut transaction = Transaction::start(mail, extensions, &mut out);
        self.send(&out)?;
        let limit = self.config.timeouts.reply;
        if self.run_until_step(limit, |input, out| transaction.receive(input, out))?
            == TransactionStep::Over
        {
            return Ok(transaction.into_results());
        }
        if transaction
            .recipients()
            .iter()
            .any(|status| *status != RecipientStatus::Accepted)
        {
            // The content is not sent, so that the accepted recipients get no message either.
            return Ok(transaction.into_results());
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
        transaction.content_sent(false);
        let limit = self.config.timeouts.final_reply;
        self.run_until_step(limit, |input, out| transaction.receive(input, out))?;
        Ok(transaction.into_results())
    }

    /// Passes input to a dialogue and sends its output, until the dialogue returns a step. `limit`
    /// is the time limit for each read.
    fn run_until_step<S>(
        &mut self,
        limit: Duration,
        mut receive: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(usize, Option<S>), ProtocolViolation>,
    ) -> Result<S, SendmailError> {
        let (mut input, mut out, mut block) = (Vec::new(), Vec::new(), [0; 2048]);
        self.stream
            .set_read_timeout(Some(limit))
            .map_err(|error| self.broken(&error))?;
        loop {
            let length = match self.stream.read(&mut block) {
                Ok(0) => return Err(self.broken(&io::Error::from(io::ErrorKind::UnexpectedEof))),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(&error)),
            };
            input.extend_from_slice(&block[..length]);
            while !input.is_empty() {
                let (used, step) = receive(&input, &mut out)
                    .map_err(|violation| temporary(violation.to_string()))?;
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

    fn send(&mut self, octets: &[u8]) -> Result<(), SendmailError> {
        let limit = self.config.timeouts.data_block;
        let sent = self
            .stream
            .set_write_timeout(Some(limit))
            .and_then(|()| self.stream.write_all(octets));
        sent.map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &io::Error) -> SendmailError {
        temporary(format!(
            "connection to the relay on {} lost ({error}); the message may or may not have been accepted, send it again",
            self.address
        ))
    }

    /// Passes an SMTP session on standard input to the relay, and its replies back, until the relay
    /// closes the connection.
    ///
    /// # Errors
    /// Exit status 75 if the connection breaks.
    pub(super) fn run_session(self) -> Result<(), SendmailError> {
        session::run(&self.stream).map_err(|error| self.broken(&error))
    }
}

/// Returns the final reply if the relay has accepted the message for every recipient. If one of
/// several rejections is temporary, the exit status is temporary.
fn check(envelope: &Envelope, results: &TransactionResults) -> Result<Reply, SendmailError> {
    let mut rejected = Vec::new();
    let mut status = None;
    for (recipient, result) in envelope.recipients.iter().zip(&results.recipients) {
        let (reason, own_status) = match result {
            RecipientStatus::Rejected(reply) => {
                (reply.to_string(), exit_status(reply, Sysexit::NoUser))
            }
            RecipientStatus::Overflow => {
                ("too many recipients".to_owned(), Sysexit::TemporaryFailure)
            }
            // The relay does not speak LMTP.
            RecipientStatus::Undelivered(reply) => {
                (reply.to_string(), exit_status(reply, Sysexit::Unavailable))
            }
            RecipientStatus::Pending
            | RecipientStatus::Accepted
            | RecipientStatus::Delivered(_) => continue,
        };
        rejected.push(format!("{}: {reason}", recipient.mailbox));
        status = Some(if status == Some(Sysexit::TemporaryFailure) {
            Sysexit::TemporaryFailure
        } else {
            own_status
        });
    }
    if let Some(status) = status {
        let message = format!(
            "message not sent; the relay rejects\n{}",
            rejected.join("\n")
        );
        return Err(SendmailError::new(status, message));
    }
    match &results.ending {
        TransactionEnd::Accepted(reply) => Ok(reply.clone()),
        TransactionEnd::Rejected { stage, reply } | TransactionEnd::Closing { stage, reply } => {
            let message = format!("the relay rejects the message after {stage}: {reply}");
            Err(SendmailError::new(
                exit_status(reply, Sysexit::Unavailable),
                message,
            ))
        }
        // The relay does not speak LMTP.
        TransactionEnd::Unfinished | TransactionEnd::NoRecipient | TransactionEnd::EachAnswered => {
            Err(temporary("the relay accepted no recipient".to_owned()))
        }
    }
}

fn temporary(message: String) -> SendmailError {
    SendmailError::new(Sysexit::TemporaryFailure, message)
}

/// Returns the exit status for a reply: `permanent` for 5xx, otherwise a temporary failure.
fn exit_status(reply: &Reply, permanent: Sysexit) -> Sysexit {
    match reply.severity() {
        Severity::Permanent => permanent,
        Severity::Transient | Severity::Intermediate | Severity::Success => {
            Sysexit::TemporaryFailure
        }
    }
}

/// Returns the addresses of the listeners that accept mail in the clear. Loopback comes first,
/// since by default clients on loopback may send to any domain.
fn addresses(config: &Config) -> Vec<SocketAddr> {
    let listeners = config
        .listeners
        .iter()
        .filter(|listener| match listener.tls {
            ListenerTls::Off | ListenerTls::Opportunistic => true,
            ListenerTls::Forced | ListenerTls::Implicit => false,
        });
    let (v4, v6) = (
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    );
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in listeners.flat_map(|listener| &listener.addresses) {
        let (ips, port) = match &address.value {
            ListenAddress::Systemd(_) => (vec![v4, v6], SMTP_PORT),
            ListenAddress::Bind(own) if own.ip().is_unspecified() && own.is_ipv6() => {
                (vec![v4, v6], own.port())
            }
            ListenAddress::Bind(own) if own.ip().is_unspecified() => (vec![v4], own.port()),
            ListenAddress::Bind(own) => (vec![own.ip()], own.port()),
        };
        all.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port)));
    }
    all.sort_by_key(|address| !address.ip().is_loopback());
    all
}

/// Returns the error for a configuration in which every listener requires TLS, which `sendmail`
/// does not use. It suggests a listener on a port of loopback that no other listener has.
fn no_listener_message(config: &Config) -> String {
    let names: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| format!("\"{}\"", listener.name))
        .collect();
    let is_used = |port: u16| {
        let addresses = config
            .listeners
            .iter()
            .flat_map(|listener| &listener.addresses);
        addresses.into_iter().any(|address| match &address.value {
            ListenAddress::Bind(own) => own.port() == port,
            ListenAddress::Systemd(_) => port == SMTP_PORT,
        })
    };
    let ports = [SMTP_PORT].into_iter().chain(LOCAL_PORTS);
    let port = ports
        .into_iter()
        .find(|port| !is_used(*port))
        .unwrap_or(SMTP_PORT);
    format!(
        "every listener ({}) requires TLS, which sendmail does not use; message not sent.\nAdd a listener for this \
         machine alone to the configuration, then run `systemctl restart gatepost`:\n\n[[listener]]\nname = \
         \"local\"\naddress = [\"127.0.0.1:{port}\"]\ntls = \"off\"",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn loopback_comes_first_and_listeners_with_tls_are_left_out() {
        let text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[tls]\ncertificate = \"c\"\n\
                    key = \"k\"\n[[listener]]\nname = \"a\"\naddress = [\"192.0.2.1:25\", \"[::]:26\"]\n[[listener]]\n\
                    name = \"b\"\naddress = [\"127.0.0.1:2526\"]\ntls = \"forced\"\n[[listener]]\nname = \"c\"\n\
                    address = [\"systemd:mx\"]\ntls = \"off\"\n";
        let (config, _) =
            crate::config::parse(text, Path::new("gatepost.toml")).expect("it is good");
        let addresses: Vec<_> = addresses(&config).iter().map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            [
                "127.0.0.1:26",
                "[::1]:26",
                "127.0.0.1:25",
                "[::1]:25",
                "192.0.2.1:25"
            ]
        );
    }

    /// Returns a configuration in which every listener requires TLS, with the lines of `more`.
    fn config_with_tls_only(more: &str) -> Config {
        let text = format!(
            "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n\
             [[listener]]\nname = \"mx\"\naddress = [\"[::]:25\"]\ntls = \"forced\"\n[[listener]]\nname = \"tls\"\n\
             address = [\"[::]:465\", \"127.0.0.1:10025\"]\ntls = \"implicit\"\n{more}\n"
        );
        crate::config::parse(&text, Path::new("gatepost.toml"))
            .expect("it is good")
            .0
    }

    #[test]
    fn if_every_listener_requires_tls_the_error_suggests_one_that_works() {
        let config = config_with_tls_only("");
        let Err(error) = RelayConnection::connect(&config) else {
            panic!("every listener requires TLS")
        };
        assert_eq!(error.status, Sysexit::Config);
        let message = error.to_string();
        assert!(
            message.contains("every listener (\"mx\", \"tls\") requires TLS"),
            "{message}"
        );
        let (_, lines) = message.split_once("\n\n").expect("lines to copy");
        // The configuration with the suggested lines is valid and has a usable listener.
        let with_suggestion = config_with_tls_only(lines);
        let usable: Vec<_> = addresses(&with_suggestion)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(usable, ["127.0.0.1:10026"]);
    }
}
