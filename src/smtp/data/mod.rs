//! The content of a message on the wire: its encoding for DATA, the decoding, and its inspection
//! (RFC 5321 §4.5.2).
//!
//! Nothing is stored here, except for the Message-ID. Every part accepts content in pieces of any
//! size, with the same result, and copies no content octet by octet. BDAT has no encoding (RFC 3030
//! §2), so its chunks go to the [`Inspector`] as they are.

mod address_list;
mod complete;
mod decode;
mod encode;
mod from_field;
mod inspect;
mod message_id;
mod tls_required;

pub use address_list::{ListFault, ListedAddress, addresses};
pub use complete::HeaderCompleter;
pub use decode::{Decoded, Decoder};
pub use encode::Stuffer;
pub use from_field::{FromFault, FromReader};
pub use inspect::{ContentFacts, ContentFault, Inspector};
