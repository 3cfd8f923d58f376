//! The client of the admin socket: one request a connection, bounded in time and size.

use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{note, show_faults};
use crate::admin::ANSWER_TIME;
use crate::admin::api::ApiError;
use crate::config::{self, AdminSocket};

/// How long the socket may take to take a connection.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long each piece of an answer may take once it has begun.
const PIECE_TIME: Duration = Duration::from_mins(1);
/// The daemon gives up first, and says why.
const PATIENCE: Duration = ANSWER_TIME.saturating_add(Duration::from_secs(10));
/// Octets in an answer that is read whole: far more than the daemon sends.
const ANSWER_MAX: usize = 256 << 20;

/// Why the daemon gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// Nobody is there.
    #[error(
        "no running Gatepost answers on {} ({error}).\nIs it running, or stopping at this moment? See `systemctl status gatepost`, or start it with `gatepost run`.",
        path.display()
    )]
    NoDaemon {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Not for us.
    #[error("no right to use {}: it is for its owner and for {group}.\n{remedy}", path.display())]
    Denied {
        /// Where.
        path: PathBuf,
        /// Who may.
        group: String,
        /// What to do.
        remedy: String,
    },
    /// It answered that there is no such thing.
    #[error("{0}")]
    Missing(String),
    /// It answered, with another complaint.
    #[error("{0}")]
    ApiError(String),
    /// It answered with something else.
    #[error("the daemon's answer cannot be used: {0}")]
    Broken(String),
    /// It took too long.
    #[error("the daemon does not answer; its log tells what it is doing")]
    Silent,
}

/// The way to a running daemon.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
}

impl Client {
    /// The way to the daemon whose socket this is.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The way to the daemon that runs on a configuration, for `gatepost command`.
    ///
    /// # Errors
    /// Exit status 2, and it has been told why.
    pub(super) fn of(file: &Path, command: &str) -> Result<Self, ExitCode> {
        let (config, _) = config::read(file).map_err(|faults| {
            show_faults(&faults);
            ExitCode::from(2)
        })?;
        match config.admin.socket.value {
            AdminSocket::Path(path) => Ok(Self { path }),
            AdminSocket::Off => {
                eprintln!(
                    "gatepost {command}: [admin] socket is switched off in {}; give it a path there and restart the \
                     daemon.",
                    file.display()
                );
                Err(ExitCode::from(2))
            }
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, SocketError> {
        whole(self.ask(Method::GET, target, Bytes::new()).await?).await
    }

    /// Hands something in.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        content: &impl Serialize,
    ) -> Result<T, SocketError> {
        let content = serde_json::to_vec(content).map_err(|error| SocketError::Broken(error.to_string()))?;
        whole(self.ask(Method::POST, target, content.into()).await?).await
    }

    /// Asks for octets, and passes them on as they come, until they cannot be written: then that is told as every
    /// trouble with an answer.
    ///
    /// # Errors
    /// [`SocketError`]; some of it may have been passed on by then.
    pub(super) async fn copy(&self, target: &str, to: &mut impl Write) -> Result<(), SocketError> {
        let mut body = self.ask(Method::GET, target, Bytes::new()).await?.into_body();
        while let Some(frame) = timeout(PIECE_TIME, body.frame()).await.map_err(|_| SocketError::Silent)? {
            let frame = frame.map_err(|_| SocketError::Broken("it ended early; its log tells why".to_owned()))?;
            if let Some(data) = frame.data_ref()
                && let Err(error) = to.write_all(data)
            {
                note(Err(error));
                return Ok(());
            }
        }
        note(to.flush());
        Ok(())
    }

    async fn ask(&self, method: Method, target: &str, content: Bytes) -> Result<Response<Incoming>, SocketError> {
        let broken = |error: &dyn std::error::Error| SocketError::Broken(error.to_string());
        let connected = timeout(CONNECT_TIME, UnixStream::connect(&self.path)).await;
        let stream = connected.map_err(|_| SocketError::Silent)?.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        // Ends when the answer has been read or given up.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "gatepost")
            .header("content-type", "application/json")
            .body(Full::new(content))
            .map_err(|error| broken(&error))?;
        let answered = timeout(PATIENCE, sender.send_request(request)).await.map_err(|_| SocketError::Silent)?;
        let response = answered.map_err(|error| broken(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let complaint: Result<ApiError, _> = whole(response).await;
        let complaint = complaint.map_or_else(|_| status.to_string(), |complaint| complaint.error);
        Err(match status {
            StatusCode::NOT_FOUND => SocketError::Missing(complaint),
            _ => SocketError::ApiError(complaint),
        })
    }

    fn unreachable(&self, error: io::Error) -> SocketError {
        let path = self.path.clone();
        match error.kind() {
            ErrorKind::PermissionDenied => {
                let (group, remedy) = whose(&path);
                SocketError::Denied { path, group, remedy }
            }
            _ => SocketError::NoDaemon { path, error },
        }
    }
}

async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, SocketError> {
    let collected = timeout(PATIENCE, Limited::new(response.into_body(), ANSWER_MAX).collect()).await;
    let content =
        collected.map_err(|_| SocketError::Silent)?.map_err(|error| SocketError::Broken(error.to_string()))?;
    serde_json::from_slice(&content.to_bytes()).map_err(|error| SocketError::Broken(error.to_string()))
}

/// The group of a socket that we may not use, or of the folder that keeps us from looking at it; and
/// how to get there.
fn whose(path: &Path) -> (String, String) {
    let group = path.ancestors().find_map(|place| std::fs::metadata(place).ok()).map(|found| found.gid());
    let Some(group) = group else {
        return ("its group".to_owned(), "Use sudo.".to_owned());
    };
    let names = std::fs::read_to_string("/etc/group").unwrap_or_default();
    match group_name(&names, group) {
        // Nobody should be put into root's group for this.
        Some(name) if group != 0 => {
            let remedy = format!("Use sudo, or join the group (`usermod -aG {name} USER`) and log in again.");
            (format!("the group \"{name}\""), remedy)
        }
        Some(_) => ("root".to_owned(), "Use sudo.".to_owned()),
        None => (format!("the group {group}"), "Use sudo, or join the group and log in again.".to_owned()),
    }
}

/// A group's name, as group(5) lists them.
fn group_name(names: &str, wanted: u32) -> Option<&str> {
    names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(wanted)).then_some(name)
    })
}

/// Writes a text so that it can stand in a query (RFC 3986 §2.3).
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(octet)),
            _ => {
                for digit in [octet >> 4, octet & 15] {
                    encoded.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
                }
                encoded.insert(encoded.len() - 2, '%');
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_keeps_every_octet() {
        assert_eq!(percent_encoded("a.b-c_d~9@e"), "a.b-c_d~9%40e");
        assert_eq!(percent_encoded("a+b&c=\"ü\" #"), "a%2Bb%26c%3D%22%C3%BC%22%20%23");
    }

    #[test]
    fn groups_are_found_by_number() {
        let names = "root:x:0:\nbroken\nmail:x:8:a,b\ngatepost:x:88:\n";
        assert_eq!(group_name(names, 8), Some("mail"));
        assert_eq!(group_name(names, 88), Some("gatepost"));
        assert_eq!(group_name(names, 9), None);
    }
}
