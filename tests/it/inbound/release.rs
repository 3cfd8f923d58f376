//! `gatepost clients release --user`, at a daemon that holds a user back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use gatepost::daemon::RunningDaemon;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::login::{Users, log_in, plain, trusting};
use super::relay::{Client, PATIENCE, secured_at};
use crate::support::config::ConfigBuilder;
use crate::support::in_process::run;

/// A running daemon with users, and the program that an operator runs.
struct Operated {
    folder: tempfile::TempDir,
    address: SocketAddr,
    running: RunningDaemon,
}

impl Operated {
    async fn start(users: &Users) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
        let certs = certs.display();
        let config = ConfigBuilder::new()
            .listener("127.0.0.1:0")
            .tls("opportunistic")
            .with("auth = [\"plain\"]")
            .table("spool", "path = \"spool\"")
            .table("admin", "socket = \"admin.sock\"\nhttp = \"\"")
            .table(
                "tls",
                &format!("certificate = \"{certs}/relay.pem\"\nkey = \"{certs}/relay.key\""),
            )
            .table("users", &format!("file = \"{}\"", users.path().display()))
            .table("evidence", "path = \"\"")
            .table("dns", "servers = [\"127.0.0.1:1\"]\ndnssec = \"off\"");
        config.write(folder.path());
        let config = config.parse_in(folder.path());
        let (address, running) = run(config, Arc::new(())).await;
        Self {
            folder,
            address,
            running,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("gatepost.toml")
    }

    /// A client under TLS that has said EHLO.
    async fn client(&self) -> Client<TlsStream<TcpStream>> {
        let mut client = secured_at(self.address, trusting()).await;
        client.asks("EHLO client.example", "250-").await;
        client
    }

    /// Runs `gatepost clients`; returns the exit status and what it writes.
    async fn clients(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command
            .arg("clients")
            .args(arguments)
            .arg("--config")
            .arg(self.file())
            .stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || command.output()).await;
        let output = ran.expect("no panic").expect("gatepost runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("UTF-8");
        (output.status.code(), text)
    }

    async fn ends(mut self) {
        self.running.stop();
        timeout(PATIENCE, self.running.ended())
            .await
            .expect("in time")
            .expect("an orderly end");
    }
}

const MAIL: &str = "MAIL FROM:<a@example.org>";

#[tokio::test]
async fn a_user_that_is_released_goes_on_at_once() {
    let users = Users::of(&[("scanner", "messages_per_hour = 1"), ("other", "")]);
    let operated = Operated::start(&users).await;
    let mut client = operated.client().await;
    log_in(&mut client, "scanner").await;
    client.asks(MAIL, "250 2.1.0").await;
    client.asks("RSET", "250").await;
    let held_back = "450 4.7.1 Too many messages an hour with your login";
    client.asks(MAIL, held_back).await;
    let (_, listed) = operated.clients(&["list"]).await;
    assert!(
        listed.contains("user scanner  messages_per_hour"),
        "{listed}"
    );
    // Neither another user nor an address of the same client is this user.
    for (arguments, answer) in [
        (
            &["release", "--user", "other"][..],
            "user other was not held back\n",
        ),
        (&["release", "127.0.0.1"], "127.0.0.1 was not held back\n"),
    ] {
        let released = operated.clients(arguments).await;
        assert_eq!(released, (Some(1), answer.to_owned()));
    }
    client.asks(MAIL, held_back).await;
    // Letter case does not matter, as it does not at a login.
    let released = operated.clients(&["release", "--user", "Scanner"]).await;
    let answer = "released user scanner (messages_per_hour)\n";
    assert_eq!(released, (Some(0), answer.to_owned()));
    client.asks(MAIL, "250 2.1.0").await;
    let (_, listed) = operated.clients(&["list"]).await;
    assert_eq!(listed, "no client is held back\n");
    drop(client);
    operated.ends().await;
}

/// Whoever mistypes a password too often waits, with the right password too, until an operator
/// releases the user.
#[tokio::test]
async fn a_release_forgets_the_failed_logins_of_a_user() {
    let users = Users::of(&[("scanner", ""), ("other", "")]);
    let operated = Operated::start(&users).await;
    let mut client = operated.client().await;
    for _ in 0..10 {
        client.asks(&plain("scanner", "wrong"), "535 5.7.8").await;
    }
    let mut again = operated.client().await;
    let right = plain("scanner", "secret-scanner");
    again.asks(&right, "454 4.7.0 Too many failed logins").await;
    let other = operated.clients(&["release", "--user", "other"]).await;
    assert_eq!(
        other,
        (Some(1), "user other was not held back\n".to_owned())
    );
    again.asks(&right, "454 4.7.0 Too many failed logins").await;
    let released = operated.clients(&["release", "--user", "scanner"]).await;
    let answer = "released user scanner (failed_logins)\n";
    assert_eq!(released, (Some(0), answer.to_owned()));
    again.asks(&right, "235 2.7.0").await;
    drop((client, again));
    operated.ends().await;
}
