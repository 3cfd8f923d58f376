//! `gatepost explain --user`: the way of a user's mail, and what the user may do.

use std::os::unix::fs::PermissionsExt as _;

use super::world::{World, connector, in_order};
use crate::support::operated::{code, err, json};

const HASH: &str = "$argon2id$v=19$m=4096,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg";

/// A configuration with two connectors and the users of a file with these lines.
fn configured(world: &World, own: &str, user: &str) -> String {
    let file = world.folder.path().join("users.toml");
    let text = format!("[[user]]\nname = \"Scanner\"\npassword = \"{HASH}\"\n{user}");
    std::fs::write(&file, text).expect("the folder is ours");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&file, mode).expect("the file is ours");
    let connectors = connector("own", &["partner.example"], own)
        + &connector(
            "smart",
            &["smart.example"],
            "route = [\"smart.partner.example:587\"]\nehlo = \"out.example.com\"",
        );
    world.config("", &format!("[users]\nfile = \"users.toml\"\n{connectors}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_the_floor_and_the_rules_of_a_user_are_explained() {
    let world = World::new().await;
    let rules = "connector = \"smart\"\nsenders = [\"*@example.com\"]\nnetworks = [\"192.0.2.0/24\"]\nmessages_per_hour = 30\n";
    let own = "tls = \"forced\"\nverify = \"name\"";
    let text = configured(&world, own, rules);
    let output = world.explain_file(&text, &["b@partner.example", "--user", "scanner"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    in_order(
        &crate::support::operated::out(&output),
        &[
            "connector   own: its pattern",
            "user        Scanner: the mail goes by the connector smart, and what own demands holds as well\n",
            "may send from *@example.com\n",
            "may log in from 192.0.2.0/24\n",
            "at most 30 messages an hour\n",
            "Hop 1: smart.partner.example:587, smart host\n",
            "demand      TLS with a trusted certificate for smart.partner.example (recipient's connector)\n",
            "connector         nothing: TLS opportunistic\n",
            "recipient's       TLS with a trusted certificate for smart.partner.example (as the recipient's connector own says)\n",
            "is refused, 4.7.4 (recipient's connector)\n",
        ],
    );
    let output = world.explain_file(&text, &["b@partner.example", "--user", "scanner", "--json"]);
    let answer = json(&output);
    assert_eq!(answer["user"]["connector"], "smart", "{answer:#}");
    assert_eq!(answer["user"]["floor_joins"], true);
    assert_eq!(answer["hops"][0]["ehlo"], "out.example.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors_that_contradict_each_other_are_said_to() {
    let world = World::new().await;
    let text = configured(
        &world,
        "tls = \"forced\"\nverify = \"name\"\non_failure = \"bounce\"",
        "connector = \"smart\"\n",
    );
    let text = text.replacen(
        "name = \"smart\"\n",
        "name = \"smart\"\ntrust = \"system\"\n",
        1,
    );
    let demand = "tls = \"forced\"\nverify = \"name\"\nehlo =";
    let text = text.replacen("ehlo =", demand, 1);
    let output = world.explain_file(&text, &["b@partner.example", "--user", "scanner"]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    in_order(
        &crate::support::operated::out(&output),
        &[
            "NOT USED",
            "the connectors smart and own trust different authorities (`trust`) (5.7.5)",
        ],
    );
}

/// A misspelt connector is found before any mail goes another way than meant.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_or_connector_is_a_fault_with_its_place() {
    let world = World::new().await;
    let text = configured(&world, "", "connector = \"smrt\"\n");
    let output = world.explain_file(&text, &["b@partner.example", "--user", "nobody"]);
    assert_eq!(code(&output), 2);
    assert!(
        err(&output).contains("there is no user nobody"),
        "{}",
        err(&output)
    );
    let output = world.explain_file(&text, &["b@partner.example", "--user", "scanner"]);
    assert_eq!(code(&output), 1, "{}", err(&output));
    let said = crate::support::operated::out(&output);
    assert!(said.contains("the connector smrt of the user"), "{said}");
    let file = world.folder.path().join("gatepost.toml");
    let checked = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .env("COLUMNS", "500")
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .expect("gatepost runs");
    assert_eq!(code(&checked), 1, "{}", err(&checked));
    let place = "users.toml:4:13: connector: the configuration has no connector \"smrt\"";
    assert!(err(&checked).contains(place), "{}", err(&checked));
}
