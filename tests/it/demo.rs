//! The demo as a newcomer starts it: it must keep every promise, and say so.

use assert_cmd::Command;

#[test]
fn every_outcome_is_what_the_policy_promises() {
    let played = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .arg("demo")
        .env("COLUMNS", "300")
        .assert()
        .success();
    let shown = String::from_utf8_lossy(&played.get_output().stdout).into_owned();
    let outcomes = shown.lines().filter(|line| line.contains('✔')).count();
    assert_eq!(outcomes, 35, "{shown}");
    assert!(
        !shown.contains('✘') && !shown.contains('\u{1b}'),
        "a broken promise, or colour without a terminal: {shown}"
    );
    for words in [
        "verified: mail.domain-c.com",
        "untrusted: it is self-signed",
        "deferred 4.7.4",
        "DANE: 3 1 1 ",
        "the certificate is not the one that the TLSA record names",
        "a host whose TLSA records are not known is not used",
        "verified: mx.m1.example",
        "mx.m2.example is not among the hosts listed: other.m2.example",
        "the certificate is for mail.stranger.example, not for mx.m3.example",
        "opportunistic, downgrade refuse",
    ] {
        assert!(shown.contains(words), "{words:?} is missing from {shown}");
    }
}

/// The demo of several relays leaves nothing behind, neither a process nor a folder.
#[test]
#[ignore = "needs PostgreSQL's server programs"]
fn a_relay_that_dies_loses_nothing_and_the_demo_leaves_nothing() {
    // The server's user must get there, which may not be so where programs are built.
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(folder.path(), open).expect("ours");
    let played = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["demo", "--cluster"])
        .env("TMPDIR", folder.path())
        .assert()
        .success();
    let shown = String::from_utf8_lossy(&played.get_output().stdout).into_owned();
    for words in [
        "relay-2 dies: kill -9",
        "The lease of relay-2 has ended",
        "relay-2  dead     0 messages",
        "60 of 60 messages have arrived, none twice, none in the clear.",
    ] {
        assert!(shown.contains(words), "{words:?} is missing from {shown}");
    }
    assert_left_nothing(folder.path());
}

/// An interrupted demo stops what it has started.
#[test]
#[ignore = "needs PostgreSQL's server programs"]
fn an_interrupted_demo_leaves_nothing() {
    use std::io::BufRead as _;
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(folder.path(), open).expect("ours");
    let mut demo = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["demo", "--cluster"])
        .env("TMPDIR", folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program");
    let shown = std::io::BufReader::new(demo.stdout.take().expect("piped"));
    let mut lines = shown.lines();
    // The relays run from this line on.
    assert!(lines.any(|line| line.expect("text").contains("share a queue")));
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert_eq!(demo.wait().expect("it ends").code(), Some(1));
    assert_left_nothing(folder.path());
}

/// Fails if the folder is not empty, or a process has it in its arguments.
fn assert_left_nothing(folder: &std::path::Path) {
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 0);
    let name = folder.to_str().expect("a name in UTF-8");
    for process in std::fs::read_dir("/proc").expect("processes").flatten() {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        assert!(!arguments.contains(name), "still runs: {arguments}");
    }
}
