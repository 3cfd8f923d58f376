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
