//! Recognises replies that demand TLS in a session without TLS (RFC 3207 §4), although we would
//! have used it.

use crate::policy::tls::{NoTls, TlsOutcome};
use crate::smtp::reply::{Reply, Severity, Status};

/// Returns the reason why the session is in the clear, if this permanent reply demands TLS that we
/// would have used.
// Rule: RFC 3207 §4.
pub(super) fn reason<'a>(reply: &Reply, outcome: &'a TlsOutcome) -> Option<&'a NoTls> {
    let TlsOutcome::Clear(reason) = outcome else {
        return None;
    };
    if reply.severity() != Severity::Permanent {
        return None;
    }
    let is_demanded = match reason {
        NoTls::Rejected(_) | NoTls::SpokeBeforeHandshake | NoTls::Broken(_) => {
            has_code(reply) || (is_about_security(reply) && names_tls(reply))
        }
        // 530 5.7.0 also demands authentication, which no other hop or attempt would change.
        NoTls::NotOffered => is_about_security(reply) && names_tls(reply),
        NoTls::NotWanted | NoTls::NotUsed => false,
    };
    is_demanded.then_some(reason)
}

/// Returns true for the codes 530 (RFC 3207), 523 and 538 (RFC 5248), and the statuses X.7.4,
/// X.7.10 and X.7.11.
fn has_code(reply: &Reply) -> bool {
    const STATUSES: [Status; 3] = [Status(7, 4), Status(7, 10), Status(7, 11)];
    let status = reply
        .enhanced()
        .map(crate::smtp::reply::EnhancedStatusCode::status);
    matches!(reply.code().get(), 523 | 530 | 538)
        || status.is_some_and(|status| STATUSES.contains(&status))
}

/// Returns true if the enhanced status, if any, is about security or policy (RFC 3463 §3.8).
fn is_about_security(reply: &Reply) -> bool {
    reply
        .enhanced()
        .is_none_or(|enhanced| enhanced.status().0 == 7)
}

fn names_tls(reply: &Reply) -> bool {
    reply.lines().iter().any(|line| {
        let line = line.to_ascii_lowercase();
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| matches!(word, "starttls" | "tls" | "ssl") || word.starts_with("encrypt"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_for_tls_are_distinguished_from_other_rejections() {
        let broken = || NoTls::Broken("alert".to_owned());
        let rejected = || NoTls::Rejected(Reply::bare(454, "not now"));
        for (code, status, text, reason, demands_tls) in [
            (
                530,
                Some(Status(7, 0)),
                "Must issue a STARTTLS command first",
                broken(),
                true,
            ),
            (530, None, "no", broken(), true),
            (550, Some(Status(7, 4)), "no", rejected(), true),
            (
                523,
                Some(Status(7, 10)),
                "no",
                NoTls::SpokeBeforeHandshake,
                true,
            ),
            (550, Some(Status(7, 1)), "TLS required", broken(), true),
            (550, None, "Encryption required, please", broken(), true),
            (550, Some(Status(7, 1)), "blocked", broken(), false),
            (550, Some(Status(1, 1)), "no user tls", broken(), false),
            (
                451,
                Some(Status(7, 3)),
                "STARTTLS is required",
                broken(),
                false,
            ),
            (
                530,
                Some(Status(7, 0)),
                "Must issue a STARTTLS command first",
                NoTls::NotOffered,
                true,
            ),
            (
                530,
                Some(Status(7, 0)),
                "Authentication required",
                NoTls::NotOffered,
                false,
            ),
            (
                530,
                Some(Status(7, 0)),
                "Must issue a STARTTLS command first",
                NoTls::NotWanted,
                false,
            ),
        ] {
            let reply = match status {
                Some(status) => Reply::new(code, status, text),
                None => Reply::bare(code, text),
            };
            assert_eq!(
                super::reason(&reply, &TlsOutcome::Clear(reason)).is_some(),
                demands_tls,
                "{reply}"
            );
        }
    }
}
