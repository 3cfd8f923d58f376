//! The server dialogue, played from files: `tests/it/dialogues/server/*.txt`, one behaviour each.
//!
//! ```text
//! # tls: forced          settings: tls, size, recipients, errors, received; client: ours;
//!                        xclient: yes; auth: MECHANISMS; auth_required: yes; spool: full;
//!                        never: TEXT
//! C: NOOP                the client says this and CRLF; lines in a row go out in one piece
//! C| NOOP\n              the same without CRLF; \r \n \0 \\ and \xHH are escapes in both
//! S: 250 2.0.0 Ok        the server says exactly this; "…" at the end stands for any rest
//! == TLS                 the server has asked for the handshake, and it is done
//! == closed              the server has ended the session
//! => stored 12           a message was made durable; this many octets of content
//! => content a\r\n       its content, exactly
//! => envelope TEXT       its envelope has this, as the spool writes it
//! => nothing stored      no message was made durable in the dialogue
//! ```
//!
//! A dialogue that begins with the client is one of a client that does not wait for the greeting.
//!
//! Every dialogue is played twice: as written, and with the client's bytes one by one. `# pieces:
//! no` leaves the second out, where it matters what has come in one piece. At the end nothing may
//! be unsaid on either side. Mail from `refused.example` and to `elsewhere.example` is refused.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::fmt::Write as _;
use std::path::Path;

use gatepost::smtp::address::{Domain, ForwardPath, Mailbox};
use gatepost::smtp::command::{Attribute, MailFrom, RcptTo, XClient};
use gatepost::smtp::envelope::{Envelope, QueueId};
use gatepost::smtp::reply::{Reply, Status};
use gatepost::smtp::sasl::scram::ScramVerifier;
use gatepost::smtp::sasl::{Mechanism, OfferedMechanisms, Password};
use gatepost::smtp::server::{
    Channel, Durable, FoundVerifier, LoginRequest, Profile, Server, ServerStep, XClientRights,
};

struct Proof;

impl Durable for Proof {
    fn id(&self) -> QueueId {
        QueueId::from_number(5).unwrap()
    }
}

struct Settings {
    channel: Channel,
    profile: Profile,
    full: bool,
    pieces: bool,
    never: Vec<String>,
}

impl Settings {
    fn read(text: &str) -> Self {
        let hostname = Domain::parse("relay.example.com").unwrap();
        let profile = Profile {
            hostname,
            message_size: 1000,
            recipients: 100,
            errors: 20,
            received: 100,
            completed: false,
            xclient: false,
            mechanisms: OfferedMechanisms::default(),
            auth_required: false,
        };
        let mut settings = Self {
            channel: Channel::Offered,
            profile,
            full: false,
            pieces: true,
            never: Vec::new(),
        };
        for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
            let Some((key, value)) = line.split_once(": ") else {
                continue;
            };
            match key {
                "tls" => {
                    settings.channel = match value {
                        "off" => Channel::Clear,
                        "opportunistic" => Channel::Offered,
                        "forced" => Channel::Required,
                        "implicit" => Channel::Tls,
                        other => panic!("tls: {other}?"),
                    };
                }
                "size" => settings.profile.message_size = value.parse().unwrap(),
                "recipients" => settings.profile.recipients = value.parse().unwrap(),
                "errors" => settings.profile.errors = value.parse().unwrap(),
                "received" => settings.profile.received = value.parse().unwrap(),
                "client" => settings.profile.completed = value == "ours",
                "xclient" => settings.profile.xclient = value == "yes",
                "auth" => {
                    let names = value.split(' ').map(|name| Mechanism::parse(name).unwrap());
                    settings.profile.mechanisms = OfferedMechanisms::of(&names.collect::<Vec<_>>());
                }
                "auth_required" => settings.profile.auth_required = value == "yes",
                "spool" => settings.full = value == "full",
                "pieces" => settings.pieces = value != "no",
                "never" => settings
                    .never
                    .push(String::from_utf8(unescaped(value)).unwrap()),
                other => panic!("no such setting: {other}"),
            }
        }
        settings
    }
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "what has happened so far, each by itself"
)]
struct Played {
    server: Server,
    full: bool,
    /// The server's replies that no line of the dialogue has asked for yet.
    said: Vec<String>,
    everything: String,
    content: Vec<u8>,
    stored: Vec<(Vec<u8>, Envelope)>,
    wants_tls: bool,
    closed: bool,
    /// The client spoke first, and is not listened to.
    deaf: bool,
}

impl Played {
    fn new(settings: &Settings) -> Self {
        let server = Server::new(settings.profile.clone(), settings.channel);
        Self {
            full: settings.full,
            said: Vec::new(),
            everything: String::new(),
            content: Vec::new(),
            stored: Vec::new(),
            wants_tls: false,
            closed: false,
            deaf: false,
            server,
        }
    }

    fn greet(&mut self, spoke_first: bool) {
        match self.server.greet(spoke_first) {
            Ok(greeting) => self.say(&greeting),
            Err(reply) => {
                self.say(&reply);
                (self.closed, self.deaf) = (true, true);
            }
        }
    }

    fn say(&mut self, reply: &Reply) {
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        let text = String::from_utf8(wire).unwrap();
        self.everything.push_str(&text);
        self.said.extend(text.lines().map(str::to_owned));
    }

    fn hear(&mut self, buffer: &mut Vec<u8>) {
        if self.deaf {
            return buffer.clear();
        }
        loop {
            if (self.closed || self.wants_tls) && !buffer.is_empty() {
                self.said
                    .push("nothing: the session had ended before the client did".to_owned());
                buffer.clear();
                return;
            }
            let (used, step) = self.server.step(buffer);
            let mut reads = false;
            match step {
                ServerStep::Read => reads = true,
                ServerStep::Reply(reply) => self.say(&reply),
                ServerStep::Mail(from) => {
                    let answer = may_send(&from);
                    let reply = self.server.mail(from, answer);
                    self.say(&reply);
                }
                ServerStep::Rcpt(rcpt) => {
                    let answer = may_receive(&rcpt);
                    let reply = self.server.rcpt(rcpt, answer);
                    self.say(&reply);
                }
                ServerStep::Content(_) if self.full => {
                    self.server.reject_content(Reply::new(
                        452,
                        Status(3, 1),
                        "Insufficient system storage",
                    ));
                }
                ServerStep::Content(octets) => self.content.extend_from_slice(octets),
                ServerStep::Commit(envelope) => {
                    self.stored
                        .push((std::mem::take(&mut self.content), *envelope));
                    let reply = self.server.accepted(&Proof);
                    self.say(&reply);
                }
                ServerStep::StartTls(reply) => {
                    self.say(&reply);
                    self.wants_tls = true;
                    reads = true;
                }
                ServerStep::XClient(said) => {
                    let reply = apply_xclient(&mut self.server, *said);
                    self.say(&reply);
                }
                ServerStep::Login(request) => {
                    let reply = answer_login(&mut self.server, request);
                    self.say(&reply);
                }
                ServerStep::Close(reply) | ServerStep::ProxyHeader(reply) => {
                    self.say(&reply);
                    self.closed = true;
                    buffer.clear();
                    return;
                }
            }
            if !self.server.is_storing() {
                self.content.clear();
            }
            buffer.drain(..used);
            if reads {
                return;
            }
        }
    }
}

/// A client with another address is no longer a proxy.
fn apply_xclient(server: &mut Server, said: XClient) -> Reply {
    let xclient = said.address == Attribute::Absent;
    let rights = XClientRights {
        completed: false,
        xclient,
    };
    server.apply_xclient(said, rights)
}

/// The only user is `user` with the password `pencil`; the server's nonce is that of RFC 7677 §3.
fn answer_login(server: &mut Server, request: LoginRequest) -> Reply {
    let refusal = || {
        Err(Reply::new(
            535,
            Status(7, 8),
            "Authentication credentials invalid",
        ))
    };
    let answer = match request {
        LoginRequest::Password(login) => {
            let is_right = login.name == "user" && login.password.as_bytes() == b"pencil";
            if is_right { Ok(()) } else { refusal() }
        }
        LoginRequest::Verifier(name) => {
            let salt = data_encoding::BASE64
                .decode(b"W22ZaJ0SNY7soEsUEjb6gQ==")
                .unwrap();
            let password = Password::new("pencil").unwrap();
            return server.scram_challenge(FoundVerifier {
                verifier: ScramVerifier::derive(&password, &salt, 4096.try_into().unwrap()),
                is_genuine: name == "user",
                nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
                binding: &[],
            });
        }
        LoginRequest::Proved(_) => Ok(()),
        LoginRequest::Failed(..) => refusal(),
    };
    server.login(answer)
}

fn may_send(from: &MailFrom) -> Result<(), Reply> {
    match from.reverse_path.domain() {
        Some(domain) if domain.as_str() == "refused.example" => {
            Err(Reply::new(550, Status(7, 1), "Not from there"))
        }
        _ => Ok(()),
    }
}

fn may_receive(rcpt: &RcptTo) -> Result<Mailbox, Reply> {
    match &rcpt.forward_path {
        ForwardPath::Postmaster => Ok(Mailbox::parse("postmaster@example.com").unwrap()),
        ForwardPath::Local(_) => Err(Reply::new(
            501,
            Status(1, 3),
            "Bad recipient address: there is no \"@domain\"",
        )),
        ForwardPath::Mailbox(mailbox) if mailbox.host().to_string() == "elsewhere.example" => {
            Err(Reply::new(550, Status(7, 1), "Relaying denied"))
        }
        ForwardPath::Mailbox(mailbox) => Ok(mailbox.clone()),
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        out.push(match octet {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => panic!("no such escape in {text:?}: {other:?}"),
            },
            octet => octet,
        });
    }
    out
}

/// Plays a dialogue; returns where it went another way.
fn play(text: &str, settings: &Settings, piece: usize) -> Result<(), String> {
    let mut played = Played::new(settings);
    let begins_with = |speaker: &str| {
        text.lines()
            .find(|line| line.starts_with(['C', 'S']))
            .is_some_and(|line| line.starts_with(speaker))
    };
    let speaks_first = begins_with("C: ") || begins_with("C| ");
    played.greet(speaks_first);
    let (mut buffer, mut unsent, mut heard) = (Vec::new(), Vec::new(), 0);
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: String| format!("line {}: {line}\n  {what}", at + 1);
        if let Some(words) = line.strip_prefix("C: ").or(line.strip_prefix("C:")) {
            unsent.extend(unescaped(words));
            unsent.extend(b"\r\n");
            continue;
        }
        if let Some(words) = line.strip_prefix("C| ") {
            unsent.extend(unescaped(words));
            continue;
        }
        for part in unsent.chunks(if piece == 0 {
            unsent.len().max(1)
        } else {
            piece
        }) {
            buffer.extend_from_slice(part);
            played.hear(&mut buffer);
        }
        unsent.clear();
        if let Some(words) = line.strip_prefix("S: ") {
            let said = played
                .said
                .get(heard)
                .ok_or_else(|| wrong("the server said nothing".into()))?;
            heard += 1;
            let as_wanted = words
                .strip_suffix('…')
                .map_or(said == words, |head| said.starts_with(head));
            if !as_wanted {
                return Err(wrong(format!("the server said: {said}")));
            }
        } else if line == "== TLS" {
            if !std::mem::take(&mut played.wants_tls) {
                return Err(wrong("the server wants no handshake".into()));
            }
            played.server.continue_under_tls();
        } else if line == "== closed" {
            if !played.closed {
                return Err(wrong("the session is open".into()));
            }
        } else if let Some(outcome) = line.strip_prefix("=> ") {
            check(outcome, &played).map_err(wrong)?;
        }
    }
    match played.said.get(heard) {
        Some(said) => return Err(format!("at the end the server also said: {said}")),
        None if played.wants_tls => {
            return Err("at the end the server waits for a handshake".into());
        }
        None => {}
    }
    match settings
        .never
        .iter()
        .find(|never| played.everything.contains(never.as_str()))
    {
        Some(never) => Err(format!("the server said {never:?}")),
        None => Ok(()),
    }
}

fn check(outcome: &str, played: &Played) -> Result<(), String> {
    let last = played
        .stored
        .last()
        .ok_or_else(|| "nothing was stored".to_owned());
    let (kind, value) = outcome.split_once(' ').unwrap_or((outcome, ""));
    match kind {
        "nothing" => match last {
            Ok((content, _)) => Err(format!("{} octets were stored", content.len())),
            Err(_) => Ok(()),
        },
        "stored" if last.clone()?.0.len().to_string() == value => Ok(()),
        "content" if last.clone()?.0 == unescaped(value) => Ok(()),
        "envelope" => {
            let envelope = serde_json::to_string(&last?.1).unwrap();
            if envelope.contains(value) {
                Ok(())
            } else {
                Err(envelope)
            }
        }
        "stored" | "content" => Err(format!("stored is {:?}", String::from_utf8_lossy(&last?.0))),
        other => Err(format!("no such outcome: {other}")),
    }
}

#[test]
fn every_dialogue_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dialogues/server");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 30, "dialogues are missing");
    let mut faults = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("\n=> "),
            "{}: a dialogue tells its outcome",
            file.display()
        );
        let settings = Settings::read(&text);
        for piece in [0, 1, 3] {
            if piece > 0 && !settings.pieces {
                continue;
            }
            if let Err(fault) = play(&text, &settings, piece) {
                let name = file.file_name().unwrap().display();
                write!(faults, "\n{name} (pieces of {piece}): {fault}").unwrap();
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

const GREETED: &str = "S: 220 …\nC: HELO client.example\nS: 250 relay.example.com\n";
/// The same with EHLO: commands may come in one piece.
const WELCOMED: &str = "S: 220 …\nC: EHLO client.example\nS: 250-…\nS: 250-PIPELINING\nS: 250-SIZE 1000\nS: 250-8BITMIME\n\
                        S: 250-SMTPUTF8\nS: 250-ENHANCEDSTATUSCODES\nS: 250-CHUNKING\nS: 250-DSN\nS: 250-HELP\nS: 250 STARTTLS\n";
const MESSAGE: &str = "C: MAIL FROM:<a@example.org>\nS: 250 2.1.0 …\nC: RCPT TO:<b@example.com>\nS: 250 2.1.5 …\n\
                       C: DATA\nS: 354 …\nC: a\nC: .\nS: 250 2.0.0 Ok: queued as …\n";
const ENOUGH: &str =
    "S: 421 4.7.0 relay.example.com Too many commands without a message…\n== closed\n";

fn goes(settings: &str, text: &str) {
    let settings = Settings::read(settings);
    for piece in [0, 7] {
        play(text, &settings, piece).unwrap_or_else(|fault| panic!("pieces of {piece}: {fault}"));
    }
}

#[test]
fn commands_that_bring_no_mail_forward_have_an_end() {
    for (command, answer) in [
        ("NOOP", "250 2.0.0 Ok"),
        ("RSET", "250 2.0.0 Ok"),
        ("HELO x", "250 relay.example.com"),
        ("VRFY a", "252 2.0.0 …"),
        ("HELP", "214 2.0.0 …"),
    ] {
        // HELO was one; a message makes up for all.
        let idle = |count: usize| format!("C: {command}\nS: {answer}\n").repeat(count);
        goes(
            "",
            &format!(
                "{GREETED}{}{MESSAGE}{}C: {command}\n{ENOUGH}",
                idle(98),
                idle(100)
            ),
        );
    }
    let taken_back = "C: MAIL FROM:<a@example.org>\nS: 250 2.1.0 …\nC: RCPT TO:<b@example.com>\nS: 250 2.1.5 …\nC: RSET\nS: 250 …\n";
    goes(
        "",
        &format!(
            "{GREETED}{}C: NOOP\nS: 250 …\nC: NOOP\n{ENOUGH}",
            taken_back.repeat(49)
        ),
    );
    let empty = "C: BDAT 0\nS: 250 2.0.0 Ok: 0 octets received\n".repeat(98);
    let begun = "C: MAIL FROM:<a@example.org>\nS: 250 2.1.0 …\nC: RCPT TO:<b@example.com>\nS: 250 2.1.5 …\n";
    goes("", &format!("{GREETED}{begun}{empty}C: BDAT 0\n{ENOUGH}"));
    let idle = "C: NOOP\nS: 250 …\n".repeat(99);
    goes(
        "",
        &format!("{GREETED}{idle}C: QUIT\nS: 221 …\n== closed\n"),
    );
}

#[test]
fn recipients_chunks_and_messages_are_no_idle_commands() {
    let begun = "C: MAIL FROM:<a@example.org>\nS: 250 2.1.0 …\n";
    let taken = "C: RCPT TO:<b@example.com>\nS: 250 2.1.5 …\n";
    let chunks = "C: BDAT 1\nC| a\nS: 250 …\n".repeat(150);
    goes(
        "# recipients: 150",
        &format!(
            "{GREETED}{begun}{}{chunks}C: BDAT 0 LAST\nS: 250 …\n=> stored 150\n",
            taken.repeat(150)
        ),
    );
    goes(
        "",
        &format!("{GREETED}{}=> stored 3\n", MESSAGE.repeat(150)),
    );
    // A long list in one piece: the message goes to those that were taken. But a list ends.
    let (asked, over) = ("C: RCPT TO:<b@example.com>\n", "S: 452 4.5.3 …\n");
    let long = format!(
        "{WELCOMED}{begun}{taken}{}{}",
        asked.repeat(1000),
        over.repeat(1000)
    );
    goes(
        "# recipients: 1",
        &format!("{long}C: DATA\nS: 354 …\nC: a\nC: .\nS: 250 …\n=> stored 3\n"),
    );
    goes(
        "# recipients: 1",
        &format!(
            "{long}{}{}C: RCPT TO:<b@example.com>\n{ENOUGH}",
            asked.repeat(98),
            over.repeat(98)
        ),
    );
}
