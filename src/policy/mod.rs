//! The rules, as pure decisions: the TLS judge, the connectors, the failure judge, access to the
//! relay, and the recipients that exist.

pub mod adoption;
pub mod connector;
pub mod directory;
pub mod failure;
pub mod https_url;
pub mod layers;
pub mod location;
pub mod mailbox_key;
pub mod networks;
pub mod recipient_list;
pub mod recipients;
pub mod relay_access;
pub mod tls;
