//! The content of a message on the wire: how DATA frames it and how it is unframed again.
//!
//! Framing only (RFC 5321 §4.5.2): no reply is made here and nothing is stored. Every part works on
//! chunks of any size and gives the same result however the content is cut up.

mod encode;

pub use encode::Stuffer;
