//! SASL for SMTP (RFC 4954, RFC 4422): the mechanisms, their messages, and both sides of an exchange.
//!
//! The states take messages and return steps. Nothing here uses a socket, a clock or a source of
//! random numbers: nonces, verifiers and channel bindings come from the caller. The arithmetic and
//! the messages of SCRAM in [`scram`] and [`scram_message`] are those of both sides.

mod client;
mod exchange;
mod login;
mod mechanism;
mod plain;
mod prepared;
pub mod scram;
mod scram_client;
pub mod scram_message;
mod scram_server;
mod server_fault;
mod token;

pub use client::{ClientPassword, SaslClient, SaslStep};
pub use exchange::{ExchangeStep, SaslExchange};
pub use login::{LoginFault, PasswordLogin};
pub use mechanism::{Mechanism, OfferedMechanisms};
pub use prepared::{NAME_MAX, PASSWORD_MAX, Password, PrepareError, prepare_name};
pub use scram_client::KeyDerivation;
pub use server_fault::ServerFault;
pub use token::{ClientToken, TokenMechanism};

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// Decodes the base64 of a client's line. `=` alone stands for no octets, as in an initial response
/// (RFC 4954 §4). `None` if the text is not base64.
// Rule: RFC 4954 §4.
fn decode(line: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if line == b"=" {
        return Some(Zeroizing::default());
    }
    BASE64.decode(line).ok().map(Zeroizing::new)
}

/// Encodes a challenge for a reply 334.
fn encode(octets: &[u8]) -> String {
    BASE64.encode(octets)
}
