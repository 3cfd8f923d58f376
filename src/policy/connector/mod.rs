//! Connectors: the administrator's rules for each partner, the choice of a connector for a domain,
//! and its own demand. [`super::layers`] joins that demand with what else is known of a hop.

mod demand;
mod demand_text;
mod floor;
mod identity_files;
mod index;
mod matching;
mod rules;
mod token_settings;

pub(crate) use demand::outbound_demand;
pub use demand::{demands_dane, ended_exception, exception, inbound_policy};
pub use demand_text::describe_demand;
pub(crate) use floor::floor_demand;
pub use identity_files::{IdentityFiles, TrustSource};
pub use index::Connectors;
pub use matching::{Matching, NotChosen, PatternMatch};
pub(crate) use rules::{CONNECTIONS, DEFAULT_NAME, EVERYTHING, MESSAGES_PER_CONNECTION, MX_PORT};
pub use rules::{
    Connector, DomainPattern, HopProtocol, InboundConfig, LoginSecret, OnDowngrade, OnFailure,
    OutboundConfig, Publication, Route, ScheduleOverrides, SecretPlace, SmartHost, SmartHostAuth,
    TlsDemand, TlsException, VerifyWanted, WarnAfter, default_connector,
};
pub use token_settings::{ClientProof, TokenGrant, TokenSettings};

#[cfg(test)]
mod tests;
