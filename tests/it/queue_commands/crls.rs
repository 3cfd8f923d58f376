//! The CRLs of a daemon in its status, on its page and in its metrics.

use crate::support::operated::{Relay, json, out};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/data/openssl_crls");

#[test]
fn crls_are_shown_with_their_dates() {
    let relay = Relay::start(&format!(
        "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\ntrust = \"{FOLDER}/ca.pem\"\n\
         crl = [\"{FOLDER}/revoked.crl\", \"{FOLDER}/expired.crl\"]\nrevocation = \"if-known\"\n\
         [connector.outbound]\ntls = \"forced\"\nverify = \"name\""
    ));
    let status = json(&relay.status(&["--json"]));
    let [expired, revoked] = &status["crls"].as_array().expect("a list")[..] else {
        panic!("two: {status:#}")
    };
    assert_eq!(expired["source"], format!("{FOLDER}/expired.crl"));
    for (key, value) in [
        ("source", format!("{FOLDER}/revoked.crl").into()),
        ("in_use", true.into()),
        ("issuer", "CN=Partner CA".into()),
        ("entries", 201.into()),
        ("this_update", "2026-04-01T00:00:00Z".into()),
        ("next_update", "2089-01-01T00:00:00Z".into()),
        ("failure", serde_json::Value::Null),
    ] {
        assert_eq!(revoked[key], value, "{key}");
    }
    let text = out(&relay.status(&[]));
    let row = |name: &str| {
        let line = text.lines().find(|line| line.contains(name)).expect(name);
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(row("/expired.crl"), "0 2026-01-01 EXPIRED");
    assert_eq!(row("/revoked.crl"), "201 2026-04-01 2089-01-01");
    let page = relay.http_at("localhost", "GET / HTTP/1.1");
    assert!(page.contains("Revocation lists"), "{page}");
    assert!(page.contains("CN=Partner CA, 201 listed; until"), "{page}");
    let metrics = relay.http("GET /metrics HTTP/1.1");
    for line in [
        format!(
            "gatepost_crl_expiry_timestamp_seconds{{source=\"{FOLDER}/expired.crl\"}} 1769904000"
        ),
        format!(
            "gatepost_crl_issued_timestamp_seconds{{source=\"{FOLDER}/revoked.crl\"}} 1775001600"
        ),
        "gatepost_crl_fetches_total{result=\"failed\"} 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line}\n{metrics}");
    }
}
