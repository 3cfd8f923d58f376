//! The TLS judge: decides whether a session satisfies the demands of a policy.
//!
//! The decisions are pure functions of facts. [`crate::net::tls_io`] gathers the facts and
//! [`crate::policy::layers`] (outbound) and [`crate::policy::connector`] (inbound) make the
//! policies. Both directions, every command and every report use [`judge()`]; there is no second
//! one. Only this module can make a [`Clearance`] or a [`Fallback`].
//!
//! Names are matched by RFC 9525 §6: only DNS names in the subjectAltName count, never the common
//! name.

mod assurance;
mod chain_fault;
mod client_hello;
mod dane;
mod demand;
mod facts;
mod hello_sequence;
mod judge;
mod key;
mod names;
mod pin;
mod policy;
mod refusal;
mod revocation;
mod sample_peer;
mod session;
#[cfg(test)]
mod tests;
mod unmet;

pub use assurance::Assurance;
pub use chain_fault::ChainFault;
pub use client_hello::{Groups, Hello, Strength};
pub use dane::{
    DaneFacts, DaneFault, DaneScope, Tlsa, TlsaMatching, TlsaSelector, TlsaSet, TlsaUsage,
};
pub use demand::{Demand, Layer, Unmeetable, Verify};
pub use facts::{
    CertificateFacts, Handshake, NoTls, PeerCertificate, TlsFacts, TlsOutcome, TlsVersion,
};
pub use hello_sequence::{Hellos, SniUse};
pub(crate) use judge::judge_each;
pub use judge::{Clearance, Fallback, PeerProof, Verdict, judge, unmeetable};
pub use key::UncheckableKey;
pub use names::NamePattern;
pub use pin::{Pin, PinError};
pub use policy::{Demands, TlsPolicy};
pub use refusal::{Refusal, RefusalBasis};
pub use revocation::{
    NoCrl, PathMember, PathMemberStatus, PathStatus, Revocation, RevocationFacts, RevocationFault,
    RevocationStatus,
};
pub use sample_peer::SamplePeer;
pub use session::{Authentication, SessionTls};
pub use unmet::Unmet;
