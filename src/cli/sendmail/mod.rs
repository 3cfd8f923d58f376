//! `gatepost sendmail`: the local submission interface that cron, scripts and mail programs expect.
//!
//! It sends the message to the running relay over a listener, and returns an exit status of
//! sysexits.h. It stores nothing: while the relay is down, the exit status is 75 (try again later).
//! An address without a domain gets our hostname. Since there are no mailboxes on this host, mail
//! for the hostname goes to the postmaster, unless the configuration names it. Called as
//! `sendmail`, `mailq` or `newaliases`, the program does the same as this command.

mod arguments;
mod exit;
mod message;
mod session;
mod submit;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

use super::config_file::{CONFIG_FILE, ConfigFile};
use super::queue::{self, SendmailQueueCommand, SendmailQueueError};
use super::user::User;
use crate::config::{self, Config};
use crate::policy::connector::Connectors;
use crate::policy::relay_access;
use crate::smtp::address::{Mailbox, ReversePath};
use crate::smtp::data::{Inspector, ListedAddress, addresses};
use crate::smtp::envelope::{ContentNeeds, Envelope, QueueId, Recipient};
use arguments::{LoneDot, SendmailMode, SendmailOptions};
use exit::{SendmailError, Sysexit};
use message::{CompletedMessage, DefaultFields};
use submit::RelayConnection;

/// Send a message from standard input, as sendmail(8) does
///
/// The flags are those of Postfix and Exim: -t reads recipients from the header, with -i a line
/// with a single dot does not end the message, -f and -F name the sender, -bs speaks SMTP on
/// standard input and output, -bp lists the queue, -q retries all messages in the queue. -N, -R and
/// -V request delivery reports. Flags without effect here (-v, -m, -oem and others) are ignored.
/// Flags may follow recipients; -- ends them.
///
/// The message is accepted for all recipients or for none. An address without a domain gets our
/// hostname; mail for the hostname and for localhost goes to the postmaster, unless [relay] domains
/// or a connector names it.
///
/// Exit status, as in sysexits.h: 0 accepted; 64 unusable arguments; 65 unusable message; 67 a
/// recipient was rejected; 69 the message was rejected; 75 try again later, for instance while the
/// relay is down (also for -bp and -q); 78 unusable configuration.
#[derive(Debug, Args)]
pub(super) struct SendmailArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Flags and recipients
    #[arg(
        value_name = "FLAG|ADDRESS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<OsString>,
}

/// Runs `gatepost sendmail` with arguments that clap has parsed.
pub(super) fn run(arguments: SendmailArguments) -> ExitCode {
    run_mode(
        SendmailMode::Message,
        arguments.file.config,
        arguments.words,
    )
}

/// Runs `gatepost sendmail` with arguments that clap has not seen.
pub(super) fn run_raw(arguments: Vec<OsString>) -> ExitCode {
    run_mode(SendmailMode::Message, PathBuf::from(CONFIG_FILE), arguments)
}

/// Runs the program under the name `sendmail`, `mailq` or `newaliases`. Returns `None` for every
/// other name.
pub(super) fn run_by_name(name: &str, arguments: Vec<OsString>) -> Option<ExitCode> {
    let mode = match name {
        "sendmail" => SendmailMode::Message,
        "mailq" => SendmailMode::List,
        "newaliases" => SendmailMode::Aliases,
        _ => return None,
    };
    Some(run_mode(mode, PathBuf::from(CONFIG_FILE), arguments))
}

/// Parses the arguments and runs the task that they request. `mode` and `config` are the defaults.
fn run_mode(mode: SendmailMode, config: PathBuf, arguments: Vec<OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments
        .into_iter()
        .map(|text| text.to_string_lossy().into_owned())
        .collect();
    let result =
        SendmailOptions::parse(mode, config, &arguments).and_then(|options| match options.mode {
            SendmailMode::Message => send(&options).map(|()| ExitCode::SUCCESS),
            SendmailMode::Smtp => read_config(&options)
                .and_then(|config| RelayConnection::connect(&config)?.run_session())
                .map(|()| ExitCode::SUCCESS),
            SendmailMode::List => read_config(&options)
                .and_then(|config| run_queue_command(&config, SendmailQueueCommand::List)),
            SendmailMode::Flush => read_config(&options)
                .and_then(|config| run_queue_command(&config, SendmailQueueCommand::Flush)),
            SendmailMode::Aliases => Ok(ExitCode::SUCCESS),
        });
    result.unwrap_or_else(|error| {
        eprintln!("sendmail: {error}");
        ExitCode::from(error.status as u8)
    })
}

fn run_queue_command(
    config: &Config,
    command: SendmailQueueCommand,
) -> Result<ExitCode, SendmailError> {
    queue::run_for_sendmail(config, command).map_err(|error| {
        let status = match error {
            SendmailQueueError::NotNow(_) => Sysexit::TemporaryFailure,
            SendmailQueueError::NoSocket => Sysexit::Config,
            SendmailQueueError::Other(_) => Sysexit::Unavailable,
        };
        SendmailError::new(status, error.to_string())
    })
}

fn read_config(options: &SendmailOptions) -> Result<Config, SendmailError> {
    let (config, _) = config::read(&options.config).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        SendmailError::new(Sysexit::Config, faults.join("\n"))
    })?;
    Ok(config)
}

/// Sends the message on standard input.
fn send(options: &SendmailOptions) -> Result<(), SendmailError> {
    if options.recipients.is_empty() && !options.from_header {
        let message = "no recipient: name one, or use -t to read them from the header";
        return Err(SendmailError::new(Sysexit::Usage, message));
    }
    let config = read_config(options)?;
    let sender = sender(options, &config)?;
    // The message is read completely before it is sent: if the program that writes it fails, no
    // part of it is sent.
    let text = message::read(io::stdin().lock(), options.dots, config.limits.message_size)?;
    let caller = || {
        User::caller()
            .filter(|_| options.sender.is_none())
            .and_then(|user| user.full_name)
    };
    let name = options.full_name.clone().or_else(caller);
    let defaults = default_fields(name.as_deref(), &config, &sender);
    let CompletedMessage {
        content,
        recipients: in_header,
    } = message::complete(&text, &defaults);
    let mut recipients = EnvelopeRecipients::new(&config);
    for argument in &options.recipients {
        let listed = addresses(argument.as_bytes()).map_err(|fault| {
            SendmailError::new(
                Sysexit::Data,
                format!("cannot parse the recipient {argument:?}: {fault}"),
            )
        })?;
        recipients.add(listed, Sysexit::NoUser)?;
    }
    if options.from_header {
        let listed = in_header.map_err(|(field, fault)| {
            SendmailError::new(
                Sysexit::Data,
                format!("message not sent; cannot parse its {field}: {fault}"),
            )
        })?;
        recipients.add(listed, Sysexit::Data)?;
    }
    let mailboxes = recipients.into_mailboxes()?;
    let mut inspector = Inspector::new(config.limits.message_size, config.limits.received);
    let inspected = inspector.push(&content).and_then(|()| inspector.finish());
    let inspected =
        inspected.map_err(|fault| SendmailError::new(Sysexit::Data, fault.to_string()))?;
    let recipient = |mailbox| Recipient {
        notify: options.notify,
        ..Recipient::new(mailbox)
    };
    let mut envelope = Envelope::new(sender, mailboxes.into_iter().map(recipient).collect());
    // Octets above 127 in the header do not require SMTPUTF8, only addresses do: the relay sends
    // such a header unchanged, and with SMTPUTF8 the message would bounce at every hop that does
    // not offer it.
    envelope.needs = ContentNeeds {
        utf8_header: false,
        ..inspected.needs
    };
    envelope.ret = options.ret;
    envelope.envid.clone_from(&options.envid);
    RelayConnection::connect(&config)?.submit(&envelope, &content)?;
    Ok(())
}

/// Sends a test message to a recipient, and returns its queue id.
///
/// # Errors
/// The reason why the relay does not accept it.
pub(super) fn submit_test(
    config: &Config,
    sender: ReversePath,
    recipient: Mailbox,
) -> Result<QueueId, String> {
    let text = format!(
        "To: <{recipient}>\nSubject: Gatepost test message\nAuto-Submitted: auto-generated\n\n\
         This message was sent by `gatepost test-mail` on {}, to see which way mail for\n\
         {recipient} goes, and with which TLS. Please ignore it.\n",
        config.hostname
    );
    let reply = submit_text(config, sender, recipient, &text).map_err(|error| error.to_string())?;
    let id = reply.split_whitespace().last().and_then(QueueId::parse);
    id.ok_or_else(|| {
        format!("the relay accepts the message, but its reply has no queue id: {reply}")
    })
}

/// Sends a text with a header to a recipient, and returns the final reply.
fn submit_text(
    config: &Config,
    sender: ReversePath,
    recipient: Mailbox,
    text: &str,
) -> Result<String, SendmailError> {
    let defaults = default_fields(None, config, &sender);
    let text = message::read(
        text.as_bytes(),
        LoneDot::Content,
        config.limits.message_size,
    )?;
    let content = message::complete(&text, &defaults).content;
    let envelope = Envelope::new(sender, vec![Recipient::new(recipient)]);
    let reply = RelayConnection::connect(config)?.submit(&envelope, &content)?;
    Ok(reply.to_string())
}

/// Completes a message for the fuzzer. Returns its content and the recipients in its header.
///
/// # Errors
/// A sentence about the error: in the whole message, or in its recipients alone.
#[cfg(fuzzing)]
#[expect(
    clippy::type_complexity,
    reason = "content with a list or a fault, or a fault"
)]
pub fn fuzzed(
    input: &[u8],
    ends_with_dot: bool,
) -> Result<(Vec<u8>, Result<Vec<String>, String>), String> {
    let dots = if ends_with_dot {
        arguments::LoneDot::End
    } else {
        arguments::LoneDot::Content
    };
    let text = message::read(input, dots, 1 << 16).map_err(|fault| fault.to_string())?;
    let hostname = crate::smtp::address::Domain::parse("relay.example.com")
        .map_err(|fault| fault.to_string())?;
    let defaults = DefaultFields {
        hostname: &hostname,
        from: "from@x.test".into(),
        date: "now".into(),
        id: "<id@x.test>".into(),
    };
    let CompletedMessage {
        content,
        recipients,
    } = message::complete(&text, &defaults);
    let recipients = recipients.map(|found| found.into_iter().map(|found| found.address).collect());
    Ok((
        content,
        recipients.map_err(|(field, fault)| format!("{field}: {fault}")),
    ))
}

/// Returns the sender: that of `-f`, or else the calling user at our hostname.
fn sender(options: &SendmailOptions, config: &Config) -> Result<ReversePath, SendmailError> {
    let invalid = |text: &str, fault: &dyn std::fmt::Display| {
        SendmailError::new(
            Sysexit::Usage,
            format!("the sender {text:?} is not an address: {fault}"),
        )
    };
    let address = match &options.sender {
        // `-f ""` and `-f "<>"` are the null sender.
        Some(text) => match addresses(text.as_bytes()).map_err(|fault| invalid(text, &fault))? {
            listed if listed.len() > 1 => return Err(invalid(text, &"it is a list")),
            listed => listed
                .into_iter()
                .next()
                .map(|listed| listed.address)
                .unwrap_or_default(),
        },
        None => User::caller().map(|user| user.name).ok_or_else(|| {
            SendmailError::new(
                Sysexit::System,
                "the calling user has no account: name the sender with -f",
            )
        })?,
    };
    let address = if address.is_empty() || address.contains('@') {
        address
    } else {
        format!("{address}@{}", config.hostname)
    };
    ReversePath::parse(&address).map_err(|error| invalid(&address, &error))
}

/// The recipients of the envelope, without duplicates. Recipients on this host are replaced by the
/// mailbox that their mail goes to.
struct EnvelopeRecipients<'a> {
    config: &'a Config,
    connectors: Connectors,
    mailboxes: Vec<Mailbox>,
}

impl<'a> EnvelopeRecipients<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            config,
            connectors: config.connectors(),
            mailboxes: Vec::new(),
        }
    }

    /// Adds the addresses of a list. `status` is the exit status for an invalid address.
    fn add(&mut self, listed: Vec<ListedAddress>, status: Sysexit) -> Result<(), SendmailError> {
        let max = self.config.limits.recipients;
        for ListedAddress {
            address,
            has_domain,
            ..
        } in listed
        {
            let address = if has_domain || address.is_empty() {
                address
            } else {
                format!("{address}@{}", self.config.hostname)
            };
            let mailbox = Mailbox::parse(&address).map_err(|error| {
                SendmailError::new(status, format!("{address:?} is not an address: {error}"))
            })?;
            let mailbox =
                relay_access::local_mailbox(self.config.relay_rules(&self.connectors), &mailbox)
                    .unwrap_or(mailbox);
            if !self.mailboxes.contains(&mailbox) {
                self.mailboxes.push(mailbox);
            }
            if self.mailboxes.len() > max {
                let message =
                    format!("more than {max} recipients, which is the limit ([limits] recipients)");
                return Err(SendmailError::new(Sysexit::Data, message));
            }
        }
        Ok(())
    }

    /// Returns the mailboxes, of which there must be at least one.
    fn into_mailboxes(self) -> Result<Vec<Mailbox>, SendmailError> {
        if self.mailboxes.is_empty() {
            let message = "no recipient: neither the arguments nor To, Cc and Bcc name one";
            return Err(SendmailError::new(Sysexit::Data, message));
        }
        Ok(self.mailboxes)
    }
}

/// Returns the values of header fields that the message may lack. `name` is that of the sender.
fn default_fields<'a>(
    name: Option<&str>,
    config: &'a Config,
    sender: &ReversePath,
) -> DefaultFields<'a> {
    let (now, hostname) = (Timestamp::now(), &config.hostname);
    let address = match sender {
        ReversePath::Null => format!("MAILER-DAEMON@{hostname}"),
        ReversePath::Mailbox(mailbox) => mailbox.to_string(),
    };
    DefaultFields {
        hostname,
        from: message::named(name, &address),
        // Formatting fails only for years after 9999.
        date: rfc2822::to_string(&now.to_zoned_datetime(TimeZone::UTC))
            .unwrap_or_else(|_| now.to_string()),
        id: format!(
            "<{}.{}@{hostname}>",
            now.as_nanosecond(),
            std::process::id()
        ),
    }
}
