//! Signed assertions: header, claims and signature of each.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaKeyPair, RsaParameters,
    UnparsedPublicKey,
};
use data_encoding::BASE64URL_NOPAD;
use gatepost::net::oauth::check_token_files;
use rcgen::{CertificateParams, PKCS_RSA_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

use super::server::token;
use super::world::World;
use crate::support::certificates::pem;

const BY_CERTIFICATE: &str = "grant = \"client_credentials\"\nclient_id = \"client-1\"\ncertificate = \"client.pem\"\nkey = \"client.key\"";
const BY_ACCOUNT: &str = "grant = \"jwt_bearer\"\nkey_file = \"account\"\nissuer = \"relay@project.example\"\n\
    subject = \"scanner@example.com\"\nscope = \"https://mail.google.com/\"";

struct RsaKey {
    pair: RsaKeyPair,
    pkcs8: Vec<u8>,
}

impl RsaKey {
    fn new() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().expect("encoded");
        let pkcs8 = pkcs8.as_ref().to_vec();
        Self { pair, pkcs8 }
    }

    fn pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    /// A certificate for the key, in DER.
    fn certificate(&self) -> Vec<u8> {
        let der = PrivatePkcs8KeyDer::from(self.pkcs8.clone());
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_RSA_SHA256)
            .expect("a key for rcgen");
        let params = CertificateParams::default();
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    }

    /// Checks the signature of a JWT; returns its header and claims.
    fn verify(&self, jwt: &str, algorithm: &'static RsaParameters) -> (Value, Value) {
        let (signed, signature) = jwt.rsplit_once('.').expect("three parts");
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url");
        UnparsedPublicKey::new(algorithm, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature))
            .expect("the signature of this key");
        let (header, claims) = signed.split_once('.').expect("three parts");
        let json = |part| serde_json::from_slice(&decode(part)).expect("JSON");
        (json(header), json(claims))
    }
}

#[tokio::test]
async fn a_client_proves_itself_with_its_certificate() {
    let world = World::new(vec![token("t1"), token("t2")]).await;
    let key = RsaKey::new();
    world.write("client.pem", &pem("CERTIFICATE", &key.certificate()));
    world.write("client.key", &key.pem());
    let source = world.source(BY_CERTIFICATE);
    let mut ids = Vec::new();
    for _ in 0..2 {
        source.token().await.expect("a token");
        let requests = world.server.requests();
        let request = requests.last().expect("a request");
        let names = [
            "grant_type",
            "client_id",
            "client_assertion_type",
            "client_assertion",
        ];
        assert_eq!(request.names(), names);
        assert_eq!(request.value("grant_type"), "client_credentials");
        assert_eq!(request.value("client_id"), "client-1");
        assert_eq!(
            request.value("client_assertion_type"),
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        );
        let jwt = request.value("client_assertion");
        let (header, claims) = key.verify(jwt, &RSA_PSS_2048_8192_SHA256);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key.certificate());
        let thumbprint = BASE64URL_NOPAD.encode(hash.as_ref());
        assert_eq!(
            header,
            json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint })
        );
        let now = world.clock.now().as_second();
        let id = claims["jti"].as_str().expect("an id").to_owned();
        assert_eq!(
            claims,
            json!({
                "iss": "client-1", "sub": "client-1", "aud": world.token_url(), "jti": id,
                "iat": now, "nbf": now, "exp": now + 300,
            })
        );
        ids.push(id);
        world.clock.advance(3600);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_service_account_asserts_its_user() {
    let world = World::new(vec![token("t1"), token("t2")]).await;
    let key = RsaKey::new();
    let account = json!({
        "type": "service_account",
        "private_key_id": "key-7",
        "private_key": key.pem(),
        "client_email": "relay@project.example",
    });
    for (file, header) in [
        (key.pem(), json!({ "alg": "RS256", "typ": "JWT" })),
        (
            account.to_string(),
            json!({ "alg": "RS256", "typ": "JWT", "kid": "key-7" }),
        ),
    ] {
        world.write("account", &file);
        world.source(BY_ACCOUNT).token().await.expect("a token");
        let requests = world.server.requests();
        let request = requests.last().expect("a request");
        assert_eq!(request.names(), ["grant_type", "assertion"]);
        assert_eq!(
            request.value("grant_type"),
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        );
        let jwt = request.value("assertion");
        let (found, claims) = key.verify(jwt, &RSA_PKCS1_2048_8192_SHA256);
        assert_eq!(found, header);
        let now = world.clock.now().as_second();
        assert_eq!(
            claims,
            json!({
                "iss": "relay@project.example", "sub": "scanner@example.com", "aud": world.token_url(),
                "iat": now, "exp": now + 300, "scope": "https://mail.google.com/",
            })
        );
        world.clock.advance(3600);
    }
}

/// The faults of key files, as a start and `gatepost check` report them.
#[tokio::test]
async fn keys_that_cannot_sign_are_faults() {
    let world = World::new(Vec::new()).await;
    let (key, other) = (RsaKey::new(), RsaKey::new());
    let elliptic = pem(
        "PRIVATE KEY",
        &rcgen::KeyPair::generate().expect("a key").serialize_der(),
    );
    let faults_of = |lines: &str| {
        let faults = check_token_files(&world.settings(lines)).expect_err("a fault");
        let [fault] = &faults[..] else {
            panic!("{faults:?}")
        };
        fault.message.clone()
    };
    world.write("client.pem", &pem("CERTIFICATE", &key.certificate()));
    for (file, words) in [
        (
            other.pem(),
            "client.key is not the key of the certificate in",
        ),
        (
            elliptic.clone(),
            "client.key is not an RSA key of 2048 to 8192 bits",
        ),
        (String::new(), "client.key is empty"),
    ] {
        world.write("client.key", &file);
        let message = faults_of(BY_CERTIFICATE);
        assert!(message.contains(words), "{message}");
    }
    for (file, words) in [
        (elliptic, "account is not an RSA key"),
        (
            "{\"type\":\"service_account\"}".to_owned(),
            "account is not the key file of a service account",
        ),
        (
            "{\"private_key\":\"x\"}".to_owned(),
            "account is not the key file of a service account",
        ),
        ("no key".to_owned(), "account has no private key in it"),
        ("x".repeat(70_000), "account is longer than 65536 octets"),
    ] {
        world.write("account", &file);
        let message = faults_of(BY_ACCOUNT);
        assert!(message.contains(words), "{message}");
    }
    let account = json!({ "private_key": key.pem(), "client_email": "other@project.example" });
    world.write("account", &account.to_string());
    let warnings = check_token_files(&world.settings(BY_ACCOUNT)).expect("no fault");
    assert_eq!(warnings.len(), 1);
    let message = &warnings[0].message;
    assert!(
        message.contains("is the key of other@project.example"),
        "{message}"
    );
}
