//! `gatepost check` as an administrator runs it: the real program, real files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn gatepost(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .current_dir(ROOT)
        .env_remove("COLUMNS")
        .args(arguments)
        .output()
        .expect("gatepost runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A folder with the development certificates, their keys closed to others, and a configuration.
fn folder(certificate: &str, key: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in ["relay.pem", "relay.key", "partner.pem", "partner.key"] {
        let copy = folder.path().join(file);
        fs::copy(Path::new(ROOT).join("certs").join(file), &copy)
            .expect("a development certificate");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).expect("our own file");
    }
    fs::write(folder.path().join("empty.pem"), "").expect("a file");
    let text = format!(
        "hostname = \"relay.example.com\"\npostmaster = \"postmaster@example.com\"\n\n[tls]\ncertificate = \
         \"{certificate}\"\nkey = \"{key}\"\n\n[[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:2525\"]\n"
    );
    let file = folder.path().join("gatepost.toml");
    fs::write(&file, text).expect("a configuration");
    (folder, file)
}

fn check(file: &Path) -> Output {
    gatepost(&["check", "--config", &file.to_string_lossy()])
}

#[test]
fn the_sample_is_shown_as_meant() {
    let output = gatepost(&["check", "--config", "config/gatepost.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let shown = out(&output);
    for said in [
        "Relay relay.example.com\n  postmaster    postmaster@example.com",
        "127.0.0.1:2526",
        "implicit, from the first byte",
        "clients in 127.0.0.1/32 may send to any domain",
        "any client may send to example.com",
        "mailbox-server",
        "by [127.0.0.1]:2625",
        "*.domain-c.com",
        "certificate for mail.domain-c.com",
        "trusted by config/../certs/ca.pem",
        "if not met: defer and retry",
        "mx.example.com",
        "2046-",
        "config/gatepost.toml: OK",
    ] {
        assert!(shown.contains(said), "{said:?} is not in\n{shown}");
    }
    assert!(
        !shown.contains("(built in)"),
        "a connector of the sample speaks for every domain:\n{shown}"
    );
}

#[test]
fn a_good_configuration_draws_no_warning_and_shows_the_built_in_connector() {
    let (_folder, file) = folder("relay.pem", "relay.key");
    let output = check(&file);
    assert_eq!(
        (output.status.code(), err(&output)),
        (Some(0), String::new())
    );
    assert!(
        out(&output).contains("default (built in)"),
        "{}",
        out(&output)
    );
}

#[test]
fn every_fault_is_reported_and_no_connector_is_shown() {
    let output = gatepost(&[
        "check",
        "--config",
        "tests/it/config_faults/everything_at_once.toml",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output), "");
    let said = err(&output);
    assert!(
        said.starts_with("tests/it/config_faults/everything_at_once.toml:2:12: hostname: "),
        "{said}"
    );
    assert!(
        said.ends_with("everything_at_once.toml: 16 errors\n"),
        "{said}"
    );
}

#[test]
fn a_key_that_does_not_belong_to_its_certificate_is_a_fault() {
    let (_folder, file) = folder("relay.pem", "partner.key");
    let output = check(&file);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(
        err(&output).contains("gatepost.toml:6:7: "),
        "the key's place: {}",
        err(&output)
    );
    assert!(
        err(&output).ends_with("gatepost.toml: 1 error\n"),
        "{}",
        err(&output)
    );
}

#[test]
fn an_empty_certificate_file_is_a_fault() {
    let (_folder, file) = folder("empty.pem", "relay.key");
    let output = check(&file);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(
        err(&output).contains("gatepost.toml:5:15: "),
        "the certificate's place: {}",
        err(&output)
    );
}

#[test]
fn a_key_that_others_can_read_is_a_warning() {
    let (folder, file) = folder("relay.pem", "relay.key");
    fs::set_permissions(
        folder.path().join("relay.key"),
        fs::Permissions::from_mode(0o644),
    )
    .expect("our own file");
    let output = check(&file);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        err(&output).starts_with("warning: ") && err(&output).contains("gatepost.toml:6:7: "),
        "{}",
        err(&output)
    );
}

#[test]
fn a_file_that_is_not_there_is_a_fault() {
    let output = gatepost(&["check", "--config", "/nonexistent/gatepost.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("/nonexistent/gatepost.toml:1:1: the configuration cannot be read")
    );
}

#[test]
fn unusable_arguments_end_with_2() {
    for arguments in [&["check", "--confg", "x"][..], &["chek"], &[]] {
        assert_eq!(gatepost(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// One key file that several tables name.
#[test]
fn a_warning_about_a_key_is_given_once_with_every_place() {
    let (folder, file) = folder("relay.pem", "relay.key");
    fs::set_permissions(
        folder.path().join("relay.key"),
        fs::Permissions::from_mode(0o644),
    )
    .expect("our own file");
    let partner = |name: &str| {
        format!(
            "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\n[connector.outbound]\n\
             client_certificate = \"relay.pem\"\nclient_key = \"relay.key\"\n"
        )
    };
    let text = fs::read_to_string(&file).expect("our own file") + &partner("one") + &partner("two");
    fs::write(&file, text).expect("our own file");
    let output = check(&file);
    let said = err(&output)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(
        said.matches("is a private key, and open to every user of this machine")
            .count(),
        1,
        "{said}"
    );
    assert!(
        said.contains("gatepost.toml:6:7: ") && said.contains("(also named at 16:14, 22:14)"),
        "{said}"
    );
}

/// A partner with an exception, one with a subdomain of its own, and domains of ours.
const PARTNERS: &str = r#"
[relay]
networks = ["127.0.0.1/32"]
domains = ["example.com"]

[queue]
retry = ["1m", "1h"]

[[connector]]
name = "hospital"
domains = ["hospital.example", "*.hospital.example"]
names = ["mx1.hospital.example", "mx2.hospital.example"]
[connector.outbound]
tls = "forced"
verify = "name"
downgrade = "refuse"
exception = { tls = "opportunistic", until = "2099-12-31", reason = "new gateway" }
[connector.inbound]
tls = "forced"
networks = ["192.0.2.0/24"]

[[connector]]
name = "laboratory"
domains = ["lab.hospital.example"]
[connector.outbound]
tls = "forced"
verify = "name"
discover = []

[[connector]]
name = "mailboxes"
domains = ["example.com"]
[connector.outbound]
route = ["10.0.0.5:25"]

[net]
http_proxy = "http://proxy.example.com:3128"
"#;

/// Runs `check` in a folder with the development certificates and [`PARTNERS`].
fn check_partners(arguments: &[&str]) -> (Option<i32>, String, String) {
    let (folder, file) = folder("relay.pem", "relay.key");
    let text = fs::read_to_string(&file).expect("our own file") + PARTNERS;
    fs::write(&file, text).expect("our own file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .current_dir(folder.path())
        .args(["check", "--config", "gatepost.toml"])
        .args(arguments);
    let output = command.output().expect("gatepost runs");
    (output.status.code(), out(&output), err(&output))
}

/// A connector is shown with every effective value and the line that it comes from, its demands in
/// words, its exception with its end, and what applies to each of its domains.
#[test]
fn one_connector_is_shown_with_the_place_of_each_value() {
    let (status, shown, errors) = check_partners(&["--connector", "hospital"]);
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    assert_eq!(
        shown,
        r#"Connector hospital, gatepost.toml:19
  line 21  domains = ["hospital.example", "*.hospital.example"]
  line 22  names = ["mx1.hospital.example", "mx2.hospital.example"]
  default  trust = "webpki"
  default  pins = []
  default  crl = []

Mail to them: TLS opportunistic
  EXCEPTION: TLS opportunistic until 2099-12-31 (new gateway)
  afterwards: TLS forced,
              certificate for mx1.hospital.example or mx2.hospital.example,
              trusted by webpki (Mozilla's roots)
  default  route = "mx"
  default  port = 25
  line 24  tls = "forced"
  line 25  verify = "name"
  default  min_version = "1.2"
  default  discover = ["dane", "mta-sts"]
  line 26  downgrade = "refuse"
  line 27  exception = { tls = "opportunistic", until = "2099-12-31",
                       reason = "new gateway" }
  default  revocation = "off"
  default  on_failure = "defer"
  default  groups = "post-quantum"
  default  min_strength = "classical"
  default  connections = 20
  default  messages_per_connection = 100
  not set  client_certificate, client_key, source, ehlo, retry, expire,
           warn_after, auth
  means    by MX; raised by DANE and MTA-STS; forced once they have used TLS;
           if not met: defer and retry

Mail from them: TLS forced, any certificate
  line 29  tls = "forced"
  default  verify = "none"
  default  min_version = "1.2"
  default  revocation = "off"
  line 30  networks = ["192.0.2.0/24"]
  default  relay = false
  means    only from these networks; may send to [relay] domains

Domains
  hospital.example
    senders     clients in [relay] networks may send to them
    see         gatepost explain hospital.example
  *.hospital.example
    senders     clients in [relay] networks may send to them
    not         lab.hospital.example (connector laboratory)
"#
    );
}

/// Names that a certificate must carry follow from the domain where the connector has no `names`; a
/// built-in connector has no line.
#[test]
fn a_connector_without_names_expects_those_of_its_domain() {
    let (status, shown, _) = check_partners(&["--connector", "laboratory"]);
    assert_eq!(status, Some(0));
    assert!(
        shown.contains(
            "to them     certificate for lab.hospital.example or *.lab.hospital.example\n"
        ),
        "{shown}"
    );
    assert!(
        shown.contains("DANE and MTA-STS are not looked up"),
        "{shown}"
    );
    assert!(!shown.contains("EXCEPTION"), "{shown}");
    let (status, shown, _) = check_partners(&["--connector", "default"]);
    assert_eq!(status, Some(0));
    assert!(
        shown.starts_with("Connector default (built in)\n  default  domains = [\"*\"]\n"),
        "{shown}"
    );
    assert!(
        !shown.contains("line "),
        "nothing of it is written: {shown}"
    );
}

/// A name that no connector has ends with 2 and leads to the nearest one; nothing is shown,
/// whatever the form.
#[test]
fn an_unknown_connector_leads_to_the_nearest_name() {
    for arguments in [
        &["--connector", "hopsital"][..],
        &["--connector", "hopsital", "--json"],
    ] {
        let (status, shown, errors) = check_partners(arguments);
        assert_eq!((status, shown.as_str()), (Some(2), ""));
        assert_eq!(
            errors,
            "gatepost check: there is no connector \"hopsital\"; did you mean \"hospital\"? (there are: hospital, \
             laboratory, mailboxes, default)\n"
        );
    }
    assert_eq!(
        check_partners(&["--connector", "hospital", "--against"]).0,
        Some(2),
        "they exclude each other"
    );
}

/// Queue, limits, timeouts, DNS and trust are shown as they are meant, and no line is wider than 80
/// columns.
#[test]
fn tables_are_shown_as_meant_within_80_columns() {
    let (status, shown, _) = check_partners(&[]);
    assert_eq!(status, Some(0));
    let from = shown.find("Queue\n").expect("a section");
    let to = shown.find("\nTLS reports").expect("a section") + 1;
    assert_eq!(
        &shown[from..to],
        "\
Queue
  retry         after 1m, 1h; then every 1h
  bounce        after 5d
  reports       of a delay after 4h; gathered for 30s;
                digest for the postmaster after 1h

Limits
  message       50MiB; 1000 recipients; 100 Received fields
  sessions      4000 at the same time; 100 of one client; 500 of one network;
                400 reserved for [relay] networks; 421 after 20 bad commands
  per minute    120 connections of one client; 600 messages; 6000 recipients;
                240 TLS handshakes; 60 unknown recipients;
                60 unchecked recipients
  memory        128MiB for the recipients of open transactions;
                512KiB of one session
  deliveries    2000 at the same time; 30m each
  reports       600 a minute; 60 to one domain

Timeouts
  inbound       command 5m; at least 1KiB a second;
                session without a message 30m
  outbound      connection 30s; reply 5m; reply to the final dot 10m
  both          TLS handshake 30s; block of a message 3m
  stop          running deliveries 30s

DNS
  servers       those of /etc/resolv.conf
  DNSSEC        validated here; with the root zone's keys

Network
  HTTP proxy    http://proxy.example.com:3128, for MTA-STS policies, TLS
                reports, access tokens and CRLs

"
    );
    assert!(
        shown.contains("  trust         webpki (Mozilla's roots); TLS 1.2 and 1.3\n"),
        "{shown}"
    );
    let sample = out(&gatepost(&["check", "--config", "config/gatepost.toml"]));
    for line in shown.lines().chain(sample.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// The JSON document has everything that the text says, under the names of the configuration and of
/// other documents.
#[test]
fn one_json_document_has_everything() {
    let (status, shown, errors) = check_partners(&["--json"]);
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&shown).expect("one document");
    assert_eq!(
        (&document["ok"], &document["errors"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(document["sha256"].as_str().map(str::len), Some(64));
    for (pointer, value) in [
        ("/hostname", json!("relay.example.com")),
        ("/queue/retry", json!(["1m", "1h"])),
        ("/queue/expire", json!("5d")),
        ("/limits/message_size", json!(52_428_800)),
        ("/timeouts/final_reply", json!("10m")),
        (
            "/dns",
            json!({"servers": [], "dnssec": "validate", "trust_anchor": null}),
        ),
        (
            "/net",
            json!({"http_proxy": "http://proxy.example.com:3128"}),
        ),
        ("/tls/trust", json!("webpki")),
        ("/admin/http", json!("127.0.0.1:9025")),
        ("/relay/domains", json!(["example.com"])),
        ("/listeners/0/name", json!("mx")),
        ("/listeners/0/addresses", json!(["127.0.0.1:2525"])),
        ("/listeners/0/client_certificate", json!(true)),
        ("/certificates/0/place", json!("relay.pem")),
        ("/connectors/0/outbound/tls", json!("forced")),
        ("/connectors/0/outbound/client_key", json!(null)),
        ("/connectors/0/exception/holds", json!(true)),
        ("/connectors/0/outbound/demand", json!("TLS opportunistic")),
        ("/connectors/1/after_exception", json!(null)),
        ("/connectors/0/written/outbound.tls/line", json!(24)),
        ("/connectors/0/written/outbound.on_failure", json!(null)),
        (
            "/connectors/0/domains/1/others",
            json!([{"name": "laboratory", "pattern": "lab.hospital.example"}]),
        ),
        ("/connectors/3/built_in", json!(true)),
    ] {
        assert_eq!(
            document.pointer(pointer).unwrap_or(&json!(null)),
            &value,
            "{pointer}"
        );
    }
    assert!(
        document
            .pointer("/certificates/0/days_left")
            .is_some_and(Value::is_i64),
        "{document:#}"
    );
    let (_, one, _) = check_partners(&["--json", "--connector", "hospital"]);
    let one: Value = serde_json::from_str(&one).expect("one document");
    assert_eq!(one["connector"], document["connectors"][0]);
    assert!(one.get("queue").is_none(), "{one:#}");
}

/// Errors are in the JSON document with their place and remedy; nothing is shown beside it, and no
/// configuration in it.
#[test]
fn errors_are_in_the_json_document() {
    let output = gatepost(&[
        "check",
        "--json",
        "--config",
        "tests/it/config_faults/everything_at_once.toml",
    ]);
    assert_eq!(
        (output.status.code(), err(&output)),
        (Some(1), String::new())
    );
    let document: Value = serde_json::from_str(&out(&output)).expect("one document");
    let errors = document["errors"].as_array().expect("a list");
    assert_eq!((errors.len(), &document["ok"]), (16, &json!(false)));
    let file = "tests/it/config_faults/everything_at_once.toml";
    let first = &errors[0];
    assert_eq!(
        (&first["file"], &first["line"], &first["column"]),
        (&json!(file), &json!(2), &json!(12))
    );
    for key in ["message", "remedy"] {
        assert!(
            first[key].as_str().is_some_and(|text| !text.is_empty()),
            "{first:#}"
        );
    }
    assert!(
        document.get("connectors").is_none() && document.get("queue").is_none(),
        "{document:#}"
    );
}

/// Warnings are in the JSON document too, and the exit status stays 0.
#[test]
fn warnings_are_in_the_json_document() {
    let (folder, file) = folder("relay.pem", "relay.key");
    fs::set_permissions(
        folder.path().join("relay.key"),
        fs::Permissions::from_mode(0o644),
    )
    .expect("our own file");
    let output = gatepost(&["check", "--json", "--config", &file.to_string_lossy()]);
    assert_eq!(
        (output.status.code(), err(&output)),
        (Some(0), String::new())
    );
    let document: Value = serde_json::from_str(&out(&output)).expect("one document");
    assert_eq!(
        (&document["warnings"][0]["line"], &document["ok"]),
        (&json!(6), &json!(true))
    );
}

/// The database of a shared spool is shown with its node, and no secret with it.
#[test]
fn the_database_is_shown_without_its_password() {
    let (folder, file) = folder("relay.pem", "relay.key");
    fs::write(folder.path().join("db.password"), "tanstaafl\n").expect("a file");
    let text = fs::read_to_string(&file).expect("a configuration");
    let (spool, cluster) = (
        "\n[spool]\nurl = \"postgresql://gatepost@db1.example.com,db2.example.com:5433/mail\"\n\
         password_file = \"db.password\"\n",
        "\n[cluster]\nnode = \"relay-1\"\nlease = \"10s\"\n",
    );
    fs::write(&file, format!("{text}{spool}{cluster}")).expect("a configuration");
    let path = folder.path().join("db.password");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    let output = check(&file);
    let shown = out(&output)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let database = format!(
        "database mail at db1.example.com:5432, db2.example.com:5433; as gatepost; password in {}; TLS verified by name, \
         trust webpki (Mozilla's roots) node relay-1; lease 10s",
        path.display()
    );
    assert!(shown.contains(&database), "{database}\n{shown}");
    assert!(!shown.contains("tanstaafl"), "{shown}");

    let output = gatepost(&["check", "--json", "--config", &file.to_string_lossy()]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&document["spool"]["url"], &document["cluster"]),
        (
            &json!("postgresql://gatepost@db1.example.com:5432,db2.example.com:5433/mail"),
            &json!({"node": "relay-1", "lease": "10s"})
        )
    );
    let output = gatepost(&["spool", "check", "--config", &file.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("the queue is in the database"),
        "{}",
        err(&output)
    );
}
