//! The content of a message on the wire: how DATA frames it and how it is unframed again.
//!
//! Framing and looking only (RFC 5321 §4.5.2): nothing is stored here. Every part works on chunks of
//! any size and gives the same result however the content is cut up; none copies content octet by
//! octet or keeps any, but for the Message-ID. BDAT needs no unframing (RFC 3030 §2), so its chunks go to the [`Inspector`]
//! as they are.

mod complete;
mod decode;
mod encode;
mod inspect;
mod message_id;
mod tls_required;

pub use complete::HeaderCompleter;
pub use decode::{Decoded, Decoder};
pub use encode::Stuffer;
pub use inspect::{ContentFacts, ContentFault, Inspector};
