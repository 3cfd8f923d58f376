//! A complete session from the client's octets, for any input and any cuts by the network.

use std::num::NonZeroU32;

use gatepost::smtp::address::{AddressError, Domain, ForwardPath, Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, QueueId};
use gatepost::smtp::command::{LINE_MAX, RcptTo};
use gatepost::smtp::reply::{Reply, Severity, Status};
use gatepost::smtp::sasl::scram::{ScramKey, ScramVerifier};
use gatepost::smtp::sasl::{Mechanism, OfferedMechanisms};
use gatepost::smtp::server::{Channel, Durable, FoundVerifier, LoginRequest, Profile, Server, ServerStep, XClientRights};

use crate::cuts::Cuts;
use crate::{envelope, talk};

/// The number of errors that ends a session.
const ERRORS: u32 = 8;
/// The longest line within AUTH (RFC 4954 §4).
const RESPONSE_MAX: usize = 12_288;
/// The maximum number of recipients of a message.
const RECIPIENTS: usize = 4;
/// The maximum length of a message, in octets.
pub(crate) const MESSAGE_SIZE: u64 = 300;

pub(crate) fn run(input: &[u8]) {
    let (cuts, rest) = Cuts::take(input);
    let Some((kind, rest)) = rest.split_first() else { return };
    let channel = [Channel::Tls, Channel::Clear, Channel::Offered, Channel::Required][usize::from(kind & 3)];
    let (completed, xclient, auth_required) = (kind & 4 != 0, kind & 8 != 0, kind & 16 != 0);
    let start = || Dialogue::new(Profile { completed, xclient, auth_required, ..profile(ERRORS) }, channel);
    let (mut cut, mut by_line, mut whole) = (start(), start(), start());
    cuts.polite(rest).into_iter().for_each(|piece| cut.feed(piece));
    rest.split_inclusive(|octet| *octet == b'\n').for_each(|line| by_line.feed(line));
    whole.feed(rest);
    // The amount of rejected content that is read before the session is closed depends on the
    // pieces, so it may differ by one of them.
    if cut.gave_up || by_line.gave_up {
        return;
    }
    assert_eq!(cut.said, by_line.said, "what is said depends on where the network cuts");
    assert_eq!(cut.messages, by_line.messages, "the messages depend on where the network cuts");
}

/// Returns the limits of the sessions of this fuzzer.
pub(crate) fn profile(errors: u32) -> Profile {
    Profile {
        hostname: hostname(),
        message_size: MESSAGE_SIZE,
        recipients: RECIPIENTS,
        errors,
        received: 3,
        completed: false,
        xclient: false,
        mechanisms: OfferedMechanisms::of(&Mechanism::ALL),
        auth_required: false,
    }
}

fn hostname() -> Domain {
    Domain::parse("relay.example.com").expect("a domain")
}

/// A receipt without a stored message.
struct Pretended(QueueId);

impl Durable for Pretended {
    fn id(&self) -> QueueId {
        self.0
    }
}

/// A session with its results.
pub(crate) struct Dialogue {
    server: Server,
    channel: Channel,
    errors: u32,
    buffer: Vec<u8>,
    content: Vec<u8>,
    is_closed: bool,
    /// True if the session was closed in the middle of content.
    gave_up: bool,
    /// The number of permanent replies since the last message.
    faults: u32,
    /// The replies.
    pub(crate) said: Vec<String>,
    /// The messages: each envelope with its content.
    pub(crate) messages: Vec<(Envelope, Vec<u8>)>,
}

impl Dialogue {
    pub(crate) fn new(profile: Profile, channel: Channel) -> Self {
        let errors = profile.errors;
        let mut server = Server::new(profile, channel);
        server.greet(false).expect("nobody has spoken before the greeting");
        Self {
            server,
            channel,
            errors,
            buffer: Vec::new(),
            content: Vec::new(),
            is_closed: false,
            gave_up: false,
            faults: 0,
            said: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Sends everything that precedes a message; every reply must be a 250.
    pub(crate) fn open(&mut self) {
        for line in ["EHLO client.example", "MAIL FROM:<a@client.example>", "RCPT TO:<b@example.com>"] {
            self.feed(line.as_bytes());
            self.feed(b"\r\n");
        }
        assert!(self.said.iter().all(|reply| reply.starts_with("250 ")), "{:?}", self.said);
        assert!(matches!(self.server.transaction(), Some((from, [_])) if from.reverse_path != ReversePath::Null));
        self.said.clear();
    }

    /// Processes input from the network.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        let mut input = std::mem::take(&mut self.buffer);
        input.extend_from_slice(piece);
        let (mut rest, mut idle) = (&input[..], 0);
        loop {
            let took_content = self.server.expects_content();
            let (used, step) = self.server.step(rest);
            self.gave_up |= took_content && matches!(step, ServerStep::Close(_));
            let is_over = matches!(step, ServerStep::Read);
            rest = &rest[used..];
            idle = if used == 0 { idle + 1 } else { 0 };
            assert!(is_over || idle < 4, "nothing is used, and it never ends");
            self.take(step, rest);
            if !self.server.is_storing() {
                self.content.clear();
            }
            if is_over {
                break;
            }
        }
        assert!(rest.len() <= RESPONSE_MAX.max(LINE_MAX), "{} octets wait for the end of a line", rest.len());
        assert!(!self.is_closed || rest.is_empty(), "a closed session waits for something");
        self.buffer = rest.to_vec();
    }

    fn take(&mut self, step: ServerStep<'_>, rest: &[u8]) {
        assert!(!self.is_closed || matches!(step, ServerStep::Read), "a closed session goes on: {step:?}");
        match step {
            ServerStep::Read => {}
            ServerStep::Reply(reply) => self.say(&reply),
            ServerStep::Mail(from) => {
                let is_refused = from.reverse_path.to_string().contains("refuse");
                assert!(from.size.is_none_or(|size| size <= MESSAGE_SIZE), "SIZE is over the limit");
                assert!(!from.require_tls || self.channel == Channel::Tls, "REQUIRETLS in clear");
                assert!(self.channel != Channel::Required, "MAIL before STARTTLS");
                let answer = if is_refused { Err(Reply::new(550, Status(7, 1), "no")) } else { Ok(()) };
                let reply = self.server.mail(from, answer);
                self.say(&reply);
            }
            ServerStep::Rcpt(rcpt) => {
                let answer = mailbox(&rcpt);
                let reply = self.server.rcpt(rcpt, answer);
                self.say(&reply);
            }
            ServerStep::Content(content) => {
                assert!(!content.is_empty(), "content without an octet");
                self.content.extend_from_slice(content);
                assert!(self.content.len() as u64 <= MESSAGE_SIZE, "a message of {} octets", self.content.len());
            }
            ServerStep::Commit(envelope) => self.commit(*envelope),
            ServerStep::StartTls(reply) => {
                assert!(rest.is_empty(), "octets in clear are read under TLS: {}", rest.escape_ascii());
                assert!(matches!(self.channel, Channel::Offered | Channel::Required), "STARTTLS was not offered");
                self.say(&reply);
                self.server.continue_under_tls();
                self.channel = Channel::Tls;
            }
            ServerStep::XClient(said) => {
                let reply = self.server.apply_xclient(*said, XClientRights { completed: false, xclient: false });
                assert!(self.server.transaction().is_none(), "a transaction outlives its client");
                self.say(&reply);
            }
            ServerStep::Login(request) => {
                assert!(self.channel == Channel::Tls, "AUTH in the clear");
                let reply = self.login(request);
                self.say(&reply);
            }
            ServerStep::Close(reply) | ServerStep::ProxyHeader(reply) => {
                self.is_closed = true;
                self.say(&reply);
            }
        }
    }

    /// Answers a login: every password that begins with `a` is right.
    fn login(&mut self, request: LoginRequest) -> Reply {
        let answer = match request {
            LoginRequest::Password(login) if login.password.as_bytes().starts_with(b"a") => Ok(()),
            LoginRequest::Proved(_) => Ok(()),
            LoginRequest::Verifier(_) => {
                let key = || ScramKey::new([7; 32]);
                let (salt, iterations) = (vec![7; 16], NonZeroU32::new(4096).expect("not zero"));
                let verifier = ScramVerifier { salt, iterations, stored_key: key(), server_key: key() };
                return self.server.scram_challenge(FoundVerifier { verifier, is_genuine: true, nonce: "n", binding: &[7; 32] });
            }
            LoginRequest::Password(_) | LoginRequest::Failed(..) => Err(Reply::new(535, Status(7, 8), "no")),
        };
        self.server.login(answer)
    }

    fn say(&mut self, reply: &Reply) {
        talk::check_reply(reply);
        if reply.severity() == Severity::Permanent {
            self.faults += 1;
        }
        assert!(self.faults <= self.errors + 1, "{} faults, and the session goes on", self.faults);
        self.said.push(reply.to_string());
    }

    fn commit(&mut self, envelope: Envelope) {
        let recipients = &envelope.recipients;
        assert!((1..=RECIPIENTS).contains(&recipients.len()), "{} recipients", recipients.len());
        for (at, recipient) in recipients.iter().enumerate() {
            let is_new = recipients[..at].iter().all(|other| other.mailbox != recipient.mailbox);
            assert!(is_new, "{} gets two copies", recipient.mailbox);
        }
        envelope::check_stored(&envelope);
        self.messages.push((envelope, std::mem::take(&mut self.content)));
        let id = QueueId::from_number(self.messages.len() as u64).expect("a small number");
        let reply = self.server.accepted(&Pretended(id));
        self.faults = 0;
        self.say(&reply);
    }
}

/// Returns the mailbox of a recipient, unless it is rejected.
fn mailbox(rcpt: &RcptTo) -> Result<Mailbox, Reply> {
    match &rcpt.forward_path {
        ForwardPath::Postmaster => Ok(Mailbox::postmaster(hostname())),
        ForwardPath::Local(local) => Mailbox::parse(&format!("{local}@{}", hostname())).map_err(|fault| {
            Reply::new(501, Status(1, 3), if fault == AddressError::TooLong { "long" } else { "bad" })
        }),
        ForwardPath::Mailbox(mailbox) if mailbox.local_part().contains("refuse") => {
            Err(Reply::new(450, Status(2, 1), "not now"))
        }
        ForwardPath::Mailbox(mailbox) => Ok(mailbox.clone()),
    }
}
