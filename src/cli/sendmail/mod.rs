//! `gatepost sendmail`: the local submission interface that cron, scripts and mail programs expect.
//!
//! It hands the message to the running relay over its own listener, and tells with an exit status of
//! sysexits.h what became of that. It keeps nothing: while the relay is down, the answer is 75, "later". An
//! address without a domain gets our hostname, whose mail goes to `postmaster` unless the configuration names it, for
//! there are no mailboxes here. Called by the names `sendmail`, `mailq` and `newaliases`, the program is the same.

mod arguments;
mod exit;
mod list;
mod message;
mod session;
mod submit;
mod user;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

use super::ConfigFile;
use super::queue::{self, Classic, ClassicError};
use crate::access::{self, RelayRules};
use crate::address::{Mailbox, ReversePath};
use crate::config::{self, Config};
use crate::connector::Connectors;
use crate::envelope::{ContentNeeds, Envelope, Recipient};
use crate::smtp::data::Inspector;
use arguments::{Mode, Wanted};
use exit::{Sysexit, Unsent};
use list::Found;
use message::{Message, Missing};
use submit::Relay;
use user::User;

/// Take a message from standard input, as sendmail(8) does
///
/// The flags are those of Postfix and Exim: -t takes recipients from the header, -i lets a line with a single
/// dot pass, -f and -F name the sender, -bs speaks SMTP on standard input and output, -bp lists the queue.
/// -q tries everything that waits now. -N, -R and -V ask for delivery reports. What means nothing here (-v, -m, -oem and
/// the like) is passed over.
///
/// The message goes to all recipients or to none. An address without a domain gets our hostname; mail for the hostname
/// and for localhost goes to the postmaster, unless [relay] domains or a connector names it. Exit status, as in sysexits.h: 0 it was taken; 64 unusable
/// arguments; 65 unusable message; 67 a recipient was refused; 69 the message was refused; 75 not now, as
/// while the relay is down (-bp and -q, too); 78 unusable configuration. Flags count behind recipients as well; --
/// ends them.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Flags and recipients
    #[arg(value_name = "FLAG|ADDRESS", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// `gatepost sendmail …`.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    start(Mode::Message, arguments.file.config, arguments.words)
}

/// The same, as the words behind `sendmail` were given.
pub(super) fn by_words(words: Vec<OsString>) -> ExitCode {
    start(Mode::Message, PathBuf::from(super::CONFIG_FILE), words)
}

/// Under another name: `sendmail`, `mailq` or `newaliases`; `None` under every other.
pub(super) fn by_name(name: &str, words: Vec<OsString>) -> Option<ExitCode> {
    let mode = match name {
        "sendmail" => Mode::Message,
        "mailq" => Mode::List,
        "newaliases" => Mode::Aliases,
        _ => return None,
    };
    Some(start(mode, PathBuf::from(super::CONFIG_FILE), words))
}

fn start(mode: Mode, config: PathBuf, words: Vec<OsString>) -> ExitCode {
    let words: Vec<_> = words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let done = Wanted::read(mode, config, &words).and_then(|wanted| match wanted.mode {
        Mode::Message => send(&wanted).map(|()| ExitCode::SUCCESS),
        Mode::Smtp => {
            read_config(&wanted).and_then(|config| Relay::connect(&config)?.session()).map(|()| ExitCode::SUCCESS)
        }
        Mode::List => read_config(&wanted).and_then(|config| of_queue(&config, Classic::List)),
        Mode::Flush => read_config(&wanted).and_then(|config| of_queue(&config, Classic::Flush)),
        Mode::Aliases => Ok(ExitCode::SUCCESS),
    });
    done.unwrap_or_else(|unsent| {
        eprintln!("sendmail: {unsent}");
        ExitCode::from(unsent.status as u8)
    })
}

/// Asks the queue of the running relay.
fn of_queue(config: &Config, classic: Classic) -> Result<ExitCode, Unsent> {
    queue::for_sendmail(config, classic).map_err(|error| {
        let status = match error {
            ClassicError::NotNow(_) => Sysexit::TemporaryFailure,
            ClassicError::NoSocket => Sysexit::Config,
            ClassicError::Other(_) => Sysexit::Unavailable,
        };
        Unsent::new(status, error.to_string())
    })
}

fn read_config(wanted: &Wanted) -> Result<Config, Unsent> {
    let (config, _) = config::read(&wanted.config).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        Unsent::new(Sysexit::Config, faults.join("\n"))
    })?;
    Ok(config)
}

fn send(wanted: &Wanted) -> Result<(), Unsent> {
    if wanted.recipients.is_empty() && !wanted.from_header {
        let message = "no recipient: name one, or let -t take those that the header names";
        return Err(Unsent::new(Sysexit::Usage, message));
    }
    let config = read_config(wanted)?;
    let sender = sender(wanted, &config)?;
    // The whole message first: a program that fails while it writes must not leave half a message behind.
    let text = message::read(io::stdin().lock(), wanted.dots, config.limits.message_size)?;
    let Message { content, recipients: named } = message::complete(&text, &missing(wanted, &config, &sender));
    let mut recipients = Recipients::new(&config);
    for word in &wanted.recipients {
        let found = list::addresses(word.as_bytes())
            .map_err(|fault| Unsent::new(Sysexit::Data, format!("the recipient {word:?} cannot be read: {fault}")))?;
        recipients.add(found, Sysexit::NoUser)?;
    }
    if wanted.from_header {
        let named = named.map_err(|(field, fault)| {
            Unsent::new(
                Sysexit::Data,
                format!("the message was sent to nobody, for its {field} cannot be read: {fault}"),
            )
        })?;
        recipients.add(named, Sysexit::Data)?;
    }
    let recipients = recipients.all()?;
    let mut inspector = Inspector::new(config.limits.message_size, config.limits.received);
    let found = inspector.push(&content).and_then(|()| inspector.finish());
    let found = found.map_err(|fault| Unsent::new(Sysexit::Data, fault.to_string()))?;
    let named = |mailbox| Recipient { notify: wanted.notify, ..Recipient::new(mailbox) };
    let mut envelope = Envelope::new(sender, recipients.into_iter().map(named).collect());
    // Octets above 127 in a header do not make mail internationalised (the relay passes them on as they are, over
    // SMTP as well); addresses do. SMTPUTF8 said for the header alone would be a bounce at every hop without it.
    envelope.needs = ContentNeeds { utf8_header: false, ..found.needs };
    envelope.ret = wanted.ret;
    envelope.envid.clone_from(&wanted.envid);
    Relay::connect(&config)?.submit(&envelope, &content)
}

/// Completes a message for the fuzzer: its content and the recipients that its header names.
///
/// # Errors
/// The fault in words: of the whole message, or of its recipients alone.
#[cfg(fuzzing)]
#[expect(clippy::type_complexity, reason = "content with a list or a fault, or a fault")]
pub fn fuzzed(input: &[u8], ends_with_dot: bool) -> Result<(Vec<u8>, Result<Vec<String>, String>), String> {
    let dots = if ends_with_dot { arguments::Dots::End } else { arguments::Dots::Content };
    let text = message::read(input, dots, 1 << 16).map_err(|fault| fault.to_string())?;
    let hostname = crate::address::Domain::parse("relay.example.com").map_err(|fault| fault.to_string())?;
    let missing =
        Missing { hostname: &hostname, from: "from@x.test".into(), date: "now".into(), id: "<id@x.test>".into() };
    let Message { content, recipients } = message::complete(&text, &missing);
    let recipients = recipients.map(|found| found.into_iter().map(|found| found.address).collect());
    Ok((content, recipients.map_err(|(field, fault)| format!("{field}: {fault}"))))
}

/// Who sends: as `-f` says, or the caller on this machine.
fn sender(wanted: &Wanted, config: &Config) -> Result<ReversePath, Unsent> {
    let no_address = |written: &str, fault: &dyn std::fmt::Display| {
        Unsent::new(Sysexit::Usage, format!("the sender {written:?} is no address: {fault}"))
    };
    let written = match &wanted.sender {
        // `-f ""` and `-f "<>"` are the null sender.
        Some(written) => match list::addresses(written.as_bytes()).map_err(|fault| no_address(written, &fault))? {
            found if found.len() > 1 => return Err(no_address(written, &"it is a list")),
            found => found.into_iter().next().map(|found| found.address).unwrap_or_default(),
        },
        None => User::caller().map(|user| user.name).ok_or_else(|| {
            Unsent::new(Sysexit::System, "who calls has no name on this machine: name the sender with -f")
        })?,
    };
    let whole =
        if written.is_empty() || written.contains('@') { written } else { format!("{written}@{}", config.hostname) };
    ReversePath::parse(&whole).map_err(|error| no_address(&whole, &error))
}

/// The recipients of the envelope: each once, and those on this machine as what they mean.
struct Recipients<'a> {
    config: &'a Config,
    connectors: Connectors,
    all: Vec<Mailbox>,
}

impl<'a> Recipients<'a> {
    fn new(config: &'a Config) -> Self {
        let connectors = Connectors::of(&config);
        Self { config, connectors, all: Vec::new() }
    }

    /// Adds the addresses of a list. `status` is for one that is no address.
    fn add(&mut self, found: Vec<Found>, status: Sysexit) -> Result<(), Unsent> {
        let most = self.config.limits.recipients;
        for Found { address, has_domain, .. } in found {
            let whole =
                if has_domain || address.is_empty() { address } else { format!("{address}@{}", self.config.hostname) };
            let mailbox = Mailbox::parse(&whole)
                .map_err(|error| Unsent::new(status, format!("{whole:?} is no address: {error}")))?;
            let mailbox =
                access::local_mailbox(RelayRules::new(self.config, &self.connectors), &mailbox).unwrap_or(mailbox);
            if !self.all.contains(&mailbox) {
                self.all.push(mailbox);
            }
            if self.all.len() > most {
                let message = format!("more than {most} recipients, which is the limit ([limits] recipients)");
                return Err(Unsent::new(Sysexit::Data, message));
            }
        }
        Ok(())
    }

    fn all(self) -> Result<Vec<Mailbox>, Unsent> {
        if self.all.is_empty() {
            return Err(Unsent::new(Sysexit::Data, "no recipient: neither the arguments nor To, Cc and Bcc name one"));
        }
        Ok(self.all)
    }
}

fn missing<'a>(wanted: &Wanted, config: &'a Config, sender: &ReversePath) -> Missing<'a> {
    let (now, hostname) = (Timestamp::now(), &config.hostname);
    let address = match sender {
        ReversePath::Null => format!("MAILER-DAEMON@{hostname}"),
        ReversePath::Mailbox(mailbox) => mailbox.to_string(),
    };
    let caller = || User::caller().filter(|_| wanted.sender.is_none()).and_then(|user| user.full_name);
    let name = wanted.full_name.clone().or_else(caller);
    Missing {
        hostname,
        from: message::named(name.as_deref(), &address),
        // Only a year beyond 9999 could not be told.
        date: rfc2822::to_string(&now.to_zoned_datetime(TimeZone::UTC)).unwrap_or_else(|_| now.to_string()),
        id: format!("<{}.{}@{hostname}>", now.as_nanosecond(), std::process::id()),
    }
}
