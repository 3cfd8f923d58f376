//! What domains publish about themselves, and what they showed before: found, remembered, and never obeyed
//! here.
//!
//! MTA-STS policies (RFC 8461) are in [`mta_sts`], the downgrade memory in [`history`]. What follows from them
//! for a delivery is joined in [`crate::connector`]; whether a session meets it is judged in [`crate::tls`].

pub mod history;
pub mod mta_sts;
