//! The Received field that we prepend to a message (RFC 5321 §4.4; protocol names of RFC 3848 and
//! RFC 6531 §4.3).

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

use crate::policy::tls::{Authentication, Clearance, PeerCertificate, TlsOutcome};
use crate::smtp::address::{Domain, Host};
use crate::smtp::envelope::{QueueId, Recipient};
use crate::smtp::server::ClientHelo;

/// The facts for a Received field.
// Rule: RFC 5321 §4.4.
pub(super) struct Received<'a> {
    pub(super) client: Option<&'a ClientHelo>,
    pub(super) address: IpAddr,
    /// The client's name in DNS, if a proxy has reported it with XCLIENT.
    pub(super) client_name: Option<&'a Domain>,
    pub(super) hostname: &'a Domain,
    pub(super) clearance: &'a Clearance,
    pub(super) smtputf8: bool,
    /// True if the client has logged in.
    pub(super) is_user: bool,
    pub(super) id: QueueId,
    pub(super) recipients: &'a [Recipient],
    /// The time, in the form of header fields.
    pub(super) date: &'a str,
}

impl Received<'_> {
    /// Returns the folded field with its final CRLF.
    // Rule: RFC 3207 §6; RFC 5321 §4.4.
    pub(super) fn field(&self) -> String {
        let mut field = String::with_capacity(320);
        // Writing into a String cannot fail.
        let _ = self.write_to(&mut field);
        field
    }

    fn write_to(&self, out: &mut String) -> fmt::Result {
        out.push_str("Received: from ");
        match self.client {
            Some(client) => write!(out, "{}", client.name)?,
            None => out.push_str("unknown"),
        }
        out.push_str(" (");
        if let Some(name) = self.client_name {
            out.push_str(name.as_str());
            out.push(' ');
        }
        let address = Host::Literal(self.address.to_canonical());
        write!(out, "{address})\r\n\tby {} with ", self.hostname)?;
        let session = SessionKind {
            clearance: self.clearance,
            client: self.client,
            smtputf8: self.smtputf8,
            is_user: self.is_user,
        };
        out.push_str(session.protocol());
        self.write_tls(out)?;
        write!(out, "\r\n\tid {}", self.id)?;
        self.write_recipient(out)?;
        out.push_str(";\r\n\t");
        out.push_str(self.date);
        out.push_str("\r\n");
        Ok(())
    }

    fn write_tls(&self, out: &mut String) -> fmt::Result {
        let TlsOutcome::Tls(facts) = self.clearance.outcome() else {
            return Ok(());
        };
        let certificate = match self.clearance.authentication() {
            Authentication::Anonymous => match facts.certificate {
                PeerCertificate::Nothing => "none".to_owned(),
                // The sender's connector does not demand a certificate.
                PeerCertificate::Certificate(_) | PeerCertificate::Unproved(_) => {
                    "not checked".to_owned()
                }
            },
            Authentication::Unproved(_) => "key not proved".to_owned(),
            Authentication::Untrusted(_) => "untrusted".to_owned(),
            Authentication::Trusted => "trusted".to_owned(),
            Authentication::Verified(name) => format!("verified as {name}"),
            // DANE (RFC 7672) applies to servers only.
            Authentication::Pinned(_) | Authentication::Dane { .. } => "pinned".to_owned(),
        };
        write!(
            out,
            "\r\n\t({} {}, client certificate: {certificate})",
            facts.version, facts.cipher
        )
    }

    /// Writes the `for` clause, only for a single recipient: several would learn of each other
    /// (RFC 5321 §7.2).
    // Rule: RFC 5321 §4.4.
    fn write_recipient(&self, out: &mut String) -> fmt::Result {
        match self.recipients {
            [only] if only.mailbox.is_ascii() => write!(out, "\r\n\tfor <{}>", only.mailbox),
            _ => Ok(()),
        }
    }
}

/// The facts that decide the name of a session's protocol.
pub(super) struct SessionKind<'a> {
    pub(super) clearance: &'a Clearance,
    pub(super) client: Option<&'a ClientHelo>,
    pub(super) smtputf8: bool,
    /// True if the client has logged in.
    pub(super) is_user: bool,
}

impl SessionKind<'_> {
    /// Returns the name of the protocol.
    // Rule: RFC 3848 §2; RFC 5321 §4.4.
    pub(super) fn protocol(&self) -> &'static str {
        let esmtp = self.client.is_some_and(|client| client.esmtp);
        match (self.clearance.outcome(), esmtp, self.smtputf8) {
            (TlsOutcome::Tls(_), _, true) if self.is_user => "UTF8SMTPSA",
            (TlsOutcome::Tls(_), true, false) if self.is_user => "ESMTPSA",
            (TlsOutcome::Clear(_), _, true) => "UTF8SMTP",
            (TlsOutcome::Tls(_), _, true) => "UTF8SMTPS",
            (TlsOutcome::Clear(_), true, false) => "ESMTP",
            (TlsOutcome::Tls(_), true, false) => "ESMTPS",
            // No protocol name is registered for HELO under TLS.
            (_, false, false) => "SMTP",
        }
    }
}

/// Returns a time in the form of header fields (RFC 5322 §3.3).
// Rule: RFC 5321 §4.4.
pub(super) fn date(at: Timestamp) -> String {
    // Only years after 9999 have no such form.
    rfc2822::to_string(&at.to_zoned_datetime(TimeZone::UTC)).unwrap_or_else(|_| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tls::{
        CertificateFacts, ChainFault, DaneFacts, Handshake, NamePattern, NoTls, PeerCertificate,
        Pin, RevocationFacts, TlsFacts, TlsPolicy, TlsVersion, Verdict, judge,
    };
    use crate::smtp::address::Mailbox;
    use crate::smtp::command::Command;

    fn client(line: &str) -> ClientHelo {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Ehlo(name)) => ClientHelo { name, esmtp: true },
            Ok(Command::Helo(name)) => ClientHelo { name, esmtp: false },
            other => panic!("{other:?}"),
        }
    }

    fn clearance(certificate: Option<PeerCertificate>) -> Clearance {
        let wanted = NamePattern::parse("mail.example.org").expect("a name");
        let outcome = match certificate {
            None => TlsOutcome::Clear(NoTls::NotUsed),
            Some(certificate) => TlsOutcome::Tls(TlsFacts {
                version: TlsVersion::V1_3,
                cipher: "TLS_AES_256_GCM_SHA384",
                key_exchange: None,
                reduced: None,
                certificate,
                handshake: Handshake::Full,
            }),
        };
        match judge(&TlsPolicy::Opportunistic, outcome, &[wanted]) {
            Verdict::Cleared(clearance) => clearance,
            other => panic!("{other:?}"),
        }
    }

    fn certificate(name: &str) -> PeerCertificate {
        let names = vec![NamePattern::parse(name).expect("a name")];
        PeerCertificate::Certificate(Box::new(CertificateFacts {
            names,
            default_chain: Ok(()),
            chain: Ok(()),
            key: Pin::new([1; 32]),
            issuer: "CN=Test CA".to_owned(),
            not_after: jiff::Timestamp::MAX,
            dane: DaneFacts::NotChecked,
            revocation: RevocationFacts::NotChecked,
        }))
    }

    fn unchecked(name: &str) -> PeerCertificate {
        let PeerCertificate::Certificate(mut facts) = certificate(name) else {
            panic!("it is one")
        };
        facts.chain = Err(ChainFault::NotChecked);
        PeerCertificate::Certificate(facts)
    }

    fn field(
        hello: &str,
        address: &str,
        clearance: &Clearance,
        smtputf8: bool,
        recipients: &[&str],
    ) -> String {
        let recipients: Vec<_> = recipients
            .iter()
            .map(|text| Recipient::new(Mailbox::parse(text).expect("a mailbox")))
            .collect();
        Received {
            client: Some(&client(hello)),
            address: address.parse().expect("an address"),
            client_name: None,
            hostname: &Domain::parse("relay.example.com").expect("a domain"),
            clearance,
            smtputf8,
            is_user: false,
            id: QueueId::from_number(5).expect("a number"),
            recipients: &recipients,
            date: &date(Timestamp::UNIX_EPOCH),
        }
        .field()
    }

    #[test]
    fn the_field_names_client_protocol_and_date() {
        assert_eq!(
            field(
                "EHLO mail.example.org",
                "192.0.2.1",
                &clearance(None),
                false,
                &["b@example.com"]
            ),
            "Received: from mail.example.org ([192.0.2.1])\r\n\tby relay.example.com with ESMTP\r\n\tid 0000000000005\r\n\t\
             for <b@example.com>;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        let tls = clearance(Some(certificate("mail.example.org")));
        let text = field(
            "EHLO x",
            "2001:db8::1",
            &tls,
            false,
            &["b@example.com", "c@example.com"],
        );
        assert!(
            text.starts_with("Received: from x ([IPv6:2001:db8::1])\r\n"),
            "{text}"
        );
        let comment = "with ESMTPS\r\n\t(TLSv1.3 TLS_AES_256_GCM_SHA384, client certificate: verified as mail.example.org)\r\n";
        assert!(text.contains(comment), "{text}");
        assert!(
            !text.contains("for <"),
            "one recipient must not learn of another: {text}"
        );
    }

    #[test]
    fn each_protocol_has_its_name() {
        let (clear, tls) = (clearance(None), clearance(Some(PeerCertificate::Nothing)));
        for (hello, clearance, smtputf8, protocol) in [
            ("HELO x", &clear, false, " with SMTP\r\n"),
            ("EHLO x", &clear, true, " with UTF8SMTP\r\n"),
            ("EHLO x", &tls, true, " with UTF8SMTPS\r\n"),
            ("EHLO x", &tls, false, "client certificate: none)"),
            (
                "EHLO x",
                &self::clearance(Some(certificate("other.example"))),
                false,
                "client certificate: untrusted)",
            ),
            (
                "EHLO x",
                &self::clearance(Some(unchecked("mail.example.org"))),
                false,
                "client certificate: not checked)",
            ),
        ] {
            let text = field(hello, "192.0.2.1", clearance, smtputf8, &[]);
            assert!(text.contains(protocol), "{text}");
        }
    }

    #[test]
    fn a_client_cannot_inject_into_the_field() {
        let text = field(
            "EHLO a)(b<c>;\"\\@x",
            "::ffff:192.0.2.1",
            &clearance(None),
            false,
            &["j\u{fc}@example.com"],
        );
        let name = "a%29%28b%3Cc%3E%3B%22%5C%40x";
        assert!(
            text.starts_with(&format!("Received: from {name} ([192.0.2.1])\r\n")),
            "{text}"
        );
        assert!(text.is_ascii(), "{text}");
        let long = field(
            &format!("EHLO {}", "\u{fc}".repeat(127)),
            "2001:db8::1",
            &clearance(None),
            false,
            &[],
        );
        assert!(
            long.is_ascii() && long.lines().all(|line| line.len() <= 998),
            "{long}"
        );
    }
}
