//! The logins of connectors at their smart hosts, with their secrets as the files are now.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, Connector, Fault, SmartHostAuth};
use crate::net::secret::{SecretFile, first_line};
use crate::smtp::sasl::{ClientPassword, PrepareError};

/// The logins of one configuration, by connector.
#[derive(Debug, Default)]
pub struct SmartHostLogins(HashMap<String, SmartHostLogin>);

/// The login of one connector.
#[derive(Debug)]
pub struct SmartHostLogin {
    user: String,
    password: SecretFile,
}

impl SmartHostLogins {
    /// Reads the secrets of a configuration. Returns warnings with them, such as a file that others
    /// can read. Blocks.
    ///
    /// # Errors
    /// All faults of all files.
    pub fn load(config: &Config) -> Result<(Arc<Self>, Vec<Fault>), Vec<Fault>> {
        let (mut logins, mut warnings, mut faults) = (HashMap::new(), Vec::new(), Vec::new());
        for connector in &config.connectors {
            let Some(SmartHostAuth { user, password }) = &connector.outbound.auth else {
                continue;
            };
            match SecretFile::load(password, check_password) {
                Ok((password, warning)) => {
                    warnings.extend(warning);
                    let user = user.clone();
                    logins.insert(connector.name.clone(), SmartHostLogin { user, password });
                }
                Err(fault) => faults.push(fault),
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

    /// Reads the files that have changed. Returns the connectors whose secret is new, and a fault for
    /// each file that cannot be used, once; its old secret stays in use. Blocks.
    #[must_use]
    pub fn refresh(&self) -> (Vec<String>, Vec<Fault>) {
        let (mut replaced, mut faults) = (Vec::new(), Vec::new());
        for (connector, login) in &self.0 {
            match login.password.refresh(check_password) {
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

    /// Returns the password as it is now.
    ///
    /// # Errors
    /// [`PrepareError`], which cannot happen: the file was checked when it was read.
    pub fn password(&self) -> Result<ClientPassword, PrepareError> {
        ClientPassword::new(&self.user, first_line(&self.password.text()))
    }
}

fn check_password(text: &str) -> Result<(), String> {
    match ClientPassword::new("", first_line(text)) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("has no usable password on its first line: {error}")),
    }
}
