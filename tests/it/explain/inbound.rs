//! Mail from somebody: what a session must show, and what each kind of session is answered.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::world::{World, in_order};
use crate::support::operated::{code, err, json, out};

const PARTNER: &str = "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\nnames = [\"mail.partner.example\"]\n\
    [connector.inbound]\ntls = \"forced\"\nverify = \"name\"\nnetworks = [\"192.0.2.0/24\"]\nrelay = true\n";

/// A configuration with a certificate of our own, without which nobody can be asked for one.
fn config(world: &World) -> String {
    for file in ["relay.pem", "relay.key"] {
        let copy = world.folder.path().join(file);
        fs::copy(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("certs")
                .join(file),
            &copy,
        )
        .expect("a certificate");
        // The user who asks may have no right to our keys.
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o000)).expect("our own file");
    }
    world.config("certificate = \"relay.pem\"\nkey = \"relay.key\"", PARTNER)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_session_has_the_reply_of_the_daemon() {
    let world = World::new().await;
    let output = world.explain_file(&config(&world), &["--sender", "alice@partner.example"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    in_order(
        &out(&output),
        &[
            "Mail from alice@partner.example\n",
            "connector   partner: its pattern \"partner.example\" matches partner.example\n",
            "demand      TLS with a trusted certificate for mail.partner.example\n",
            "networks    192.0.2.0/24\n",
            "from elsewhere: 550 5.7.1 Mail from partner.example is not taken from 198.51.100.1; send it through the servers agreed on\n",
            "relay       set: a session that meets all of this may send to any domain\n",
            "At listener mx (127.0.0.1:2525; TLS opportunistic, client certificate requested)\n",
            "uses no TLS",
            "530 5.7.0 Must issue a STARTTLS command first\n",
            "TLS, no certificate",
            "550 5.7.1 Mail from partner.example: TLS with a trusted certificate for mail.partner.example is demanded, but no certificate was shown; ",
            "TLS, certificate as wanted",
            "250, to any domain (verified as mail.partner.example)\n",
        ],
    );
    let told =
        json(&world.explain_file(&config(&world), &["--sender", "partner.example", "--json"]));
    assert_eq!(
        (&told["direction"], &told["asked"], &told["can_come"]),
        (&json!("inbound"), &json!("partner.example"), &json!(true))
    );
    assert_eq!(told["sender"], json!(null), "the user named no sender");
    for (asked, sender) in [
        ("alice@partner.example", "alice@partner.example"),
        ("<>", ""),
    ] {
        let told = json(&world.explain_file(&config(&world), &["--sender", asked, "--json"]));
        assert_eq!(
            (&told["asked"], &told["sender"]),
            (&json!(asked), &json!(sender))
        );
    }
    let sessions = told["listeners"][0]["sessions"]
        .as_array()
        .expect("sessions");
    let taken: Vec<_> = sessions
        .iter()
        .filter(|one| one["taken"] == true)
        .map(|one| &one["peer"])
        .collect();
    assert_eq!(taken, ["right"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_without_a_domain_has_the_connector_of_everyone() {
    let world = World::new().await;
    for (sender, pieces) in [
        (
            "<>",
            &[
                "Mail from <>\n",
                "reports have no domain",
                "default (built in)",
                "uses no TLS",
                "250, to [relay] domains",
            ][..],
        ),
        (
            "bob@[192.0.2.1]",
            &[
                "an address literal is no domain",
                "default (built in): its pattern \"*\" matches [192.0.2.1]\n",
            ],
        ),
        (
            "other.example",
            &[
                "default (built in): its pattern \"*\" matches other.example\n",
                "networks    from anywhere\n",
            ],
        ),
    ] {
        let output = world.explain_file(&config(&world), &["--sender", sender]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        in_order(&out(&output), pieces);
    }
}
