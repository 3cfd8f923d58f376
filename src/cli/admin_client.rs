//! The client of the admin socket. It makes one HTTP request for each connection, with limits on
//! time and size.

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

use super::output::{record_write_error, show_faults};
use crate::admin::ANSWER_TIME;
use crate::admin::api::ApiError;
use crate::config::{self, AdminSocket};

/// The time limit for connecting to the socket.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// The time limit for each part of a response body after the first.
const FRAME_TIME: Duration = Duration::from_mins(1);
/// The time limit for a response. It is longer than the daemon's own limit, so that the daemon's
/// error arrives.
const RESPONSE_TIME: Duration = ANSWER_TIME.saturating_add(Duration::from_secs(10));
/// The maximum size of a JSON response in octets, far more than the daemon sends.
const RESPONSE_MAX: usize = 256 << 20;

/// The reason why a request to the daemon failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// No process listens on the socket.
    #[error(
        "no running Gatepost answers on {} ({error}).\nSee `systemctl status gatepost`: it may be stopped or stopping. Start it with `systemctl start gatepost` or `gatepost run`.",
        path.display()
    )]
    NoDaemon {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The user may not connect to the socket.
    #[error("permission denied on {}: only its owner and {group} may use it.\n{remedy}", path.display())]
    Denied {
        /// The path of the socket.
        path: PathBuf,
        /// The group that may use the socket.
        group: String,
        /// A sentence that says how to get access.
        remedy: String,
    },
    /// The response is 404.
    #[error("{0}")]
    Missing(String),
    /// The response is another error.
    #[error("{0}")]
    Rejected(String),
    /// The response cannot be parsed or ended early.
    #[error("cannot use the daemon's answer: {0}")]
    Invalid(String),
    /// A time limit has passed.
    #[error("the daemon does not answer in time; see its log")]
    Timeout,
}

/// A client of a running daemon.
#[derive(Debug)]
pub(super) struct AdminClient {
    path: PathBuf,
}

impl AdminClient {
    /// Returns a client for the socket at a path.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns a client for the socket that a configuration file names. `command` is the command
    /// that asks, for the error message.
    ///
    /// # Errors
    /// Exit status 2, after the error has been printed.
    pub(super) fn for_config(file: &Path, command: &str) -> Result<Self, ExitCode> {
        let (config, _) = config::read(file).map_err(|faults| {
            show_faults(file, &faults);
            ExitCode::from(2)
        })?;
        match config.admin.socket.value {
            AdminSocket::Path(path) => Ok(Self { path }),
            AdminSocket::Off => {
                eprintln!(
                    "gatepost {command}: [admin] socket is switched off in {}; set it to a path and restart the daemon.",
                    file.display()
                );
                Err(ExitCode::from(2))
            }
        }
    }

    /// Sends a GET request and parses the JSON of the response.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, SocketError> {
        parse(self.request(Method::GET, target, Bytes::new()).await?).await
    }

    /// Sends a POST request with JSON content and parses the JSON of the response.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        content: &impl Serialize,
    ) -> Result<T, SocketError> {
        let content =
            serde_json::to_vec(content).map_err(|error| SocketError::Invalid(error.to_string()))?;
        parse(self.request(Method::POST, target, content.into()).await?).await
    }

    /// Sends a GET request and writes the body of the response to `output` as it arrives. An error
    /// in writing ends the copy; [`finish_output`](super::output::finish_output) reports it.
    ///
    /// # Errors
    /// [`SocketError`]; a part of the body may have been written by then.
    pub(super) async fn copy(
        &self,
        target: &str,
        output: &mut impl Write,
    ) -> Result<(), SocketError> {
        let mut body = self
            .request(Method::GET, target, Bytes::new())
            .await?
            .into_body();
        while let Some(frame) = timeout(FRAME_TIME, body.frame())
            .await
            .map_err(|_| SocketError::Timeout)?
        {
            let frame = frame.map_err(|_| {
                SocketError::Invalid("it ends early; see the daemon's log".to_owned())
            })?;
            if let Some(data) = frame.data_ref()
                && let Err(error) = output.write_all(data)
            {
                record_write_error(Err(error));
                return Ok(());
            }
        }
        record_write_error(output.flush());
        Ok(())
    }

    async fn request(
        &self,
        method: Method,
        target: &str,
        content: Bytes,
    ) -> Result<Response<Incoming>, SocketError> {
        let invalid = |error: &dyn std::error::Error| SocketError::Invalid(error.to_string());
        let connected = timeout(CONNECT_TIME, UnixStream::connect(&self.path)).await;
        let stream = connected
            .map_err(|_| SocketError::Timeout)?
            .map_err(|error| self.connect_error(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| invalid(&error))?;
        // The task ends when the response has been read or dropped.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "gatepost")
            .header("content-type", "application/json")
            .body(Full::new(content))
            .map_err(|error| invalid(&error))?;
        let answered = timeout(RESPONSE_TIME, sender.send_request(request))
            .await
            .map_err(|_| SocketError::Timeout)?;
        let response = answered.map_err(|error| invalid(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let content: Result<ApiError, _> = parse(response).await;
        let message = content.map_or_else(|_| status.to_string(), |content| content.error);
        Err(match status {
            StatusCode::NOT_FOUND => SocketError::Missing(message),
            _ => SocketError::Rejected(message),
        })
    }

    fn connect_error(&self, error: io::Error) -> SocketError {
        let path = self.path.clone();
        match error.kind() {
            ErrorKind::PermissionDenied => {
                let (group, remedy) = permitted_group(&path);
                SocketError::Denied {
                    path,
                    group,
                    remedy,
                }
            }
            _ => SocketError::NoDaemon { path, error },
        }
    }
}

/// Reads the body of a response and parses it as JSON.
async fn parse<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, SocketError> {
    let collected = timeout(
        RESPONSE_TIME,
        Limited::new(response.into_body(), RESPONSE_MAX).collect(),
    )
    .await;
    let content = collected
        .map_err(|_| SocketError::Timeout)?
        .map_err(|error| SocketError::Invalid(error.to_string()))?;
    serde_json::from_slice(&content.to_bytes())
        .map_err(|error| SocketError::Invalid(error.to_string()))
}

/// Returns the group that may use a socket, and a sentence that says how to get access. If the
/// socket is hidden in a folder without access, the group is that of the folder.
fn permitted_group(path: &Path) -> (String, String) {
    let group = path
        .ancestors()
        .find_map(|path| std::fs::metadata(path).ok())
        .map(|metadata| metadata.gid());
    let Some(group) = group else {
        return ("its group".to_owned(), "Use sudo.".to_owned());
    };
    let names = std::fs::read_to_string("/etc/group").unwrap_or_default();
    match group_name(&names, group) {
        // No user should be added to root's group for this.
        Some(name) if group != 0 => {
            let remedy = format!(
                "Use sudo, or join the group (`usermod -aG {name} USER`) and log in again."
            );
            (format!("the group \"{name}\""), remedy)
        }
        Some(_) => ("root".to_owned(), "Use sudo.".to_owned()),
        None => (
            format!("the group {group}"),
            "Use sudo, or join the group and log in again.".to_owned(),
        ),
    }
}

/// Returns the name of a group by its number. `names` is the content of /etc/group (see group(5)).
fn group_name(names: &str, number: u32) -> Option<&str> {
    names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then_some(name)
    })
}

/// Percent-encodes a text for use in a query: every octet except the unreserved characters of RFC
/// 3986 §2.3.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(octet));
            }
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
    fn all_but_unreserved_characters_are_percent_encoded() {
        assert_eq!(percent_encoded("a.b-c_d~9@e"), "a.b-c_d~9%40e");
        assert_eq!(
            percent_encoded("a+b&c=\"ü\" #"),
            "a%2Bb%26c%3D%22%C3%BC%22%20%23"
        );
    }

    #[test]
    fn groups_are_found_by_number() {
        let names = "root:x:0:\nbroken\nmail:x:8:a,b\ngatepost:x:88:\n";
        assert_eq!(group_name(names, 8), Some("mail"));
        assert_eq!(group_name(names, 88), Some("gatepost"));
        assert_eq!(group_name(names, 9), None);
    }
}
