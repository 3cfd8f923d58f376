//! The table `oauth2`: its keys, its faults, and the files that it names.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use gatepost::config::{ClientProof, TokenGrant, TrustSource, parse_token_settings};
use gatepost::net::oauth::{TokenSource, check_token_files};

use super::server::token;
use super::world::{BY_SECRET, SECRET, World};

fn parsed(lines: &str) -> Result<gatepost::config::TokenSettings, String> {
    let text = format!("oauth2 = {{ {lines} }}");
    parse_token_settings(&text, Path::new("/etc/gatepost/g.toml")).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

#[test]
fn each_grant_has_its_keys() {
    let file = |name: &str| Path::new("/etc/gatepost").join(name);
    let settings = parsed(
        "grant = \"client_credentials\", token_url = \"https://Login.example/t\", client_id = \"c\", \
         certificate = \"c.pem\", key = \"c.key\", scope = \"a b\", trust = \"ca.pem\"",
    )
    .expect("no fault");
    assert_eq!(
        settings.token_url.value.to_string(),
        "https://login.example/t"
    );
    assert_eq!(settings.scope.as_deref(), Some("a b"));
    let trust = settings.trust.expect("it is set").value;
    assert_eq!(trust, TrustSource::File(file("ca.pem")));
    let TokenGrant::ClientCredentials { client_id, proof } = settings.grant else {
        panic!("{:?}", settings.grant)
    };
    let ClientProof::Certificate(files) = proof else {
        panic!("{proof:?}")
    };
    assert_eq!(client_id, "c");
    assert_eq!(
        (files.certificate.value, files.key.value),
        (file("c.pem"), file("c.key"))
    );
    let settings = parsed(
        "grant = \"refresh_token\", token_url = \"https://login.example/t\", client_id = \"c\", \
         refresh_token_file = \"/run/r\"",
    )
    .expect("no fault");
    assert_eq!((settings.scope, settings.trust), (None, None));
    let TokenGrant::RefreshToken {
        proof,
        refresh_token_file,
        ..
    } = settings.grant
    else {
        panic!("{:?}", settings.grant)
    };
    assert_eq!(
        (proof, refresh_token_file.value.as_path()),
        (None, Path::new("/run/r"))
    );
    let settings = parsed(
        "grant = \"jwt_bearer\", token_url = \"https://login.example/t\", key_file = \"k\", \
         issuer = \"i\", subject = \"s\"",
    )
    .expect("no fault");
    let TokenGrant::JwtBearer {
        key_file,
        issuer,
        subject,
    } = settings.grant
    else {
        panic!("{:?}", settings.grant)
    };
    assert_eq!(
        (key_file.value, issuer.as_str(), subject.as_str()),
        (file("k"), "i", "s")
    );
}

#[test]
fn faults_have_a_place_and_a_remedy() {
    const TABLE: &str = "[connector.outbound.auth.oauth2]";
    let url = "token_url = \"https://login.example/\"";
    for (lines, words) in [
        (
            "grant = \"client_credentials\", token_url = \"http://login.example/\", client_id = \"c\", client_secret_file = \"s\""
                .to_owned(),
            "g.toml:1:54: token_url cannot be \"http://login.example/\": the URL does not begin with \"https://\"\n    \
             Write https://…: the request carries secrets and is never sent without TLS."
                .to_owned(),
        ),
        (
            "grant = \"client_credentials\", token_url = \"https://192.0.2.1/\", client_id = \"c\", client_secret_file = \"s\""
                .to_owned(),
            "the host of the URL is not a domain name".to_owned(),
        ),
        (
            format!("grant = \"client_credentials\", {url}, client_secret_file = \"s\""),
            format!("g.toml:1:10: client_id is missing in {TABLE} with grant = \"client_credentials\"\n    Add to oauth2: client_id"),
        ),
        (
            format!("grant = \"client_credentials\", {url}, client_id = \"c\""),
            "has neither client_secret_file nor certificate and key: nothing proves the client".to_owned(),
        ),
        (
            format!("grant = \"client_credentials\", {url}, client_id = \"c\", client_secret_file = \"s\", certificate = \"c\", key = \"k\""),
            "client_secret_file and certificate are both set".to_owned(),
        ),
        (
            format!("grant = \"client_credentials\", {url}, client_id = \"c\", certificate = \"c\""),
            "certificate is set without key".to_owned(),
        ),
        (
            format!("grant = \"refresh_token\", {url}, client_id = \"c\""),
            format!("refresh_token_file is missing in {TABLE} with grant = \"refresh_token\""),
        ),
        (
            format!("grant = \"jwt_bearer\", {url}, key_file = \"k\", issuer = \"i\", subject = \"s\", client_id = \"c\""),
            "client_id has no use with grant = \"jwt_bearer\"\n    Remove it, or write grant = \"client_credentials\" or grant = \"refresh_token\"."
                .to_owned(),
        ),
        (
            format!("grant = \"password\", {url}"),
            "grant cannot be \"password\"".to_owned(),
        ),
        (
            format!("grant = \"client_credentials\", {url}, client_id = \"c d\", client_secret_file = \"s\", scope = \"a  b\""),
            "client_id: \"c d\" is not a name".to_owned(),
        ),
        (
            format!("grant = \"client_credentials\", {url}, client_id = \"c\", client_secret_file = \"s\", scope = \"a  b\""),
            "scope: \"a  b\" is not a scope".to_owned(),
        ),
        (
            format!("grant = \"client_credentials\", {url}, client_id = \"c\", client_secret = \"s\""),
            format!("unknown key \"client_secret\" in {TABLE}\n    Did you mean \"client_secret_file\"?"),
        ),
        ("grant = \"jwt_bearer\"".to_owned(), format!("token_url is missing in {TABLE}")),
        // A text with an unknown key is read twice; what was wrong before is reported nevertheless.
        (
            format!("grant = \"client_credentials\", {url}, client_id = \"c\", client_id = \"d\", client_secret = \"s\""),
            "this key or table is already defined".to_owned(),
        ),
    ] {
        let faults = parsed(&lines).expect_err(&lines);
        assert!(faults.contains(&words), "{lines}\n{faults}\n{words}");
    }
}

/// The faults of secrets, which never show them.
#[tokio::test]
async fn files_without_a_secret_are_faults() {
    let world = World::new(Vec::new()).await;
    let settings = world.settings(BY_SECRET);
    for (content, words) in [
        ("", "secret does not contain a client secret"),
        (" \n", "secret does not contain a client secret"),
        ("s3cret\nmore", "secret does not contain a client secret"),
        ("s3cret\u{1}", "secret does not contain a client secret"),
    ] {
        world.write("secret", content);
        let faults = check_token_files(&settings).expect_err("a fault");
        let text = faults[0].to_string();
        assert!(faults.len() == 1 && text.contains(words), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    std::fs::remove_file(world.path("secret")).expect("the file is ours");
    let loaded = TokenSource::load(&settings, world.https(), &world.spool(), &world.caches);
    let faults = loaded.expect_err("a fault");
    assert!(
        faults[0].message.ends_with("secret does not exist"),
        "{faults:?}"
    );
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_a_warning() {
    let world = World::new(Vec::new()).await;
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.path("secret"), mode).expect("the file is ours");
    let warnings = check_token_files(&world.settings(BY_SECRET)).expect("no fault");
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    let words = "secret is a client secret, and open to every user of this machine (mode 0644)";
    assert!(warning.message.ends_with(words), "{warning}");
}

#[tokio::test]
async fn no_debug_text_has_a_secret() {
    let world = World::new(vec![token("t0ken")]).await;
    let source = world.source(BY_SECRET);
    let got = source.token().await.expect("a token");
    let (settings, caches) = (world.settings(BY_SECRET), &world.caches);
    let text = format!("{source:?} {got:?} {settings:?} {caches:?}");
    assert!(!text.contains(SECRET) && !text.contains("t0ken"), "{text}");
}
