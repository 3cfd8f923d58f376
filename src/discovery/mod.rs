//! What domains published about their TLS and what they showed of it before, beyond what a connector says.
//!
//! It gathers and keeps; what is demanded of a session is joined elsewhere, and judged by [`crate::tls`].

pub mod history;
