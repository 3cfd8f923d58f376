//! The login at a peer: AUTH, its challenges and its result (RFC 4954).

use zeroize::Zeroizing;

use crate::smtp::reply::{Reply, ReplyParser};
use crate::smtp::sasl::scram::SaltedPassword;
use crate::smtp::sasl::{KeyDerivation, SaslClient, SaslStep, ServerFault};

use super::{CLOSING, DialogueStage, ProtocolViolation};

/// The longest command line in octets, with its end. A longer initial response goes on a line of its
/// own (RFC 4954 §4).
const COMMAND_MAX: usize = 512;
/// The reply to a login that succeeded.
const ACCEPTED: u16 = 235;
/// The reply that has a challenge.
const CHALLENGE: u16 = 334;

/// The next thing that the driver of the dialogue must do.
#[derive(Debug)]
pub enum LoginStep {
    /// Derive the keys of SCRAM, and call [`LoginDialogue::respond_with`].
    Derive(KeyDerivation),
    /// The login has ended.
    Over(LoginEnd),
}

/// The end of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginEnd {
    /// We are logged in.
    Accepted,
    /// The peer rejected the login.
    Rejected {
        /// Its reply.
        reply: Reply,
        /// The reason that it gave before, in a challenge.
        status: Option<String>,
    },
    /// We have ended the exchange, because the peer does not follow the mechanism.
    Cancelled(ServerFault),
}

/// The state machine of one login.
#[derive(Debug)]
pub struct LoginDialogue {
    client: SaslClient,
    /// The initial response, if it was too long for the command.
    initial: Option<Zeroizing<String>>,
    /// The reason why the exchange was cancelled; only the reply to that is awaited.
    cancelled: Option<ServerFault>,
    parser: ReplyParser,
    replies: usize,
}

impl LoginDialogue {
    /// Writes AUTH, with the initial response if it has one that is short enough.
    // Rule: RFC 4954 §4.
    #[must_use]
    pub fn start(
        (client, initial): (SaslClient, Option<Zeroizing<String>>),
        out: &mut Vec<u8>,
    ) -> Self {
        let name = client.mechanism();
        out.extend_from_slice(b"AUTH ");
        out.extend_from_slice(name.as_bytes());
        let fixed = "AUTH  \r\n".len() + name.len();
        let initial = match initial {
            Some(response) if fixed + response.len() <= COMMAND_MAX => {
                out.push(b' ');
                out.extend_from_slice(response.as_bytes());
                None
            }
            other => other,
        };
        out.extend_from_slice(b"\r\n");
        Self {
            client,
            initial,
            cancelled: None,
            parser: ReplyParser::default(),
            replies: 0,
        }
    }

    /// Returns the stage whose reply is awaited.
    #[must_use]
    pub fn awaited(&self) -> DialogueStage {
        DialogueStage::Auth
    }

    /// Returns the number of complete replies so far.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// Sends the response after [`LoginStep::Derive`].
    pub fn respond_with(&mut self, keys: &SaltedPassword, out: &mut Vec<u8>) {
        let response = self.client.respond_with(keys);
        write_line(response.as_bytes(), out);
    }

    /// Takes the peer's bytes and returns the number used. If the step is `None`, send `out` and
    /// call again with more bytes.
    ///
    /// # Errors
    /// [`ProtocolViolation`].
    pub fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<LoginStep>), ProtocolViolation> {
        let (used, reply) = self.parser.parse(input)?;
        let Some(reply) = reply else {
            return Ok((used, None));
        };
        self.replies += 1;
        if used < input.len() && reply.code().get() != CLOSING {
            return Err(ProtocolViolation::OutOfTurn(DialogueStage::Auth));
        }
        Ok((used, self.process_reply(reply, out)))
    }

    fn process_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Option<LoginStep> {
        if let Some(fault) = self.cancelled.take() {
            return Some(LoginStep::Over(LoginEnd::Cancelled(fault)));
        }
        let end = match reply.code().get() {
            CHALLENGE => return self.process_challenge(&reply, out),
            // A response that was not sent yet is none that the peer could have checked.
            ACCEPTED if self.initial.is_some() => LoginEnd::Cancelled(ServerFault::NoProof),
            ACCEPTED => match self.client.accept() {
                Ok(()) => LoginEnd::Accepted,
                Err(fault) => LoginEnd::Cancelled(fault),
            },
            _ => LoginEnd::Rejected {
                reply: reply.shortened(),
                status: self.client.refusal().map(str::to_owned),
            },
        };
        Some(LoginStep::Over(end))
    }

    // Rule: RFC 4954 §4.
    fn process_challenge(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Option<LoginStep> {
        if let Some(initial) = self.initial.take() {
            write_line(initial.as_bytes(), out);
            return None;
        }
        let line = match reply.lines() {
            [line] => line.trim_ascii(),
            _ => "",
        };
        match self.client.challenge(line) {
            Ok(SaslStep::Respond(response)) => {
                write_line(response.as_bytes(), out);
                None
            }
            Ok(SaslStep::Derive(derivation)) => Some(LoginStep::Derive(derivation)),
            Err(fault) => {
                self.cancelled = Some(fault);
                write_line(b"*", out);
                None
            }
        }
    }
}

fn write_line(response: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(response);
    out.extend_from_slice(b"\r\n");
}
