//! Clients that log in: what a login grants, and what it never stands in for.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use gatepost::config::{PasswordCost, StoredPassword, write_verifier};
use gatepost::smtp::sasl::Password;
use gatepost::smtp::sasl::scram::{SaltedPassword, ScramVerifier};
use gatepost::smtp::sasl::scram_message::{
    BindingFlag, ClientFinal, ClientFirst, ServerFirst, auth_message, octets_attribute,
    parse_server_final,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::relay::{Client, Relay, Wanted, content, secured_at};

const INVALID: &str = "535 5.7.8 Authentication credentials invalid";

/// The users of a test, in a folder of their own.
pub(super) struct Users(tempfile::TempDir);

impl Users {
    /// Makes a file of these users, each with more lines; their passwords are `secret-NAME`.
    pub(super) fn of(users: &[(&str, &str)]) -> Self {
        let made = Self(tempfile::tempdir().expect("a folder"));
        made.write(users);
        made
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("users.toml")
    }

    fn write(&self, users: &[(&str, &str)]) {
        let tables = users.iter().map(|(name, more)| {
            let password = Password::new(&format!("secret-{name}")).expect("usable");
            let cost = PasswordCost {
                memory: 4096,
                passes: 1,
                lanes: 1,
            };
            let hash = StoredPassword::derive(&password, &[7; 16], cost).expect("in range");
            let keys =
                ScramVerifier::derive(&password, &[7; 16], 4096.try_into().expect("not zero"));
            let (hash, keys) = (hash.phc().to_owned(), write_verifier(&keys));
            format!(
                "[[user]]\nname = \"{name}\"\npassword = \"{hash}\"\nscram = \"{keys}\"\n{more}\n"
            )
        });
        let secret = "salt_secret = \"AAAAAAAAAAAAAAAAAAAAAA==\"\n";
        let text: String = std::iter::once(secret.to_owned()).chain(tables).collect();
        let mut file = std::fs::OpenOptions::new();
        let file = file
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path());
        std::io::Write::write_all(&mut file.expect("ours"), text.as_bytes()).expect("ours");
    }

    /// Writes a file with one user, who has the password of another name.
    fn set_password_of(&self, name: &str, other: &str) {
        self.write(&[(other, "")]);
        let text = std::fs::read_to_string(self.path()).expect("ours");
        let (other, name) = (format!("\"{other}\""), format!("\"{name}\""));
        std::fs::write(self.path(), text.replacen(&other, &name, 1)).expect("ours");
    }

    pub(super) async fn relay(&self, listener: &str) -> Relay {
        let more = format!("[users]\nfile = \"{}\"\n", self.path().display());
        Relay::start(Wanted {
            listener,
            more: &more,
            ..Wanted::default()
        })
        .await
    }
}

/// The TLS of a client that trusts the authority of the relay.
pub(super) fn trusting() -> rustls::ClientConfig {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/ca.pem");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(file).expect("a certificate"))
        .expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Says STARTTLS and EHLO, by a TLS that the test can ask for its channel binding.
pub(super) async fn secured(relay: &Relay) -> Client<TlsStream<TcpStream>> {
    let mut client = secured_at(relay.address, trusting()).await;
    client
        .asks("EHLO client.example", "250-relay.example.com")
        .await;
    client
}

fn base64(text: &str) -> String {
    BASE64.encode(text.as_bytes())
}

pub(super) fn plain(name: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", base64(&format!("\0{name}\0{password}")))
}

pub(super) async fn log_in(client: &mut Client<TlsStream<TcpStream>>, name: &str) {
    client
        .asks(&plain(name, &format!("secret-{name}")), "235 2.7.0")
        .await;
}

/// Logs in by SCRAM; returns the reply that ends it. `binding` replaces the true channel binding.
async fn scram(
    client: &mut Client<TlsStream<TcpStream>>,
    (mechanism, flag): (&str, BindingFlag),
    name: &str,
    binding: Option<&[u8]>,
) -> String {
    let session = client.stream.get_ref().get_ref().1;
    let exported = session.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]));
    let exported: [u8; 32] = exported.expect("a handshake");
    let first = ClientFirst::new(flag, name, "client-nonce");
    client
        .says(&format!("AUTH {mechanism} {}", base64(&first.text())))
        .await;
    let reply = client.reply().await;
    let Some(challenge) = reply.strip_prefix("334 ") else {
        return reply;
    };
    let challenge =
        String::from_utf8(BASE64.decode(challenge.as_bytes()).expect("base64")).expect("text");
    let sent = ServerFirst::parse(&challenge, &first).expect("a challenge");
    let password = Password::new(&format!("secret-{name}")).expect("usable");
    let salted = SaltedPassword::derive(&password, &sent.salt, sent.iterations);
    let input = first.binding_input(binding.unwrap_or(&exported));
    let without_proof = ClientFinal::without_proof(&input, &sent.nonce);
    let auth = auth_message(&first, &challenge, &without_proof);
    let proof = octets_attribute('p', &salted.client_proof(&auth));
    client
        .says(&base64(&format!("{without_proof},{proof}")))
        .await;
    let reply = client.reply().await;
    let Some(last) = reply.strip_prefix("334 ") else {
        return reply;
    };
    let last = String::from_utf8(BASE64.decode(last.as_bytes()).expect("base64")).expect("text");
    assert_eq!(
        parse_server_final(&last),
        Some(salted.server_signature(&auth))
    );
    client.says("").await;
    client.reply().await
}

fn bound() -> (&'static str, BindingFlag) {
    (
        "SCRAM-SHA-256-PLUS",
        BindingFlag::Bound("tls-exporter".into()),
    )
}

#[tokio::test]
async fn a_login_grants_what_a_client_of_ours_has() {
    let users = Users::of(&[("scanner", "")]);
    let mut relay = users.relay("auth = [\"plain\", \"login\"]").await;
    let mut clear = relay.client().await;
    let offered = clear.asks("EHLO client.example", "250").await;
    assert!(!offered.contains("AUTH"), "{offered}");
    let mut client = secured(&relay).await;
    client.asks("MAIL FROM:<a@example.org>", "250").await;
    client
        .asks("RCPT TO:<b@anywhere.example>", "550 5.7.1 Relaying denied")
        .await;
    client.asks("RSET", "250").await;
    log_in(&mut client, "scanner").await;
    client.asks("MAIL FROM:<a@example.org>", "250").await;
    client.asks("RCPT TO:<b@anywhere.example>", "250").await;
    client.content("Scan ready\r\n").await;
    let entry = relay.entry().await;
    let (received, content) = content(&entry).await;
    assert!(received.contains(" with ESMTPSA (TLSv1.3 "), "{received}");
    assert!(!received.contains("scanner"), "{received}");
    assert!(
        content.starts_with("Date: "),
        "what it lacks is added: {content}"
    );
    let by = super::arrival::by(&entry);
    assert_eq!(
        (by.user.as_deref(), by.protocol.as_deref()),
        (Some("scanner"), Some("ESMTPSA"))
    );
    drop((clear, client));
    relay.ends().await;
}

#[tokio::test]
async fn the_connector_of_a_user_goes_with_its_messages() {
    let users = Users::of(&[
        ("user", "connector = \"mx.partner.example\""),
        ("other", ""),
    ]);
    let more = format!(
        "[users]\nfile = \"{}\"\n[[connector]]\nname = \"mx.partner.example\"\ndomains = [\"x.example\"]\n",
        users.path().display()
    );
    let mut relay = Relay::start(Wanted {
        listener: "auth = [\"plain\"]",
        more: &more,
        ..Wanted::default()
    })
    .await;
    for (name, connector) in [("user", Some("mx.partner.example")), ("other", None)] {
        let mut client = secured(&relay).await;
        log_in(&mut client, name).await;
        client.asks("MAIL FROM:<a@example.org>", "250").await;
        client.asks("RCPT TO:<b@anywhere.example>", "250").await;
        client.content("hello\r\n").await;
        assert_eq!(relay.entry().await.envelope.connector.as_deref(), connector);
    }
    relay.ends().await;
}

#[tokio::test]
async fn wrong_names_and_passwords_get_one_answer() {
    let users = Users::of(&[
        ("user", ""),
        ("off", "disabled = true"),
        ("there", "networks = [\"192.0.2.0/24\"]"),
    ]);
    let relay = users.relay("auth = [\"plain\", \"scram-sha-256\"]").await;
    let mut client = secured(&relay).await;
    for (name, password) in [
        ("user", "secret-users"),
        ("nobody", "secret-nobody"),
        ("off", "secret-off"),
        ("there", "secret-there"),
    ] {
        assert_eq!(
            client.asks(&plain(name, password), "").await,
            INVALID,
            "{name}"
        );
    }
    for name in ["nobody", "off", "there"] {
        assert_eq!(
            scram(&mut client, bound(), name, None).await,
            INVALID,
            "{name}"
        );
    }
    client.asks("MAIL FROM:<a@example.org>", "250").await;
    client
        .asks("RCPT TO:<b@anywhere.example>", "550 5.7.1 Relaying denied")
        .await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn scram_is_bound_to_the_tls_session() {
    let users = Users::of(&[("user", "")]);
    let relay = users.relay("auth = [\"scram-sha-256\"]").await;
    let mut client = secured(&relay).await;
    let unbound = ("SCRAM-SHA-256", BindingFlag::Unsupported);
    let stripped = ("SCRAM-SHA-256", BindingFlag::NotOffered);
    assert_eq!(
        scram(&mut client, stripped, "user", None).await,
        INVALID,
        "a downgrade"
    );
    assert_eq!(
        scram(&mut client, bound(), "user", Some(&[7; 32])).await,
        INVALID,
        "another session"
    );
    client
        .asks(&plain("user", "secret-user"), "534 5.7.9")
        .await;
    assert_eq!(
        scram(&mut client, bound(), "user", None).await,
        "235 2.7.0 Authentication successful"
    );
    let mut other = secured(&relay).await;
    assert_eq!(
        scram(&mut other, unbound, "user", None).await,
        "235 2.7.0 Authentication successful"
    );
    drop((client, other));
    relay.ends().await;
}

/// Returns the last message of `user`, by the reply 334 with the server's first one.
fn proof(first: &ClientFirst, reply: &str) -> String {
    let challenge = BASE64.decode(&reply.as_bytes()[4..]).expect("base64");
    let challenge = String::from_utf8(challenge).expect("text");
    let sent = ServerFirst::parse(&challenge, first).expect("a challenge");
    let password = Password::new("secret-user").expect("usable");
    let salted = SaltedPassword::derive(&password, &sent.salt, sent.iterations);
    let without_proof = ClientFinal::without_proof(&first.binding_input(&[]), &sent.nonce);
    let auth = auth_message(first, &challenge, &without_proof);
    let proof = octets_attribute('p', &salted.client_proof(&auth));
    base64(&format!("{without_proof},{proof}"))
}

#[tokio::test]
async fn a_message_of_another_exchange_proves_nothing() {
    let users = Users::of(&[("user", "")]);
    let relay = users.relay("auth = [\"scram-sha-256\"]").await;
    let mut client = secured(&relay).await;
    let first = ClientFirst::new(BindingFlag::Unsupported, "user", "same-nonce");
    let mut replayed = String::new();
    for is_first in [true, false] {
        let challenge = client
            .asks(
                &format!("AUTH SCRAM-SHA-256 {}", base64(&first.text())),
                "334 ",
            )
            .await;
        if is_first {
            replayed = proof(&first, &challenge);
            client.asks(&replayed, "334 ").await;
            client.asks("*", "501 5.7.0").await;
        } else {
            assert_eq!(
                client.asks(&replayed, "").await,
                INVALID,
                "the nonce is another"
            );
        }
    }
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_user_sends_as_its_senders_alone() {
    let users = Users::of(&[(
        "scanner",
        "senders = [\"scan@example.org\", \"*@scan.example\"]",
    )]);
    let relay = users.relay("auth = [\"plain\"]").await;
    let mut client = secured(&relay).await;
    log_in(&mut client, "scanner").await;
    for (from, answer) in [
        (
            "boss@example.org",
            "553 5.7.1 Sender address rejected: your login does not allow it",
        ),
        (
            "",
            "553 5.7.1 The null sender is rejected: your login does not allow it",
        ),
        ("SCAN@example.org", "250"),
        ("x@scan.example", "250"),
    ] {
        client.asks(&format!("MAIL FROM:<{from}>"), answer).await;
        client.asks("RSET", "250").await;
    }
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_login_does_not_stand_in_for_a_connector() {
    let users = Users::of(&[("user", "")]);
    let relay = users.relay("auth = [\"plain\"]").await;
    let mut client = secured(&relay).await;
    log_in(&mut client, "user").await;
    client
        .asks(
            "MAIL FROM:<a@domain-c.com>",
            "550 5.7.1 Mail from domain-c.com: TLS with a trusted certificate",
        )
        .await;
    client
        .asks(
            "MAIL FROM:<a@elsewhere.example>",
            "550 5.7.1 Mail from elsewhere.example is not taken from",
        )
        .await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn a_session_of_a_removed_or_changed_user_sends_no_more() {
    let users = Users::of(&[("user", "")]);
    let relay = users.relay("auth = [\"plain\"]").await;
    let mail = "MAIL FROM:<a@example.org>";
    let mut client = secured(&relay).await;
    log_in(&mut client, "user").await;
    users.set_password_of("user", "other");
    assert_eq!(relay.users().refresh(), Ok(Some(1)));
    let invalid = "530 5.7.0 Your login is no longer valid";
    client.asks(mail, invalid).await;
    client
        .asks(&plain("user", "secret-other"), "235 2.7.0")
        .await;
    client.asks(mail, "250").await;
    for change in [&[][..], &[("user", "disabled = true")]] {
        users.write(&[("user", "")]);
        relay.users().refresh().expect("good users");
        let mut client = secured(&relay).await;
        log_in(&mut client, "user").await;
        client.asks(mail, "250").await;
        client.asks("RSET", "250").await;
        users.write(change);
        assert!(relay.users().refresh().expect("good users").is_some());
        client.asks(mail, invalid).await;
        // The client may do as it is asked to, and has no rights until then.
        client.asks(mail, "250").await;
        let denied = "550 5.7.1 Relaying denied";
        client.asks("RCPT TO:<b@anywhere.example>", denied).await;
        client.asks("RSET", "250").await;
        client.asks(&plain("user", "secret-user"), INVALID).await;
        users.write(&[("user", "")]);
        relay.users().refresh().expect("good users");
        log_in(&mut client, "user").await;
        client.asks(mail, "250").await;
        client.asks("RCPT TO:<b@anywhere.example>", "250").await;
    }
    relay.ends().await;
}

/// A new password ends what was begun with the old one.
#[tokio::test]
async fn a_proof_for_the_old_password_is_worth_nothing_after_a_change() {
    let users = Users::of(&[("user", "")]);
    let relay = users.relay("auth = [\"scram-sha-256\"]").await;
    let mut client = secured(&relay).await;
    let first = ClientFirst::new(BindingFlag::Unsupported, "user", "nonce");
    let auth = format!("AUTH SCRAM-SHA-256 {}", base64(&first.text()));
    let challenge = client.asks(&auth, "334 ").await;
    users.set_password_of("user", "other");
    assert_eq!(relay.users().refresh(), Ok(Some(1)));
    client.asks(&proof(&first, &challenge), INVALID).await;
    drop(client);
    relay.ends().await;
}

#[tokio::test]
async fn guesses_of_a_stranger_are_limited_and_do_not_lock_the_owner_out() {
    let users = Users::of(&[("user", "")]);
    let relay = users.relay("auth = [\"plain\"]").await;
    let mut owner = secured(&relay).await;
    log_in(&mut owner, "user").await;
    let mut stranger = secured(&relay).await;
    // Ten guesses at an account that is not the owner's pair; each name has its own limit.
    for _ in 0..10 {
        stranger.asks(&plain("nobody", "guess"), INVALID).await;
    }
    stranger
        .asks(
            &plain("nobody", "secret-nobody"),
            "454 4.7.0 Too many failed logins",
        )
        .await;
    log_in(&mut stranger, "user").await;
    drop((owner, stranger));
    relay.ends().await;
}

#[tokio::test]
async fn a_required_login_comes_before_all_mail() {
    let users = Users::of(&[("user", "")]);
    let mut relay = users
        .relay("auth = [\"plain\"]\nauth_required = true")
        .await;
    let mut client = secured(&relay).await;
    client
        .asks(
            "MAIL FROM:<a@example.org>",
            "530 5.7.0 Authentication required",
        )
        .await;
    client
        .asks("RCPT TO:<postmaster>", "530 5.7.0 Authentication required")
        .await;
    log_in(&mut client, "user").await;
    client.sends_message("b@anywhere.example").await;
    relay.entry().await;
    drop(client);
    relay.ends().await;
}
