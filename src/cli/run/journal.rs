//! Log lines in the journal's own protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! `MESSAGE` is the line as the text format has it, with all its particulars: what `journalctl` prints must say who
//! and why. Each field stands there once more by itself, as `GATEPOST_QUEUE_ID` and the like, to select by; the
//! bare sentence is `GATEPOST_MESSAGE`.
//!
//! Spans are left out, for nothing here opens one. A line too long for one datagram (200 KiB) goes to stderr:
//! what strangers say is cut short long before it is logged.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields as _;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::layer::Context;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Sends each event to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// # Errors
    /// Nobody listens there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let journal = Self { socket: UnixDatagram::unbound()?, path: path.to_owned() };
        // journald drops an empty entry, and says by taking it that it is there.
        journal.send(&[])?;
        Ok(journal)
    }

    /// To the path each time, not to what was bound to it once: journald may have been started anew.
    fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, &self.path).map(drop)
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::new();
        // A String takes everything; a value that cannot print itself leaves out what follows it.
        let _ = DefaultFields::new().format_fields(Writer::new(&mut line), event);
        let about = event.metadata();
        let priority = priority(*about.level());
        let mut entry = Vec::with_capacity(1024);
        put(&mut entry, "MESSAGE", &line);
        put(&mut entry, "PRIORITY", priority);
        put(&mut entry, "SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME"));
        put(&mut entry, "TARGET", about.target());
        if let (Some(file), Some(number)) = (about.file(), about.line()) {
            put(&mut entry, "CODE_FILE", file);
            put(&mut entry, "CODE_LINE", &number.to_string());
        }
        event.record(&mut Fields(&mut entry));
        if self.send(&entry).is_err() {
            // Under systemd it ends in the journal, too. Where it does not, there is nobody left to tell.
            let _ = writeln!(io::stderr(), "<{priority}>{line}");
        }
    }
}

/// As syslog counts (RFC 5424, 6.2.1).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// One field, with its length before it, so that no value can pass for another field.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// Writes each field of an event into an entry, under its own name.
struct Fields<'a>(&'a mut Vec<u8>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        // journald knows A-Z, 0-9 and "_" alone, and drops what has another name.
        let own = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name: String = "GATEPOST_".chars().chain(field.name().chars().map(own)).collect();
        put(self.0, &name, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// A place where the test listens as journald does.
    fn journald() -> (tempfile::TempDir, PathBuf, UnixDatagram) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a mode");
        (folder, path, socket)
    }

    /// The next entry, read as journald reads it.
    fn next(socket: &UnixDatagram) -> Vec<(String, String)> {
        let mut entry = vec![0; 64 * 1024];
        let length = socket.recv(&mut entry).expect("an entry");
        let mut rest = &entry[..length];
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let name = rest.iter().position(|&byte| byte == b'\n').expect("a name, and its end");
            let (size, value) = rest[name + 1..].split_first_chunk().expect("a length");
            let size = usize::try_from(u64::from_le_bytes(*size)).expect("it fits");
            assert_eq!(value[size], b'\n', "the end of a value");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            fields.push((text(&rest[..name]), text(&value[..size])));
            rest = &value[size + 1..];
        }
        fields
    }

    fn values<'a>(entry: &'a [(String, String)], name: &str) -> Vec<&'a str> {
        entry.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect()
    }

    #[test]
    fn a_line_has_its_particulars_in_the_message_and_each_by_itself() {
        let (_folder, path, socket) = journald();
        let log = tracing_subscriber::registry().with(Journal::open(&path).expect("it listens"));
        assert!(next(&socket).is_empty());
        tracing::subscriber::with_default(log, || {
            tracing::warn!(queue_id = %"0sb", to = "b@c.example", tls.wanted = "forced", delay_ms = 7, "delivery deferred");
            tracing::info!("stopped");
        });

        let entry = next(&socket);
        let line = r#"delivery deferred queue_id=0sb to="b@c.example" tls.wanted="forced" delay_ms=7"#;
        assert_eq!(values(&entry, "MESSAGE"), [line]);
        for (name, value) in [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "gatepost"),
            ("TARGET", module_path!()),
            ("CODE_FILE", file!()),
            ("GATEPOST_MESSAGE", "delivery deferred"),
            ("GATEPOST_QUEUE_ID", "0sb"),
            ("GATEPOST_TO", "b@c.example"),
            ("GATEPOST_TLS_WANTED", "forced"),
            ("GATEPOST_DELAY_MS", "7"),
        ] {
            assert_eq!(values(&entry, name), [value], "{name}");
        }
        let entry = next(&socket);
        assert_eq!((values(&entry, "MESSAGE"), values(&entry, "PRIORITY")), (vec!["stopped"], vec!["6"]));
    }

    #[test]
    fn a_value_with_line_ends_stays_one_field() {
        let (_folder, path, socket) = journald();
        let log = tracing_subscriber::registry().with(Journal::open(&path).expect("it listens"));
        next(&socket);
        let reply = "250 ok\nPRIORITY=0\n_UID=0";
        tracing::subscriber::with_default(log, || tracing::info!(reply, "message delivered"));
        let entry = next(&socket);
        assert_eq!(values(&entry, "GATEPOST_REPLY"), [reply]);
        assert_eq!(values(&entry, "PRIORITY"), ["6"]);
        assert!(values(&entry, "_UID").is_empty(), "{entry:?}");
    }

    #[test]
    fn journald_may_be_started_anew_and_may_be_missing() {
        let (_folder, path, socket) = journald();
        let log = tracing_subscriber::registry().with(Journal::open(&path).expect("it listens"));
        drop(socket);
        std::fs::remove_file(&path).expect("our own file");
        assert!(Journal::open(&path).is_err(), "nobody listens");
        let again = UnixDatagram::bind(&path).expect("a socket");
        again.set_nonblocking(true).expect("a mode");
        tracing::subscriber::with_default(log, || tracing::info!("stopped"));
        assert_eq!(values(&next(&again), "MESSAGE"), ["stopped"]);
    }
}
