//! Log lines in the native protocol of the systemd journal
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! `MESSAGE` is the whole line as in the text format, with all fields, so that `journalctl` prints
//! them. Each field is also sent on its own, as `GATEPOST_QUEUE_ID` and so on, for filters;
//! `GATEPOST_MESSAGE` is the sentence without the fields.
//!
//! Spans are not sent, since Gatepost opens none. A line that is too long for one datagram (200
//! KiB) goes to stderr; that is rare, since texts of strangers are cut before they are logged.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FormatFields as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::layer::Context;

use super::log_text::TextFields;

/// The socket of journald.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// A tracing layer that sends each event to the journal.
#[derive(Debug)]
pub(super) struct JournaldLayer {
    socket: UnixDatagram,
    path: PathBuf,
}

impl JournaldLayer {
    /// Opens a layer for the journald socket at a path.
    ///
    /// # Errors
    /// No process listens on the socket.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let journal = Self {
            socket: UnixDatagram::unbound()?,
            path: path.to_owned(),
        };
        // An empty entry shows that journald is there, which drops it.
        journal.send(&[])?;
        Ok(journal)
    }

    /// Sends an entry. The socket is not connected: each entry goes to the path, so that journald
    /// may be restarted.
    fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, &self.path).map(drop)
    }
}

impl<S: Subscriber> Layer<S> for JournaldLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::new();
        // Writing into a String cannot fail. If a value's own formatting fails, the line ends
        // there.
        let _ = TextFields.format_fields(Writer::new(&mut line), event);
        let metadata = event.metadata();
        let priority = priority(*metadata.level());
        let mut entry = Vec::with_capacity(1024);
        append_field(&mut entry, "MESSAGE", &line);
        append_field(&mut entry, "PRIORITY", priority);
        append_field(&mut entry, "SYSLOG_IDENTIFIER", env!("CARGO_PKG_NAME"));
        append_field(&mut entry, "TARGET", metadata.target());
        if let (Some(file), Some(number)) = (metadata.file(), metadata.line()) {
            append_field(&mut entry, "CODE_FILE", file);
            append_field(&mut entry, "CODE_LINE", &number.to_string());
        }
        event.record(&mut FieldWriter(&mut entry));
        if self.send(&entry).is_err() {
            // Under systemd, stderr goes to the journal too. If that fails as well, the line is
            // lost.
            let _ = writeln!(io::stderr(), "<{priority}>{line}");
        }
    }
}

/// Returns the syslog severity of a level (RFC 5424 §6.2.1).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// Appends a field in the binary form, with its length, so that a line end in a value cannot start
/// another field.
fn append_field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// Writes each field of an event into an entry as `GATEPOST_` and the name of the field.
struct FieldWriter<'a>(&'a mut Vec<u8>);

impl Visit for FieldWriter<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        // journald drops fields whose names have other characters than A-Z, 0-9 and "_".
        let allowed = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        let name: String = "GATEPOST_"
            .chars()
            .chain(field.name().chars().map(allowed))
            .collect();
        append_field(self.0, &name, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Opens a socket on which the test listens in place of journald.
    fn journald() -> (tempfile::TempDir, PathBuf, UnixDatagram) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a mode");
        (folder, path, socket)
    }

    /// Receives the next entry and parses it as journald does.
    fn next(socket: &UnixDatagram) -> Vec<(String, String)> {
        let mut entry = vec![0; 64 * 1024];
        let length = socket.recv(&mut entry).expect("an entry");
        let mut rest = &entry[..length];
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let name = rest
                .iter()
                .position(|&byte| byte == b'\n')
                .expect("a name, and its end");
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
        entry
            .iter()
            .filter(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    #[test]
    fn fields_are_sent_in_the_message_and_one_by_one() {
        let (_folder, path, socket) = journald();
        let log =
            tracing_subscriber::registry().with(JournaldLayer::open(&path).expect("it listens"));
        assert!(next(&socket).is_empty());
        tracing::subscriber::with_default(log, || {
            tracing::warn!(queue_id = %"0sb", to = "b@c.example", tls.wanted = "forced", delay_ms = 7, "delivery deferred");
            tracing::info!("stopped");
        });

        let entry = next(&socket);
        let line = "delivery deferred queue_id=0sb to=b@c.example tls.wanted=forced delay_ms=7";
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
        assert_eq!(
            (values(&entry, "MESSAGE"), values(&entry, "PRIORITY")),
            (vec!["stopped"], vec!["6"])
        );
    }

    #[test]
    fn a_value_with_line_ends_stays_one_field() {
        let (_folder, path, socket) = journald();
        let log =
            tracing_subscriber::registry().with(JournaldLayer::open(&path).expect("it listens"));
        next(&socket);
        let reply = "250 ok\nPRIORITY=0\n_UID=0";
        tracing::subscriber::with_default(log, || tracing::info!(reply, "message delivered"));
        let entry = next(&socket);
        assert_eq!(values(&entry, "GATEPOST_REPLY"), [reply]);
        assert_eq!(values(&entry, "PRIORITY"), ["6"]);
        assert!(values(&entry, "_UID").is_empty(), "{entry:?}");
    }

    #[test]
    fn a_restart_of_journald_is_survived_and_its_absence_is_an_error() {
        let (_folder, path, socket) = journald();
        let log =
            tracing_subscriber::registry().with(JournaldLayer::open(&path).expect("it listens"));
        drop(socket);
        std::fs::remove_file(&path).expect("our own file");
        assert!(JournaldLayer::open(&path).is_err(), "nobody listens");
        let again = UnixDatagram::bind(&path).expect("a socket");
        again.set_nonblocking(true).expect("a mode");
        tracing::subscriber::with_default(log, || tracing::info!("stopped"));
        assert_eq!(values(&next(&again), "MESSAGE"), ["stopped"]);
    }
}
