//! `gatepost sendmail` as programs call it: the real program, a running relay, and a server that
//! takes what the relay delivers.

mod refused;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::config::ConfigBuilder;
use crate::support::peer::Peer;
use crate::support::relay::{Relay, program};
use crate::support::{in_process, place};

/// A relay, whom it delivers to, and its configuration.
struct Post {
    folder: TempDir,
    config: PathBuf,
    relay: Option<Relay>,
    peer: Peer,
}

/// An address that was free a moment ago: `sendmail` finds the relay by its configuration, so the
/// port must stand there.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
}

fn configure(folder: &Path, listener: SocketAddr, route: SocketAddr) -> PathBuf {
    ConfigBuilder::new()
        .postmaster("admin@example.com")
        .listener(&listener.to_string())
        .table("spool", "path = \"spool\"")
        .table("evidence", "path = \"\"")
        .table("admin", "socket = \"admin.sock\"\nhttp = \"\"")
        .table("log", "format = \"text\"")
        .table("limits", "message_size = \"64KiB\"")
        .table("relay", "networks = [\"127.9.9.9/32\"]\ndomains = [\"b.example\", \"example.com\"]")
        .relays_to(route)
        .with("[[connector]]\nname = \"strict\"\ndomains = [\"strict.example\"]\n[connector.inbound]\nnetworks = [\"192.0.2.0/24\"]")
        .write(folder)
}

impl Post {
    async fn open() -> Self {
        Self::to(in_process::willing().await)
    }

    fn to(peer: Peer) -> Self {
        Self::configured(peer, |text| text)
    }

    /// A relay whose configuration is edited.
    fn configured(peer: Peer, edit: impl Fn(String) -> String) -> Self {
        let folder = place();
        for _ in 0..10 {
            let config = configure(folder.path(), free(), peer.address);
            let text = std::fs::read_to_string(&config).expect("it was written");
            std::fs::write(&config, edit(text)).expect("the folder is ours");
            // Somebody else may have been faster with the port.
            if let Ok(relay) = Relay::run(&config, &[]) {
                return Self {
                    folder,
                    config,
                    relay: Some(relay),
                    peer,
                };
            }
        }
        panic!("no port stays free");
    }

    /// `gatepost sendmail`, with this message.
    fn sendmail(&self, words: &[&str], message: &str) -> Output {
        let mut command = Command::new(program());
        command
            .arg("sendmail")
            .arg("--config")
            .arg(&self.config)
            .args(words);
        run(command, message)
    }

    /// The messages that have been delivered, once there are so many.
    async fn delivered(&self, count: usize) -> Vec<String> {
        in_process::until("they are delivered", || {
            (self.peer.messages().len() >= count).then_some(())
        })
        .await;
        self.peer
            .messages()
            .into_iter()
            .map(|message| String::from_utf8(message).expect("UTF-8"))
            .collect()
    }

    /// Returns the commands that the relay sent to its peer.
    fn commands(&self) -> Vec<String> {
        self.peer
            .heard()
            .into_iter()
            .flat_map(|heard| heard.commands)
            .collect()
    }
}

fn run(mut command: Command, message: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("gatepost runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that has refused already does not read.
    let _unread = stdin.write_all(message.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_cron_is_completed_and_goes_to_postmaster() {
    let post = Post::open().await;
    let cron = ["-i", "-FCron Daemon", "-B8BITMIME", "-oem", "root"];
    let output = post.sendmail(
        &cron,
        "Subject: Cron <root@host> test\n\nline one\n.\nline three\n",
    );
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    let message = post.delivered(1).await.remove(0);
    let (header, body) = message.split_once("\r\n\r\n").expect("a header");
    assert!(
        header.contains("Subject: Cron <root@host> test"),
        "{header}"
    );
    for field in ["\r\nFrom: Cron Daemon <", "\r\nDate: ", "\r\nMessage-ID: <"] {
        assert_eq!(header.matches(field).count(), 1, "{field:?} in {header}");
    }
    // The peer shows what it heard: the dot is doubled on the way.
    assert!(
        body.starts_with("line one\r\n.") && body.contains("line three"),
        "{body}"
    );
    let commands = post.commands();
    assert!(
        commands
            .iter()
            .any(|command| command.starts_with("RCPT TO:<admin@example.com>")),
        "{commands:?}"
    );
    assert!(
        commands
            .iter()
            .any(|command| command.contains("@relay.example.com>")),
        "the caller sends: {commands:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_without_a_domain_leaves_with_ours_and_goes_to_postmaster() {
    let post = Post::open().await;
    let message = "From: root (Cron Daemon)\nTo: root, Alice <alice@b.example>\nCc: ops@localhost, ops@RELAY.example.com\n\nx\n";
    let output = post.sendmail(&["-t", "-f", "root"], message);
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    post.delivered(1).await;
    in_process::until("both are delivered", || {
        let commands = post.commands();
        let to: Vec<_> = commands
            .iter()
            .filter_map(|line| line.strip_prefix("RCPT TO:<"))
            .collect();
        (to.len() >= 2).then(|| {
            assert!(
                to.iter().any(|line| line.starts_with("admin@example.com>")),
                "{commands:?}"
            );
            assert!(
                to.iter().any(|line| line.starts_with("alice@b.example>")),
                "{commands:?}"
            );
            assert_eq!(
                to.len(),
                2,
                "nothing goes to this host itself: {commands:?}"
            );
        })
    })
    .await;
    let message = post.delivered(1).await.remove(0);
    for field in [
        "From: root@relay.example.com (Cron Daemon)",
        "To: root@relay.example.com, Alice <alice@b.example>",
    ] {
        assert!(
            message.contains(&format!("\r\n{field}\r\n")),
            "{field} is missing from {message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_that_names_this_host_gets_its_mail() {
    let named = "\n[[connector]]\nname = \"own\"\ndomains = [\"relay.example.com\"]\n[connector.outbound]\nroute = ";
    let peer = in_process::willing().await;
    let route = peer.address;
    let post = Post::configured(peer, |text| {
        text.replace("127.9.9.9/32", "127.0.0.0/8")
            + named
            + &format!("[\"{route}\"]\ntls = \"off\"\n")
    });
    let output = post.sendmail(&["root", "alice@localhost"], "Subject: x\n\nhello\n");
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    post.delivered(1).await;
    let commands = post.commands();
    for to in ["root@relay.example.com", "alice@relay.example.com"] {
        assert!(
            commands
                .iter()
                .any(|line| line.starts_with(&format!("RCPT TO:<{to}>"))),
            "{to}: {commands:?}"
        );
    }
    assert!(
        !commands
            .iter()
            .any(|line| line.contains("admin@example.com")),
        "{commands:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cr_in_a_header_is_no_line_end() {
    let post = Post::open().await;
    let output = post.sendmail(
        &["-t"],
        "To: b@b.example\nSubject: hi\rBcc: c@b.example\n\nhello\n",
    );
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    let message = post.delivered(1).await.remove(0);
    assert!(
        message.contains("\r\nSubject: hi Bcc: c@b.example\r\n"),
        "{message:?}"
    );
    assert!(
        !post
            .commands()
            .iter()
            .any(|line| line.contains("RCPT TO:<c@")),
        "{:?}",
        post.commands()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recipients_stand_in_the_header_and_bcc_goes_without_its_field() {
    let post = Post::open().await;
    let message = "From: Alice <alice@a.example>\nTo: Bob <b@b.example>\nCc: c@b.example\nBcc: d@b.example\n\nhello\n";
    let output = post.sendmail(&["-t", "-i", "-f", "alice@a.example"], message);
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    let message = post.delivered(1).await.remove(0);
    assert!(
        !message.contains("Bcc") && !message.contains("d@b.example"),
        "{message}"
    );
    let commands = post.commands();
    for name in ["b", "c", "d"] {
        assert!(
            commands
                .iter()
                .any(|command| command.starts_with(&format!("RCPT TO:<{name}@b.example>"))),
            "{commands:?}"
        );
    }
    assert!(
        commands
            .iter()
            .any(|command| command.starts_with("MAIL FROM:<alice@a.example>")),
        "{commands:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn octets_above_127_in_a_header_alone_need_no_smtputf8_and_in_an_address_they_do() {
    let post = Post::to(in_process::peer(&["PIPELINING", "8BITMIME"], &[]).await);
    let output = post.sendmail(
        &["-f", "alice@a.example", "b@b.example"],
        "Subject: Gr\u{fc}\u{df}e\n\nhello\n",
    );
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    let message = post.delivered(1).await.remove(0);
    assert!(
        message.contains("\r\nSubject: Gr\u{fc}\u{df}e\r\n"),
        "{message}"
    );
    assert!(message.contains(" with ESMTP\r\n"), "{message}");
    let post = Post::open().await;
    let output = post.sendmail(
        &["-f", "j\u{fc}rgen@a.example", "b@b.example"],
        "Subject: x\n\nhello\n",
    );
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    let message = post.delivered(1).await.remove(0);
    assert!(message.contains(" with UTF8SMTP\r\n"), "{message}");
    let mail = post
        .commands()
        .into_iter()
        .find(|command| command.starts_with("MAIL"))
        .expect("it was delivered");
    assert!(
        mail.starts_with("MAIL FROM:<j\u{fc}rgen@a.example>") && mail.contains(" SMTPUTF8"),
        "{mail}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_name_of_sendmail_it_is_the_same_program() {
    let post = Post::open().await;
    let called = |name: &str, words: &[&str], message: &str| {
        let mut command = Command::new(program());
        command.arg0(format!("/usr/sbin/{name}")).args(words);
        run(command, message)
    };
    let config = post.config.display().to_string();
    let output = called(
        "sendmail",
        &["-C", &config, "-oi", "-f", "", "b@b.example"],
        "Subject: x\n\nhello\n",
    );
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    post.delivered(1).await;
    assert!(
        post.commands()
            .iter()
            .any(|command| command.starts_with("MAIL FROM:<>")),
        "{:?}",
        post.commands()
    );
    assert_eq!(code(&called("newaliases", &[], "")), 0);
    let listed = called("mailq", &["-C", &config], "");
    assert_eq!((code(&listed), said(&listed)), (0, String::new()));
    // And under its own name it is what it was.
    let output = called("gatepost", &["-t"], "");
    assert_eq!(code(&output), 2, "clap answers: {}", said(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_bs_it_is_a_way_to_speak_smtp() {
    let post = Post::open().await;
    let mut command = Command::new(program());
    command
        .args(["sendmail", "-C"])
        .arg(&post.config)
        .arg("-bs")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("gatepost runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut answers = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let commands = [
        "EHLO me",
        "MAIL FROM:<a@a.example>",
        "RCPT TO:<b@b.example>",
        "DATA",
        "Subject: x\r\n\r\nhello\r\n.",
        "QUIT",
    ];
    let mut commands = commands.into_iter();
    let mut codes = Vec::new();
    while let Some(Ok(answer)) = answers.next() {
        // The last line of an answer has a blank behind its code.
        if answer.as_bytes()[3] == b' ' {
            codes.push(answer[..3].to_owned());
            if let Some(command) = commands.next() {
                write!(stdin, "{command}\r\n").expect("it reads");
            }
        }
    }
    assert_eq!(codes, ["220", "250", "250", "250", "354", "250", "221"]);
    // It ends by itself, although its standard input is still open.
    assert!(child.wait().expect("it ends").success());
    post.delivered(1).await;
}

/// Everything stands on standard input at once, with the line ends of a file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_bs_a_complete_session_is_read_from_a_file() {
    let post = Post::open().await;
    let begin = |to: &str| format!("MAIL FROM:<a@a.example>\nRCPT TO:<{to}@b.example>\n");
    let session = format!(
        "EHLO me\n{}DATA\nSubject: one\n\n..\nhello\n.\n{}BDAT 16\nSubject: two\r\n\r\nBDAT 7 LAST\nhello\r\n{}DATA\nSubject: three\n.\nQUIT\n",
        begin("b"),
        begin("c"),
        begin("d"),
    );
    let mut command = Command::new(program());
    command
        .args(["sendmail", "-C"])
        .arg(&post.config)
        .arg("-bs");
    let output = run(command, &session);
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    let text = String::from_utf8(output.stdout).expect("ASCII");
    let codes: Vec<_> = text
        .lines()
        .filter(|line| line.as_bytes()[3] == b' ')
        .map(|line| &line[..3])
        .collect();
    let taken = ["250", "250", "354", "250"];
    let chunks = ["250"; 4];
    assert_eq!(
        codes,
        [&["220", "250"][..], &taken, &chunks, &taken, &["221"]].concat(),
        "{text}"
    );
    let messages = post.delivered(3).await;
    for (subject, body) in [
        ("one", ".\r\nhello\r\n"),
        ("two", "hello\r\n"),
        ("three", ""),
    ] {
        let field = format!("\r\nSubject: {subject}\r\n");
        let message = messages
            .iter()
            .find(|message| message.contains(&field))
            .unwrap_or_else(|| panic!("{subject}"));
        assert!(
            message.ends_with(&format!("{field}\r\n{body}")) || body.is_empty(),
            "{message:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_queue_is_flushed_without_output() {
    let post = Post::open().await;
    for word in ["-q", "-q30m"] {
        let output = post.sendmail(&[word], "");
        assert_eq!(
            (code(&output), said(&output), output.stdout),
            (0, String::new(), Vec::new()),
            "{word}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_relay_is_down_the_answer_is_later() {
    let mut post = Post::open().await;
    assert!(
        post.relay
            .take()
            .expect("it runs")
            .terminate()
            .status
            .is_some_and(|status| status.success())
    );
    let output = post.sendmail(&["b@b.example"], "Subject: x\n\nhello\n");
    assert_eq!(code(&output), 75);
    for words in [
        "cannot connect to the relay on 127.0.0.1:",
        "message not sent",
        "systemctl status gatepost",
    ] {
        assert!(
            said(&output).contains(words),
            "{words:?} is missing from {}",
            said(&output)
        );
    }
    for word in ["-bp", "-q"] {
        let output = post.sendmail(&[word], "");
        assert_eq!(
            (code(&output), output.stdout.is_empty()),
            (75, true),
            "{word}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains("no running Gatepost answers on "),
            "{}",
            said(&output)
        );
    }
    std::fs::write(&post.config, "hostname = 5\n").expect("the folder is ours");
    for word in ["-bp", "-q", "b@b.example"] {
        assert_eq!(code(&post.sendmail(&[word], "")), 78, "{word}");
    }
}

/// As mail(1) and git send-email write them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_behind_the_recipients_count() {
    let post = Post::open().await;
    let config = post.config.display().to_string();
    let mut command = Command::new(program());
    command.args([
        "sendmail",
        "b@b.example",
        "-f",
        "a@a.example",
        "-i",
        "--config",
        &config,
    ]);
    let output = run(command, "Subject: x\n\none\n.\ntwo\n");
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    assert!(
        post.delivered(1).await.remove(0).contains("two"),
        "the dot is part of it"
    );
    assert!(
        post.commands()
            .iter()
            .any(|command| command.starts_with("MAIL FROM:<a@a.example>"))
    );
    // An argument after "--" is a recipient, even one that starts like an option.
    let output = post.sendmail(&["--", "-bd@b.example"], "Subject: x\n\none\n");
    assert_eq!((code(&output), said(&output)), (0, String::new()));
    post.delivered(2).await;
    assert!(
        post.commands()
            .iter()
            .any(|command| command.starts_with("RCPT TO:<-bd@b.example>"))
    );
    let listed = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("a device");
    let mut command = Command::new(program());
    command
        .args(["sendmail", "-bp", "-C", &config])
        .stdin(Stdio::null())
        .stdout(listed)
        .stderr(Stdio::null());
    assert_eq!(
        command.status().expect("gatepost runs").code(),
        Some(1),
        "an answer that nobody got is none"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_on_the_port_is_not_handed_the_message() {
    let post = Post::open().await;
    let config = configure(post.folder.path(), post.peer.address, free());
    let output = post.sendmail(&["b@b.example"], "Subject: x\n\nhello\n");
    assert_eq!(
        (code(&output), config),
        (75, post.config.clone()),
        "{}",
        said(&output)
    );
    assert!(
        said(&output).contains("is not relay.example.com"),
        "{}",
        said(&output)
    );
    assert!(
        !post
            .commands()
            .iter()
            .any(|command| command.starts_with("MAIL")),
        "{:?}",
        post.commands()
    );
}
