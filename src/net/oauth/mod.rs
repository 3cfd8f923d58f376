//! OAuth 2.0 access tokens for logins at smart hosts (RFC 6749): fetched with the HTTPS client,
//! cached, and renewed shortly before they expire.
//!
//! A [`TokenSource`] fetches once for all that wait. After a failure all of them share it for some
//! seconds, so that a token server that is down is not hammered. Secrets are read anew for each
//! fetch. A refresh token that the server replaces is stored in the spool folder before the
//! access token that came with it is used. No secret is in a log line, an error or a `Debug` text.

mod assertion;
mod cache;
mod error;
mod form;
mod refresh_token;
mod remedy;
mod request;
mod response;
mod source;

pub use cache::TokenCaches;
pub use error::{TokenError, TokenFault, TokenRefusal};
pub use request::check_token_files;
pub use response::AccessToken;
pub use source::{TokenClock, TokenSource};
