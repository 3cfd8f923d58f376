//! Pinned keys, and several partners who must not be taken for each other, on the way in.

use std::fmt::Write as _;

use super::relay::{Relay, Wanted};
use crate::support::certificates::{Authority, Pair, key_pin, self_signed};

/// Partners with their certificates, and the connectors that speak for them.
struct Partners {
    folder: tempfile::TempDir,
    toml: String,
}

impl Partners {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            toml: String::new(),
        }
    }

    fn write(&mut self, toml: std::fmt::Arguments<'_>) {
        self.toml
            .write_fmt(toml)
            .expect("a String takes everything");
    }

    /// A client that shows this certificate, under this name.
    fn client(&mut self, name: &str, pair: &Pair) {
        let files = pair.write(self.folder.path(), name);
        let (certificate, key) = (
            files.certificate.value.display().to_string(),
            files.key.value.display().to_string(),
        );
        self.write(format_args!(
            "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.client.example\"]\n[connector.outbound]\n\
             client_certificate = \"{certificate}\"\nclient_key = \"{key}\"\n"
        ));
    }

    /// The connector for the senders of `NAME.example`.
    fn connector(&mut self, name: &str, lines: &str, verify: &str) {
        self.write(format_args!(
            "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\n{lines}\n[connector.inbound]\n\
             tls = \"forced\"\nverify = \"{verify}\"\n"
        ));
    }

    fn pinned(&mut self, name: &str, pairs: &[&Pair]) {
        let pins: Vec<_> = pairs.iter().map(|pair| key_pin(&pair.chain[0])).collect();
        self.connector(name, &format!("pins = {pins:?}"), "pin");
    }

    /// The replies to MAIL from each of `domains`, for a client with the certificate of `who`.
    async fn mail(relay: &Relay, who: &str, domains: &[&str]) -> Vec<String> {
        let mut client = relay.secured_as(who).await;
        client.says("EHLO client.example").await;
        client.hears("250").await;
        let mut replies = Vec::new();
        for domain in domains {
            client
                .says(&format!("MAIL FROM:<a@{domain}.example>"))
                .await;
            replies.push(client.reply().await);
            client.says("RSET").await;
            client.hears("250").await;
        }
        replies
    }
}

fn code(reply: &str) -> &str {
    reply.get(..9).unwrap_or(reply)
}

#[tokio::test]
async fn a_pinned_key_brings_mail_and_another_does_not() {
    let (today, tomorrow, stranger) = (
        self_signed(&[], |_| {}),
        self_signed(&[], |_| {}),
        self_signed(&[], |_| {}),
    );
    let mut partners = Partners::new();
    for (name, pair) in [
        ("today", &today),
        ("tomorrow", &tomorrow),
        ("stranger", &stranger),
    ] {
        partners.client(name, pair);
    }
    partners.pinned("pinned", &[&today, &tomorrow]);
    let relay = Relay::start(Wanted {
        more: &partners.toml,
        ..Wanted::default()
    })
    .await;
    for who in ["today", "tomorrow"] {
        let replies = Partners::mail(&relay, who, &["pinned"]).await;
        assert_eq!(code(&replies[0]), "250 2.1.0", "{who}: {replies:?}");
    }
    let refused = &Partners::mail(&relay, "stranger", &["pinned"]).await[0];
    let key = key_pin(&stranger.chain[0]);
    assert_eq!(
        *refused,
        format!(
            "550 5.7.1 Mail from pinned.example: TLS with one of 2 pinned keys is demanded, but the key is another: \
             {key}; agree with the postmaster here on the new key"
        )
    );
    let bare = &Partners::mail(&relay, "elsewhere", &["pinned"]).await[0];
    assert!(
        bare.starts_with("550 5.7.1") && bare.contains("no certificate was shown"),
        "{bare}"
    );
    let mut clear = relay.client().await;
    clear.says("EHLO client.example").await;
    clear.hears("250").await;
    clear.says("MAIL FROM:<a@pinned.example>").await;
    clear.hears("530 5.7.0").await;
    drop(clear);
    relay.ends().await;
}

#[tokio::test]
async fn neither_date_nor_issuer_matters_to_a_pin() {
    let root = Authority::root("Partner CA");
    let ended = root.issue_as(&["mail.partner.example"], |params| {
        params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    });
    let mut partners = Partners::new();
    partners.client("ended", &ended);
    partners.pinned("pinned", &[&ended]);
    // The same key by a certificate that must be trusted, and is not.
    partners.connector("trusted", "", "chain");
    let relay = Relay::start(Wanted {
        more: &partners.toml,
        ..Wanted::default()
    })
    .await;
    let replies = Partners::mail(&relay, "ended", &["pinned", "trusted"]).await;
    assert_eq!(code(&replies[0]), "250 2.1.0", "{replies:?}");
    assert_eq!(code(&replies[1]), "550 5.7.1", "{replies:?}");
    relay.ends().await;
}

#[tokio::test]
async fn each_partner_is_known_by_its_own_key_name_or_authority() {
    let (key, other_key) = (self_signed(&[], |_| {}), self_signed(&[], |_| {}));
    let (one, two) = (Authority::root("CA one"), Authority::root("CA two"));
    let (by_one, by_two) = (
        one.issue(&["mail.one.example"]),
        two.issue(&["mail.two.example"]),
    );
    let mut partners = Partners::new();
    for (name, pair) in [
        ("by-key", &key),
        ("by-other-key", &other_key),
        ("by-one", &by_one),
        ("by-two", &by_two),
    ] {
        partners.client(name, pair);
    }
    partners.pinned("key", &[&key]);
    partners.pinned("otherkey", &[&other_key]);
    for (name, authority) in [("one", &one), ("two", &two)] {
        let file = partners.folder.path().join(format!("{name}-ca.pem"));
        std::fs::write(&file, authority.pem()).expect("the folder is ours");
        let trust = format!(
            "trust = \"{}\"\nnames = [\"mail.{name}.example\"]",
            file.display()
        );
        partners.connector(name, &trust, "name");
    }
    let relay = Relay::start(Wanted {
        more: &partners.toml,
        ..Wanted::default()
    })
    .await;
    let domains = ["key", "otherkey", "one", "two"];
    for (at, who) in ["by-key", "by-other-key", "by-one", "by-two"]
        .into_iter()
        .enumerate()
    {
        let replies = Partners::mail(&relay, who, &domains).await;
        for (domain, reply) in replies.iter().enumerate() {
            let expected = if domain == at {
                "250 2.1.0"
            } else {
                "550 5.7.1"
            };
            assert_eq!(
                code(reply),
                expected,
                "{who} for {}: {reply}",
                domains[domain]
            );
        }
    }
    relay.ends().await;
}
