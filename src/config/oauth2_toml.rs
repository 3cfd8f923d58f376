//! The `oauth2` table in the `auth` of a connector: how access tokens are fetched.

use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::fault_list::FaultList;
use super::reader::{Field, TableReader, TomlValue};
use super::secret_place::secret_path;
use super::spelling::shorten;
use super::tls_toml::identity;
use super::toml_text::toml_document;
use super::values::{choice, text, trust};
use crate::policy::connector::{
    ClientProof, IdentityFiles, TokenGrant, TokenSettings, TrustSource,
};
use crate::policy::https_url::{Url, UrlError};
use crate::policy::location::{Located, Location};

const TITLE: &str = "[connector.outbound.auth.oauth2]";
/// The longest client id, issuer, subject or scope in octets.
const NAME_MAX: usize = 1000;

/// The values of `grant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrittenGrant {
    ClientCredentials,
    RefreshToken,
    JwtBearer,
}

const GRANTS: [(&str, WrittenGrant); 3] = [
    ("client_credentials", WrittenGrant::ClientCredentials),
    ("refresh_token", WrittenGrant::RefreshToken),
    ("jwt_bearer", WrittenGrant::JwtBearer),
];

/// The keys, as written.
struct OAuth2Toml {
    location: Location,
    grant: Field<WrittenGrant>,
    token_url: Field<Url>,
    trust: Field<TrustSource>,
    scope: Field<String>,
    client_id: Field<String>,
    client_secret_file: Field<PathBuf>,
    certificate: Field<IdentityFiles>,
    refresh_token_file: Field<PathBuf>,
    key_file: Field<PathBuf>,
    issuer: Field<String>,
    subject: Field<String>,
}

/// Reads the table `oauth2` of an `auth` table.
pub(super) fn token_settings(
    parent: &mut TableReader<'_>,
    faults: &mut FaultList<'_>,
) -> Field<TokenSettings> {
    let mut table = parent.table(faults, "oauth2", TITLE);
    if table.is_absent() {
        return Field::Absent;
    }
    let location = table.location().clone();
    let written = OAuth2Toml::read(&mut table, faults);
    table.finish(faults);
    match written.resolve(faults) {
        Some(value) => Field::Valid(Located { value, location }),
        None => Field::Invalid,
    }
}

/// Parses a text that has the table `oauth2` and nothing else. `path` is named in faults, and
/// relative paths start from its folder.
///
/// # Errors
/// All faults of the text. If it is not TOML, only its syntax errors.
pub fn parse_token_settings(text: &str, path: &Path) -> Result<TokenSettings, Vec<Fault>> {
    let mut faults = FaultList::new(text, path);
    let document = toml_document(text, &mut faults);
    let read = |faults: &mut FaultList<'_>| {
        let mut root = TableReader::root(document.as_ref()?.get_ref(), faults);
        let settings = token_settings(&mut root, faults);
        root.finish(faults);
        settings.value().cloned()
    };
    faults.resolve(read).map(|(settings, _)| settings)
}

impl OAuth2Toml {
    fn read(table: &mut TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        Self {
            location: table.location().clone(),
            grant: table.required(
                faults,
                "grant",
                "grant = \"client_credentials\"",
                |value, faults| choice(value, faults, &GRANTS),
            ),
            token_url: table.required(
                faults,
                "token_url",
                "token_url = \"https://login.microsoftonline.com/TENANT/oauth2/v2.0/token\"",
                token_url,
            ),
            trust: table.read(faults, "trust", trust),
            scope: table.read(faults, "scope", scope),
            client_id: table.read(faults, "client_id", name),
            client_secret_file: table.read(faults, "client_secret_file", secret_path),
            certificate: identity(table, faults, "certificate", "key"),
            refresh_token_file: table.read(faults, "refresh_token_file", secret_path),
            key_file: table.read(faults, "key_file", secret_path),
            issuer: table.read(faults, "issuer", name),
            subject: table.read(faults, "subject", name),
        }
    }

    /// Checks the keys against each other. `None` if a fault has been reported.
    fn resolve(self, faults: &mut FaultList<'_>) -> Option<TokenSettings> {
        let grant = self.grant.value().copied()?;
        self.report_unused(grant, faults);
        let grant = match grant {
            WrittenGrant::ClientCredentials => {
                let client_id = self.needed(&self.client_id, "client_id", CLIENT_ID, faults);
                let proof = self.proof(true, faults);
                TokenGrant::ClientCredentials {
                    client_id: client_id?.value,
                    proof: proof.value()?.clone(),
                }
            }
            WrittenGrant::RefreshToken => {
                let client_id = self.needed(&self.client_id, "client_id", CLIENT_ID, faults);
                let proof = self.proof(false, faults);
                let file = self.needed(
                    &self.refresh_token_file,
                    "refresh_token_file",
                    "refresh_token_file = \"refresh.token\"",
                    faults,
                );
                if matches!(proof, Field::Invalid) {
                    return None;
                }
                TokenGrant::RefreshToken {
                    client_id: client_id?.value,
                    proof: proof.value().cloned(),
                    refresh_token_file: file?,
                }
            }
            WrittenGrant::JwtBearer => {
                let key_file = self.needed(
                    &self.key_file,
                    "key_file",
                    "key_file = \"account.json\"",
                    faults,
                );
                let issuer = self.needed(
                    &self.issuer,
                    "issuer",
                    "issuer = \"relay@project.iam.gserviceaccount.com\"",
                    faults,
                );
                let subject = self.needed(
                    &self.subject,
                    "subject",
                    "subject = \"scanner@example.com\"",
                    faults,
                );
                TokenGrant::JwtBearer {
                    key_file: key_file?,
                    issuer: issuer?.value,
                    subject: subject?.value,
                }
            }
        };
        let is_complete =
            !matches!(self.trust, Field::Invalid) && !matches!(self.scope, Field::Invalid);
        let token_url = self.token_url.located()?.clone();
        is_complete.then(|| TokenSettings {
            token_url,
            trust: self.trust.located().cloned(),
            scope: self.scope.value().cloned(),
            grant,
            location: self.location,
        })
    }

    /// Returns a key that the grant needs; reports that it is missing.
    fn needed<T: Clone>(
        &self,
        field: &Field<T>,
        key: &str,
        example: &str,
        faults: &mut FaultList<'_>,
    ) -> Option<Located<T>> {
        if field.is_absent() {
            let grant = self.grant_name();
            faults.add(
                &self.location,
                format!("{key} is missing in {TITLE} with grant = \"{grant}\""),
                format!("Add to oauth2: {example}"),
            );
        }
        field.located().cloned()
    }

    fn grant_name(&self) -> &'static str {
        let written = self.grant.value();
        GRANTS
            .iter()
            .find(|(_, grant)| Some(grant) == written)
            .map_or("", |(name, _)| name)
    }

    /// Returns the proof of the client. A client without one is public.
    // Rule: RFC 6749 §2.1.
    fn proof(&self, is_needed: bool, faults: &mut FaultList<'_>) -> Field<ClientProof> {
        match (&self.client_secret_file, &self.certificate) {
            (Field::Valid(_), Field::Valid(files)) => {
                faults.add(
                    &files.location,
                    "client_secret_file and certificate are both set; a client has one proof",
                    "Remove one of them. A certificate is the better proof.",
                );
                Field::Invalid
            }
            (Field::Valid(file), Field::Absent) => Field::Valid(Located {
                value: ClientProof::Secret(file.clone()),
                location: file.location.clone(),
            }),
            (Field::Absent, Field::Valid(files)) => Field::Valid(Located {
                value: ClientProof::Certificate(files.value.clone()),
                location: files.location.clone(),
            }),
            (Field::Absent, Field::Absent) if is_needed => {
                faults.add(
                    &self.location,
                    format!(
                        "{TITLE} has neither client_secret_file nor certificate and key: nothing proves the client"
                    ),
                    "Add to oauth2: client_secret_file = \"client.secret\"",
                );
                Field::Invalid
            }
            (Field::Absent, Field::Absent) => Field::Absent,
            _ => Field::Invalid,
        }
    }

    /// Reports keys that the grant does not use.
    fn report_unused(&self, grant: WrittenGrant, faults: &mut FaultList<'_>) {
        use WrittenGrant::{ClientCredentials, JwtBearer, RefreshToken};
        let by_client = &[ClientCredentials, RefreshToken][..];
        let place = |field: &Field<String>| field.located().map(|it| it.location.clone());
        let file = |field: &Field<PathBuf>| field.located().map(|it| it.location.clone());
        let certificate = self.certificate.located().map(|it| it.location.clone());
        for (key, location, used_by) in [
            ("client_id", place(&self.client_id), by_client),
            (
                "client_secret_file",
                file(&self.client_secret_file),
                by_client,
            ),
            ("certificate", certificate, by_client),
            (
                "refresh_token_file",
                file(&self.refresh_token_file),
                &[RefreshToken],
            ),
            ("key_file", file(&self.key_file), &[JwtBearer]),
            ("issuer", place(&self.issuer), &[JwtBearer]),
            ("subject", place(&self.subject), &[JwtBearer]),
        ] {
            let Some(location) = location.filter(|_| !used_by.contains(&grant)) else {
                continue;
            };
            let names: Vec<_> = GRANTS
                .iter()
                .filter(|(_, grant)| used_by.contains(grant))
                .map(|(name, _)| format!("grant = \"{name}\""))
                .collect();
            faults.add(
                &location,
                format!("{key} has no use with grant = \"{}\"", self.grant_name()),
                format!("Remove it, or write {}.", names.join(" or ")),
            );
        }
    }
}

const CLIENT_ID: &str = "client_id = \"00000000-0000-0000-0000-000000000000\"";

/// Reads the URL of the token server. Secrets are sent there, so it must be HTTPS (RFC 6749 §3.2).
// Rule: RFC 6749 §3.2.
fn token_url(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Url> {
    let written = text(value, faults)?;
    match Url::parse(written) {
        Ok(url) => Some(url),
        Err(error) => {
            let remedy = match error {
                UrlError::Scheme if written.starts_with("http://") => {
                    "Write https://…: the request carries secrets and is never sent without TLS."
                }
                _ => {
                    "Write the URL of the token endpoint, such as \"https://oauth2.googleapis.com/token\"."
                }
            };
            faults.add(
                &value.location,
                format!("token_url cannot be \"{}\": {error}", shorten(written)),
                remedy,
            );
            None
        }
    }
}

/// Reads a client id, issuer or subject (RFC 6749 appendix A.1).
fn name(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let written = text(value, faults)?;
    let is_valid = (1..=NAME_MAX).contains(&written.len())
        && !written.contains(|c: char| c.is_control() || c.is_whitespace());
    if is_valid {
        return Some(written.to_owned());
    }
    faults.add(
        &value.location,
        format!("{}: \"{}\" is not a name", value.key, shorten(written)),
        "Copy it from the provider's console, without spaces.",
    );
    None
}

/// Reads a scope: words of printable ASCII with single spaces between them (RFC 6749 §3.3).
// Rule: RFC 6749 §3.3.
fn scope(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let written = text(value, faults)?;
    let is_word = |word: &str| {
        let allowed = |octet: u8| octet.is_ascii_graphic() && octet != b'"' && octet != b'\\';
        !word.is_empty() && word.bytes().all(allowed)
    };
    if written.len() <= NAME_MAX && written.split(' ').all(is_word) {
        return Some(written.to_owned());
    }
    faults.add(
        &value.location,
        format!("scope: \"{}\" is not a scope", shorten(written)),
        "Write \"https://outlook.office365.com/.default\", \"https://mail.google.com/\", or what the provider names; \
         several with one space between them.",
    );
    None
}
