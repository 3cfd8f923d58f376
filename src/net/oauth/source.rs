//! The source of the tokens of one identity.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::cache::{FetchOutcome, TokenCache, TokenCaches, TokenWay, lock};
use super::error::{TokenError, TokenFault};
use super::refresh_token::RefreshTokenFile;
use super::remedy;
use super::request::{RefreshTokenUse, TokenRequest, UnsavedToken, check_token_files};
use super::response::{self, AccessToken, GrantedToken};
use crate::config::Fault;
use crate::net::https::Https;
use crate::policy::connector::{TokenGrant, TokenSettings};

/// The time limit of a request, from the address lookup to the last octet.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// The largest response in octets.
const RESPONSE_MAX: usize = 64 * 1024;

/// The source of the present time.
pub type TokenClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A source of access tokens for one identity. Clones share its token.
#[derive(Clone)]
pub struct TokenSource(Arc<TokenFetcher>);

struct TokenFetcher {
    settings: TokenSettings,
    https: Https,
    stored: RefreshTokenFile,
    cache: Arc<Mutex<TokenCache>>,
    clock: TokenClock,
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource")
            .field("token_url", &self.0.settings.token_url.value)
            .finish_non_exhaustive()
    }
}

impl TokenSource {
    /// Checks the files of the settings and makes a source. `https` has the trust anchors of the
    /// settings, or those of `[tls]`; `spool` is the spool folder, in which refresh tokens are
    /// stored. Returns warnings, such as a secret that others can read. A failure that `caches`
    /// remembers is forgotten. This reads files and blocks.
    ///
    /// # Errors
    /// The faults of the files.
    pub fn load(
        settings: &TokenSettings,
        https: Https,
        spool: &Path,
        caches: &TokenCaches,
    ) -> Result<(Self, Vec<Fault>), Vec<Fault>> {
        let warnings = check_token_files(settings)?;
        let cache = caches.of(&identity(settings));
        lock(&cache).forget_failure();
        let source = Self(Arc::new(TokenFetcher {
            settings: settings.clone(),
            https: https.with_timeout(FETCH_TIMEOUT),
            stored: RefreshTokenFile::new(spool, &refresh_identity(settings)),
            cache,
            clock: Arc::new(Timestamp::now),
        }));
        Ok((source, warnings))
    }

    /// Returns the source with another clock and time limit, for tests.
    #[must_use]
    pub fn with_clock_and_timeout(&self, clock: TokenClock, limit: Duration) -> Self {
        let TokenFetcher {
            settings,
            https,
            stored,
            cache,
            ..
        } = &*self.0;
        Self(Arc::new(TokenFetcher {
            settings: settings.clone(),
            https: https.clone().with_timeout(limit),
            stored: stored.clone(),
            cache: Arc::clone(cache),
            clock,
        }))
    }

    /// Returns a token that a login can use now. If none is cached, or it will expire soon, one is
    /// fetched, once for all that wait. A fetch goes on if its callers no longer wait.
    ///
    /// # Errors
    /// [`TokenError`], which all callers share for some seconds.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        let inner = &self.0;
        let way = lock(&inner.cache).way((inner.clock)());
        let mut fetch = match way {
            TokenWay::Known(outcome) => return outcome,
            TokenWay::Wait(fetch) => fetch,
            TokenWay::Fetch(sender, fetch) => {
                tokio::spawn(Arc::clone(inner).fetch(sender));
                fetch
            }
        };
        match fetch.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The task of the fetch has ended without a result.
            Ok(None) | Err(_) => Err(inner.error(TokenFault::Interrupted)),
        }
    }

    /// Reports that a smart host refuses this token (RFC 4954 §6: 535). The next caller fetches
    /// another one, once for each token.
    pub fn refuse(&self, token: &AccessToken) {
        lock(&self.0.cache).refuse(token, (self.0.clock)());
    }

    /// Returns what an administrator checks if a smart host refuses tokens that the token server
    /// gives, as a sentence.
    #[must_use]
    pub fn login_remedy(&self) -> &'static str {
        remedy::of_refused_login(&self.0.settings)
    }
}

impl TokenFetcher {
    async fn fetch(self: Arc<Self>, sender: watch::Sender<Option<FetchOutcome>>) {
        let outcome = self.request().await;
        let outcome = self.record(outcome);
        // Nobody may be waiting any more.
        sender.send_replace(Some(outcome));
    }

    /// Sends one request. A refresh token that the server replaces is stored before the access
    /// token is used.
    async fn request(self: &Arc<Self>) -> Result<GrantedToken, TokenFault> {
        let inner = Arc::clone(self);
        let prepared = tokio::task::spawn_blocking(move || inner.prepare()).await;
        let TokenRequest {
            form,
            secrets,
            refresh,
        } = prepared.map_err(|_| TokenFault::Interrupted)??;
        let response = self
            .https
            .post_form(
                &self.settings.token_url.value,
                form.into_bytes(),
                RESPONSE_MAX,
            )
            .await
            .map_err(|error| TokenFault::Https(Box::new(error)))?;
        let granted = response::parse(&response, &secrets)?;
        if let (Some(refresh), Some(new)) = (refresh, &granted.refresh_token)
            && *new != refresh.sent
        {
            let (inner, new) = (Arc::clone(self), new.clone());
            let keep = move || inner.keep(refresh, new);
            tokio::task::spawn_blocking(keep)
                .await
                .map_err(|_| TokenFault::Interrupted)?;
        }
        Ok(granted)
    }

    /// Reads the secrets and makes the request. A refresh token that could not be stored is tried
    /// once more first.
    fn prepare(&self) -> Result<TokenRequest, TokenFault> {
        let unsaved = lock(&self.cache).unsaved.clone();
        if let Some(UnsavedToken { configured, token }) = &unsaved
            && self.stored.store(configured, token).is_ok()
        {
            lock(&self.cache).unsaved = None;
        }
        TokenRequest::prepare(
            &self.settings,
            &self.stored,
            unsaved.as_ref(),
            (self.clock)(),
        )
    }

    /// Stores a refresh token that has replaced the one that was sent. If it cannot be stored, it
    /// is kept in memory.
    // Rule: RFC 6749 §6.
    fn keep(&self, refresh: RefreshTokenUse, new: zeroize::Zeroizing<String>) {
        let stored = self.stored.store(&refresh.configured, &new);
        let unsaved = stored.err().map(|error| {
            tracing::error!(
                token_url = %self.settings.token_url.value,
                %error,
                "cannot store the new refresh token; a restart uses the earlier one, which may be refused"
            );
            UnsavedToken {
                configured: refresh.configured,
                token: new,
            }
        });
        lock(&self.cache).unsaved = unsaved;
    }

    fn record(&self, outcome: Result<GrantedToken, TokenFault>) -> FetchOutcome {
        let (token_url, now) = (&self.settings.token_url.value, (self.clock)());
        match outcome {
            Ok(granted) => {
                let lifetime = granted.lifetime;
                tracing::info!(%token_url, seconds = lifetime.as_secs(), "access token fetched");
                Ok(lock(&self.cache).fetched(granted.token, lifetime, now))
            }
            Err(fault) => {
                let error = self.error(fault);
                tracing::warn!(%token_url, %error, "cannot fetch an access token");
                lock(&self.cache).failed(error, now)
            }
        }
    }

    fn error(&self, fault: TokenFault) -> TokenError {
        TokenError {
            token_url: self.settings.token_url.value.clone(),
            remedy: remedy::remedy(&fault, &self.settings),
            fault,
        }
    }
}

/// Returns a text that is equal for settings that get the same tokens.
fn identity(settings: &TokenSettings) -> String {
    let TokenSettings {
        location: _,
        token_url,
        trust: _,
        scope,
        grant,
    } = settings;
    let who = match grant {
        TokenGrant::ClientCredentials { client_id, .. } => client_id.clone(),
        TokenGrant::RefreshToken { .. } => refresh_identity(settings),
        TokenGrant::JwtBearer {
            issuer, subject, ..
        } => format!("{issuer}\n{subject}"),
    };
    let (grant, scope) = (grant.name(), scope.as_deref().unwrap_or_default());
    format!("{}\n{grant}\n{scope}\n{who}", token_url.value)
}

/// Returns a text that is equal for settings with the same refresh token.
fn refresh_identity(settings: &TokenSettings) -> String {
    match &settings.grant {
        TokenGrant::RefreshToken {
            client_id,
            refresh_token_file,
            ..
        } => format!(
            "{}\n{client_id}\n{}",
            settings.token_url.value,
            refresh_token_file.value.display()
        ),
        TokenGrant::ClientCredentials { .. } | TokenGrant::JwtBearer { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::net::dns::Dns;
    use crate::net::tls_io::TlsMaterial;

    fn settings(lines: &str, folder: &Path) -> TokenSettings {
        let text = format!("oauth2 = {{ {lines} }}");
        let parsed = config::parse_token_settings(&text, &folder.join("gatepost.toml"));
        parsed.unwrap_or_else(|faults| panic!("{faults:#?}"))
    }

    const URL: &str = "token_url = \"https://login.example/t\"";

    /// Whatever a token is for is a part of its identity; the way to prove ourselves is not.
    #[test]
    fn equal_identities_alone_share_a_token() {
        let client = format!(
            "grant = \"client_credentials\", {URL}, client_id = \"c\", client_secret_file = \"s\", scope = \"a\""
        );
        let refresh = format!(
            "grant = \"refresh_token\", {URL}, client_id = \"c\", refresh_token_file = \"r\""
        );
        let service = format!(
            "grant = \"jwt_bearer\", {URL}, key_file = \"k\", issuer = \"i\", subject = \"u\""
        );
        for (lines, part, other, is_shared) in [
            (&client, "login.example/t", "login.example/u", false),
            (&client, "client_id = \"c\"", "client_id = \"d\"", false),
            (&client, "scope = \"a\"", "scope = \"b\"", false),
            (&client, "_file = \"s\"", "_file = \"t\"", true),
            (&refresh, "client_id = \"c\"", "client_id = \"d\"", false),
            (&refresh, "_file = \"r\"", "_file = \"q\"", false),
            (&service, "issuer = \"i\"", "issuer = \"j\"", false),
            (&service, "subject = \"u\"", "subject = \"v\"", false),
            (&service, "key_file = \"k\"", "key_file = \"l\"", true),
        ] {
            assert!(lines.contains(part), "{part}");
            let identity_of = |lines: &str| identity(&settings(lines, Path::new("/")));
            let (one, two) = (identity_of(lines), identity_of(&lines.replace(part, other)));
            assert_eq!(one == two, is_shared, "{part} and {other}");
        }
    }

    #[test]
    fn a_request_has_a_time_limit() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("s"), "s3cret").expect("ours");
        let text = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n\
                    [[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n\
                    [dns]\nservers = [\"127.0.0.1:1\"]\ndnssec = \"off\"\n";
        let (config, _) = config::parse(text, Path::new("gatepost.toml")).expect("good");
        let dns = Dns::new(&config.dns).expect("a resolver");
        let (tls, _) =
            TlsMaterial::load_https_server(&config.tls, &config.tls.trust).expect("anchors");
        let settings = settings(
            &format!(
                "grant = \"client_credentials\", {URL}, client_id = \"c\", client_secret_file = \"s\""
            ),
            folder.path(),
        );
        let caches = TokenCaches::default();
        let loaded = TokenSource::load(&settings, Https::new(dns, tls), folder.path(), &caches);
        let (source, _) = loaded.expect("good files");
        let https = format!("{:?}", source.0.https);
        assert!(https.contains("timeout: 20s"), "{https}");
    }
}
