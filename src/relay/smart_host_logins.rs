//! The logins of connectors at their smart hosts, with their secrets as the files are now.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, Connector, Fault, LoginSecret, TokenSettings};
use crate::net::dns::Dns;
use crate::net::https::Https;
use crate::net::oauth::{TokenCaches, TokenSource};
use crate::net::secret::{SecretFile, SecretKind, first_line};
use crate::net::tls_io::TlsMaterial;
use crate::smtp::sasl::{ClientPassword, PrepareError};

/// A password with which we log in.
const PASSWORD: SecretKind = SecretKind {
    name: "a password",
    check: check_password,
};

/// The logins of one configuration, by connector.
#[derive(Debug, Default)]
pub struct SmartHostLogins(HashMap<String, SmartHostLogin>);

/// The login of one connector.
#[derive(Debug)]
pub struct SmartHostLogin {
    user: String,
    secret: LoadedSecret,
}

/// The secret of a login, as it is loaded.
#[derive(Debug)]
pub enum LoadedSecret {
    /// A password.
    Password(PasswordFile),
    /// A source of access tokens.
    Tokens(TokenSource),
}

/// A password in a file.
#[derive(Debug)]
pub struct PasswordFile(SecretFile);

impl SmartHostLogins {
    /// Reads the secrets of a configuration, and prepares the sources of access tokens, which look up
    /// names with `dns` and keep their tokens in `caches`. Returns warnings with them, such as a file
    /// that others can read. Blocks.
    ///
    /// # Errors
    /// All faults of all files.
    pub fn load(
        config: &Config,
        dns: &Dns,
        caches: &TokenCaches,
    ) -> Result<(Arc<Self>, Vec<Fault>), Vec<Fault>> {
        let (mut logins, mut warnings, mut faults) = (HashMap::new(), Vec::new(), Vec::new());
        for connector in &config.connectors {
            let Some(auth) = &connector.outbound.auth else {
                continue;
            };
            let loaded = match &auth.secret {
                LoginSecret::Password(place) => SecretFile::load(place, PASSWORD)
                    .map(|(file, warning)| {
                        warnings.extend(warning);
                        LoadedSecret::Password(PasswordFile(file))
                    })
                    .map_err(|fault| vec![fault]),
                LoginSecret::OAuth2(settings) => {
                    tokens(config, settings, dns, caches).map(|(source, of_source)| {
                        warnings.extend(of_source);
                        LoadedSecret::Tokens(source)
                    })
                }
            };
            match loaded {
                Ok(secret) => {
                    let user = auth.user.clone();
                    logins.insert(connector.name.clone(), SmartHostLogin { user, secret });
                }
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() {
            Ok((Arc::new(Self(logins)), warnings))
        } else {
            Err(faults)
        }
    }

    /// Returns the login of a connector, which must be of the configuration that was loaded.
    #[must_use]
    pub fn get(&self, connector: &Connector) -> Option<&SmartHostLogin> {
        self.0.get(&connector.name)
    }

    /// Reads the passwords whose files have changed. Returns the connectors whose password is new, and
    /// a fault for each file that cannot be used, once; its old password stays in use. The secrets of
    /// access tokens are read with each fetch. Blocks.
    #[must_use]
    pub fn refresh(&self) -> (Vec<String>, Vec<Fault>) {
        let (mut replaced, mut faults) = (Vec::new(), Vec::new());
        for (connector, login) in &self.0 {
            let LoadedSecret::Password(PasswordFile(file)) = &login.secret else {
                continue;
            };
            match file.refresh() {
                Ok(true) => replaced.push(connector.clone()),
                Ok(false) => {}
                Err(fault) => faults.push(fault),
            }
        }
        replaced.sort();
        (replaced, faults)
    }
}

impl SmartHostLogin {
    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The secret.
    #[must_use]
    pub fn secret(&self) -> &LoadedSecret {
        &self.secret
    }
}

impl PasswordFile {
    /// Returns the login of a user with the password as it is now.
    ///
    /// # Errors
    /// [`PrepareError`], which cannot happen: the file was checked when it was read.
    pub fn login(&self, user: &str) -> Result<ClientPassword, PrepareError> {
        ClientPassword::new(user, first_line(&self.0.text()))
    }
}

/// Prepares a source of access tokens. Its HTTPS trusts the anchors of the settings, or those of
/// `[tls]`, and goes through the proxy of `[net]`, if there is one.
fn tokens(
    config: &Config,
    settings: &TokenSettings,
    dns: &Dns,
    caches: &TokenCaches,
) -> Result<(TokenSource, Vec<Fault>), Vec<Fault>> {
    let trust = settings.trust.as_ref().unwrap_or(&config.tls.trust);
    let (client, mut warnings) = TlsMaterial::load_https_server(&config.tls, trust)?;
    let https = Https::new(dns.clone(), client).with_proxy(config.net.http_proxy.clone());
    let (source, more) = TokenSource::load(settings, https, &config.spool.value, caches)?;
    warnings.extend(more);
    Ok((source, warnings))
}

fn check_password(text: &str) -> Result<(), String> {
    match ClientPassword::new("", first_line(text)) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("has no usable password on its first line: {error}")),
    }
}
