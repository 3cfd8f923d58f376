//! Deliveries to a mailbox server by LMTP, over TCP and a unix socket.

use std::sync::{Arc, Mutex};

use gatepost::relay::outbound::AttemptResult;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, UnixListener};

use crate::support::deliveries::{World, attempt, connector, deliver, failure, message, outcome};

const TO: [&str; 3] = [
    "b@partner.example",
    "c@partner.example",
    "d@partner.example",
];

/// The replies of a mailbox server to the content, all in one write; then it closes the connection,
/// or waits for the next command.
#[derive(Clone, Copy)]
struct Replies {
    lines: &'static [&'static str],
    closes: bool,
}

const fn all(lines: &'static [&'static str]) -> Replies {
    Replies {
        lines,
        closes: false,
    }
}

/// Speaks LMTP with one client, and records its commands. Each message has the next of these
/// replies.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    replies: &[Replies],
    heard: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut stream, mut replies) = (BufReader::new(stream), replies.iter());
    stream.write_all(b"220 mailbox LMTP\r\n").await?;
    let (mut line, mut is_content) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.trim_end();
        if is_content && command != "." {
            continue;
        }
        heard.lock().expect("no panic").push(command.to_owned());
        is_content = command == "DATA";
        let answer = match command.split(' ').next().unwrap_or_default() {
            "LHLO" => "250-mailbox\r\n250 PIPELINING\r\n".to_owned(),
            "DATA" => "354 go\r\n".to_owned(),
            "." => {
                let Replies { lines, closes } = replies.next().expect("replies for each message");
                let lines = lines.iter().map(|line| format!("{line}\r\n"));
                stream
                    .write_all(lines.collect::<String>().as_bytes())
                    .await?;
                if *closes {
                    return Ok(());
                }
                continue;
            }
            "MAIL" | "RCPT" | "RSET" => "250 2.1.0 ok\r\n".to_owned(),
            "QUIT" => return stream.write_all(b"221 bye\r\n").await,
            _ => "500 5.5.1 this is LMTP\r\n".to_owned(),
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Delivers one message over TCP; returns the result and the commands.
async fn delivered_with(world: &World, replies: Replies) -> (AttemptResult, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let lines = format!("route = [\"lmtp://{address}\"]\ntls = \"opportunistic\"");
    let outbound = world.outbound(&connector("mailboxes", &["partner.example"], &lines));
    let heard = Mutex::default();
    let serving = async {
        let (stream, _) = listener.accept().await.expect("a client");
        let _ = serve(stream, &[replies], &heard).await;
    };
    let delivering = async {
        let report = deliver(&outbound, message(&TO)).await;
        outbound.close();
        report
    };
    let (report, ()) = tokio::join!(delivering, serving);
    (report, heard.into_inner().expect("no panic"))
}

fn outcomes(report: &AttemptResult) -> [String; 3] {
    [0, 1, 2].map(|at| outcome(report, at))
}

#[tokio::test]
async fn each_recipient_has_a_reply_to_the_content() {
    let world = World::new().await;
    let replies = all(&[
        "250 2.0.0 saved",
        "452 4.2.2 mailbox full",
        "550 5.7.1 not that",
    ]);
    let (report, heard) = delivered_with(&world, replies).await;
    assert_eq!(
        outcomes(&report),
        ["delivered", "deferred 4.2.2", "bounced 5.7.1"]
    );
    let reason = failure(&report, 1).to_string();
    assert!(
        reason.ends_with("answered the end of the message with: 452 4.2.2 mailbox full"),
        "{reason}"
    );
    let verbs: Vec<_> = heard
        .iter()
        .map(|line| line.split(' ').next().expect("a verb"))
        .collect();
    assert_eq!(
        verbs,
        ["LHLO", "MAIL", "RCPT", "RCPT", "RCPT", "DATA", ".", "QUIT"]
    );
}

#[tokio::test]
async fn a_server_that_closes_early_has_answered_for_some() {
    let world = World::new().await;
    let replies = Replies {
        closes: true,
        ..all(&["250 2.0.0 saved", "550 5.7.1 not that"])
    };
    let (report, _) = delivered_with(&world, replies).await;
    assert_eq!(
        outcomes(&report),
        ["delivered", "bounced 5.7.1", "deferred 4.4.2"]
    );
    let reason = failure(&report, 2).to_string();
    assert!(reason.contains("may have been delivered"), "{reason}");
}

#[tokio::test]
async fn a_recipient_without_a_reply_is_deferred() {
    let world = World::new().await;
    let (report, _) = delivered_with(&world, all(&["250 2.0.0 saved"])).await;
    assert_eq!(
        outcomes(&report),
        ["delivered", "deferred 4.4.2", "deferred 4.4.2"]
    );
    let reason = failure(&report, 1).to_string();
    assert!(
        reason.contains("no reply to the end of the message within 2 s"),
        "{reason}"
    );
}

#[tokio::test]
async fn more_replies_than_recipients_deliver_nothing() {
    let world = World::new().await;
    let replies = all(&[
        "550 5.7.1 not that",
        "250 2.0.0 saved",
        "250 2.0.0 saved",
        "250 2.0.0 saved",
    ]);
    let (report, _) = delivered_with(&world, replies).await;
    for at in 0..3 {
        assert_eq!(outcome(&report, at), "deferred 4.5.0");
        let reason = failure(&report, at).to_string();
        assert!(reason.contains("may have been delivered"), "{reason}");
    }
}

/// Over a unix socket, with one connection for both attempts: the second is for those alone that
/// were deferred.
#[tokio::test]
async fn a_retry_is_for_deferred_recipients_alone() {
    let world = World::new().await;
    let path = world.folder().join("lmtp");
    let listener = UnixListener::bind(&path).expect("a socket");
    let lines = format!("route = [\"lmtp:{}\"]", path.display());
    let outbound = world.outbound(&connector("mailboxes", &["partner.example"], &lines));
    let replies = [
        all(&[
            "250 2.0.0 saved",
            "452 4.2.2 mailbox full",
            "550 5.7.1 not that",
        ]),
        all(&["250 2.0.0 saved"]),
    ];
    let heard = Arc::new(Mutex::default());
    let serving = async {
        let (stream, _) = listener.accept().await.expect("a client");
        let _ = serve(stream, &replies, &heard).await;
    };
    let delivering = async {
        let first = deliver(&outbound, message(&TO)).await;
        assert_eq!(
            outcomes(&first),
            ["delivered", "deferred 4.2.2", "bounced 5.7.1"]
        );
        let peer = failure(&first, 1)
            .peer
            .as_ref()
            .expect("a peer")
            .to_string();
        assert_eq!(peer, path.display().to_string());
        let mut again = attempt(message(&TO));
        again.recipients = vec![1];
        let second = outbound.deliver(again).await;
        assert_eq!(outcome(&second, 1), "delivered");
        outbound.close();
    };
    tokio::join!(delivering, serving);
    let heard = heard.lock().expect("no panic");
    let second = heard.iter().skip_while(|line| *line != ".").skip(1);
    let commands: Vec<_> = second.map(String::as_str).collect();
    assert_eq!(
        commands,
        [
            "MAIL FROM:<sender@example.com>",
            "RCPT TO:<c@partner.example>",
            "DATA",
            ".",
            "QUIT"
        ]
    );
}

#[tokio::test]
async fn a_missing_socket_defers() {
    let world = World::new().await;
    let path = world.folder().join("nobody");
    let lines = format!("route = [\"lmtp:{}\"]", path.display());
    let outbound = world.outbound(&connector("mailboxes", &["partner.example"], &lines));
    let report = deliver(&outbound, message(&TO[..1])).await;
    assert_eq!(outcome(&report, 0), "deferred 4.4.1");
    let reason = failure(&report, 0).to_string();
    assert!(
        reason.starts_with(&format!("{}: cannot connect", path.display())),
        "{reason}"
    );
}
