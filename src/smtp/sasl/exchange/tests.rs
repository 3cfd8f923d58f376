//! Exchanges of each mechanism, and what they refuse.

use std::num::NonZeroU32;

use data_encoding::BASE64;

use super::*;
use crate::smtp::sasl::scram::{SaltedPassword, ScramKey};
use crate::smtp::sasl::scram_message::{
    BindingFlag, ClientFinal, ClientFirst, ServerFirst, auth_message, octets_attribute,
    parse_server_final,
};

const BINDING: &[u8] = &[7; 32];
const SALT: &[u8] = &[9; 16];

fn password() -> Password {
    Password::new("pencil").expect("usable")
}

fn verifier() -> ScramVerifier {
    ScramVerifier::derive(&password(), SALT, NonZeroU32::new(4096).expect("not zero"))
}

fn base64(text: &str) -> Vec<u8> {
    BASE64.encode(text.as_bytes()).into_bytes()
}

fn text(challenge: &str) -> String {
    String::from_utf8(BASE64.decode(challenge.as_bytes()).expect("base64")).expect("text")
}

/// The client's half of SCRAM.
struct ScramClient {
    first: ClientFirst,
    server_first: String,
    salted: Option<SaltedPassword>,
}

impl ScramClient {
    fn new(binding: BindingFlag) -> Self {
        Self {
            first: ClientFirst::new(binding, "User", "abc"),
            server_first: String::new(),
            salted: None,
        }
    }

    /// Begins an exchange and takes the challenge.
    fn begin(&mut self, exchange: &mut SaslExchange, genuine: bool) {
        match exchange.respond(&base64(&self.first.text())) {
            ExchangeStep::FindVerifier(name) => assert_eq!(name, "user"),
            other => panic!("{other:?}"),
        }
        self.server_first = text(&exchange.challenge(genuine, verifier(), "server", BINDING));
        let parsed = ServerFirst::parse(&self.server_first, &self.first).expect("a challenge");
        assert_eq!(parsed.nonce, "abcserver");
        self.salted = Some(SaltedPassword::derive(
            &password(),
            &parsed.salt,
            parsed.iterations,
        ));
    }

    /// Returns the last message with this channel binding and nonce.
    fn last(&self, binding: &[u8], nonce: &str) -> (String, ScramKey) {
        let input = self.first.binding_input(binding);
        let without_proof = ClientFinal::without_proof(&input, nonce);
        let auth = auth_message(&self.first, &self.server_first, &without_proof);
        let salted = self.salted.as_ref().expect("begun");
        let proof = octets_attribute('p', &salted.client_proof(&auth));
        (
            format!("{without_proof},{proof}"),
            salted.server_signature(&auth),
        )
    }
}

fn bound() -> BindingFlag {
    BindingFlag::Bound("tls-exporter".into())
}

#[test]
fn plain_and_login_ask_for_the_same_check() {
    for (mechanism, responses) in [
        (Mechanism::Plain, &["\0Tim\0tan"][..]),
        (Mechanism::Login, &["Tim", "tan"]),
    ] {
        let mut exchange = SaslExchange::new(mechanism, true);
        let first = exchange.first_challenge();
        assert_eq!(
            text(&first),
            if responses.len() == 2 {
                "Username:"
            } else {
                ""
            }
        );
        let mut steps = responses
            .iter()
            .map(|response| exchange.respond(&base64(response)));
        if responses.len() == 2 {
            assert!(
                matches!(steps.next(), Some(ExchangeStep::Challenge(more)) if text(&more) == "Password:")
            );
        }
        match steps.next() {
            Some(ExchangeStep::CheckPassword(login)) => {
                assert_eq!(
                    (login.name.as_str(), login.password.as_bytes()),
                    ("tim", &b"tan"[..])
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_no_base64_or_no_message_fails() {
    for (mechanism, line, fault) in [
        (Mechanism::Plain, &b"!"[..], LoginFault::NotBase64),
        (Mechanism::Plain, b"AHRpbQB0YW4", LoginFault::NotBase64),
        (Mechanism::Plain, b"AHRpbQB0YW5=", LoginFault::NotBase64),
        (Mechanism::Plain, b"=", LoginFault::Malformed),
        (Mechanism::ScramSha256, b"=", LoginFault::Malformed),
        (Mechanism::ScramSha256, b"biws", LoginFault::Malformed),
        (Mechanism::Login, b"/w==", LoginFault::Malformed),
    ] {
        let step = SaslExchange::new(mechanism, false).respond(line);
        assert!(
            matches!(&step, ExchangeStep::Failed(found, None) if *found == fault),
            "{mechanism:?} {line:?}: {step:?}"
        );
    }
}

#[test]
fn scram_proves_both_sides_to_each_other() {
    for (mechanism, flag, offered) in [
        (Mechanism::ScramSha256Plus, bound(), true),
        (Mechanism::ScramSha256, BindingFlag::Unsupported, true),
        (Mechanism::ScramSha256, BindingFlag::NotOffered, false),
    ] {
        let (mut exchange, mut client) = (
            SaslExchange::new(mechanism, offered),
            ScramClient::new(flag),
        );
        client.begin(&mut exchange, true);
        let (last, signature) = client.last(BINDING, "abcserver");
        let step = exchange.respond(&base64(&last));
        assert!(
            matches!(&step, ExchangeStep::Proved(name) if name == "user"),
            "{step:?}"
        );
        let server_final = parse_server_final(&text(&exchange.server_final()));
        assert_eq!(server_final, Some(signature));
        assert!(matches!(exchange.respond(b""), ExchangeStep::Acknowledged));
    }
}

/// RFC 4954 §4: the client answers our proof with an empty line, or cancels.
#[test]
fn our_proof_is_acknowledged_by_an_empty_line_alone() {
    let mut exchange = SaslExchange::new(Mechanism::ScramSha256, false);
    let mut client = ScramClient::new(BindingFlag::Unsupported);
    client.begin(&mut exchange, true);
    let (last, _) = client.last(BINDING, "abcserver");
    let step = exchange.respond(&base64(&last));
    assert!(matches!(step, ExchangeStep::Proved(_)), "{step:?}");
    let step = exchange.respond(&base64("x"));
    let fault = LoginFault::Malformed;
    assert!(
        matches!(&step, ExchangeStep::Failed(found, None) if *found == fault),
        "{step:?}"
    );
}

#[test]
fn scram_refuses_downgrades_and_foreign_bindings_at_once() {
    let downgrade = (
        Mechanism::ScramSha256,
        BindingFlag::NotOffered,
        LoginFault::Downgrade,
    );
    let unique = BindingFlag::Bound("tls-unique".into());
    for (mechanism, flag, fault) in [
        downgrade,
        (Mechanism::ScramSha256, bound(), LoginFault::ChannelBinding),
        (
            Mechanism::ScramSha256Plus,
            unique,
            LoginFault::ChannelBinding,
        ),
        (
            Mechanism::ScramSha256Plus,
            BindingFlag::Unsupported,
            LoginFault::ChannelBinding,
        ),
        (
            Mechanism::ScramSha256Plus,
            BindingFlag::NotOffered,
            LoginFault::ChannelBinding,
        ),
    ] {
        let first = ClientFirst::new(flag, "user", "abc").text();
        let step = SaslExchange::new(mechanism, true).respond(&base64(&first));
        assert!(
            matches!(&step, ExchangeStep::Failed(found, Some(_)) if *found == fault),
            "{first}: {step:?}"
        );
    }
    let step =
        SaslExchange::new(Mechanism::ScramSha256, true).respond(&base64("n,a=admin,n=user,r=abc"));
    assert!(
        matches!(
            step,
            ExchangeStep::Failed(LoginFault::OtherIdentity, Some(_))
        ),
        "{step:?}"
    );
}

#[test]
fn scram_refuses_wrong_proofs_nonces_and_bindings() {
    let begun = || {
        let (mut exchange, mut client) = (
            SaslExchange::new(Mechanism::ScramSha256Plus, true),
            ScramClient::new(bound()),
        );
        client.begin(&mut exchange, true);
        (exchange, client)
    };
    let fault = |exchange: &mut SaslExchange, last: &str| match exchange.respond(&base64(last)) {
        ExchangeStep::Failed(fault, Some(name)) if name == "user" => fault,
        other => panic!("{other:?}"),
    };
    let (mut exchange, client) = begun();
    let (last, _) = client.last(&[8; 32], "abcserver");
    assert_eq!(fault(&mut exchange, &last), LoginFault::ChannelBinding);
    let (mut exchange, client) = begun();
    let (last, _) = client.last(BINDING, "abcother");
    assert_eq!(fault(&mut exchange, &last), LoginFault::Nonce);
    let (mut exchange, mut client) = begun();
    let other = Password::new("pen").expect("usable");
    client.salted = Some(SaltedPassword::derive(
        &other,
        SALT,
        NonZeroU32::new(4096).expect("not zero"),
    ));
    let (last, _) = client.last(BINDING, "abcserver");
    assert_eq!(fault(&mut exchange, &last), LoginFault::Credentials);
    // Even the right password proves nothing for a user that does not exist.
    let (mut exchange, mut client) = (
        SaslExchange::new(Mechanism::ScramSha256Plus, true),
        ScramClient::new(bound()),
    );
    client.begin(&mut exchange, false);
    let (last, _) = client.last(BINDING, "abcserver");
    assert_eq!(fault(&mut exchange, &last), LoginFault::Credentials);
}
