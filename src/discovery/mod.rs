//! What domains publish about themselves: found, remembered, and never obeyed here.
//!
//! MTA-STS policies (RFC 8461) are in [`mta_sts`]. What follows from them for a delivery is said by the
//! rooms above; whether a session meets it is judged in [`crate::tls`].

pub mod mta_sts;
