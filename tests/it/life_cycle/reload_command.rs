//! `gatepost reload`: the operator sees what came of it, with each fault in its own file.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::operated::{Relay, err, out};
use crate::support::relay::program;

/// Runs the command; its exit status, standard output and standard error without the folder.
fn reload(relay: &Relay) -> (Option<i32>, String, String) {
    let output = Command::new(program())
        .env("COLUMNS", "200")
        .arg("reload")
        .arg("--config")
        .arg(relay.config())
        .stdin(Stdio::null())
        .output()
        .expect("gatepost runs");
    let folder = format!("{}/", relay.folder.path().display());
    let [out, err] = [out(&output), err(&output)].map(|text| text.replace(&folder, ""));
    (output.status.code(), out, err)
}

#[test]
fn the_outcome_is_shown_and_a_bad_file_changes_nothing() {
    let mut relay = Relay::start("");
    let text = fs::read_to_string(relay.config()).expect("our own file");
    fs::write(relay.config(), format!("include = [\"d/*.toml\"]\n{text}")).expect("our own file");
    fs::create_dir(relay.folder.path().join("d")).expect("our own folder");
    let partner = relay.folder.path().join("d/partner.toml");
    let good = "[[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n";
    fs::write(&partner, good).expect("our own folder");
    let (code, out, err) = reload(&relay);
    assert_eq!((code, &*err), (Some(0), ""), "{out}");
    assert_eq!(out, "reloaded gatepost.toml and 1 included file\n");
    relay.hears("configuration reloaded");

    // This fault is found only by the daemon, when it opens the file.
    let bad = format!(
        "{good}trust = \"missing.pem\"\noutbound = {{ tls = \"forced\", verify = \"chain\" }}\n"
    );
    fs::write(&partner, bad).expect("our own folder");
    let (code, out, err) = reload(&relay);
    assert_eq!((code, &*out), (Some(1), ""), "{err}");
    assert!(err.starts_with("d/partner.toml:4:9: "), "{err}");
    assert!(
        err.ends_with(
            "gatepost.toml is not in use, the daemon keeps the configuration that it has\n"
        ),
        "{err}"
    );

    // Without the file, nothing would be demanded of the partner.
    fs::remove_file(&partner).expect("our own file");
    let (code, out, err) = reload(&relay);
    assert_eq!((code, &*out), (Some(1), ""), "{err}");
    let lost = "gatepost.toml:1:12: include: no file matches \"d/*.toml\", and d/partner.toml, which is in force";
    assert!(err.contains(lost), "{err}");

    // This one is found before the daemon is asked.
    fs::write(&partner, "[[connector]]\nname = 1\n").expect("our own folder");
    let (code, _, err) = reload(&relay);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.starts_with("d/partner.toml:"), "{err}");
    assert_eq!(relay.logged("configuration reloaded").len(), 1);

    relay.stop();
    fs::write(&partner, good).expect("our own folder");
    let (code, _, err) = reload(&relay);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("no running Gatepost answers"), "{err}");
}
