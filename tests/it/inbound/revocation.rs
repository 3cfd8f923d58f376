//! Revoked client certificates, by CRLs from files.

use std::path::Path;

use super::relay::{Relay, Wanted};
use crate::crl_points::host::{CrlHost, RECORDS, fetch_again, found, issued, points, status};
use crate::support::certificates::{Authority, Pair};
use crate::support::crl::{EXPIRED, REVOKED, WantedCrl, listing};
use crate::support::deliveries::World;

/// A partner whose authority is trusted to relay, with its CRL in a file.
struct Partner {
    folder: tempfile::TempDir,
    authority: Authority,
    pair: Pair,
}

impl Partner {
    fn new() -> Self {
        let authority = Authority::root("Partner CA");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder is ours");
        let pair = authority.issue(&["mail.partner.example"]);
        Self {
            folder,
            authority,
            pair,
        }
    }

    fn publish(&self, crl: &[u8]) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, crl).expect("the folder is ours");
        std::fs::rename(new, self.folder.path().join("ca.crl")).expect("the folder is ours");
    }

    fn expired() -> WantedCrl<'static> {
        WantedCrl {
            is_expired: true,
            ..WantedCrl::default()
        }
    }

    /// The connector of the partner, and one by which a client shows its certificate.
    fn toml(&self, revocation: &str) -> String {
        let files = self.pair.write(self.folder.path(), "client");
        let shown = |path: &Path| path.display().to_string();
        let folder = shown(self.folder.path());
        format!(
            "[[connector]]\nname = \"client\"\ndomains = [\"client.example\"]\n[connector.outbound]\n\
             client_certificate = \"{}\"\nclient_key = \"{}\"\n\
             [[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\ntrust = \"{folder}/ca.pem\"\n\
             crl = [\"{folder}/ca.crl\"]\n[connector.inbound]\ntls = \"forced\"\nverify = \"chain\"\nrelay = true\n\
             revocation = \"{revocation}\"\n",
            shown(&files.certificate.value),
            shown(&files.key.value),
        )
    }

    /// The same without a CRL file.
    fn toml_without_file(&self, revocation: &str) -> String {
        let toml = self.toml(revocation);
        let lines = toml.lines().filter(|line| !line.starts_with("crl"));
        lines.collect::<Vec<_>>().join("\n")
    }

    async fn relay(&self, revocation: &str) -> Relay {
        Relay::start(Wanted {
            more: &self.toml(revocation),
            ..Wanted::default()
        })
        .await
    }
}

const FROM_PARTNER: &str = "MAIL FROM:<a@partner.example>";

/// The session is open when the CRL comes: each MAIL is judged by the CRLs of its own time.
#[tokio::test]
async fn a_revoked_certificate_loses_its_right_to_relay_with_the_next_mail() {
    let partner = Partner::new();
    partner.publish(&listing(&partner.authority, &[]));
    for revocation in ["if-known", "required"] {
        partner.publish(&listing(&partner.authority, &[]));
        let relay = partner.relay(revocation).await;
        let mut client = relay.secured_as("client").await;
        client.asks("EHLO client.example", "250").await;
        client.asks(FROM_PARTNER, "250 2.1.0").await;
        client
            .asks("RCPT TO:<b@anywhere.example>", "250 2.1.5")
            .await;
        client.asks("RSET", "250").await;
        partner.publish(&listing(&partner.authority, &[&partner.pair.chain[0]]));
        relay.refresh_crls();
        client.says(FROM_PARTNER).await;
        let current_crl = if revocation == "required" {
            " and a current CRL"
        } else {
            ""
        };
        assert_eq!(
            client.reply().await,
            format!(
                "550 5.7.1 Mail from partner.example: TLS with a trusted certificate{current_crl} is demanded, but the \
                 certificate was revoked on {REVOKED}; a new one is needed; show another certificate"
            )
        );
        client.asks("RCPT TO:<b@anywhere.example>", "503").await;
        // Senders of other domains are judged by their own connectors.
        client
            .asks("MAIL FROM:<a@other.example>", "250 2.1.0")
            .await;
        client
            .asks("RCPT TO:<b@anywhere.example>", "550 5.7.1")
            .await;
        drop(client);
        relay.ends().await;
    }
}

#[tokio::test]
async fn an_expired_crl_is_451_where_a_current_one_is_required() {
    let partner = Partner::new();
    partner.publish(&Partner::expired().by(&partner.authority));
    let relay = partner.relay("required").await;
    let mut client = relay.secured_as("client").await;
    client.asks("EHLO client.example", "250").await;
    client.says(FROM_PARTNER).await;
    assert_eq!(
        client.reply().await,
        format!(
            "451 4.7.5 Mail from partner.example: TLS with a trusted certificate and a current CRL is demanded, but the \
             CRL that covers the certificate expired on {EXPIRED}; a newer one is needed; try again later"
        )
    );
    client.asks("RCPT TO:<b@anywhere.example>", "503").await;
    partner.publish(&listing(&partner.authority, &[]));
    relay.refresh_crls();
    client.asks(FROM_PARTNER, "250 2.1.0").await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_crl_of_another_authority_is_451_where_a_current_one_is_required() {
    let partner = Partner::new();
    partner.publish(&listing(&Authority::root("Another CA"), &[]));
    let relay = partner.relay("required").await;
    let mut client = relay.secured_as("client").await;
    client.asks("EHLO client.example", "250").await;
    let reply = client.asks(FROM_PARTNER, "451 4.7.5").await;
    assert!(reply.contains("no CRL covers the certificate"), "{reply}");
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn if_known_accepts_an_unknown_status_and_nothing_that_was_revoked() {
    let partner = Partner::new();
    partner.publish(&Partner::expired().by(&partner.authority));
    let relay = partner.relay("if-known").await;
    let mut client = relay.secured_as("client").await;
    client.asks("EHLO client.example", "250").await;
    client.asks(FROM_PARTNER, "250 2.1.0").await;
    client.asks("RSET", "250").await;
    let revoked = [&partner.pair.chain[0]];
    let expired = WantedCrl {
        revoked: &revoked,
        ..Partner::expired()
    };
    partner.publish(&expired.by(&partner.authority));
    relay.refresh_crls();
    let reply = client.asks(FROM_PARTNER, "550 5.7.1").await;
    assert!(reply.contains(REVOKED), "{reply}");
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn off_consults_no_crl() {
    let partner = Partner::new();
    partner.publish(&listing(&partner.authority, &[&partner.pair.chain[0]]));
    let relay = Relay::start(Wanted {
        more: &partner.toml_without_file("off"),
        ..Wanted::default()
    })
    .await;
    let mut client = relay.secured_as("client").await;
    client.asks("EHLO client.example", "250").await;
    client.asks(FROM_PARTNER, "250 2.1.0").await;
    drop(client);
    relay.ends().await;
}

/// The CRL comes from the distribution point of the client's certificate, whose authority is in a
/// file. A new one counts in the open session.
#[tokio::test]
async fn a_client_is_judged_by_the_crl_of_its_distribution_point() {
    let world = World::with(RECORDS).await;
    let host = CrlHost::start(status("404 Not Found")).await;
    let mut partner = Partner::new();
    partner.pair = issued(&partner.authority, &[&host.url()]);
    let points = points(&world);
    let relay = Relay::start(Wanted {
        more: &partner.toml_without_file("required"),
        points: points.clone(),
        ..Wanted::default()
    })
    .await;
    let mut client = relay.secured_as("client").await;
    client.asks("EHLO client.example", "250").await;
    client.says(FROM_PARTNER).await;
    assert_eq!(
        client.reply().await,
        "451 4.7.5 Mail from partner.example: TLS with a trusted certificate and a current CRL is demanded, but no CRL \
         covers the certificate, and its distribution point yields none; see `gatepost status`; try again later"
    );
    host.publish(found(&listing(&partner.authority, &[])));
    fetch_again(&world, &points).await;
    client.asks(FROM_PARTNER, "250 2.1.0").await;
    client
        .asks("RCPT TO:<b@anywhere.example>", "250 2.1.5")
        .await;
    client.asks("RSET", "250").await;
    let newer = WantedCrl {
        revoked: &[&partner.pair.chain[0]],
        day: 2,
        ..WantedCrl::default()
    };
    host.publish(found(&newer.by(&partner.authority)));
    fetch_again(&world, &points).await;
    let reply = client.asks(FROM_PARTNER, "550 5.7.1").await;
    assert!(reply.contains("the certificate was revoked"), "{reply}");
    client.asks("RCPT TO:<b@anywhere.example>", "503").await;
    drop(client);
    relay.ends().await;
}

/// A session from before a reload is judged by the connector, the trust anchors and the CRLs in use at
/// each MAIL.
#[tokio::test]
async fn a_session_from_before_a_reload_is_judged_by_what_is_in_use() {
    let partner = Partner::new();
    partner.publish(&listing(&partner.authority, &[&partner.pair.chain[0]]));
    let off = partner.toml_without_file("off");
    let relay = Relay::start(Wanted {
        more: &off,
        ..Wanted::default()
    })
    .await;
    let mut client = relay.secured_as("client").await;
    client.asks("EHLO client.example", "250").await;
    client.asks(FROM_PARTNER, "250 2.1.0").await;
    client.asks("RSET", "250").await;
    let reload = |toml: &str| {
        relay.reload_all(&Wanted {
            more: toml,
            ..Wanted::default()
        });
    };
    reload(&partner.toml("required"));
    let reply = client.asks(FROM_PARTNER, "550 5.7.1").await;
    assert!(reply.contains(REVOKED), "{reply}");
    partner.publish(&listing(&partner.authority, &[]));
    relay.refresh_crls();
    client.asks(FROM_PARTNER, "250 2.1.0").await;
    client.asks("RSET", "250").await;
    partner.publish(&listing(&partner.authority, &[&partner.pair.chain[0]]));
    relay.refresh_crls();
    client.asks(FROM_PARTNER, "550 5.7.1").await;
    let trust = partner.folder.path().join("ca.pem");
    std::fs::write(trust, Authority::root("Another").pem()).expect("the folder is ours");
    reload(&off);
    let reply = client.asks(FROM_PARTNER, "550 5.7.1").await;
    assert!(!reply.contains("revoked"), "{reply}");
    client.asks("RCPT TO:<b@anywhere.example>", "503").await;
    drop(client);
    relay.ends().await;
}
