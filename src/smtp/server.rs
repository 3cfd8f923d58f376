//! The server's side of a session as a state machine (RFC 5321 §4.1.4, §4.3): a client's bytes go in,
//! [`ServerStep`]s come out.
//!
//! No socket, clock or disk is touched here. Who may send is asked of whoever drives the machine, at
//! MAIL and RCPT; content is handed out as slices of the input; and the 250 at the end of a message
//! can be had only for a [`Durable`] proof. Pipelining (RFC 2920) needs no state: commands are taken
//! one by one from the input, and whoever drives the machine writes when nothing more is to be taken.
//! STARTTLS: RFC 3207. BDAT: RFC 3030. REQUIRETLS: RFC 8689.

mod incoming;
mod message;
mod pipelining;
mod profile;
mod proxied;
mod replies;

use super::command::{self, ClientName, Command, CommandLine, MailFrom, RcptTo, XClient};
use super::data::Inspector;
use super::reply::{Reply, Severity};
use crate::address::Mailbox;
use crate::envelope::{Envelope, QueueId, Recipient};
use incoming::{ContentFlow, Incoming};
pub use profile::{Channel, Profile};
pub use proxied::XClientRights;

/// Commands that bring no mail forward since the last accepted message, at most: they cost a client nothing, and one
/// every few minutes would hold its seat for ever. Postfix's `smtpd_junk_command_limit` is the same.
const JUNK_MAX: u32 = 100;
/// Recipients beyond a limit (refused for now, with a reply of 4xx) that a transaction may be asked to take before each is such a command: a client
/// that pipelines a long list is told 452 for what is too much of it, and its message goes to the others (RFC 5321
/// §4.5.3.1.10). Again as Postfix has it (`smtpd_recipient_overshoot_limit`).
const OVERSHOOT_MAX: u32 = 1000;

/// Proof that a message and its envelope are durable. [`crate::spool::Receipt`] is the only thing in
/// Gatepost that implements it; tests of the dialogue have their own.
pub trait Durable {
    /// The message's name in the queue.
    fn id(&self) -> QueueId;
}

/// How the client has introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHelo {
    /// What it calls itself.
    pub name: ClientName,
    /// Whether with EHLO.
    pub esmtp: bool,
}

/// What is to be done next.
#[derive(Debug)]
pub enum ServerStep<'a> {
    /// Everything that could be done was done: write what was said, and come back with more bytes.
    Read,
    /// Say this.
    Reply(Reply),
    /// May mail come from here? Answer with [`Server::mail`].
    Mail(MailFrom),
    /// May mail go there? Answer with [`Server::rcpt`].
    Rcpt(RcptTo),
    /// The next content of the message; its first, where the message has none yet.
    Content(&'a [u8]),
    /// The message has ended; it is to be made durable (it may have had no content at all). Answer
    /// with [`Server::accepted`], or any negative reply.
    Commit(Box<Envelope>),
    /// Say this, then shake hands at once, without reading anything more in clear. Answer with
    /// [`Server::secured`].
    StartTls(Reply),
    /// Say this, then close.
    Close(Reply),
    /// The same, for a load balancer whose header is not taken.
    ProxyHeader(Reply),
    /// The client is a proxy, and this is its own. Answer with [`Server::introduce`], or close.
    XClient(Box<XClient>),
}

/// Why we end a session ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client took too long.
    Timeout,
    /// The client brought no message for too long.
    NoMessage,
    /// Other clients wait, and this one has brought no message for a while.
    Crowded,
    /// We are told to stop.
    Shutdown,
}

/// What the next bytes are.
#[derive(Debug)]
enum InputMode {
    /// A command line.
    Command,
    /// The rest of a line that was refused.
    Skip,
    /// Content, or what is dropped in its place.
    Incoming(Box<Incoming>),
    /// None of ours: TLS, or nothing.
    Closed,
}

/// What MAIL began.
#[derive(Debug)]
struct OpenTransaction {
    from: MailFrom,
    recipients: Vec<Recipient>,
    /// Whether RCPT was said at all.
    rcpt: bool,
    /// Recipients beyond a limit.
    overshoot: u32,
    progress: ContentProgress,
}

#[derive(Debug)]
enum ContentProgress {
    /// Nothing of the content has come.
    Envelope,
    /// BDAT chunks have come, not the last.
    Chunks(Box<Inspector>),
    /// A chunk was refused: RSET is due (RFC 3030 §2).
    Failed,
}

/// One session.
#[derive(Debug)]
pub struct Server {
    profile: Profile,
    channel: Channel,
    client: Option<ClientHelo>,
    transaction: Option<OpenTransaction>,
    mode: InputMode,
    errors: u32,
    /// Commands since the last accepted message that brought no mail forward.
    idle: u32,
}

impl Server {
    /// Starts a session.
    #[must_use]
    pub fn new(profile: Profile, channel: Channel) -> Self {
        Self { profile, channel, client: None, transaction: None, mode: InputMode::Command, errors: 0, idle: 0 }
    }

    /// Returns the greeting.
    ///
    /// # Errors
    /// The last reply to a client that spoke before it ("pregreet" in Postfix's log); the session ends with it.
    pub fn greet(&mut self, spoke_first: bool) -> Result<Reply, Reply> {
        if spoke_first {
            self.mode = InputMode::Closed;
            return Err(replies::spoke_before_greeting());
        }
        Ok(replies::greeting(&self.profile.hostname))
    }

    /// How the client has introduced itself, where it has.
    #[must_use]
    pub fn client(&self) -> Option<&ClientHelo> {
        self.client.as_ref()
    }

    /// The sender and the recipients so far, while there is a transaction.
    #[must_use]
    pub fn transaction(&self) -> Option<(&MailFrom, &[Recipient])> {
        let coming = match &self.mode {
            InputMode::Incoming(incoming) => incoming.transaction(),
            InputMode::Command | InputMode::Skip | InputMode::Closed => None,
        };
        coming.or(self.transaction.as_ref()).map(|transaction| (&transaction.from, &*transaction.recipients))
    }

    /// Whether the next bytes are content (or dropped in its place), not a command.
    #[must_use]
    pub fn takes_content(&self) -> bool {
        matches!(self.mode, InputMode::Incoming(_))
    }

    /// Whether content that was handed out may still become a message. Where this is false, it is to
    /// be forgotten.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        let chunks = |transaction: &OpenTransaction| matches!(transaction.progress, ContentProgress::Chunks(_));
        self.transaction.as_ref().is_some_and(chunks)
            || matches!(&self.mode, InputMode::Incoming(incoming) if incoming.is_storing())
    }

    /// Takes from the front of `input` what belongs to one step; says how many octets it used. To be
    /// called until it says [`ServerStep::Read`], and with an empty `input` as well.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> (usize, ServerStep<'a>) {
        let mut used = 0;
        loop {
            let (more, step) = self.advance(&input[used..]);
            used += more;
            // What was used may have led to where the rest means something.
            if more == 0 || used == input.len() || !matches!(step, ServerStep::Read) {
                return (used, step);
            }
        }
    }

    fn advance<'a>(&mut self, input: &'a [u8]) -> (usize, ServerStep<'a>) {
        let (used, flow) = match &mut self.mode {
            InputMode::Command => return self.command(input),
            InputMode::Skip => {
                let (used, done) = command::skip(input);
                if done {
                    self.mode = InputMode::Command;
                }
                return (used, ServerStep::Read);
            }
            InputMode::Incoming(incoming) => incoming.take(input),
            InputMode::Closed => return (input.len(), ServerStep::Read),
        };
        let step = match flow {
            ContentFlow::More => ServerStep::Read,
            ContentFlow::Content(content) => ServerStep::Content(content),
            ContentFlow::End => self.end(),
            // No 421 for it: who hears that sends all of it again.
            ContentFlow::Enough(refusal) => self.close(refusal),
        };
        (used, step)
    }

    /// Answers [`ServerStep::Mail`].
    pub fn mail(&mut self, from: MailFrom, answer: Result<(), Reply>) -> Reply {
        let reply = match answer {
            Ok(()) => {
                let (recipients, progress) = (Vec::new(), ContentProgress::Envelope);
                self.transaction = Some(OpenTransaction { from, recipients, rcpt: false, overshoot: 0, progress });
                replies::sender_ok()
            }
            Err(refusal) => refusal,
        };
        self.counted(reply)
    }

    /// Answers [`ServerStep::Rcpt`]: the mailbox that the path means, or why not.
    pub fn rcpt(&mut self, rcpt: RcptTo, answer: Result<Mailbox, Reply>) -> Reply {
        let reply = match (answer, &mut self.transaction) {
            (Ok(mailbox), Some(transaction)) => {
                let RcptTo { notify, orcpt, .. } = rcpt;
                transaction.recipients.push(Recipient { notify, orcpt, ..Recipient::new(mailbox) });
                replies::recipient_ok()
            }
            (Ok(_), None) => replies::out_of_order("MAIL first"),
            (Err(refusal), Some(transaction)) if refusal.severity() == Severity::Transient => {
                transaction.overshoot = transaction.overshoot.saturating_add(1);
                refusal
            }
            (Err(refusal), _) => refusal,
        };
        self.counted(reply)
    }

    /// Answers [`ServerStep::Commit`] where the message is safe. Nothing else makes this reply.
    pub fn accepted(&mut self, proof: &impl Durable) -> Reply {
        self.errors = 0;
        self.idle = 0;
        replies::queued(proof.id())
    }

    /// Answers [`ServerStep::StartTls`] after the handshake: the session forgets all (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.channel = Channel::Tls;
        self.client = None;
        self.transaction = None;
        self.mode = InputMode::Command;
    }

    /// What we say where we end the session ourselves.
    #[must_use]
    pub fn farewell(&self, why: CloseReason) -> Reply {
        replies::farewell(&self.profile.hostname, why)
    }

    fn command<'a>(&mut self, input: &'a [u8]) -> (usize, ServerStep<'a>) {
        if self.errors >= self.profile.errors.max(1) {
            return (0, self.close(replies::too_many_errors(&self.profile.hostname)));
        }
        match command::line(input) {
            CommandLine::Partial => (0, ServerStep::Read),
            CommandLine::Complete(line, used) => (used, self.execute(line, &input[used..])),
            CommandLine::Invalid(fault, used) if fault.is_fatal() => (used, self.close_for(&fault)),
            CommandLine::Invalid(fault, used) => {
                self.mode = InputMode::Skip;
                (used, self.say(fault.reply()))
            }
        }
    }

    /// Carries out one line. `behind` is what the client has sent behind it already.
    fn execute<'a>(&mut self, line: &[u8], behind: &[u8]) -> ServerStep<'a> {
        let parsed = Command::parse(line);
        if self.violates_pipelining(&parsed, behind) {
            return self.close(replies::spoke_too_early());
        }
        if self.channel == Channel::Required && !replies::is_allowed_before_tls(command::verb(line)) {
            return match parsed {
                Ok(Command::Bdat { size, last }) => self.drop_chunk(size, last, replies::starttls_first()),
                Err(fault) if fault.is_fatal() => self.close_for(&fault),
                Ok(_) | Err(_) => self.say(replies::starttls_first()),
            };
        }
        if parsed.as_ref().is_ok_and(Command::is_junk) && !self.count_junk() {
            return self.close(replies::too_many_junk_commands(&self.profile.hostname));
        }
        match parsed {
            Err(fault) if fault.is_fatal() => self.close_for(&fault),
            Err(fault) => self.say(fault.reply()),
            Ok(Command::Ehlo(name)) => self.hello(name, true),
            Ok(Command::Helo(name)) => self.hello(name, false),
            Ok(Command::StartTls) => self.start_tls(behind),
            Ok(Command::Mail(from)) => self.mail_command(from),
            Ok(Command::Rcpt(rcpt)) => self.rcpt_command(rcpt),
            Ok(Command::Data) => self.data(behind),
            Ok(Command::Bdat { size, last }) => self.chunk(size, last),
            Ok(Command::Rset) => {
                self.transaction = None;
                self.say(replies::ok())
            }
            Ok(Command::Noop) => self.say(replies::ok()),
            Ok(Command::Quit) => self.close(replies::bye(&self.profile.hostname)),
            Ok(Command::Vrfy) => self.say(replies::cannot_verify()),
            Ok(Command::Expn) => self.say(replies::not_implemented("EXPN")),
            Ok(Command::Help) => self.say(replies::help()),
            Ok(Command::XClient(said)) => self.xclient_command(said),
        }
    }

    fn hello<'a>(&mut self, name: ClientName, esmtp: bool) -> ServerStep<'a> {
        // A new greeting ends a transaction as RSET does (RFC 5321 §4.1.4).
        self.transaction = None;
        self.client = Some(ClientHelo { name, esmtp });
        self.say(if esmtp {
            replies::ehlo(&self.profile, self.channel)
        } else {
            Reply::bare(250, self.profile.hostname.to_string())
        })
    }

    fn start_tls<'a>(&mut self, behind: &[u8]) -> ServerStep<'a> {
        match self.channel {
            Channel::Clear => self.say(replies::not_implemented("STARTTLS")),
            Channel::Tls => self.say(replies::out_of_order("TLS is active already")),
            // Whoever can write here in clear could speak for the client inside TLS (RFC 3207 §6).
            Channel::Offered | Channel::Required if !behind.is_empty() => self.close(replies::spoke_behind_starttls()),
            Channel::Offered | Channel::Required => {
                self.mode = InputMode::Closed;
                ServerStep::StartTls(replies::ready_for_tls())
            }
        }
    }

    fn mail_command<'a>(&mut self, from: MailFrom) -> ServerStep<'a> {
        if self.client.is_none() {
            return self.say(replies::out_of_order("EHLO or HELO first"));
        }
        if self.transaction.is_some() {
            return self.say(replies::out_of_order("A transaction is open already; RSET ends it"));
        }
        if from.require_tls && !self.offers_require_tls() {
            return self.say(replies::require_tls_not_offered());
        }
        if from.size.is_some_and(|size| size > self.profile.message_size) {
            return self.say(replies::too_large(self.profile.message_size));
        }
        ServerStep::Mail(from)
    }

    /// Whether REQUIRETLS was offered to this client (RFC 8689 §2).
    fn offers_require_tls(&self) -> bool {
        self.channel == Channel::Tls && self.client.as_ref().is_some_and(|client| client.esmtp)
    }

    fn rcpt_command<'a>(&mut self, rcpt: RcptTo) -> ServerStep<'a> {
        let Some(OpenTransaction { progress: ContentProgress::Envelope, from, recipients, rcpt: said, overshoot }) =
            &mut self.transaction
        else {
            return self.say(replies::out_of_order("RCPT comes behind MAIL and before the message"));
        };
        *said = true;
        if rcpt.utf8 && !from.smtputf8 {
            return self.say(command::CommandError::NeedsSmtpUtf8.reply());
        }
        let is_full = recipients.len() >= self.profile.recipients;
        *overshoot = overshoot.saturating_add(u32::from(is_full));
        if *overshoot > OVERSHOOT_MAX && !self.count_junk() {
            return self.close(replies::too_many_junk_commands(&self.profile.hostname));
        }
        if is_full {
            return self.say(replies::too_many_recipients());
        }
        ServerStep::Rcpt(rcpt)
    }

    fn say<'a>(&mut self, reply: Reply) -> ServerStep<'a> {
        ServerStep::Reply(self.counted(reply))
    }

    fn close<'a>(&mut self, reply: Reply) -> ServerStep<'a> {
        self.mode = InputMode::Closed;
        ServerStep::Close(reply)
    }

    /// Counts a command that brings no mail forward; says whether it was not one too many.
    fn count_junk(&mut self) -> bool {
        self.idle = self.idle.saturating_add(1);
        self.idle <= JUNK_MAX
    }

    fn counted(&mut self, reply: Reply) -> Reply {
        if reply.severity() == Severity::Permanent {
            self.errors = self.errors.saturating_add(1);
        }
        reply
    }
}
