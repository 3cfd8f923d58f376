//! `gatepost user`: the file of the users, as the commands change it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gatepost::config::read_users;
use gatepost::smtp::sasl::Password;

use crate::support::config::ConfigBuilder;
use crate::support::operated::{err, out};

/// Runs `gatepost user` with this standard input.
fn user(config: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .env("COLUMNS", "200")
        .arg("user")
        .args(arguments)
        .arg("--config")
        .arg(config);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("gatepost runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A command that reads no password does not wait for one.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("gatepost ends")
}

fn status(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("{}", err(output)))
}

/// A folder with a configuration, and the file of its users.
fn configured() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = ConfigBuilder::new()
        .table("users", "file = \"users.toml\"")
        .write(folder.path());
    let file = folder.path().join("users.toml");
    (folder, config, file)
}

/// Returns whether a user has this password.
fn has_password(file: &Path, name: &str, password: &str) -> bool {
    let users = read_users(file).expect("good users");
    let user = users
        .get(name)
        .unwrap_or_else(|| panic!("there is no {name}"));
    user.password
        .is_of(&Password::new(password).expect("usable"))
}

/// Adds a user with options.
fn add_scanner(config: &Path) {
    let added = user(
        config,
        &[
            "add",
            "Scanner",
            "--sender",
            "scan@example.com",
            "--sender",
            "*@example.org",
            "--network",
            "192.0.2.0/24",
            "--messages-per-hour",
            "30",
        ],
        "correct horse\n",
    );
    assert_eq!(status(&added), 0, "{}", err(&added));
    assert!(
        out(&added).starts_with("Scanner added ("),
        "{}",
        out(&added)
    );
}

#[test]
fn an_added_user_is_stored_without_the_password() {
    let (_folder, config, file) = configured();
    add_scanner(&config);
    let mode = std::fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(has_password(&file, "scanner", "correct horse"));
    let text = std::fs::read_to_string(&file).expect("ours");
    assert!(
        text.contains("salt_secret = ") && text.contains("scram = \"SCRAM-SHA-256$15000:"),
        "{text}"
    );
    assert!(!text.contains("correct horse"), "{text}");
    assert_eq!(
        status(&user(&config, &["add", "scanner"], "another one\n")),
        1
    );
}

#[test]
fn users_are_changed_listed_and_removed() {
    let (_folder, config, file) = configured();
    add_scanner(&config);
    let second = user(&config, &["add", "b", "--without-scram"], "another one\n");
    assert_eq!(status(&second), 0, "{}", err(&second));
    assert_eq!(
        status(&user(&config, &["passwd", "SCANNER"], "battery staple\n")),
        0
    );
    assert!(has_password(&file, "scanner", "battery staple"));
    assert!(!has_password(&file, "scanner", "correct horse"));
    // A file without the secret gets one with the next change.
    let text = std::fs::read_to_string(&file).expect("ours");
    let is_other = |line: &&str| !line.starts_with("salt_secret");
    let without: Vec<_> = text.lines().filter(is_other).collect();
    std::fs::write(&file, without.join("\n")).expect("ours");
    assert_eq!(status(&user(&config, &["disable", "b"], "")), 0);
    assert!(read_users(&file).expect("good users").salt_secret.is_some());
    let listed = user(&config, &["list"], "");
    assert_eq!(
        out(&listed),
        "name     state     SCRAM  senders                         networks      an hour      connector\n\
         Scanner  enabled   yes    scan@example.com *@example.org  192.0.2.0/24  30 messages  the recipients'\n\
         b        disabled  no     all                             all           no limit     the recipients'\n"
    );
    assert_eq!(status(&user(&config, &["enable", "b"], "")), 0);
    assert_eq!(status(&user(&config, &["remove", "scanner"], "")), 0);
    let json: serde_json::Value =
        serde_json::from_str(&out(&user(&config, &["list", "--json"], ""))).expect("JSON");
    assert_eq!(json[0]["name"], "b");
    assert_eq!(
        (json[0]["disabled"].as_bool(), json[1].is_null()),
        (Some(false), true)
    );
    for command in ["passwd", "disable", "enable", "remove"] {
        assert_eq!(
            status(&user(&config, &[command, "scanner"], "correct horse\n")),
            1,
            "{command}"
        );
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = ConfigBuilder::new()
        .table("users", "file = \"users.toml\"")
        .write(folder.path());
    let file = folder.path().join("users.toml");
    for (arguments, input, words) in [
        (&["add", "a"][..], "short\n", "less than 8 characters"),
        (&["add", "a"], "", "less than 8 characters"),
        (&["add", "a"], "bell\u{7}bell\u{7}\n", "cannot be used"),
        (
            &["add", "a", "--sender", "nobody"],
            "correct horse\n",
            "senders: \"nobody\" is not an address",
        ),
        (&["add", ""], "correct horse\n", "it is empty"),
        (&["list"], "", "gatepost user add"),
    ] {
        let output = user(&config, arguments, input);
        assert_eq!(status(&output), 2, "{arguments:?}: {}", err(&output));
        assert!(
            err(&output).contains(words),
            "{arguments:?}: {}",
            err(&output)
        );
        assert!(!file.exists(), "{arguments:?}");
    }
    std::fs::write(&file, "").expect("ours");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let output = user(&config, &["add", "a"], "correct horse\n");
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("mode 0644"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(&file).expect("ours"), "");
    let without = ConfigBuilder::new().write(folder.path());
    let output = user(&without, &["list"], "");
    assert!(
        status(&output) == 2 && err(&output).contains("no [users]"),
        "{}",
        err(&output)
    );
}

/// A name that is in no connector is refused before a password is asked for.
#[test]
fn a_user_is_added_with_a_connector_of_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = ConfigBuilder::new()
        .table("users", "file = \"users.toml\"")
        .with("[[connector]]\nname = \"smart\"\ndomains = [\"smart.invalid\"]\n")
        .write(folder.path());
    let wrong = user(
        &config,
        &["add", "a", "--connector", "smrt"],
        "correct horse\n",
    );
    assert_eq!(status(&wrong), 2);
    let said = err(&wrong);
    assert!(said.contains("no connector \"smrt\""), "{said}");
    let right = user(
        &config,
        &["add", "a", "--connector", "smart"],
        "correct horse\n",
    );
    assert_eq!(status(&right), 0, "{}", err(&right));
    let users = read_users(&folder.path().join("users.toml")).expect("good users");
    let connector = users.get("a").expect("it is there").connector.as_ref();
    assert_eq!(connector.map(|name| name.value.as_str()), Some("smart"));
}
