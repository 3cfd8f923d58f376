//! The server side of an SMTP session as a state machine (RFC 5321 §4.1.4, §4.3). It takes the
//! client's bytes and returns [`ServerStep`]s.
//!
//! The machine touches no socket, clock or disk. Its driver (`inbound::session`) reads and writes
//! the bytes, decides at MAIL and RCPT whether the address is accepted, and stores the content,
//! which is handed out as slices of the input. The final 250 needs a [`Durable`] proof. Pipelining
//! (RFC 2920) needs no state of its own: the machine takes one command after the other from the
//! input, and the driver writes the replies once no complete command is left. STARTTLS: RFC 3207.
//! BDAT: RFC 3030. REQUIRETLS: RFC 8689. AUTH: RFC 4954.

mod auth;
mod incoming;
mod login_request;
mod message;
mod pipelining;
mod profile;
mod proxied;
mod replies;

use super::command::{self, ClientName, Command, CommandLine, MailFrom, RcptTo, XClient};
use super::reply::{Reply, Severity};
use crate::smtp::address::Mailbox;
use crate::smtp::envelope::{Envelope, QueueId, Recipient};
use crate::smtp::sasl::{Mechanism, SaslExchange};
use incoming::ContentProgress;
use incoming::OpenTransaction;
use incoming::{ContentFlow, Incoming};
pub use login_request::{FoundVerifier, LoginRequest};
pub use profile::{Channel, Profile};
pub use proxied::XClientRights;
pub use replies::CloseReason;

/// The highest number of junk commands since the last accepted message. Such commands cost a client
/// nothing, and one every few minutes would occupy a connection for ever (Postfix
/// `smtpd_junk_command_limit`).
const JUNK_MAX: u32 = 100;
/// The number of RCPT commands in one transaction that may be over the recipient limit or rejected
/// with 4xx. Each further one counts as a junk command. A client that pipelines a long list gets
/// 452 for the excess, and its message goes to the others (RFC 5321 §4.5.3.1.10; Postfix
/// `smtpd_recipient_overshoot_limit`).
const OVERSHOOT_MAX: u32 = 1000;

/// The proof that a message and its envelope are durable. In Gatepost only
/// [`crate::storage::spool::Receipt`] implements it; tests of the dialogue have an implementation
/// of their own.
pub trait Durable {
    /// The id of the message in the queue.
    fn id(&self) -> QueueId;
}

/// The EHLO or HELO of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHelo {
    /// The name that the client gave.
    pub name: ClientName,
    /// True for EHLO, false for HELO.
    pub esmtp: bool,
}

/// The next thing that the driver of the machine must do.
#[derive(Debug)]
pub enum ServerStep<'a> {
    /// Write the replies, then call [`Server::step`] again with more bytes: no complete command is
    /// left.
    Read,
    /// Send this reply.
    Reply(Reply),
    /// Decide whether mail from this sender is accepted, then call [`Server::mail`].
    Mail(MailFrom),
    /// Decide whether mail to this recipient is accepted, then call [`Server::rcpt`].
    Rcpt(RcptTo),
    /// Store this part of the content. The first part begins the message.
    Content(&'a [u8]),
    /// Make the message durable; its content may be empty. Then call [`Server::accepted`], or send
    /// a negative reply.
    Commit(Box<Envelope>),
    /// Send this reply and start the TLS handshake at once, without reading anything more in the
    /// clear. Then call [`Server::continue_under_tls`].
    StartTls(Reply),
    /// Send this reply and close the connection.
    Close(Reply),
    /// The same, for a PROXY header from an address that may not send one.
    ProxyHeader(Reply),
    /// Decide on XCLIENT, which carries the session of the proxy's own client. Then call
    /// [`Server::apply_xclient`], or close.
    XClient(Box<XClient>),
    /// Answer a question about a client that logs in; see [`LoginRequest`].
    Login(LoginRequest),
}

/// The meaning of the next bytes.
#[derive(Debug)]
enum InputMode {
    /// A command line.
    Command,
    /// The remainder of an invalid line, which is skipped.
    Skip,
    /// Content that is stored or dropped.
    Incoming(Box<Incoming>),
    /// A response within AUTH.
    SaslResponse,
    /// Bytes that this machine does not read: they belong to TLS, or the session is closed.
    Closed,
}

/// The state machine of one session.
#[derive(Debug)]
pub struct Server {
    profile: Profile,
    channel: Channel,
    helo: Option<ClientHelo>,
    transaction: Option<OpenTransaction>,
    mode: InputMode,
    errors: u32,
    /// Junk commands since the last accepted message.
    junk: u32,
    /// The exchange of an AUTH command that has not ended.
    exchange: Option<Box<SaslExchange>>,
    /// The mechanism of the last AUTH command.
    mechanism: Option<Mechanism>,
    is_authenticated: bool,
}

impl Server {
    /// Starts a session.
    #[must_use]
    pub fn new(profile: Profile, channel: Channel) -> Self {
        Self {
            profile,
            channel,
            helo: None,
            transaction: None,
            mode: InputMode::Command,
            errors: 0,
            junk: 0,
            exchange: None,
            mechanism: None,
            is_authenticated: false,
        }
    }

    /// Returns the greeting.
    ///
    /// # Errors
    /// The reply to a client that sent something before the greeting ("pregreet" in Postfix's log);
    /// it ends the session.
    pub fn greet(&mut self, spoke_first: bool) -> Result<Reply, Reply> {
        if spoke_first {
            self.mode = InputMode::Closed;
            return Err(replies::pregreet());
        }
        Ok(replies::greeting(&self.profile.hostname))
    }

    /// Returns the latest EHLO or HELO of the client.
    #[must_use]
    pub fn helo(&self) -> Option<&ClientHelo> {
        self.helo.as_ref()
    }

    /// Returns the sender and the recipients so far of the open transaction.
    #[must_use]
    pub fn transaction(&self) -> Option<(&MailFrom, &[Recipient])> {
        let coming = match &self.mode {
            InputMode::Incoming(incoming) => incoming.transaction(),
            InputMode::Command | InputMode::Skip | InputMode::SaslResponse | InputMode::Closed => {
                None
            }
        };
        coming
            .or(self.transaction.as_ref())
            .map(|transaction| (&transaction.from, &*transaction.recipients))
    }

    /// Returns true if the next bytes are content, stored or dropped, and not a command.
    #[must_use]
    pub fn expects_content(&self) -> bool {
        matches!(self.mode, InputMode::Incoming(_))
    }

    /// Returns true if the content handed out so far may still become a message. Otherwise the
    /// driver must discard it.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        let chunks = |transaction: &OpenTransaction| {
            matches!(transaction.progress, ContentProgress::Chunks(_))
        };
        self.transaction.as_ref().is_some_and(chunks)
            || matches!(&self.mode, InputMode::Incoming(incoming) if incoming.is_storing())
    }

    /// Takes the octets of one step from the front of `input` and returns their number with the
    /// step. Call it, with an empty `input` too, until it returns [`ServerStep::Read`].
    // Rule: RFC 5321 §4.2.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> (usize, ServerStep<'a>) {
        let mut used = 0;
        loop {
            let (more, step) = self.advance(&input[used..]);
            used += more;
            // The octets used may have changed the mode in which the others are read.
            if more == 0 || used == input.len() || !matches!(step, ServerStep::Read) {
                return (used, step);
            }
        }
    }

    fn advance<'a>(&mut self, input: &'a [u8]) -> (usize, ServerStep<'a>) {
        let (used, flow) = match &mut self.mode {
            InputMode::Command => return self.read_command(input),
            InputMode::SaslResponse => return self.read_response(input),
            InputMode::Skip => {
                let (used, done) = command::skip_line(input);
                if done {
                    self.mode = InputMode::Command;
                }
                return (used, ServerStep::Read);
            }
            InputMode::Incoming(incoming) => incoming.advance(input),
            InputMode::Closed => return (input.len(), ServerStep::Read),
        };
        let step = match flow {
            ContentFlow::NeedMore => ServerStep::Read,
            ContentFlow::Content(content) => ServerStep::Content(content),
            ContentFlow::End => self.end_content(),
            // Not 421: after that, the client would send all of it again.
            ContentFlow::TooMuchDropped(refusal) => self.close(refusal),
        };
        (used, step)
    }

    /// Answers [`ServerStep::Mail`] with the driver's decision and returns the reply to send.
    pub fn mail(&mut self, from: MailFrom, answer: Result<(), Reply>) -> Reply {
        let reply = match answer {
            Ok(()) => {
                let (recipients, progress) = (Vec::new(), ContentProgress::Envelope);
                self.transaction = Some(OpenTransaction {
                    from,
                    recipients,
                    has_rcpt: false,
                    overshoot: 0,
                    progress,
                });
                replies::sender_ok()
            }
            Err(refusal) => refusal,
        };
        self.count_error(reply)
    }

    /// Answers [`ServerStep::Rcpt`] with the mailbox of the path, or the rejection, and returns the
    /// reply to send.
    pub fn rcpt(&mut self, rcpt: RcptTo, answer: Result<Mailbox, Reply>) -> Reply {
        let reply = match (answer, &mut self.transaction) {
            (Ok(mailbox), Some(transaction)) => {
                let RcptTo { notify, orcpt, .. } = rcpt;
                transaction.recipients.push(Recipient {
                    notify,
                    orcpt,
                    ..Recipient::new(mailbox)
                });
                replies::recipient_ok()
            }
            (Ok(_), None) => replies::out_of_order("MAIL first"),
            (Err(refusal), Some(transaction)) if refusal.severity() == Severity::Transient => {
                transaction.overshoot = transaction.overshoot.saturating_add(1);
                refusal
            }
            (Err(refusal), _) => refusal,
        };
        self.count_error(reply)
    }

    /// Answers [`ServerStep::Commit`] once the message is durable. No other function makes this
    /// reply.
    // Rule: RFC 5321 §4.1.1.4.
    pub fn accepted(&mut self, proof: &impl Durable) -> Reply {
        self.errors = 0;
        self.junk = 0;
        replies::queued(proof.id())
    }

    /// Answers [`ServerStep::StartTls`] after the handshake. The session starts over (RFC 3207
    /// §4.2).
    pub fn continue_under_tls(&mut self) {
        self.channel = Channel::Tls;
        self.helo = None;
        self.transaction = None;
        self.mode = InputMode::Command;
        self.forget_login();
    }

    /// Returns the reply for a session that the server ends by itself.
    #[must_use]
    pub fn closing_reply(&self, reason: CloseReason) -> Reply {
        replies::closing(&self.profile.hostname, reason)
    }

    /// Reads one command line and executes it.
    fn read_command<'a>(&mut self, input: &'a [u8]) -> (usize, ServerStep<'a>) {
        if self.errors >= self.profile.errors.max(1) {
            return (
                0,
                self.close(replies::too_many_errors(&self.profile.hostname)),
            );
        }
        match command::split_line(input) {
            CommandLine::Partial => (0, ServerStep::Read),
            CommandLine::Complete(line, used) => (used, self.execute(line, &input[used..])),
            CommandLine::Invalid(fault, used) if fault.is_fatal() => {
                (used, self.close_with_fault(&fault))
            }
            CommandLine::Invalid(fault, used) => {
                self.mode = InputMode::Skip;
                (used, self.reply(fault.reply()))
            }
        }
    }

    /// Executes one line. `behind` holds the octets that the client has already sent after it.
    // Rule: RFC 5321 §4.1.1.5, §4.1.1.9, §4.1.4.
    fn execute<'a>(&mut self, line: &[u8], behind: &[u8]) -> ServerStep<'a> {
        let parsed = Command::parse(line);
        if self.violates_pipelining(&parsed, behind) {
            return self.close(replies::unauthorized_pipelining());
        }
        if self.channel == Channel::Required && !replies::is_allowed_before_tls(command::verb(line))
        {
            return match parsed {
                Ok(Command::Bdat { size, last }) => {
                    self.drop_chunk(size, last, replies::starttls_first())
                }
                Err(fault) if fault.is_fatal() => self.close_with_fault(&fault),
                Ok(_) | Err(_) => self.reply(replies::starttls_first()),
            };
        }
        if self.requires_login(command::verb(line))
            && !parsed.as_ref().is_err_and(command::CommandError::is_fatal)
        {
            return self.login_first(parsed.as_ref().ok());
        }
        if parsed.as_ref().is_ok_and(Command::is_junk) && !self.count_junk() {
            return self.close(replies::too_many_junk_commands(&self.profile.hostname));
        }
        match parsed {
            Err(fault) if fault.is_fatal() => self.close_with_fault(&fault),
            Err(fault) => self.reply(fault.reply()),
            Ok(Command::Ehlo(name)) => self.hello_command(name, true),
            Ok(Command::Helo(name)) => self.hello_command(name, false),
            Ok(Command::StartTls) => self.starttls_command(behind),
            Ok(Command::Mail(from)) => self.mail_command(from),
            Ok(Command::Rcpt(rcpt)) => self.rcpt_command(rcpt),
            Ok(Command::Data) => self.data_command(behind),
            Ok(Command::Bdat { size, last }) => self.bdat_command(size, last),
            Ok(Command::Rset) => {
                self.transaction = None;
                self.reply(replies::ok())
            }
            Ok(Command::Noop) => self.reply(replies::ok()),
            Ok(Command::Quit) => self.close(replies::bye(&self.profile.hostname)),
            Ok(Command::Vrfy) => self.reply(replies::cannot_verify()),
            Ok(Command::Expn) => self.reply(replies::not_implemented("EXPN")),
            Ok(Command::Help) => self.reply(replies::help()),
            Ok(Command::XClient(attributes)) => self.xclient_command(attributes),
            Ok(Command::Auth(command)) => self.auth_command(&command),
        }
    }

    // Rule: RFC 5321 §4.1.1.1.
    fn hello_command<'a>(&mut self, name: ClientName, esmtp: bool) -> ServerStep<'a> {
        // EHLO and HELO end a transaction as RSET does (RFC 5321 §4.1.4).
        self.transaction = None;
        self.helo = Some(ClientHelo { name, esmtp });
        self.reply(if esmtp {
            replies::ehlo(&self.profile, self.channel)
        } else {
            Reply::bare(250, self.profile.hostname.to_string())
        })
    }

    // Rule: RFC 3207 §4, §4.2.
    fn starttls_command<'a>(&mut self, behind: &[u8]) -> ServerStep<'a> {
        match self.channel {
            Channel::Clear => self.reply(replies::not_implemented("STARTTLS")),
            Channel::Tls => self.reply(replies::out_of_order("TLS is active already")),
            // An attacker who injects commands in the clear here would have them executed inside
            // TLS (RFC 3207 §6).
            Channel::Offered | Channel::Required if !behind.is_empty() => {
                self.close(replies::input_after_starttls())
            }
            Channel::Offered | Channel::Required => {
                self.mode = InputMode::Closed;
                ServerStep::StartTls(replies::ready_for_tls())
            }
        }
    }

    // Rule: RFC 5321 §4.1.1.1, §4.1.1.2; RFC 8689 §4.3.
    fn mail_command<'a>(&mut self, from: MailFrom) -> ServerStep<'a> {
        if self.helo.is_none() {
            return self.reply(replies::out_of_order("EHLO or HELO first"));
        }
        if self.transaction.is_some() {
            return self.reply(replies::out_of_order(
                "A transaction is open already; RSET ends it",
            ));
        }
        if from.auth && !self.offers_auth() {
            return self.reply(replies::auth_parameter_not_offered());
        }
        if from.require_tls && !self.offers_require_tls() {
            return self.reply(replies::require_tls_not_offered());
        }
        if from
            .size
            .is_some_and(|size| size > self.profile.message_size)
        {
            return self.reply(replies::too_large(self.profile.message_size));
        }
        ServerStep::Mail(from)
    }

    /// Returns true if REQUIRETLS was offered to this client (RFC 8689 §2).
    fn offers_require_tls(&self) -> bool {
        self.channel == Channel::Tls && self.helo.as_ref().is_some_and(|helo| helo.esmtp)
    }

    /// Returns true if AUTH was offered to this client.
    fn offers_auth(&self) -> bool {
        self.offers_require_tls() && !self.profile.mechanisms.is_empty()
    }

    // Rule: RFC 5321 §4.1.1.3, §4.5.3.1.8.
    fn rcpt_command<'a>(&mut self, rcpt: RcptTo) -> ServerStep<'a> {
        let Some(OpenTransaction {
            progress: ContentProgress::Envelope,
            from,
            recipients,
            has_rcpt,
            overshoot,
        }) = &mut self.transaction
        else {
            return self.reply(replies::out_of_order(
                "RCPT comes behind MAIL and before the message",
            ));
        };
        *has_rcpt = true;
        if rcpt.utf8 && !from.smtputf8 {
            return self.reply(command::CommandError::NeedsSmtpUtf8.reply());
        }
        let is_full = recipients.len() >= self.profile.recipients;
        *overshoot = overshoot.saturating_add(u32::from(is_full));
        if *overshoot > OVERSHOOT_MAX && !self.count_junk() {
            return self.close(replies::too_many_junk_commands(&self.profile.hostname));
        }
        if is_full {
            return self.reply(replies::too_many_recipients());
        }
        ServerStep::Rcpt(rcpt)
    }

    /// Returns the step that sends a reply, and counts the reply if it is an error.
    fn reply<'a>(&mut self, reply: Reply) -> ServerStep<'a> {
        ServerStep::Reply(self.count_error(reply))
    }

    fn close<'a>(&mut self, reply: Reply) -> ServerStep<'a> {
        self.mode = InputMode::Closed;
        ServerStep::Close(reply)
    }

    /// Counts a junk command. Returns false if the limit is exceeded.
    // Rule: RFC 5321 §4.1.1.5.
    fn count_junk(&mut self) -> bool {
        self.junk = self.junk.saturating_add(1);
        self.junk <= JUNK_MAX
    }

    /// Counts a reply of 5xx as an error of the client.
    fn count_error(&mut self, reply: Reply) -> Reply {
        if reply.severity() == Severity::Permanent {
            self.errors = self.errors.saturating_add(1);
        }
        reply
    }
}
