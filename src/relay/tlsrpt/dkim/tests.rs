//! Tests against the example of RFC 8463 appendix A, and against the library's own verification.

use std::io::Write as _;

use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey,
    VerificationAlgorithm,
};

use super::*;
use crate::config::{Located, Location};

const FIELDS: [&str; 5] = [
    "From: Joe SixPack <joe@football.example.com>",
    "To: Suzie Q <suzie@shopping.example.net>",
    "Subject: Is dinner ready?",
    "Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)",
    "Message-ID: <20030712040037.46341.5F8J@football.example.com>",
];
const BODY: &[u8] = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
const BODY_HASH: &str = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";

const ED25519_UNSIGNED: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
    subject : date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=";
const ED25519_SIGNATURE: &str =
    "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==";
const ED25519_SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const ED25519_PUBLIC: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

const RSA_UNSIGNED: &str = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n \
    d=football.example.com; i=@football.example.com;\r\n \
    q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n \
    date : message-id : from : subject : date;\r\n \
    bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=";
const RSA_SIGNATURE: &str = "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\
    DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\
    dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=";
const RSA_PUBLIC: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQ\
    iY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+\
    2kryOTIKT+l/K4w3QIDAQAB";

fn fields() -> Vec<String> {
    FIELDS.map(str::to_owned).to_vec()
}

fn decoded(text: &str) -> Vec<u8> {
    BASE64.decode(text).expect("base64")
}

fn verifies(
    algorithm: &'static dyn VerificationAlgorithm,
    public: &[u8],
    text: &[u8],
    signature: &str,
) -> bool {
    UnparsedPublicKey::new(algorithm, public)
        .verify(text, &decoded(signature))
        .is_ok()
}

#[test]
fn the_body_of_the_example_hashes_as_the_standard_says() {
    assert_eq!(
        BASE64.encode(digest(&SHA256, &canon::body(BODY))),
        BODY_HASH
    );
}

#[test]
fn ed25519_signs_the_example_octet_for_octet() {
    let pair =
        Ed25519KeyPair::from_seed_and_public_key(&decoded(ED25519_SEED), &decoded(ED25519_PUBLIC));
    let key = SigningKey::Ed25519(pair.expect("the key of the standard"));
    // The example lists three fields once more than they occur, which adds nothing to the text.
    let text = signed_text(&fields(), ED25519_UNSIGNED);
    assert_eq!(
        BASE64.encode(key.sign(text.as_bytes()).expect("signed")),
        ED25519_SIGNATURE
    );
}

/// The key of the example has 1024 bits. Such keys may be verified (RFC 8301 §3.2), but no longer
/// used to sign.
#[test]
fn the_rsa_signature_of_the_example_verifies_our_signed_text() {
    let text = signed_text(&fields(), RSA_UNSIGNED);
    let algorithm = &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY;
    assert!(verifies(
        algorithm,
        &decoded(RSA_PUBLIC),
        text.as_bytes(),
        RSA_SIGNATURE
    ));
    let other = text.replace("dinner", "supper");
    assert!(!verifies(
        algorithm,
        &decoded(RSA_PUBLIC),
        other.as_bytes(),
        RSA_SIGNATURE
    ));
}

fn loaded(
    pem: &str,
) -> (
    Result<(Signer, Option<Fault>), Fault>,
    tempfile::NamedTempFile,
) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(pem.as_bytes()).expect("written");
    let location = Location {
        file: std::path::Path::new("gatepost.toml").into(),
        line: 1,
        column: 1,
    };
    let domain = |text| Domain::parse(text).expect("valid");
    let config = DkimKey {
        domain: domain("example.com"),
        selector: domain("gatepost"),
        file: Located {
            value: file.path().to_owned(),
            location,
        },
    };
    (Signer::load(&config), file)
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        BASE64.encode(der)
    )
}

#[test]
fn a_signature_of_ours_verifies_and_covers_every_field() {
    use aws_lc_rs::encoding::AsDer as _;
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let rsa: aws_lc_rs::encoding::Pkcs8V1Der<'_> = rsa.as_der().expect("encoded");
    let ed25519 = Ed25519KeyPair::generate()
        .expect("a key")
        .to_pkcs8v1()
        .expect("encoded");
    for (der, algorithm) in [
        (
            rsa.as_ref(),
            &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY as &'static dyn VerificationAlgorithm,
        ),
        (ed25519.as_ref(), &ED25519),
    ] {
        let (signer, _file) = loaded(&pem("PRIVATE KEY", der));
        let (signer, warning) = signer.expect("a usable key");
        assert_eq!(warning, None, "its mode is 0600");
        let field = signer
            .sign(&fields(), BODY, Timestamp::UNIX_EPOCH)
            .expect("signed");
        assert!(
            field.ends_with("\r\n") && field.lines().all(|line| line.len() < 100),
            "{field}"
        );
        assert!(!field.contains(" l="), "a body that may be added to");
        let (head, signature) = field.split_once("\r\n b=").expect("it has a signature");
        let signature: String = signature.split_whitespace().collect();
        let public = signer
            .record()
            .split("p=")
            .nth(1)
            .map(decoded)
            .expect("a record");
        let text = signed_text(&fields(), &format!("{head}\r\n b="));
        let hashed = match signer.key {
            SigningKey::Rsa(_) => text.clone().into_bytes(),
            SigningKey::Ed25519(_) => digest(&SHA256, text.as_bytes()).as_ref().to_vec(),
        };
        assert!(verifies(algorithm, &public, &hashed, &signature), "{field}");
        for name in ["From", "To", "Subject", "Date", "Message-ID"] {
            assert!(head.contains(&format!("{name}:")), "{head}");
        }
        assert!(head.contains(&format!("bh={BODY_HASH};")), "{head}");
    }
}

#[test]
fn a_key_that_cannot_sign_is_rejected_with_a_remedy() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
    let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
        .expect("a key")
        .to_pkcs8v1()
        .expect("encoded");
    let (refused, _file) = loaded(&pem("PRIVATE KEY", ecdsa.as_ref()));
    let fault = refused.expect_err("DKIM knows no ECDSA");
    let text = "cannot sign mail: it is neither Ed25519 nor RSA of 2048 to 8192 bits (";
    assert!(fault.message.contains(text), "{fault}");
    assert!(fault.remedy.contains("openssl genrsa"), "{fault}");
    assert!(loaded("nothing").0.is_err());
}
