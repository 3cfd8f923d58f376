//! Files of users, good and faulty.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use crate::smtp::address::ReversePath;

const HASH: &str = "$argon2id$v=19$m=4096,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg";

fn parse(text: &str) -> Result<UserList, Vec<String>> {
    let text = text.replace("HASH", HASH);
    parse_users(&text, Path::new("/etc/users.toml")).map_err(|faults| {
        faults
            .iter()
            .map(|fault| format!("{}: {}", fault.location.line, fault.message))
            .collect()
    })
}

fn sender(address: &str) -> ReversePath {
    ReversePath::parse(address).expect("a path")
}

#[test]
fn a_user_may_send_as_its_rules_say() {
    let users = parse(
        "[[user]]\nname = \"Scanner\"\npassword = \"HASH\"\nsenders = [\"scan@example.com\", \"*@example.org\"]\n\
         networks = [\"192.0.2.0/24\"]\n[[user]]\nname = \"all\"\npassword = \"HASH\"\n\
         [[user]]\nname = \"report\"\npassword = \"HASH\"\nsenders = [\"a@b.example\"]\nnull_sender = true\n",
    )
    .expect("good");
    let scanner = users
        .get("scanner")
        .expect("names are compared in lower case");
    for (from, may) in [
        ("scan@example.com", true),
        ("SCAN@Example.com", true),
        ("x@example.com", false),
        ("x@example.org", true),
        ("x@sub.example.org", false),
        ("x@[192.0.2.1]", false),
        ("", false),
    ] {
        assert_eq!(scanner.may_send_from(&sender(from)), may, "{from:?}");
    }
    for (name, from) in [("all", "a@b.example"), ("all", ""), ("report", "")] {
        let user = users.get(name).expect("it is there");
        assert!(user.may_send_from(&sender(from)), "{name} {from:?}");
    }
    let address = |text: &str| Some(text.parse().expect("an address"));
    assert!(scanner.may_log_in_from(address("::ffff:192.0.2.1")));
    assert!(!scanner.may_log_in_from(address("198.51.100.1")));
    assert!(!scanner.may_log_in_from(None));
    assert!(users.get("all").expect("it is there").may_log_in_from(None));
}

#[test]
fn every_fault_has_its_line() {
    let faults = parse(
        "salt_secret = \"c2hvcnQ=\"\n[[user]]\nname = \"a\"\npassword = \"secret\"\n[[user]]\nname = \"A\"\n\
         password = \"HASH\"\nscram = \"x\"\nsenders = [\"*\"]\nsender = [\"a@b.example\"]\n[[user]]\nname = \"\"\n",
    )
    .expect_err("bad");
    assert_eq!(
        faults,
        [
            "1: salt_secret is not the base64 of 16 or more octets",
            "4: password is not the argon2id hash of a password, with costs that are accepted",
            "6: the user \"a\" already exists at /etc/users.toml:3:8",
            "8: scram does not have the form \"SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY\"",
            "9: senders: \"*\" is not an address",
            "10: unknown key \"sender\" in [[user]]",
            "11: password is missing in [[user]]",
            "12: name: \"\" is not usable: it is empty",
        ]
    );
    assert!(
        !faults.concat().contains("secret\""),
        "no secret is repeated"
    );
}

#[test]
fn costs_are_the_same_for_all() {
    let other = HASH.replace("t=1", "t=2");
    let faults = parse(&format!(
        "[[user]]\nname = \"a\"\npassword = \"HASH\"\n[[user]]\nname = \"b\"\npassword = \"{other}\"\n"
    ))
    .expect_err("bad");
    assert_eq!(
        faults,
        ["6: password has other costs of argon2id than at /etc/users.toml:3:12"]
    );
}

#[test]
fn others_may_not_read_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users.toml");
    let mode = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
    };
    let fault = read_users(&path).expect_err("missing").remove(0);
    assert!(fault.remedy.contains("gatepost user add"), "{fault}");
    std::fs::write(
        &path,
        format!("[[user]]\nname = \"a\"\npassword = \"{HASH}\"\n"),
    )
    .expect("ours");
    for bad in [0o644, 0o640, 0o604, 0o620] {
        mode(bad);
        let fault = read_users(&path).expect_err("others may read it").remove(0);
        assert!(
            fault.message.ends_with(&format!("(mode {bad:04o})")),
            "{fault}"
        );
        assert!(fault.remedy.starts_with("Run chmod 0600 "), "{fault}");
    }
    mode(0o600);
    assert_eq!(read_users(&path).map(|users| users.count()).ok(), Some(1));
}
