//! The remedies for refusals of token servers: what an administrator of Entra ID or Google changes,
//! and where.

use super::error::{TokenFault, TokenRefusal};
use crate::net::https::HttpsFault;
use crate::policy::connector::{ClientProof, TokenGrant, TokenSettings};

/// The remedies by the codes of Entra ID, which stand in its descriptions.
const ENTRA: [(&str, &str); 22] = [
    (
        "AADSTS7000222",
        "the client secret has expired: create a new one in Entra ID under App registrations, Certificates & secrets, and write its Value to client_secret_file",
    ),
    (
        "AADSTS7000215",
        "client_secret_file has a wrong secret: it needs the Value of the secret, not its Secret ID",
    ),
    (
        "AADSTS7000216",
        "the application must prove itself: set client_secret_file, or certificate and key",
    ),
    (
        "AADSTS7000218",
        "the application must prove itself: set client_secret_file, or certificate and key",
    ),
    (
        "AADSTS7000229",
        "the application has no service principal in this tenant: grant admin consent in Entra ID under App registrations, API permissions",
    ),
    (
        "AADSTS7000112",
        "the application is disabled: enable it in Entra ID under Enterprise applications",
    ),
    (
        "AADSTS700016",
        "this tenant does not know the application: compare client_id with its Application (client) ID, and the tenant in token_url with the Directory (tenant) ID",
    ),
    (
        "AADSTS700027",
        "the certificate is unknown to the application or has expired: upload the file of certificate in Entra ID under App registrations, Certificates & secrets",
    ),
    (
        "AADSTS700024",
        "compare the clock of this machine with the right time",
    ),
    (
        "AADSTS700082",
        "the refresh token has expired because it was not used: get a new one and write it to refresh_token_file",
    ),
    (
        "AADSTS70008",
        "the refresh token has expired: get a new one and write it to refresh_token_file",
    ),
    (
        "AADSTS70043",
        "the refresh token has expired under a rule of Conditional Access: get a new one and write it to refresh_token_file",
    ),
    (
        "AADSTS50173",
        "the refresh token was revoked, for example by a new password: get a new one and write it to refresh_token_file",
    ),
    (
        "AADSTS90002",
        "token_url names a tenant that does not exist: write the Directory (tenant) ID",
    ),
    (
        "AADSTS900023",
        "token_url names a tenant that cannot exist: write the Directory (tenant) ID",
    ),
    (
        "AADSTS70011",
        "scope is not valid: with client_credentials write \"https://outlook.office365.com/.default\"",
    ),
    (
        "AADSTS1002012",
        "scope is not valid: with client_credentials write \"https://outlook.office365.com/.default\"",
    ),
    (
        "AADSTS500011",
        "scope names a resource that this tenant does not have: write \"https://outlook.office365.com/.default\"",
    ),
    (
        "AADSTS65001",
        "grant admin consent in Entra ID under App registrations, API permissions, for SMTP.SendAsApp (for a user: SMTP.Send)",
    ),
    (
        "AADSTS50076",
        "a rule demands a second factor of this user: log in once with it to get a new refresh token, or use grant = \"client_credentials\"",
    ),
    (
        "AADSTS53003",
        "a rule of Conditional Access blocks this login: exclude the application from it",
    ),
    ("AADSTS50057", "the account of the user is disabled"),
];

/// The remedies by words in the descriptions of Google.
const GOOGLE: [(&str, &str); 4] = [
    (
        "Invalid JWT Signature",
        "Google does not know the key in key_file: create a new key of the service account",
    ),
    (
        "reasonable timeframe",
        "compare the clock of this machine with the right time",
    ),
    (
        "account not found",
        "issuer is not the e-mail address of a service account",
    ),
    (
        "Invalid email or User ID",
        "subject is not the address of a user in this domain",
    ),
];

/// Returns the remedy for a failure. The code of a provider says more than that of the standard.
pub(super) fn remedy(fault: &TokenFault, settings: &TokenSettings) -> Option<&'static str> {
    match fault {
        TokenFault::Refused(refusal) => of_provider(refusal).or_else(|| of_code(refusal, settings)),
        TokenFault::Status(404 | 405) | TokenFault::NotJson { .. } => {
            Some("compare token_url with the token endpoint that the provider names")
        }
        TokenFault::Https(error) => match error.fault {
            HttpsFault::Redirect(_) => {
                Some("compare token_url with the token endpoint that the provider names")
            }
            HttpsFault::Chain(_) if settings.trust.is_none() => {
                Some("if the authority is your own, name its PEM file in trust of oauth2")
            }
            _ => None,
        },
        TokenFault::Secret(_)
        | TokenFault::Signing
        | TokenFault::Status(_)
        | TokenFault::NoToken
        | TokenFault::MalformedToken
        | TokenFault::MalformedRefreshToken
        | TokenFault::TokenType
        | TokenFault::Expired
        | TokenFault::Lifetime
        | TokenFault::Interrupted => None,
    }
}

/// Returns what to check if a smart host refuses tokens that the token server gives.
pub(super) fn of_refused_login(settings: &TokenSettings) -> &'static str {
    let host = settings.token_url.value.host().as_str();
    let is_below = |domain: &str| {
        host.strip_suffix(domain)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    if is_below("microsoftonline.com")
        || is_below("microsoftonline.us")
        || is_below("microsoftonline.cn")
    {
        "the token is valid, but Exchange Online refuses it: check the permission SMTP.SendAsApp with admin consent, \
         New-ServicePrincipal with the object ID of the enterprise application, Add-MailboxPermission for the mailbox of user, \
         and that SMTP AUTH is not disabled for that mailbox"
    } else if is_below("googleapis.com") || is_below("google.com") {
        "the token is valid, but Gmail refuses it: user must be the address that the token is for, and scope \"https://mail.google.com/\""
    } else {
        "the token server gives tokens, but the smart host refuses them: compare user and scope with what the provider names"
    }
}

fn of_provider(refusal: &TokenRefusal) -> Option<&'static str> {
    let description = refusal.description.as_deref()?;
    let is_code = |code: &str| {
        description
            .split_once(code)
            .is_some_and(|(_, behind)| !behind.starts_with(|c: char| c.is_ascii_digit()))
    };
    let entra = ENTRA.iter().find(|(code, _)| is_code(code));
    let google = || GOOGLE.iter().find(|(words, _)| description.contains(words));
    entra.or_else(google).map(|(_, remedy)| *remedy)
}

/// Returns the remedy for a code of RFC 6749 §5.2.
fn of_code(refusal: &TokenRefusal, settings: &TokenSettings) -> Option<&'static str> {
    let proof = match &settings.grant {
        TokenGrant::ClientCredentials { proof, .. } => Some(proof),
        TokenGrant::RefreshToken { proof, .. } => proof.as_ref(),
        TokenGrant::JwtBearer { .. } => None,
    };
    Some(match (refusal.code.as_str(), &settings.grant, proof) {
        ("invalid_client", _, Some(ClientProof::Secret(_))) => {
            "compare client_id and the secret in client_secret_file with those of the provider; the secret may have expired"
        }
        ("invalid_client", _, Some(ClientProof::Certificate(_))) => {
            "compare client_id and the certificate with those that the provider knows; the certificate may have expired"
        }
        ("invalid_client", TokenGrant::JwtBearer { .. }, _) => {
            "compare issuer and the key in key_file with those of the provider"
        }
        ("invalid_client", TokenGrant::RefreshToken { .. }, None) => {
            "compare client_id with that of the provider; the client may need client_secret_file"
        }
        ("invalid_grant", TokenGrant::RefreshToken { .. }, _) => {
            "the refresh token is expired or revoked, or belongs to another client: get a new one and write it to refresh_token_file"
        }
        ("invalid_grant", TokenGrant::JwtBearer { .. }, _) => {
            "compare issuer, subject and the key in key_file with those of the provider, and the clock of this machine with the right time"
        }
        ("unauthorized_client", TokenGrant::JwtBearer { .. }, _) => {
            "allow domain-wide delegation for the service account's client ID and this scope, in the Google Admin console under Security, API controls"
        }
        ("unauthorized_client", _, _) => {
            "the application may not use this grant: compare grant, and the permissions of the application"
        }
        ("invalid_scope", _, _) => {
            "compare scope with what the provider names: \"https://outlook.office365.com/.default\" for Exchange Online, \"https://mail.google.com/\" for Google"
        }
        ("unsupported_grant_type", _, _) => {
            "compare grant and token_url with what the provider names"
        }
        ("access_denied" | "admin_policy_enforced", _, _) => {
            "an administrator of the provider must allow the application this scope"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str, description: &str) -> TokenRefusal {
        TokenRefusal {
            status: 400,
            code: code.to_owned(),
            description: Some(description.to_owned()),
        }
    }

    /// A code that begins like another one has its own remedy.
    #[test]
    fn codes_of_entra_are_found_whole() {
        for (code, begin) in [
            (
                "AADSTS7000222: The provided client secret keys are expired.",
                "the client secret has expired",
            ),
            (
                "AADSTS70008: The refresh token has expired.",
                "the refresh token has expired:",
            ),
            (
                "AADSTS700082: inactive for 90 days",
                "the refresh token has expired because",
            ),
            (
                "AADSTS700016: Application was not found",
                "this tenant does not know",
            ),
            (
                "AADSTS90002: Tenant 'x' not found.",
                "token_url names a tenant that does not exist",
            ),
        ] {
            let remedy = of_provider(&refusal("invalid_client", code)).expect(code);
            assert!(remedy.starts_with(begin), "{code}: {remedy}");
        }
        assert_eq!(of_provider(&refusal("x", "AADSTS650010: unknown")), None);
    }
}
