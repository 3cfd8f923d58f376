//! An explanation as people read it, at three in the morning: what applies, why, and what follows.

use std::fmt::Write as _;

use crate::cli::queue::words::plain;
use crate::explain::words::{Answer, Hop, Inbound, LayerNote, Listener, Outbound, Row, Speakers};

/// A text in the making. Nothing in it can be written in vain, so no result is looked at.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.0, "{}", plain(text).trim_end());
    }

    /// A word, and what it is about, in a column.
    fn pair(&mut self, indent: usize, width: usize, word: &str, rest: &str) {
        self.line(&format!("{:indent$}{word:<width$}  {rest}", ""));
    }
}

pub(super) fn outbound(answer: &Outbound) -> String {
    let mut text = Text::default();
    text.line(&format!("Mail to {}", answer.asked));
    if let Some(note) = &answer.note {
        text.line(&format!("  {note}"));
    }
    speakers(&mut text, &answer.speakers, &answer.domain);
    if let Some(exception) = &answer.exception {
        let state = if exception.holds { "EXCEPTION" } else { "exception, ended:" };
        text.pair(
            2,
            10,
            "",
            &format!("{state} TLS {} until {} ({})", exception.tls, exception.until, exception.reason),
        );
    }
    if let Some(route) = &answer.route {
        text.pair(2, 10, "route", route);
    }
    for (at, hop) in answer.hops.iter().enumerate() {
        text.line("");
        hop_lines(&mut text, at, hop, &answer.hops[..at]);
    }
    text.line("");
    end(&mut text, answer);
    text.0
}

fn speakers(text: &mut Text, speakers: &Speakers, domain: &str) {
    let winner = &speakers.connector;
    let built_in = if winner.built_in { " (built in)" } else { "" };
    text.pair(2, 10, "connector", &format!("{}{built_in}: its \"{}\" names {domain}", winner.name, winner.pattern));
    // The winner's other patterns need no explanation.
    for other in speakers.others.iter().filter(|other| other.speaker.name != winner.name) {
        text.pair(2, 10, "", &format!("not {}: its \"{}\" {}", other.speaker.name, other.speaker.pattern, other.why));
    }
}

fn hop_lines(text: &mut Text, at: usize, hop: &Hop, before: &[Hop]) {
    let origin = match (hop.origin, hop.preference) {
        (_, Some(preference)) => format!("preference {preference}"),
        ("implicit-mx", None) => "the domain itself".to_owned(),
        ("literal", None) => "as the address says".to_owned(),
        (_, None) => "smart host".to_owned(),
    };
    text.line(&format!("Hop {}: {}:{}, {origin}", at + 1, hop.host, hop.port));
    if !hop.addresses.is_empty() {
        text.pair(2, 10, "addresses", &hop.addresses.join(", "));
    }
    if let Some(policy) = &hop.policy {
        text.pair(2, 10, "must show", policy);
    }
    for layer in &hop.layers {
        layer_line(text, layer);
        if let Some(policy) = hop.mta_sts_policy.as_ref().filter(|_| layer.layer == "mta-sts") {
            text.pair(4, 10, "", &policy.to_string());
        }
    }
    if let Some(hello) = &hop.client_hello {
        let why = if hello.remembered { " (the running daemon knows that the host takes no more)" } else { "" };
        text.pair(2, 10, "offered", &format!("{}{why}", hello.first));
        if let Some(second) = &hello.second {
            let line = format!("where the handshake is cut short, once more on a fresh connection: {second}");
            text.pair(2, 10, "", &line);
        }
    }
    if let Some(problem) = &hop.problem {
        text.pair(2, 10, "NOT USED", &format!("{} ({})", problem.text, problem.status));
    }
    if hop.peers.is_empty() {
        return;
    }
    if let Some(same) = before.iter().position(|other| ends(other) == ends(hop)) {
        text.line(&format!("  What each kind of peer comes to is the same as at hop {}.", same + 1));
        return;
    }
    text.line("  If the peer shows this, the mail …");
    let width = hop.peers.iter().map(|row| row.shows.chars().count()).max().unwrap_or_default();
    for row in &hop.peers {
        text.pair(4, width, &row.shows, &result(row));
    }
}

fn ends(hop: &Hop) -> Vec<(&str, &str, Option<&str>, Option<&str>)> {
    hop.peers.iter().map(|row| (row.shows.as_str(), row.result, row.status.as_deref(), row.by.as_deref())).collect()
}

fn layer_line(text: &mut Text, note: &LayerNote) {
    let word = match note.layer {
        "dane" => "DANE",
        "mta-sts" => "MTA-STS",
        "requiretls" => "REQUIRETLS",
        other => other,
    };
    let why = note.why.as_deref().unwrap_or_default();
    let said = match (note.demands.is_empty(), why.is_empty()) {
        (true, _) => format!("nothing: {why}"),
        (false, true) => note.demands.join(", and "),
        (false, false) => format!("{} ({why})", note.demands.join(", and ")),
    };
    text.pair(4, 10, word, &said);
}

fn result(row: &Row) -> String {
    match (row.result, &row.status) {
        ("tls", _) => format!("goes over TLS, {}", row.text),
        ("clear", _) => "goes in clear".to_owned(),
        ("clear-again", _) => "goes in clear, at once, on a fresh connection".to_owned(),
        (_, status) => {
            let by = row.by.as_deref().map(|by| format!(" ({by})")).unwrap_or_default();
            format!("is refused, {}{by}", status.as_deref().unwrap_or_default())
        }
    }
}

fn end(text: &mut Text, answer: &Outbound) {
    if let Some(problem) = &answer.problem {
        let then = match problem.then {
            "bounce" => "it bounces at once",
            "hold" => "it is held until an operator decides",
            _ => &answer.no_hop_left.unreachable,
        };
        let verdict = if answer.hops.is_empty() { "Mail cannot go" } else { "Mail cannot go: no hop can be used" };
        text.line(&format!("{verdict}: {} ({}); {then}.", problem.text, problem.status));
        return;
    }
    text.line("When no hop is left");
    let left = &answer.no_hop_left;
    text.pair(2, 20, "policy not met", &format!("{} (on_failure = \"{}\")", left.policy_not_met, left.on_failure));
    if let Some(required) = &left.requirement_not_met {
        text.pair(2, 20, "REQUIRETLS not met", required);
    }
    text.pair(2, 20, "hosts unreachable", &left.unreachable);
}

pub(super) fn inbound(answer: &Inbound) -> String {
    let mut text = Text::default();
    text.line(&format!("Mail from {}", answer.asked));
    if let Some(note) = &answer.note {
        text.line(&format!("  {note}"));
    }
    speakers(&mut text, &answer.speakers, answer.domain.as_deref().unwrap_or("it"));
    text.pair(2, 10, "must show", &answer.policy);
    match (answer.networks.is_empty(), &answer.foreign) {
        (true, _) => text.pair(2, 10, "networks", "from anywhere"),
        (false, foreign) => {
            text.pair(2, 10, "networks", &answer.networks.join(", "));
            if let Some(reply) = foreign {
                text.pair(2, 10, "", &format!("from elsewhere: {reply}"));
            }
        }
    }
    text.pair(
        2,
        10,
        "relay",
        if answer.relay { "set: who proves to be them may send to any domain" } else { "not set" },
    );
    for (at, listener) in answer.listeners.iter().enumerate() {
        text.line("");
        listener_lines(&mut text, listener, &answer.listeners[..at]);
    }
    if !answer.can_come {
        text.line("");
        text.line("No session can bring this mail.");
    }
    text.0
}

fn listener_lines(text: &mut Text, listener: &Listener, before: &[Listener]) {
    let certificate = match (listener.tls, listener.client_certificate) {
        ("off", _) => "",
        (_, true) => ", client certificate asked for",
        (_, false) => ", client certificate not asked for",
    };
    let addresses = listener.addresses.join(", ");
    text.line(&format!("At listener {} ({addresses}; TLS {}{certificate})", listener.name, listener.tls));
    if let Some(same) = before.iter().find(|other| other.sessions == listener.sessions) {
        text.line(&format!("  the same as at {}", same.name));
        return;
    }
    text.line("  If the client shows this, MAIL FROM is answered …");
    let width = listener.sessions.iter().map(|session| session.shows.chars().count()).max().unwrap_or_default();
    for session in &listener.sessions {
        text.pair(4, width, &session.shows, &reply(session));
    }
}

fn reply(session: &Answer) -> String {
    match session.may_send_to {
        Some("any") => format!("250, to any domain ({})", session.text),
        Some(_) => format!("250, to [relay] domains, and from [relay] networks to any ({})", session.text),
        None => session.text.clone(),
    }
}
