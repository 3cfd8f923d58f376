//! The configuration: valid values, which the rest of Gatepost trusts without further checks.
//!
//! [`read`] turns a file, with those that it includes, into a [`Config`], or into all their faults,
//! each with location and remedy; [`parse()`] does so with a text. Neither opens a certificate or
//! binds an address. The modules that do so report their errors as a [`Fault`] at the [`Location`]
//! stored here.

mod auth_rules;
mod auth_toml;
mod client_limits;
mod cluster_toml;
mod connector_rules;
mod connector_toml;
mod database_url;
mod diff;
mod directory_toml;
mod exception_toml;
mod fault;
mod fault_list;
mod files;
mod hosts;
mod include;
mod limits_diff;
mod logins;
mod net_toml;
mod oauth2_toml;
mod origin;
mod parse;
mod reader;
mod recipients_diff;
mod recipients_toml;
mod route_rules;
mod rules;
mod schedule_toml;
mod secret_place;
mod setting;
mod settings;
mod source_address;
mod spelling;
mod spool_diff;
mod tables;
mod tls_level;
mod tls_toml;
mod tlsrpt;
mod toml_text;
mod unknown_keys;
mod unmeetable;
mod users;
mod values;

pub use client_limits::{ClientLimits, Rate, TransactionMemory};
pub use database_url::{DatabaseHost, DatabaseTls, DatabaseUrl, DatabaseUrlError};
pub use diff::{
    ChangedKey, KeyValue, Section, changed_keys, connector_section, outbound_settings, sections,
};
pub use fault::{Fault, merge_warnings};
pub use files::{IncludedFolder, included_folders, lost_files, read};
pub use oauth2_toml::parse_token_settings;
pub use origin::KeyLocations;
pub use parse::{parse, parse_files};
pub use setting::SettingValue;
pub use settings::{
    AdminConfig, AdminHttp, AdminSocket, Config, ConfigSource, DatabaseConfig, DkimKey, DnsConfig,
    Dnssec, EvidenceConfig, EvidenceLimit, EvidencePath, Limits, ListenAddress, ListenerConfig,
    ListenerTls, LogConfig, LogFormat, MailSchedule, NetConfig, ProxyAddress, QueueConfig,
    SendReports, SniIdentity, SourceFile, Timeouts, TlsConfig, TlsrptConfig, TrustAnchor,
    UsersConfig,
};
pub use spelling::nearest_word;
pub use users::{
    ITERATIONS, MailUser, PasswordCost, SenderPattern, StoredPassword, UserKey, UserList, add_user,
    parse_users, read_users, read_users_text, remove_user, set_keys, write_verifier,
};
pub use values::{parse_duration, write_duration, write_size};

pub use crate::policy::connector::{
    ClientProof, Connector, DomainPattern, HopProtocol, IdentityFiles, InboundConfig, LoginSecret,
    OnDowngrade, OnFailure, OutboundConfig, Publication, Route, ScheduleOverrides, SecretPlace,
    SmartHost, SmartHostAuth, TlsDemand, TlsException, TokenGrant, TokenSettings, TrustSource,
    VerifyWanted, WarnAfter, default_connector,
};
pub use crate::policy::location::{Located, Location};
pub use crate::policy::recipients::{OnTrouble, RecipientRules, RecipientSource};
pub use crate::policy::relay_access::RelayConfig;
