//! `gatepost check` as an administrator runs it: the real program, real files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn gatepost(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .current_dir(ROOT)
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
        "Relay relay.example.com\n  postmaster postmaster@example.com",
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
fn every_fault_is_told_and_nothing_is_shown() {
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
fn a_warning_about_a_key_is_said_once_with_every_place() {
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
    let said = err(&output);
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
