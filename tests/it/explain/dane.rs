//! TLSA records of signed zones, validated by the command itself.

use std::process::{Command, Output};

use serde_json::{Value, json};

use super::world::{in_order, layer, row};
use crate::support::config::ConfigBuilder;
use crate::support::operated::{code, err, json, out};
use crate::support::zones::{Fault, Kind, Resolver, Server, Zones};

async fn names() -> Server {
    let good = format!(
        "good.test MX 10 mx.good.test\nmx.good.test A 192.0.2.1\n_25._tcp.mx.good.test TLSA 3 1 1 {0}\n\
         broken.test.good.test MX 10 mx2.good.test\nmx2.good.test A 192.0.2.2",
        "ab".repeat(32)
    );
    let server = Zones::new()
        .zone("test", Kind::Signed, "")
        .zone("good.test", Kind::Signed, &good)
        .zone(
            "plain.test",
            Kind::Unsigned,
            "plain.test MX 10 mx.good.test",
        )
        .start(Resolver::default())
        .await;
    server.fail("_25._tcp.mx2.good.test", None, Fault::ServFail);
    server
}

fn explain(names: &Server, arguments: &[&str]) -> Output {
    explain_by(names, "", arguments)
}

fn explain_by(names: &Server, connectors: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let anchor = names.anchor("dnskey");
    let dns = format!(
        "servers = [\"{}\"]\ntrust_anchor = \"{}\"",
        names.address,
        anchor.display()
    );
    let config = ConfigBuilder::new()
        .table("admin", "socket = \"s\"")
        .table("dns", &dns)
        .with(connectors);
    let file = config.write(folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .env("COLUMNS", "500")
        .arg("explain")
        .args(arguments)
        .arg("--config")
        .arg(&file)
        .output()
        .expect("gatepost runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn secure_records_demand_and_their_rows_distinguish_the_key() {
    let names = names().await;
    let output = explain(&names, &["good.test"]);
    assert_eq!(code(&output), 0, "{}{}", out(&output), err(&output));
    in_order(
        &out(&output),
        &[
            "route       the MX records of good.test (secured by DNSSEC)\n",
            "demand      TLS with a certificate that the TLSA records of mx.good.test name (DANE)\n",
            "DANE              TLS with a certificate that the TLSA records of mx.good.test name (TLSA records of mx.good.test: \"3 1 1 abababababababab…\")\n",
            "offers no STARTTLS",
            "is refused, 4.7.4 (DANE)\n",
            "TLS, trusted and for the right name, another key",
            "is refused, 4.7.5 (DANE)\n",
            "TLS, the wanted key, self-signed",
            "goes over TLS, authenticated by DANE (3 1 1 abababababababab…)\n",
        ],
    );
    // The host proves to be itself, and nothing proves that it is the domain's.
    let told: Value = json(&explain(&names, &["plain.test", "--json"]));
    assert_eq!(row(&told["hops"][0], "other-key")["by"], "DANE");
    assert!(
        told["route"]
            .as_str()
            .expect("a way")
            .contains("not signed with DNSSEC"),
        "{told:#}"
    );
    let relaxed: Value = json(&explain(
        &names,
        &["good.test", "--tls-not-required", "--json"],
    ));
    let dane = layer(&relaxed["hops"][0], "dane");
    assert_eq!(
        (&dane["demands"], &dane["why"]),
        (
            &json!([]),
            &json!("the message overrides it (TLS-Required: No)")
        )
    );
}

/// Mandatory DANE means the domain.
#[tokio::test(flavor = "multi_thread")]
async fn under_mandatory_dane_a_host_of_unsigned_mx_records_is_not_used() {
    let names = names().await;
    let connector = "[[connector]]\nname = \"all\"\ndomains = [\"*\"]\n[connector.outbound]\ntls = \"forced\"\n\
                     verify = \"dane\"\n";
    let output = explain_by(&names, connector, &["plain.test"]);
    assert_eq!(code(&output), 1, "{}{}", out(&output), err(&output));
    in_order(
        &out(&output),
        &[
            "route       the MX records of plain.test (not signed with DNSSEC)\n",
            "TLS authenticated by DANE is demanded, but the MX records of plain.test are not signed with DNSSEC, so that \
             the host may be anybody's",
        ],
    );
    assert_eq!(code(&explain_by(&names, connector, &["good.test"])), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_records_cannot_be_had_is_not_used() {
    let names = names().await;
    let output = explain(&names, &["broken.test.good.test"]);
    assert_eq!(code(&output), 1, "{}{}", out(&output), err(&output));
    in_order(
        &out(&output),
        &[
            "NOT USED    ",
            "_25._tcp.mx2.good.test",
            "(4.7.5)\n",
            "Mail cannot go: no hop can be used: ",
        ],
    );
}
