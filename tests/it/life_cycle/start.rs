//! The reasons for which a start is refused, the error texts that name them, and a start that goes
//! on without the TLS results.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Wanted;
use crate::support::counting_sink::Sink;
use crate::support::in_process::until;
use crate::support::relay::program;
use crate::support::session::Client;

/// Starts the program where it must not start; what it says.
fn refused(configuration: &Path) -> String {
    let mut command = Command::new(program());
    command
        .args(["run", "--config"])
        .arg(configuration)
        .stdin(Stdio::null())
        .env("NO_COLOR", "1");
    let output = command.output().expect("it ends by itself");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    // Not 2, which says that the configuration is wrong: what is in the way may be gone at the next
    // try.
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_instance_on_one_spool_is_refused() {
    let sink = Sink::start(1).await;
    let (folder, relay) = Wanted::mail_to(sink.address).start();
    let listener = relay.address.to_string();
    // With another port or with the same one, the error text must name the other
    // instance.
    for listener in ["127.0.0.1:0", &listener] {
        let said = refused(
            &Wanted {
                listener,
                ..Wanted::mail_to(sink.address)
            }
            .write(folder.path()),
        );
        let spool = folder.path().join("spool").display().to_string();
        for words in [
            &*spool,
            "in use by another gatepost (process ",
            "stop it, or give this one a [spool] path",
            ":8:8",
        ] {
            assert!(said.contains(words), "{words:?} is missing from\n{said}");
        }
    }
    Client::connect(relay.address)
        .await
        .sends_message("b@a.example")
        .await;
    until("the first one works on", || {
        (sink.taken() == 1).then_some(())
    })
    .await;
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
}

/// As a rollback meets them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_of_a_newer_version_are_left_alone_and_named_with_the_remedy() {
    let sink = Sink::start(1).await;
    let wanted = Wanted {
        more: "[tlsrpt]\nsend = true",
        ..Wanted::mail_to(sink.address)
    };
    let (folder, relay) = wanted.start();
    let file = folder.path().join("gatepost.toml");
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let line = text
        .lines()
        .position(|line| line == "send = true")
        .expect("a line")
        + 1;
    let reports = format!("gatepost.toml:{line}:8");
    let spool = folder.path().join("spool");
    let set_version = |database: &str, version: i32| {
        let other = rusqlite::Connection::open(spool.join(database)).expect("it was made");
        other
            .pragma_update(None, "user_version", version)
            .expect("changed");
    };
    for (database, version, place) in [
        ("queue.db", 3, ":8:8"),
        ("history.db", 1, ":8:8"),
        ("policies.db", 1, ":8:8"),
        ("tlsrpt.db", 1, &*reports),
    ] {
        set_version(database, 4);
        let octets = std::fs::read(spool.join(database)).expect("a file");
        let said = refused(&file);
        for words in [
            database,
            "has version 4",
            "run the newer gatepost that wrote it",
            place,
        ] {
            assert!(said.contains(words), "{words:?} is missing from\n{said}");
        }
        assert_eq!(
            std::fs::read(spool.join(database)).expect("still there"),
            octets,
            "{database}"
        );
        set_version(database, version);
    }
    assert_eq!(
        std::fs::read_dir(spool.join("aside"))
            .expect("made at the first start")
            .count(),
        0
    );
    let again = super::Relay::run(&file, &[]).unwrap_or_else(|end| panic!("{}", end.log));
    assert!(
        again
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
}

#[tokio::test]
async fn an_address_in_use_is_named_with_its_place_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = taken.local_addr().expect("bound");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let listener = address.to_string();
    let elsewhere = crate::support::peer::Nobody::at([127, 0, 0, 1]);
    let file = Wanted {
        listener: &listener,
        ..Wanted::mail_to(elsewhere.address)
    }
    .write(folder.path());
    let said = refused(&file);
    let location = format!("{}:5:12: ", file.display());
    let remedy = format!("find it with `ss -ltnp 'sport = :{}'`", address.port());
    for words in [
        &*location,
        &format!("listener \"mx\" cannot listen on {address}"),
        &remedy,
    ] {
        assert!(said.contains(words), "{words:?} is missing from\n{said}");
    }
    drop(taken);
    // Nothing is left behind that would be in the way.
    let relay = super::Relay::run(&file, &[]).unwrap_or_else(|end| panic!("{}", end.log));
    assert!(
        relay
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_cannot_be_kept_do_not_keep_mail_from_going() {
    let sink = Sink::start(1).await;
    let more = "[tlsrpt]\nsend = true";
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let file = Wanted {
        more,
        ..Wanted::mail_to(sink.address)
    }
    .write(folder.path());
    std::fs::create_dir_all(folder.path().join("spool/tlsrpt.db/in the way"))
        .expect("the folder is ours");
    let relay = super::Relay::run(&file, &[]).unwrap_or_else(|end| panic!("{}", end.log));
    Client::connect(relay.address)
        .await
        .sends_message("b@a.example")
        .await;
    until("it is delivered", || (sink.taken() == 1).then_some(())).await;
    let end = relay.terminate();
    for words in [
        "TLS results are not counted",
        "tlsrpt.db",
        "[spool] path",
        "send = false",
        "gatepost.toml:",
    ] {
        assert!(
            end.log.contains(words),
            "{words:?} is missing from\n{}",
            end.log
        );
    }
    assert!(end.status.is_some_and(|status| status.success()));
}
