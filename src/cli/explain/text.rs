//! The text form of an explanation.

use crate::cli::format::{WrappedText, plain};
use crate::explain::document::{
    ConnectorMatch, ExceptionNote, ExplainedHop, ExplainedListener, InboundExplanation, LayerNote,
    MatchingPattern, OutboundExplanation, PeerForecast, SessionForecast, UserNote,
};

/// The width of the column with the names of layers.
const LAYER: usize = 16;

/// Returns an explanation of mail to a domain, in lines of at most `width` columns.
pub(super) fn outbound(answer: &OutboundExplanation, width: usize) -> String {
    let mut text = WrappedText::new(width);
    text.line(0, &format!("Mail to {}", answer.asked));
    if let Some(note) = &answer.note {
        text.line(2, note);
    }
    connector(&mut text, &answer.connectors, &answer.domain);
    if let Some(user) = &answer.user {
        user_lines(&mut text, user, &answer.connectors.connector.name);
    }
    if let Some(exception) = &answer.exception {
        let ExceptionNote {
            tls, until, reason, ..
        } = exception;
        let line = if exception.holds {
            format!("EXCEPTION: TLS {tls} until {until} ({reason})")
        } else {
            format!("the exception ended on {until} ({reason})")
        };
        text.pair(2, 10, "", &line);
    }
    if let Some(route) = &answer.route {
        text.pair(2, 10, "route", route);
    }
    if let Some(recipients) = &answer.recipients {
        text.pair(2, 10, "recipients", recipients);
    }
    for (at, hop) in answer.hops.iter().enumerate() {
        text.blank();
        hop_lines(&mut text, at, hop, &answer.hops[..at]);
    }
    text.blank();
    end(&mut text, answer);
    text.end()
}

fn connector(text: &mut WrappedText, connectors: &ConnectorMatch, domain: &str) {
    let MatchingPattern {
        name,
        pattern,
        built_in,
    } = &connectors.connector;
    let built_in = if *built_in { " (built in)" } else { "" };
    text.pair(
        2,
        10,
        "connector",
        &format!("{name}{built_in}: its pattern \"{pattern}\" matches {domain}"),
    );
    // Other patterns of the same connector need no explanation.
    for other in connectors
        .others
        .iter()
        .filter(|other| other.candidate.name != *name)
    {
        let MatchingPattern { name, pattern, .. } = &other.candidate;
        text.pair(
            2,
            10,
            "",
            &format!("not {name}: its pattern \"{pattern}\" {}", other.why),
        );
    }
}

/// Adds the user who sends the mail: the way that the mail goes, and what the user may do.
fn user_lines(text: &mut WrappedText, user: &UserNote, own: &str) {
    let UserNote {
        name,
        connector,
        floor_joins,
        ..
    } = user;
    let way = match connector {
        Some(connector) if *floor_joins => format!(
            "the mail goes by the connector {connector}, and what {own} demands holds as well"
        ),
        Some(connector) => format!("the mail goes by the connector {connector}"),
        None => "the mail goes by the recipient's connector".to_owned(),
    };
    text.pair(2, 10, "user", &format!("{}: {way}", plain(name)));
    if user.disabled {
        text.pair(2, 10, "", "DISABLED: the user may not log in");
    }
    let mut senders = match &user.senders {
        None => "may send from all addresses".to_owned(),
        Some(senders) => format!("may send from {}", plain(&senders.join(", "))),
    };
    if user.senders.is_some() && user.null_sender {
        senders.push_str(" and <>");
    }
    if user.check_from {
        senders.push_str("; the From field too is held to them");
    }
    text.pair(2, 10, "", &senders);
    if !user.networks.is_empty() {
        let networks = format!("may log in from {}", user.networks.join(", "));
        text.pair(2, 10, "", &networks);
    }
    let limits = [
        (user.messages_per_hour, "messages"),
        (user.recipients_per_hour, "recipients"),
    ];
    for (most, noun) in limits {
        if let Some(most) = most {
            text.pair(2, 10, "", &format!("at most {most} {noun} an hour"));
        }
    }
}

fn hop_lines(text: &mut WrappedText, at: usize, hop: &ExplainedHop, before: &[ExplainedHop]) {
    let origin = match (hop.origin, hop.preference) {
        (_, Some(preference)) => format!("preference {preference}"),
        ("implicit-mx", None) => "the domain itself".to_owned(),
        ("literal", None) => "as the address says".to_owned(),
        (_, None) => "smart host".to_owned(),
    };
    let server = match (hop.protocol, &hop.addresses[..]) {
        ("smtp", _) => format!("{}:{}", hop.host, hop.port),
        // A unix socket.
        (protocol, [path]) if hop.port == 0 => format!("{protocol}:{path}"),
        (protocol, _) => format!("{protocol}://{}:{}", hop.host, hop.port),
    };
    text.line(0, &format!("Hop {}: {server}, {origin}", at + 1));
    if !hop.addresses.is_empty() {
        text.pair(2, 10, "addresses", &hop.addresses.join(", "));
    }
    if !hop.source.is_empty() {
        text.pair(2, 10, "from", &hop.source.join(", "));
    }
    if let Some(login) = &hop.login {
        text.pair(2, 10, "login", login);
    }
    if let Some(policy) = &hop.policy {
        text.pair(2, 10, "demand", policy);
    }
    for layer in &hop.layers {
        layer_line(text, layer);
        if let Some(policy) = hop
            .mta_sts_policy
            .as_ref()
            .filter(|_| layer.layer == "mta-sts")
        {
            text.pair(4, LAYER, "", &policy.to_string());
        }
    }
    hello_lines(text, hop);
    if let Some(problem) = &hop.problem {
        text.pair(
            2,
            10,
            "NOT USED",
            &format!("{} ({})", problem.text, problem.status),
        );
    }
    if hop.peers.is_empty() {
        return;
    }
    if let Some(same) = before.iter().position(|other| ends(other) == ends(hop)) {
        text.line(
            2,
            &format!(
                "The result for each kind of peer is the same as at hop {}.",
                same + 1
            ),
        );
        return;
    }
    text.line(2, "If the peer does this, the mail …");
    let width = hop
        .peers
        .iter()
        .map(|row| row.shows.chars().count())
        .max()
        .unwrap_or_default();
    for row in &hop.peers {
        text.pair(4, width, &row.shows, &result(row));
    }
}

/// Adds what the `ClientHello` offers.
fn hello_lines(text: &mut WrappedText, hop: &ExplainedHop) {
    let Some(hello) = &hop.client_hello else {
        return;
    };
    let why = if hello.remembered {
        " (the daemon remembers that the host accepts no other)"
    } else {
        ""
    };
    text.pair(2, 10, "offered", &format!("{}{why}", hello.first));
    if let Some(second) = &hello.second {
        let line = format!("if the handshake breaks, again on a fresh connection: {second}");
        text.pair(2, 10, "", &line);
    }
}

/// Returns the results of a hop without their texts, to compare them with those of another hop.
fn ends(hop: &ExplainedHop) -> Vec<(&str, &str, Option<&str>, Option<&str>)> {
    hop.peers
        .iter()
        .map(|row| {
            (
                row.shows.as_str(),
                row.result,
                row.status.as_deref(),
                row.by.as_deref(),
            )
        })
        .collect()
}

fn layer_line(text: &mut WrappedText, note: &LayerNote) {
    let label = match note.layer {
        "recipient" => "recipient's",
        "dane" => "DANE",
        "mta-sts" => "MTA-STS",
        "requiretls" => "REQUIRETLS",
        "memory" => "downgrade memory",
        other => other,
    };
    let why = note.why.as_deref().unwrap_or_default();
    let demands = match (note.demands.is_empty(), why.is_empty()) {
        (true, _) => format!("nothing: {why}"),
        (false, true) => note.demands.join(", and "),
        (false, false) => format!("{} ({why})", note.demands.join(", and ")),
    };
    text.pair(4, LAYER, label, &demands);
}

fn result(row: &PeerForecast) -> String {
    match (row.result, &row.status) {
        ("tls", _) => format!("goes over TLS, {}", row.text),
        ("clear", _) => "goes in the clear".to_owned(),
        ("clear-again", _) => "goes in the clear, at once, on a fresh connection".to_owned(),
        (_, status) => {
            let by = row
                .by
                .as_deref()
                .map(|by| format!(" ({by})"))
                .unwrap_or_default();
            format!("is refused, {}{by}", status.as_deref().unwrap_or_default())
        }
    }
}

fn end(text: &mut WrappedText, answer: &OutboundExplanation) {
    if let Some(problem) = &answer.problem {
        let then = match problem.then {
            "bounce" => "it bounces at once",
            "hold" => "it is held until an operator decides",
            _ => &answer.no_hop_left.unreachable,
        };
        let verdict = if answer.hops.is_empty() {
            "Mail cannot go"
        } else {
            "Mail cannot go: no hop can be used"
        };
        text.line(
            0,
            &format!("{verdict}: {} ({}); {then}.", problem.text, problem.status),
        );
        return;
    }
    text.line(0, "When no hop is left");
    let left = &answer.no_hop_left;
    text.pair(
        2,
        20,
        "policy not met",
        &format!(
            "{} (on_failure = \"{}\")",
            left.policy_not_met, left.on_failure
        ),
    );
    if let Some(required) = &left.requirement_not_met {
        text.pair(2, 20, "REQUIRETLS not met", required);
    }
    text.pair(2, 20, "hosts unreachable", &left.unreachable);
}

/// Returns an explanation of mail from a sender, in lines of at most `width` columns.
pub(super) fn inbound(answer: &InboundExplanation, width: usize) -> String {
    let mut text = WrappedText::new(width);
    text.line(0, &format!("Mail from {}", answer.asked));
    if let Some(note) = &answer.note {
        text.line(2, note);
    }
    connector(
        &mut text,
        &answer.connectors,
        answer.domain.as_deref().unwrap_or("it"),
    );
    text.pair(2, 10, "demand", &answer.policy);
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
        if answer.relay {
            "set: a session that meets all of this may send to any domain"
        } else {
            "not set"
        },
    );
    for (at, listener) in answer.listeners.iter().enumerate() {
        text.blank();
        listener_lines(&mut text, listener, &answer.listeners[..at]);
    }
    if !answer.can_come {
        text.blank();
        text.line(0, "No session can deliver this mail to us.");
    }
    text.end()
}

fn listener_lines(
    text: &mut WrappedText,
    listener: &ExplainedListener,
    before: &[ExplainedListener],
) {
    let certificate = match (listener.tls, listener.client_certificate) {
        ("off", _) => "",
        (_, true) => ", client certificate requested",
        (_, false) => ", client certificate not requested",
    };
    let login = match listener.login {
        "required" => ", login required",
        "possible" => ", login possible",
        _ => "",
    };
    let addresses = listener.addresses.join(", ");
    text.line(
        0,
        &format!(
            "At listener {} ({addresses}; TLS {}{certificate}{login})",
            listener.name, listener.tls
        ),
    );
    if let Some(same) = before
        .iter()
        .find(|other| (&other.sessions, other.login) == (&listener.sessions, listener.login))
    {
        text.line(2, &format!("the same as at {}", same.name));
        return;
    }
    let who = if listener.login == "required" {
        "If a client that has logged in does this, the reply to MAIL FROM is …"
    } else {
        "If the client does this, the reply to MAIL FROM is …"
    };
    text.line(2, who);
    if listener.login == "possible" {
        text.line(
            2,
            "(a client that has logged in may send to any domain, from its user's senders)",
        );
    }
    let width = listener
        .sessions
        .iter()
        .map(|session| session.shows.chars().count())
        .max()
        .unwrap_or_default();
    for session in &listener.sessions {
        text.pair(4, width, &session.shows, &reply(session));
    }
}

fn reply(session: &SessionForecast) -> String {
    match session.may_send_to {
        Some("any") => format!("250, to any domain ({})", session.text),
        Some(_) => format!(
            "250, to [relay] domains, and from [relay] networks to any ({})",
            session.text
        ),
        None => session.text.clone(),
    }
}
