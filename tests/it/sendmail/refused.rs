//! Messages that are refused, each with its status of sysexits.

use std::process::Command;

use super::{Post, code, run, said};
use crate::support::relay::program;

/// Arguments and a message, and the status and reason that they are refused with.
type Refused = (&'static [&'static str], &'static str, i32, &'static str);

const REFUSED: [Refused; 12] = [
    (
        &["-f", "a@strict.example", "b@b.example"],
        "Subject: x\n\nhello\n",
        69,
        "the relay rejects",
    ),
    (
        &["b@b.example", "c@c.example"],
        "Subject: x\n\nhello\n",
        67,
        "c@c.example: 550 5.7.1",
    ),
    (
        &["not@an@address"],
        "Subject: x\n\nhello\n",
        67,
        "is not an address",
    ),
    (&["-t"], "Subject: x\n\nhello\n", 65, "no recipient"),
    (
        &["-t"],
        "Cc: Bob <bob@b.example, Alice <alice@b.example>\n\nx\n",
        65,
        "cannot parse its Cc: a \"<\" is not",
    ),
    (
        &["-t"],
        "To: a@b.example (late, b@b.example\n\nx\n",
        65,
        "cannot parse its To: a comment is not closed",
    ),
    (
        &["-t"],
        "To: b@b.example\nBcc: Alice Smith alice@b.example\n\nx\n",
        65,
        "\"Alice Smith alice@b.example\" is not one",
    ),
    (
        &["-t"],
        "To: b@b.example, a@b@c.example\n\nx\n",
        65,
        "\"a@b@c.example\" is not an address",
    ),
    (
        &["b@b.example", "Bob <bob@b.example"],
        "Subject: x\n\nhello\n",
        65,
        "a \"<\" is not closed",
    ),
    (
        &["-f", "a@a.example b@a.example", "b@b.example"],
        "Subject: x\n\nhello\n",
        64,
        "is not one address",
    ),
    (&[], "Subject: x\n\nhello\n", 64, "no recipient"),
    (&["-bd"], "", 64, "gatepost run"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_has_the_status_of_sysexits_and_goes_to_nobody() {
    let post = Post::open().await;
    let large = format!("Subject: x\n\n{}\n", "x".repeat(70 * 1024));
    let too_large: (&[&str], &str, i32, &str) =
        (&["b@b.example"], &large, 65, "larger than 65536 octets");
    for (words, message, status, why) in REFUSED.into_iter().chain([too_large]) {
        let output = post.sendmail(words, message);
        assert_eq!(code(&output), status, "{words:?}: {}", said(&output));
        assert!(said(&output).contains(why), "{words:?}: {}", said(&output));
    }
    let mut command = Command::new(program());
    command.args([
        "sendmail",
        "--config",
        "/nonexistent/gatepost.toml",
        "b@b.example",
    ]);
    let output = run(command, "Subject: x\n\nhello\n");
    assert_eq!(code(&output), 78, "{}", said(&output));
    // The accepted message arrives; nothing of the refused one does.
    assert_eq!(
        code(&post.sendmail(&["b@b.example"], "Subject: last\n\nhello\n")),
        0
    );
    assert!(post.delivered(1).await[0].contains("Subject: last"));
}
