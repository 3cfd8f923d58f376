//! `gatepost queue show`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::Value;

use super::list::Document;
use super::words::{age, plain, sender, size, time, to_come};
use super::{Chosen, Client, QueueError};
use crate::admin::api::{DeliveryState, EnvelopeParameters, FailureReason, QueuedMessage, QueuedRecipient};
use crate::cli::is_unwritten;
use crate::cli::socket::SocketError;
use crate::envelope::{BodyType, Notify, QueueId, Ret, TlsRequirement};

/// A part of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Headers,
    Body,
    Whole,
}

impl Part {
    fn target(self, id: QueueId) -> String {
        let part = match self {
            Self::Headers => "?part=headers",
            Self::Body => "?part=body",
            Self::Whole => "",
        };
        format!("/v1/queue/{id}/content{part}")
    }
}

pub(super) async fn run(client: &Client, chosen: &Chosen, headers: bool, body: bool) -> Result<ExitCode, QueueError> {
    let selection = &chosen.selection;
    if selection.is_empty() {
        let sentence = "which message? Name it by its id, as `gatepost queue list` shows it.";
        return Err(QueueError::Usage(sentence.to_owned()));
    }
    let mut ids = Vec::new();
    let mut missing = selection.each_page(client, |page| ids.extend(page.iter().map(|message| message.id))).await?;
    // One that was named stands for itself, whatever was found.
    let single = selection.ids.len() == 1;
    let mut document = Document::begin(chosen.json && !single);
    let mut shown = 0_usize;
    for id in ids {
        let done = match (chosen.json, headers, body) {
            (true, _, _) => json(client, id, headers, body).await.map(|message| {
                if single {
                    super::super::show(&format!("{message}\n"));
                }
                document.add(&message);
            }),
            (false, false, false) => client.get(&format!("/v1/queue/{id}")).await.map(|message: QueuedMessage| {
                let gap = if shown == 0 { "" } else { "\n" };
                super::super::show(&format!("{gap}{}", told(&message, Timestamp::now())));
            }),
            (false, true, false) => write(client, id, Part::Headers).await,
            (false, false, true) => write(client, id, Part::Body).await,
            (false, true, true) => write(client, id, Part::Whole).await,
        };
        match done {
            Ok(()) => shown += 1,
            // It has left the queue since it was listed. Who named it is told; out of a crowd it is not missed.
            Err(SocketError::Missing(_)) if selection.ids.is_empty() => {}
            Err(SocketError::Missing(_)) => missing.ids.push(id),
            Err(error) => return Err(error.into()),
        }
        if is_unwritten() {
            break;
        }
    }
    document.end();
    missing.tell();
    if shown == 0 && missing.ids.is_empty() {
        eprintln!("no message matches");
    }
    Ok(if shown == 0 || !missing.ids.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Writes octets as they are stored; on a terminal, without what it would obey.
async fn write(client: &Client, id: QueueId, part: Part) -> Result<(), SocketError> {
    let mut stdout = io::stdout().lock();
    let target = part.target(id);
    if stdout.is_terminal() {
        client.copy(&target, &mut Tame { to: stdout, rest: Vec::new() }).await
    } else {
        client.copy(&target, &mut stdout).await
    }
}

/// The message, with its content where that is wanted. What is not UTF-8 of it is replaced.
async fn json(client: &Client, id: QueueId, headers: bool, body: bool) -> Result<Value, SocketError> {
    let mut message: Value = client.get(&format!("/v1/queue/{id}")).await?;
    for (wanted, part, key) in [(headers, Part::Headers, "headers"), (body, Part::Body, "body")] {
        if wanted {
            let mut content = Vec::new();
            client.copy(&part.target(id), &mut content).await?;
            message[key] = String::from_utf8_lossy(&content).into();
        }
    }
    Ok(message)
}

/// Passes text on to a terminal: lines and what can be seen, nothing that it would obey.
struct Tame<W> {
    to: W,
    /// The beginning of a line end or character whose end is still to come.
    rest: Vec<u8>,
}

impl<W: Write> Write for Tame<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(octets);
        let rest = self.rest.split_off(self.rest.len() - unfinished(&self.rest));
        self.pass()?;
        self.rest = rest;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass()?;
        self.rest.clear();
        self.to.flush()
    }
}

impl<W: Write> Tame<W> {
    fn pass(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.rest).replace("\r\n", "\n");
        let lines: Vec<_> = text.split('\n').map(|line| plain(&line.replace('\t', "    "))).collect();
        self.to.write_all(lines.join("\n").as_bytes())
    }
}

/// How many octets at the end begin something whose end is still to come: a line end, or a character.
fn unfinished(octets: &[u8]) -> usize {
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

fn told(message: &QueuedMessage, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("message", &message.id.to_string());
    line("from", &sender(&message.sender));
    line("accepted", &format!("{}, {} ago", time(message.accepted), age(message.accepted, now)));
    line("expires", &to_come(message.expires, now));
    line("size", &size(message.size));
    if let Some(parameters) = message.parameters.as_ref().map(parameters).filter(|said| !said.is_empty()) {
        line("parameters", &parameters);
    }
    if message.parameters.as_ref().is_some_and(|said| said.tls == TlsRequirement::Relaxed) {
        line("header", "TLS-Required: No (what the recipients' domains publish is set aside)");
    }
    if message.busy {
        line("now", "an attempt, or an order, is under way");
    }
    for recipient in &message.recipients {
        text.push('\n');
        recipient_told(&mut text, recipient, message.busy, now);
    }
    text
}

fn parameters(parameters: &EnvelopeParameters) -> String {
    let mut said = Vec::new();
    if parameters.body == BodyType::EightBitMime {
        said.push("BODY=8BITMIME".to_owned());
    }
    if parameters.smtputf8 {
        said.push("SMTPUTF8".to_owned());
    }
    match parameters.ret {
        Some(Ret::Full) => said.push("RET=FULL".to_owned()),
        Some(Ret::Hdrs) => said.push("RET=HDRS".to_owned()),
        None => {}
    }
    if let Some(envid) = &parameters.envid {
        said.push(format!("ENVID={}", plain(envid)));
    }
    if parameters.tls == TlsRequirement::Require {
        said.push("REQUIRETLS".to_owned());
    }
    said.join(" ")
}

fn recipient_told(text: &mut String, recipient: &QueuedRecipient, busy: bool, now: Timestamp) {
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("to", &format!("{} (connector {})", plain(&recipient.address.to_string()), plain(&recipient.connector)));
    line(
        "state",
        match recipient.state {
            DeliveryState::Waiting => "waiting",
            DeliveryState::Held => "held until it is released",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Failed if recipient.reason.is_some() => "given up, the report about it waits",
            DeliveryState::Failed => "given up",
        },
    );
    if let Some(notify) = recipient.notify {
        line("NOTIFY", &notify_words(notify));
    }
    if let Some(orcpt) = &recipient.orcpt {
        line("ORCPT", &plain(orcpt));
    }
    if let Some(down) = &recipient.destination_down {
        let reason = reason(&down.reason);
        line("", &format!("its destination is left alone until {}: {reason}", to_come(down.until, now)));
    }
    if let Some(down) = &recipient.part_down {
        let (part, until, reason) = (plain(&down.part), to_come(down.until, now), reason(&down.reason));
        line("", &format!("{part} is left alone until {until}, other mail for its destination is not: {reason}"));
    }
    let history = recipient.history.as_deref().unwrap_or_default();
    let attempts = usize::try_from(recipient.attempts).unwrap_or(usize::MAX);
    match (attempts, history.len()) {
        (0, 0) if recipient.state == DeliveryState::Waiting => line("attempts", "none yet"),
        (_, 0) => {}
        (attempts, kept) if attempts > kept => line("attempts", &format!("{attempts}, of which {kept} are kept")),
        (attempts, _) => line("attempts", &attempts.to_string()),
    }
    for failure in history {
        line("", &format!("{}  {}", time(failure.at), reason(failure)));
    }
    if recipient.state == DeliveryState::Waiting {
        match recipient.next {
            Some(next) => line("next", &to_come(next, now)),
            None if busy => line("next", "now"),
            None => line("next", "as soon as a connection to its destination is free"),
        }
    }
}

fn notify_words(notify: Notify) -> String {
    let Notify::On { success, failure, delay } = notify else { return "NEVER".to_owned() };
    let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
    words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect::<Vec<_>>().join(",")
}

fn reason(reason: &FailureReason) -> String {
    plain(&format!("{} {}", reason.status, reason.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::TlsRequirement::{Ordinary, Relaxed, Require};

    #[test]
    fn requiretls_is_told_as_it_was_said() {
        for (tls, words) in [(Ordinary, ""), (Require, "REQUIRETLS"), (Relaxed, "")] {
            let said = serde_json::json!({
                "body": "7BIT", "smtputf8": false, "ret": null, "envid": null, "tls": tls, "eight_bit": false,
                "utf8_header": false
            });
            assert_eq!(parameters(&serde_json::from_value(said).expect("parameters")), words);
        }
    }

    #[test]
    fn a_terminal_gets_text_alone_wherever_it_is_cut() {
        let content = "A: ü\u{1b}[2J\r\n\tb €\r\n".as_bytes();
        for size in 1..=content.len() {
            let mut tame = Tame { to: Vec::new(), rest: Vec::new() };
            for chunk in content.chunks(size) {
                tame.write_all(chunk).expect("a vector takes all");
            }
            let shown = String::from_utf8(tame.to).expect("text");
            assert_eq!(shown, "A: ü\u{fffd}[2J\n    b €\n", "by {size}");
        }
    }
}
