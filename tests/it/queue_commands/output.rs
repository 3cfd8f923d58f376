//! What the commands print, and where it goes: readers who have gone, messages that leave meanwhile.

use super::commands::{filled, state};
use crate::support::operated::{Relay, code, err, json, out, raw, stand_in};

#[test]
fn an_answer_that_cannot_be_written_is_no_success() {
    let (relay, [first, _]) = filled();
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("every Linux has it")
    };
    for arguments in [
        &["show", &first, "--headers", "--body"][..],
        &["show", &first, "--body"],
        &["show", &first],
        &["show", &first, "--json"],
        &["show", "--all", "--json", "--headers"],
        &["list"],
        &["list", "--json"],
        &["hold", &first],
    ] {
        let output = relay.queue_into(full(), arguments);
        assert_eq!(code(&output), 1, "{arguments:?}: {}", err(&output));
        for said in [
            "cannot write the output",
            "No space left on device",
            "Free some space",
        ] {
            assert_eq!(
                err(&output).matches(said).count(),
                1,
                "{arguments:?}: {said:?} in\n{}",
                err(&output)
            );
        }
    }
    assert_eq!(
        state(&relay.list()[0], 0),
        "held",
        "the order was carried out"
    );
}

#[test]
fn a_reader_who_has_gone_away_is_no_fault() {
    let relay = Relay::start("");
    let large = relay.send(
        "alice@example.org",
        &["bob@example.net"],
        &"a line\r\n".repeat(100_000),
    );
    for arguments in [
        &["show", &large, "--headers", "--body"][..],
        &["show", &large],
        &["list"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = relay.queue_into(writer, arguments);
        assert_eq!(
            (code(&output), err(&output)),
            (0, String::new()),
            "{arguments:?}"
        );
    }
}

#[test]
fn what_leaves_the_queue_while_it_is_shown_is_missed_only_where_it_was_named() {
    let (mut relay, [first, second]) = filled();
    let get = |target: &str| {
        raw(
            &relay.socket(),
            &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
        )
        .1
    };
    let one = format!("/v1/queue/{second}");
    let answers = vec![
        ("/v1/queue".to_owned(), get("/v1/queue")),
        (one.clone(), get(&one)),
    ];
    relay.stop();
    stand_in(&relay.socket(), answers);

    let output = relay.queue(&["show", "--all", "--json"]);
    assert_eq!((code(&output), err(&output)), (0, String::new()));
    let shown = json(&output);
    let ids: Vec<_> = shown
        .as_array()
        .expect("an array")
        .iter()
        .map(|message| message["id"].clone())
        .collect();
    assert_eq!(ids, [second.as_str()]);
    let output = relay.queue(&["show", &first, &second]);
    assert_eq!(
        (code(&output), err(&output)),
        (1, format!("{first}: no such message in the queue\n"))
    );
    assert!(
        out(&output).starts_with(&format!("message    {second}\n")),
        "{}",
        out(&output)
    );
}

#[test]
fn an_id_beside_other_options_is_not_reported_as_gone() {
    let (relay, [first, _]) = filled();
    let output = relay.queue(&["remove", &first, "--domain", "nobody.example", "--yes"]);
    assert_eq!(
        (code(&output), out(&output)),
        (1, "0 messages removed, 1 not\n".to_owned())
    );
    assert_eq!(
        err(&output),
        format!("{first}: not in the queue, or does not match the other options\n")
    );
}
