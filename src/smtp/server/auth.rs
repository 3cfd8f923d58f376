//! AUTH (RFC 4954): the exchange of a session, in which the driver looks up users and checks
//! passwords.

use super::login_request::{FoundVerifier, LoginRequest};
use super::{Channel, InputMode, Server, ServerStep, replies};
use crate::smtp::command::{AuthCommand, Command, SaslLine, split_response};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::{ExchangeStep, Mechanism, SaslExchange};

impl Server {
    /// Returns true if the client has logged in.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// Offers SCRAM-SHA-256-PLUS no more, if the TLS session has no channel binding.
    pub fn without_channel_binding(&mut self) {
        self.profile.mechanisms = self.profile.mechanisms.without_binding();
    }

    /// Returns the mechanism of the exchange in progress.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    /// Begins an exchange.
    // Rule: RFC 4954 §3, §4, §6.
    pub(super) fn auth_command<'a>(&mut self, command: &AuthCommand) -> ServerStep<'a> {
        let offered = self.profile.mechanisms;
        if offered.is_empty() || self.channel == Channel::Clear {
            return self.reply(replies::not_implemented("AUTH"));
        }
        if self.channel != Channel::Tls {
            return self.reply(replies::encryption_required());
        }
        if !self.helo.as_ref().is_some_and(|helo| helo.esmtp) {
            return self.reply(replies::out_of_order("EHLO first"));
        }
        if self.is_authenticated {
            return self.reply(replies::out_of_order("You have logged in already"));
        }
        if self.transaction.is_some() {
            return self.reply(replies::out_of_order(
                "AUTH may not come within a transaction; RSET ends it",
            ));
        }
        let mechanism = match Mechanism::parse(&command.mechanism) {
            Some(mechanism) if offered.contains(mechanism) => mechanism,
            Some(mechanism) if mechanism.sends_password() => {
                return self.reply(replies::mechanism_too_weak());
            }
            Some(_) | None => return self.reply(replies::unknown_mechanism()),
        };
        let mut exchange = Box::new(SaslExchange::new(
            mechanism,
            offered.contains(Mechanism::ScramSha256Plus),
        ));
        self.mechanism = Some(mechanism);
        if let Some(initial) = &command.initial {
            let step = exchange.respond(initial.as_bytes());
            return self.auth_step(exchange, step);
        }
        let challenge = exchange.first_challenge();
        self.challenge(exchange, challenge)
    }

    /// Reads one line of the exchange.
    // Rule: RFC 4954 §4.
    pub(super) fn read_response<'a>(&mut self, input: &'a [u8]) -> (usize, ServerStep<'a>) {
        let (used, reply, mode) = match split_response(input) {
            SaslLine::Partial => return (0, ServerStep::Read),
            SaslLine::Response(line, used) => {
                self.mode = InputMode::Command;
                let Some(mut exchange) = self.exchange.take() else {
                    return (used, self.reply(replies::out_of_order("AUTH first")));
                };
                let step = exchange.respond(line);
                return (used, self.auth_step(exchange, step));
            }
            SaslLine::Cancelled(used) => (used, replies::auth_cancelled(), InputMode::Command),
            SaslLine::TooLong(used) => (used, replies::auth_line_too_long(), InputMode::Skip),
            SaslLine::Invalid(fault, used) => (used, fault.reply(), InputMode::Skip),
        };
        self.exchange = None;
        self.mode = mode;
        (used, self.reply(reply))
    }

    fn auth_step<'a>(&mut self, exchange: Box<SaslExchange>, step: ExchangeStep) -> ServerStep<'a> {
        match step {
            ExchangeStep::Challenge(challenge) => self.challenge(exchange, challenge),
            ExchangeStep::CheckPassword(login) => ServerStep::Login(LoginRequest::Password(login)),
            ExchangeStep::FindVerifier(name) => {
                self.exchange = Some(exchange);
                ServerStep::Login(LoginRequest::Verifier(name))
            }
            ExchangeStep::Proved(name) => {
                self.exchange = Some(exchange);
                ServerStep::Login(LoginRequest::Proved(name))
            }
            ExchangeStep::Acknowledged => {
                let reply = self.logged_in();
                self.reply(reply)
            }
            ExchangeStep::Failed(fault, None) if fault.is_syntax() => {
                self.reply(replies::auth_malformed(fault))
            }
            ExchangeStep::Failed(fault, name) => {
                ServerStep::Login(LoginRequest::Failed(fault, name))
            }
        }
    }

    fn challenge<'a>(&mut self, exchange: Box<SaslExchange>, challenge: String) -> ServerStep<'a> {
        self.exchange = Some(exchange);
        self.mode = InputMode::SaslResponse;
        ServerStep::Reply(Reply::bare(334, challenge))
    }

    /// Answers [`LoginRequest::Verifier`] and returns the reply to send.
    pub fn scram_challenge(&mut self, found: FoundVerifier<'_>) -> Reply {
        let Some(exchange) = &mut self.exchange else {
            return self.count_error(replies::out_of_order("AUTH first"));
        };
        self.mode = InputMode::SaslResponse;
        let FoundVerifier {
            verifier,
            is_genuine,
            nonce,
            binding,
        } = found;
        Reply::bare(
            334,
            exchange.challenge(is_genuine, verifier, nonce, binding),
        )
    }

    /// Answers the other requests with the driver's decision, and returns the reply to send. After
    /// SCRAM, the client must first see our proof, and is logged in with its next line.
    pub fn login(&mut self, answer: Result<(), Reply>) -> Reply {
        match (answer, self.exchange.take()) {
            (Err(refusal), _) => self.count_error(refusal),
            (Ok(()), None) => self.logged_in(),
            (Ok(()), Some(exchange)) => {
                let challenge = exchange.server_final();
                self.exchange = Some(exchange);
                self.mode = InputMode::SaslResponse;
                Reply::bare(334, challenge)
            }
        }
    }

    /// Ends an exchange with success. The client has the rights of a client of ours from now on.
    fn logged_in(&mut self) -> Reply {
        self.exchange = None;
        self.is_authenticated = true;
        replies::authenticated()
    }

    /// Forgets the client's identity, and any exchange. The client may log in again.
    pub fn forget_login(&mut self) {
        self.exchange = None;
        self.mechanism = None;
        self.is_authenticated = false;
    }

    /// Returns true if the client must log in before this command.
    // Rule: RFC 4954 §6.
    pub(super) fn requires_login(&self, verb: &[u8]) -> bool {
        self.profile.auth_required
            && !self.is_authenticated
            && !replies::is_allowed_before_login(verb)
    }

    /// Rejects a command for want of a login. A client in the clear must send STARTTLS first.
    pub(super) fn login_first<'a>(&mut self, parsed: Option<&Command>) -> ServerStep<'a> {
        let reply = if self.channel == Channel::Tls {
            replies::login_first()
        } else {
            replies::starttls_first()
        };
        match parsed {
            Some(Command::Bdat { size, last }) => self.drop_chunk(*size, *last, reply),
            Some(_) | None => self.reply(reply),
        }
    }
}
