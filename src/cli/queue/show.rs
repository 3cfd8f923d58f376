//! `gatepost queue show`.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::Value;

use super::error::QueueError;
use super::select::SelectedMessages;
use crate::admin::api::{
    DeliveryState, EnvelopeParameters, FailureReason, QueuedMessage, QueuedRecipient,
};
use crate::cli::admin_client::{AdminClient, SocketError};
use crate::cli::format::{age, plain, sender, size, time, time_and_wait, width, wrap};
use crate::cli::json::JsonArray;
use crate::cli::output::{has_write_error, show};
use crate::smtp::envelope::{BodyType, Notify, QueueId, Reception, Ret, TlsRequirement};

/// The width of the labels.
const LABEL: usize = 11;

/// A part of a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContentPart {
    Headers,
    Body,
    Whole,
}

impl ContentPart {
    fn target(self, id: QueueId) -> String {
        let part = match self {
            Self::Headers => "?part=headers",
            Self::Body => "?part=body",
            Self::Whole => "",
        };
        format!("/v1/queue/{id}/content{part}")
    }
}

/// Prints the selected messages, or parts of their content.
pub(super) async fn run(
    client: &AdminClient,
    chosen: &SelectedMessages,
    headers: bool,
    body: bool,
) -> Result<ExitCode, QueueError> {
    let selection = &chosen.selection;
    if selection.is_empty() {
        let message = "no message selected: name it by its id, as `gatepost queue list` shows it.";
        return Err(QueueError::Usage(message.to_owned()));
    }
    let mut ids = Vec::new();
    let mut missing = selection
        .each_page(client, async |page| {
            ids.extend(page.iter().map(|message| message.id));
            Ok(())
        })
        .await?;
    // A single id gives one JSON object; every other selection gives an array, whatever is found.
    let is_single = selection.ids.len() == 1;
    let mut array = JsonArray::begin(chosen.json && !is_single);
    let mut shown = 0_usize;
    for id in ids {
        let result = match (chosen.json, headers, body) {
            (true, _, _) => json(client, id, headers, body).await.map(|message| {
                if is_single {
                    show(&format!("{message}\n"));
                }
                array.add(&message);
            }),
            (false, false, false) => {
                client
                    .get(&format!("/v1/queue/{id}"))
                    .await
                    .map(|message: QueuedMessage| {
                        let gap = if shown == 0 { "" } else { "\n" };
                        let text = message_text(&message, Timestamp::now(), width());
                        show(&format!("{gap}{text}"));
                    })
            }
            (false, true, false) => write_content(client, id, ContentPart::Headers).await,
            (false, false, true) => write_content(client, id, ContentPart::Body).await,
            (false, true, true) => write_content(client, id, ContentPart::Whole).await,
        };
        match result {
            Ok(()) => shown += 1,
            // The message has left the queue since it was listed. That is an error only if it was
            // named.
            Err(SocketError::Missing(_)) if selection.ids.is_empty() => {}
            Err(SocketError::Missing(_)) => missing.ids.push(id),
            Err(error) => return Err(error.into()),
        }
        if has_write_error() {
            break;
        }
    }
    array.end();
    missing.print();
    if shown == 0 && missing.ids.is_empty() {
        eprintln!("no message matches");
    }
    Ok(if shown == 0 || !missing.ids.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Writes content to standard output: on a terminal as safe text, otherwise octet for octet.
async fn write_content(
    client: &AdminClient,
    id: QueueId,
    part: ContentPart,
) -> Result<(), SocketError> {
    let mut stdout = io::stdout().lock();
    let target = part.target(id);
    if stdout.is_terminal() {
        client
            .copy(
                &target,
                &mut TerminalWriter {
                    terminal: stdout,
                    pending: Vec::new(),
                },
            )
            .await
    } else {
        client.copy(&target, &mut stdout).await
    }
}

/// Returns a message as JSON, with its header and body if these are wanted. Octets that are not
/// UTF-8 are replaced.
async fn json(
    client: &AdminClient,
    id: QueueId,
    headers: bool,
    body: bool,
) -> Result<Value, SocketError> {
    let mut message: Value = client.get(&format!("/v1/queue/{id}")).await?;
    for (wanted, part, key) in [
        (headers, ContentPart::Headers, "headers"),
        (body, ContentPart::Body, "body"),
    ] {
        if wanted {
            let mut content = Vec::new();
            client.copy(&part.target(id), &mut content).await?;
            message[key] = String::from_utf8_lossy(&content).into();
        }
    }
    Ok(message)
}

/// A writer that replaces everything in a text that a terminal would obey, line ends excepted.
struct TerminalWriter<W> {
    terminal: W,
    /// Octets that are not written yet. Between two writes, an incomplete line end or character.
    pending: Vec<u8>,
}

impl<W: Write> Write for TerminalWriter<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(octets);
        let incomplete = self
            .pending
            .split_off(self.pending.len() - incomplete_tail(&self.pending));
        self.write_pending()?;
        self.pending = incomplete;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_pending()?;
        self.pending.clear();
        self.terminal.flush()
    }
}

impl<W: Write> TerminalWriter<W> {
    fn write_pending(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.pending).replace("\r\n", "\n");
        let lines: Vec<_> = text
            .split('\n')
            .map(|line| plain(&line.replace('\t', "    ")))
            .collect();
        self.terminal.write_all(lines.join("\n").as_bytes())
    }
}

/// Returns the number of octets at the end that begin a CR LF or a UTF-8 character without
/// completing it.
fn incomplete_tail(octets: &[u8]) -> usize {
    for (back, octet) in (1..=3).zip(octets.iter().rev()) {
        let length = match octet {
            b'\r' => 2,
            0x80..0xc0 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0.. => 4,
            _ => 1,
        };
        return if length > back { back } else { 0 };
    }
    0
}

/// Returns a message with all of its recipients as text, for a terminal with `width` columns.
fn message_text(message: &QueuedMessage, now: Timestamp, width: usize) -> String {
    let mut text = MessageText {
        text: String::new(),
        now,
        width,
    };
    text.line("message", &message.id.to_string());
    if let Some(node) = &message.node {
        text.line("node", &plain(node));
    }
    text.line("sender", &sender(&message.sender));
    let (accepted, ago) = (time(message.accepted), age(message.accepted, now));
    text.line("accepted", &format!("{accepted}, {ago} ago"));
    if let Some(received) = &message.received {
        text.line("received", &reception(received));
    }
    text.line("expires", &time_and_wait(message.expires, now));
    text.line("size", &size(message.size));
    if let Some(given) = &message.parameters {
        let keywords = parameters(given);
        if !keywords.is_empty() {
            text.line("parameters", &keywords);
        }
        if let Some(connector) = &given.connector {
            text.line(
                "route",
                &format!(
                    "by the connector {} of the user who sent it",
                    plain(connector)
                ),
            );
        }
        if given.tls == TlsRequirement::Relaxed {
            text.line(
                "header",
                "TLS-Required: No (DANE and MTA-STS of the recipients' domains do not apply)",
            );
        }
    }
    if message.busy {
        text.line(
            "now",
            "busy (being delivered, or another command is running)",
        );
    }
    for recipient in &message.recipients {
        text.text.push('\n');
        text.recipient(recipient, message.busy);
    }
    text.text
}

/// Returns the session in which a message was received: the protocol, the client and its names, the
/// user, and the listener.
fn reception(received: &Reception) -> String {
    let protocol = received.protocol.as_deref().unwrap_or("SMTP");
    let client = received.client.as_deref().unwrap_or("an unknown client");
    let hello = if protocol == "SMTP" { "HELO" } else { "EHLO" };
    let named = |(label, value): (&str, &Option<String>)| {
        let value = value.as_ref()?;
        Some(format!(", {label} {value}"))
    };
    let facts = [
        ("named", &received.client_name),
        ("via", &received.via),
        (hello, &received.hello),
        ("user", &received.user),
    ];
    let facts: String = facts.into_iter().filter_map(named).collect();
    let listener = &received.listener;
    plain(&format!(
        "with {protocol} from {client}{facts}, listener {listener}"
    ))
}

/// Returns the parameters of MAIL FROM with which the message was accepted.
fn parameters(parameters: &EnvelopeParameters) -> String {
    let mut texts = Vec::new();
    if parameters.body == BodyType::EightBitMime {
        texts.push("BODY=8BITMIME".to_owned());
    }
    if parameters.smtputf8 {
        texts.push("SMTPUTF8".to_owned());
    }
    match parameters.ret {
        Some(Ret::Full) => texts.push("RET=FULL".to_owned()),
        Some(Ret::Hdrs) => texts.push("RET=HDRS".to_owned()),
        None => {}
    }
    if let Some(envid) = &parameters.envid {
        texts.push(format!("ENVID={}", plain(envid)));
    }
    if parameters.tls == TlsRequirement::Require {
        texts.push("REQUIRETLS".to_owned());
    }
    texts.join(" ")
}

/// The text of a message while it is written.
struct MessageText {
    text: String,
    now: Timestamp,
    width: usize,
}

impl MessageText {
    /// Adds a value behind a label. An empty label continues the line before.
    fn line(&mut self, label: &str, value: &str) {
        let label = format!("{label:<LABEL$}");
        wrap(
            &mut self.text,
            &label,
            &" ".repeat(LABEL),
            value,
            self.width,
        );
    }

    fn recipient(&mut self, recipient: &QueuedRecipient, busy: bool) {
        let (address, connector) = (recipient.address.to_string(), plain(&recipient.connector));
        self.line(
            "recipient",
            &format!("{} (connector {connector})", plain(&address)),
        );
        self.line(
            "state",
            match recipient.state {
                DeliveryState::Waiting => "waiting",
                DeliveryState::Held => "held until it is released",
                DeliveryState::Delivered => "delivered",
                DeliveryState::Failed if recipient.reason.is_some() => "bounced, report pending",
                DeliveryState::Failed => "bounced",
            },
        );
        if let Some(notify) = recipient.notify {
            self.line("NOTIFY", &notify_keywords(notify));
        }
        if let Some(orcpt) = &recipient.orcpt {
            self.line("ORCPT", &plain(orcpt));
        }
        self.backoff(recipient);
        self.attempts(recipient);
        if recipient.state == DeliveryState::Waiting {
            match recipient.next {
                Some(next) => self.line("next", &time_and_wait(next, self.now)),
                None if busy => self.line("next", "now"),
                None => self.line("next", "as soon as a connection to its destination is free"),
            }
        }
    }

    /// Adds the backoff of the destination, or of a part of its mail. The reason is left out if it
    /// is that of the last attempt, which follows.
    fn backoff(&mut self, recipient: &QueuedRecipient) {
        let last = recipient.history.as_ref().and_then(|all| all.last());
        let because = |cause: &FailureReason| {
            let cause = reason(cause);
            if last.is_some_and(|last| reason(last) == cause) {
                String::new()
            } else {
                format!(": {cause}")
            }
        };
        if let Some(down) = &recipient.destination_down {
            let (until, because) = (time_and_wait(down.until, self.now), because(&down.reason));
            self.line(
                "",
                &format!("its destination is in backoff until {until}{because}"),
            );
        }
        if let Some(down) = &recipient.part_down {
            let (part, until) = (plain(&down.part), time_and_wait(down.until, self.now));
            let because = because(&down.reason);
            self.line(
                "",
                &format!(
                    "{part} is in backoff until {until}, other mail for its destination is not{because}"
                ),
            );
        }
    }

    /// Adds the attempts that failed.
    fn attempts(&mut self, recipient: &QueuedRecipient) {
        let history = recipient.history.as_deref().unwrap_or_default();
        let attempts = usize::try_from(recipient.attempts).unwrap_or(usize::MAX);
        match (attempts, history.len()) {
            (0, 0) if recipient.state == DeliveryState::Waiting => {
                self.line("attempts", "none yet");
            }
            (_, 0) => {}
            (attempts, kept) if attempts > kept => {
                self.line("attempts", &format!("{attempts}, {kept} of them listed"));
            }
            (attempts, _) => self.line("attempts", &attempts.to_string()),
        }
        for failure in history {
            let label = format!("{:LABEL$}{}  ", "", time(failure.at));
            let next = " ".repeat(LABEL + 2);
            wrap(&mut self.text, &label, &next, &reason(failure), self.width);
        }
    }
}

/// Returns the value of the NOTIFY parameter (RFC 3461 §4.1).
fn notify_keywords(notify: Notify) -> String {
    let Notify::On {
        success,
        failure,
        delay,
    } = notify
    else {
        return "NEVER".to_owned();
    };
    let keywords = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
    keywords
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, keyword)| keyword)
        .collect::<Vec<_>>()
        .join(",")
}

fn reason(reason: &FailureReason) -> String {
    plain(&format!("{} {}", reason.status, reason.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::envelope::TlsRequirement::{Ordinary, Relaxed, Require};

    #[test]
    fn requiretls_is_shown_as_a_parameter() {
        for (tls, text) in [(Ordinary, ""), (Require, "REQUIRETLS"), (Relaxed, "")] {
            let json = serde_json::json!({
                "body": "7BIT", "smtputf8": false, "ret": null, "envid": null, "tls": tls, "eight_bit": false,
                "utf8_header": false
            });
            assert_eq!(
                parameters(&serde_json::from_value(json).expect("parameters")),
                text
            );
        }
    }

    /// A message whose only recipient was tried once.
    fn message(text: &str, address: &str) -> QueuedMessage {
        let failure = serde_json::json!({
            "at": "2026-11-23T19:37:33Z", "status": "4.4.1", "text": text, "host": null, "reply": null
        });
        serde_json::from_value(serde_json::json!({
            "id": "0saq0qxfm0000", "accepted": "2026-11-23T19:37:33Z", "expires": "2026-11-28T19:37:33Z",
            "size": 1015, "sender": "alice@example.org", "busy": false,
            "received": {
                "protocol": "ESMTPSA", "client": "192.0.2.7:4000", "hello": "scanner.example.org", "user": "scanner",
                "listener": "submission"
            },
            "parameters": {
                "body": "8BITMIME", "smtputf8": false, "ret": null, "envid": null, "tls": "relaxed",
                "eight_bit": true, "utf8_header": false
            },
            "recipients": [{
                "address": address, "state": "waiting", "connector": "mailbox-server",
                "attempts": 1, "next": "2026-11-23T19:38:33Z", "reason": failure,
                "destination_down": {"until": "2026-11-23T19:38:33Z", "reason": failure},
                "part_down": null, "notify": null, "orcpt": null, "history": [failure]
            }]
        }))
        .expect("a message")
    }

    /// Lines are as wide as the terminal at most, except for a text that must stay in one piece.
    #[test]
    fn a_message_fits_the_terminal() {
        let now = "2026-11-23T19:37:53Z".parse().expect("a time");
        let refused = "[127.0.0.1]:2625: cannot connect: Connection refused (os error 111)";
        let expected = "\
message    0saq0qxfm0000
sender     alice@example.org
accepted   2026-11-23 19:37:33 UTC, 20s ago
received   with ESMTPSA from 192.0.2.7:4000, EHLO scanner.example.org, user
           scanner, listener submission
expires    2026-11-28 19:37:33 UTC, in 4d 23h
size       1015 B
parameters BODY=8BITMIME
header     TLS-Required: No (DANE and MTA-STS of the recipients' domains do not
           apply)

recipient  bob@example.com (connector mailbox-server)
state      waiting
           its destination is in backoff until 2026-11-23 19:38:33 UTC, in 40s
attempts   1
           2026-11-23 19:37:33 UTC  4.4.1 [127.0.0.1]:2625: cannot connect:
             Connection refused (os error 111)
next       2026-11-23 19:38:33 UTC, in 40s
";
        assert_eq!(
            message_text(&message(refused, "bob@example.com"), now, 80),
            expected
        );
        let address = format!("{}@example.com", "a".repeat(64));
        let text = message_text(&message(refused, &address), now, 60);
        let is_narrow = |line: &str| line.chars().count() <= 60 || line.contains(&address);
        assert!(text.lines().all(is_narrow), "{text}");
        let mut other = message(refused, "bob@example.com");
        other.recipients[0].history = Some(Vec::new());
        assert!(
            message_text(&other, now, 200).contains(&format!("UTC, in 40s: 4.4.1 {refused}\n")),
            "a reason that is not listed below is given"
        );
        let wide = message_text(&message(refused, "bob@example.com"), now, 200);
        let line = format!("           2026-11-23 19:37:33 UTC  4.4.1 {refused}\n");
        assert!(wide.contains(&line), "{wide}");
    }

    #[test]
    fn terminal_output_is_safe_in_chunks_of_every_size() {
        let content = "A: ü\u{1b}[2J\r\n\tb €\r\n".as_bytes();
        for size in 1..=content.len() {
            let mut writer = TerminalWriter {
                terminal: Vec::new(),
                pending: Vec::new(),
            };
            for chunk in content.chunks(size) {
                writer
                    .write_all(chunk)
                    .expect("writing into a Vec cannot fail");
            }
            let shown = String::from_utf8(writer.terminal).expect("text");
            assert_eq!(shown, "A: ü\u{fffd}[2J\n    b €\n", "by {size}");
        }
    }
}
