//! The server side of one exchange, from the AUTH command to its result.

use super::login::{LoginFault, PasswordLogin};
use super::mechanism::Mechanism;
use super::prepared::{Password, PrepareError};
use super::scram::ScramVerifier;
use super::scram_server::{Binding, ScramServer};
use super::{decode, encode, plain};

/// The prompts of LOGIN.
const USERNAME: &[u8] = b"Username:";
const PASSWORD: &[u8] = b"Password:";

/// The next step of an exchange.
#[derive(Debug)]
pub enum ExchangeStep {
    /// Send this challenge, in base64.
    Challenge(String),
    /// Check the password.
    CheckPassword(PasswordLogin),
    /// Find the verifier of this user, and call [`SaslExchange::challenge`].
    FindVerifier(String),
    /// The client has proved that it knows the password. If the user may log in, send
    /// [`SaslExchange::server_final`].
    Proved(String),
    /// The client has acknowledged the server's last message: it is logged in.
    Acknowledged,
    /// The login has failed. The name is that of the client, if it gave one.
    Failed(LoginFault, Option<String>),
}

/// One exchange.
#[derive(Debug)]
pub struct SaslExchange {
    mechanism: Mechanism,
    binding_is_offered: bool,
    state: ExchangeState,
}

#[derive(Debug)]
enum ExchangeState {
    /// The first response is awaited.
    First,
    /// LOGIN: the password is awaited.
    LoginPassword(String),
    /// SCRAM: the first message has come.
    Scram(Box<ScramServer>),
    /// SCRAM: the acknowledgement of our last message is awaited.
    ScramProved(String),
}

impl SaslExchange {
    /// Begins an exchange. `binding_is_offered` is true if the session offers
    /// [`Mechanism::ScramSha256Plus`].
    #[must_use]
    pub fn new(mechanism: Mechanism, binding_is_offered: bool) -> Self {
        Self {
            mechanism,
            binding_is_offered,
            state: ExchangeState::First,
        }
    }

    /// Returns the mechanism.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Returns the first challenge, in base64, for a client without an initial response.
    // Rule: RFC 4954 §4.
    #[must_use]
    pub fn first_challenge(&self) -> String {
        match self.mechanism {
            Mechanism::Login => encode(USERNAME),
            Mechanism::Plain | Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => String::new(),
        }
    }

    /// Takes a response of the client, in base64.
    pub fn respond(&mut self, line: &[u8]) -> ExchangeStep {
        let Some(message) = decode(line) else {
            return ExchangeStep::Failed(LoginFault::NotBase64, None);
        };
        match (&mut self.state, self.mechanism) {
            (ExchangeState::First, Mechanism::Plain) => match plain::parse(&message) {
                Ok(login) => ExchangeStep::CheckPassword(login),
                Err(fault) => ExchangeStep::Failed(fault, None),
            },
            (ExchangeState::First, Mechanism::Login) => match std::str::from_utf8(&message) {
                Ok(name) => {
                    self.state = ExchangeState::LoginPassword(name.to_owned());
                    ExchangeStep::Challenge(encode(PASSWORD))
                }
                Err(_) => ExchangeStep::Failed(LoginFault::Malformed, None),
            },
            (ExchangeState::LoginPassword(name), _) => {
                let password = std::str::from_utf8(&message).map_err(|_| PrepareError::Forbidden);
                match PasswordLogin::new(name, password.and_then(Password::new)) {
                    Ok(login) => ExchangeStep::CheckPassword(login),
                    Err(fault) => ExchangeStep::Failed(fault, None),
                }
            }
            (ExchangeState::First, Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) => {
                self.begin_scram(&message)
            }
            (ExchangeState::Scram(scram), _) => match scram.check(&message) {
                Ok(last) => {
                    let name = scram.name.clone();
                    self.state = ExchangeState::ScramProved(last);
                    ExchangeStep::Proved(name)
                }
                Err(fault) => ExchangeStep::Failed(fault, Some(scram.name.clone())),
            },
            (ExchangeState::ScramProved(_), _) if message.is_empty() => ExchangeStep::Acknowledged,
            (ExchangeState::ScramProved(_), _) => ExchangeStep::Failed(LoginFault::Malformed, None),
        }
    }

    fn begin_scram(&mut self, message: &[u8]) -> ExchangeStep {
        let binding = Binding {
            is_offered: self.binding_is_offered,
            is_chosen: self.mechanism == Mechanism::ScramSha256Plus,
        };
        match ScramServer::begin(message, binding) {
            Ok(scram) => {
                let name = scram.name.clone();
                self.state = ExchangeState::Scram(Box::new(scram));
                ExchangeStep::FindVerifier(name)
            }
            Err((fault, name)) => ExchangeStep::Failed(fault, name),
        }
    }

    /// Answers [`ExchangeStep::FindVerifier`] and returns the challenge, in base64. A verifier that
    /// stands in for an unknown user is not `genuine`: no proof is accepted for it.
    pub fn challenge(
        &mut self,
        genuine: bool,
        verifier: ScramVerifier,
        nonce: &str,
        binding: &[u8],
    ) -> String {
        match &mut self.state {
            ExchangeState::Scram(scram) => encode(
                scram
                    .challenge((verifier, genuine), nonce, binding)
                    .as_bytes(),
            ),
            ExchangeState::First
            | ExchangeState::LoginPassword(_)
            | ExchangeState::ScramProved(_) => String::new(),
        }
    }

    /// Returns the server's last message after [`ExchangeStep::Proved`], in base64.
    // Rule: RFC 4954 §4; RFC 5802 §5.1.
    #[must_use]
    pub fn server_final(&self) -> String {
        match &self.state {
            ExchangeState::ScramProved(message) => encode(message.as_bytes()),
            ExchangeState::First | ExchangeState::LoginPassword(_) | ExchangeState::Scram(_) => {
                String::new()
            }
        }
    }
}

#[cfg(test)]
mod tests;
