//! The client side of one exchange, from the initial response to the server's last challenge.

use std::fmt;

use zeroize::Zeroizing;

use super::mechanism::{Mechanism, OfferedMechanisms};
use super::prepared::{Password, PrepareError};
use super::scram::SaltedPassword;
use super::scram_client::{KeyDerivation, ScramLogin};
use super::server_fault::ServerFault;
use super::token::{ClientToken, TokenMechanism, refusal_status};
use super::{decode, encode};

/// A user name and password with which we log in elsewhere. The password is erased from memory when
/// it is dropped, and never shown.
#[derive(Clone)]
pub struct ClientPassword {
    user: String,
    /// The password as the administrator wrote it, for the mechanisms that send it.
    written: Zeroizing<String>,
    /// The password as SCRAM derives its keys from it.
    prepared: Password,
}

impl ClientPassword {
    /// Makes the login of a user.
    ///
    /// # Errors
    /// [`PrepareError`] if the password cannot be used.
    pub fn new(user: &str, password: &str) -> Result<Self, PrepareError> {
        Ok(Self {
            user: user.to_owned(),
            written: Zeroizing::new(password.to_owned()),
            prepared: Password::new(password)?,
        })
    }

    /// Returns the strongest mechanism that a server offers, if one can be used. `is_bound` is true
    /// if the connection has a channel binding.
    // Rule: RFC 4954 §4; RFC 5802 §6.
    #[must_use]
    pub fn choose(offered: OfferedMechanisms, is_bound: bool) -> Option<Mechanism> {
        let usable = if is_bound {
            offered
        } else {
            offered.without_binding()
        };
        usable.iter().next()
    }
}

impl fmt::Debug for ClientPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPassword")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The next step of an exchange.
#[derive(Debug)]
pub enum SaslStep {
    /// Send this response, in base64; it may be empty.
    Respond(Zeroizing<String>),
    /// Derive the keys, which takes milliseconds, and call [`SaslClient::respond_with`].
    Derive(KeyDerivation),
}

/// One exchange.
#[derive(Debug)]
pub struct SaslClient {
    mechanism: &'static str,
    state: ClientState,
    /// The reason that the server gave in a challenge, with which it refuses a token.
    refusal: Option<String>,
}

#[derive(Debug)]
enum ClientState {
    /// LOGIN: the user name is awaited.
    LoginName(ClientPassword),
    /// LOGIN: the password is awaited.
    LoginPassword(ClientPassword),
    /// SCRAM is under way.
    Scram(Box<ScramLogin>),
    /// The token is sent. A challenge would say why it is refused.
    Token(TokenMechanism),
    /// Everything is sent.
    Complete,
}

impl SaslClient {
    /// Begins an exchange. Returns the initial response with it, in base64; `None` for a mechanism
    /// in which the server speaks first. `binding` is the channel binding of the connection, and
    /// `nonce` a random text.
    // Rule: RFC 4616 §2; RFC 5802 §6.
    #[must_use]
    pub fn begin(
        mechanism: Mechanism,
        login: &ClientPassword,
        binding: Option<&[u8]>,
        nonce: &str,
    ) -> (Self, Option<Zeroizing<String>>) {
        let (state, first) = match mechanism {
            Mechanism::Plain => {
                let ClientPassword { user, written, .. } = login;
                let message = Zeroizing::new(format!("\0{user}\0{}", &**written));
                (ClientState::Complete, Some(secret(message.as_bytes())))
            }
            Mechanism::Login => (ClientState::LoginName(login.clone()), None),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => {
                let binds = mechanism == Mechanism::ScramSha256Plus;
                let (scram, first) =
                    ScramLogin::begin(&login.user, &login.prepared, (binds, binding), nonce);
                (
                    ClientState::Scram(Box::new(scram)),
                    Some(secret(first.as_bytes())),
                )
            }
        };
        let client = Self {
            mechanism: mechanism.name(),
            state,
            refusal: None,
        };
        (client, first)
    }

    /// Begins an exchange with an access token. Returns the initial response with it, in base64.
    #[must_use]
    pub fn begin_with_token(
        mechanism: TokenMechanism,
        login: &ClientToken,
    ) -> (Self, Option<Zeroizing<String>>) {
        let client = Self {
            mechanism: mechanism.name(),
            state: ClientState::Token(mechanism),
            refusal: None,
        };
        (client, Some(mechanism.response(login)))
    }

    /// Returns the name of the mechanism.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// Returns the reason that the server gave in a challenge, with which it refuses a token.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Takes a challenge of the server, in base64.
    ///
    /// # Errors
    /// [`ServerFault`]: the exchange must be cancelled.
    pub fn challenge(&mut self, line: &str) -> Result<SaslStep, ServerFault> {
        match std::mem::replace(&mut self.state, ClientState::Complete) {
            // The prompts of LOGIN differ from server to server; their order does not.
            ClientState::LoginName(login) => {
                let name = secret(login.user.as_bytes());
                self.state = ClientState::LoginPassword(login);
                Ok(SaslStep::Respond(name))
            }
            ClientState::LoginPassword(login) => {
                Ok(SaslStep::Respond(secret(login.written.as_bytes())))
            }
            ClientState::Scram(mut scram) => {
                let message = decode(line.as_bytes()).ok_or(ServerFault::NotBase64)?;
                let text = std::str::from_utf8(&message).map_err(|_| ServerFault::FirstMessage)?;
                if scram.is_proved() {
                    scram.verify(text)?;
                    // The state stays complete: the server may accept now.
                    return Ok(SaslStep::Respond(Zeroizing::default()));
                }
                let derivation = scram.accept_first(text)?;
                self.state = ClientState::Scram(scram);
                Ok(SaslStep::Derive(derivation))
            }
            ClientState::Token(mechanism) => {
                self.refusal = decode(line.as_bytes()).and_then(|json| refusal_status(&json));
                Ok(SaslStep::Respond(Zeroizing::new(
                    mechanism.answer_to_refusal(),
                )))
            }
            ClientState::Complete => Err(ServerFault::TooMany),
        }
    }

    /// Returns the response after [`SaslStep::Derive`], in base64.
    pub fn respond_with(&mut self, keys: &SaltedPassword) -> Zeroizing<String> {
        match &mut self.state {
            ClientState::Scram(scram) => secret(scram.prove(keys).as_bytes()),
            ClientState::LoginName(_)
            | ClientState::LoginPassword(_)
            | ClientState::Token(_)
            | ClientState::Complete => Zeroizing::default(),
        }
    }

    /// Checks that the server may accept the login now.
    ///
    /// # Errors
    /// [`ServerFault::NoProof`] if it has not seen our password, or not proved that it knows it.
    // Rule: RFC 5802 §5.1.
    pub fn accept(&self) -> Result<(), ServerFault> {
        match self.state {
            ClientState::Token(_) | ClientState::Complete => Ok(()),
            ClientState::LoginName(_) | ClientState::LoginPassword(_) | ClientState::Scram(_) => {
                Err(ServerFault::NoProof)
            }
        }
    }
}

/// Encodes a response, which may have a secret.
fn secret(octets: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(encode(octets))
}
