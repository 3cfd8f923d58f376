//! Gatepost itself: the program that was built with this bench, as a process of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::message::DESTINATION;
use crate::relay::{Ending, NodeOfDatabase, Relay, Task, free_address, log_in, run};
use crate::tls;

/// Returns the version that the figures are of.
pub(crate) fn version() -> String {
    format!("Gatepost {}", env!("CARGO_PKG_VERSION"))
}

/// Starts Gatepost, with a connector for the recipients' domain and the sink as its smart host.
///
/// # Errors
/// An error if it does not start.
pub(crate) fn start(task: &Task<'_>) -> io::Result<Relay> {
    let address = free_address()?;
    let settings = task.folder.join("gatepost.toml");
    fs::write(&settings, configuration(task, &address.to_string()))?;
    let log = log_in(task.folder);
    let file = File::create(&log)?;
    let child = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["run", "--config"])
        .arg(&settings)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    Relay::greeted(address, child.id(), Ending::Terminate(child), &log)
}

/// Orders a running Gatepost to retry all waiting messages.
///
/// # Errors
/// An error if it refuses.
pub(crate) fn retry_all(folder: &Path) -> io::Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .args(["queue", "retry", "--all", "--config"])
        .arg(folder.join("gatepost.toml"));
    run(&mut command, &folder.join("retry"))
}

fn configuration(task: &Task<'_>, address: &str) -> String {
    let mut text = format!(
        r#"hostname = "relay.example.com"
postmaster = "postmaster@example.com"

[admin]
socket = "admin.sock"
http = ""

[limits]
connections = 4000
connections_per_client = 4000

[spool]
path = "spool"
{database}
[evidence]
path = "{evidence}"

[[listener]]
name = "load"
address = ["{address}"]
tls = "{listener}"
request_client_certificate = false

[relay]
networks = ["127.0.0.1/32"]

[log]
format = "text"
level = "info"

[[connector]]
name = "sink"
domains = ["{DESTINATION}", "*.{DESTINATION}"]

[connector.outbound]
route = ["{sink}"]
connections = {connections}
"#,
        database = task.database.as_ref().map_or_else(String::new, of_database),
        listener = if task.tls { "opportunistic" } else { "off" },
        evidence = if task.evidence { "evidence" } else { "" },
        sink = task.sink,
        connections = task.connections,
    );
    if let Some(messages) = task.messages_per_connection {
        let _ = writeln!(text, "messages_per_connection = {messages}");
    }
    if task.tls {
        let (certificate, key) = (
            quoted(&tls::file("relay.pem")),
            quoted(&tls::file("relay.key")),
        );
        text += "tls = \"forced\"\nverify = \"none\"\n";
        let _ = write!(text, "\n[tls]\ncertificate = {certificate}\nkey = {key}\n");
    } else {
        text += "tls = \"off\"\n";
    }
    text
}

/// Returns the lines of the configuration about a database. The lease is the default.
fn of_database(node: &NodeOfDatabase) -> String {
    let NodeOfDatabase { url, name } = node;
    format!("url = \"{url}\"\n\n[cluster]\nnode = \"{name}\"\n")
}

fn quoted(path: &Path) -> String {
    toml::Value::from(path.to_string_lossy().as_ref()).to_string()
}
