//! A Postfix for comparison, as the distribution packages it: an instance in the trial's folder,
//! which does not touch a Postfix that is in use on this computer. It is set up to be fast:
//! everything that relaying does not need is left out, its concurrency is that of the load from the
//! first message on, and connections are reused where possible.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::relay::{Ending, Relay, Task, free_address, log_in, run};
use crate::tls;

/// Returns the version of the installed Postfix.
///
/// # Errors
/// A text with the reason for which none can be started, and the remedy.
pub(crate) fn version() -> Result<String, String> {
    let version = setting("mail_version").ok_or(
        "Postfix is not installed. As root: apt-get install --no-install-recommends postfix (\"No configuration\" will do)",
    )?;
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if root {
        Ok(format!("Postfix {version}"))
    } else {
        Err("Postfix starts only as root: run this as root".to_owned())
    }
}

/// Returns the default of a Postfix setting.
fn setting(name: &str) -> Option<String> {
    let output = Command::new(sbin("postconf"))
        .args(["-dh", name])
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the path of a Postfix program; its folder is not in every user's PATH.
fn sbin(program: &str) -> String {
    format!("/usr/sbin/{program}")
}

/// Starts an instance.
///
/// # Errors
/// An error if it does not start.
pub(crate) fn start(task: &Task<'_>) -> io::Result<Relay> {
    let address = free_address()?;
    let (settings, log) = (task.folder.join("postfix"), log_in(task.folder));
    for folder in ["postfix", "queue"] {
        fs::create_dir(task.folder.join(folder))?;
    }
    fs::write(settings.join("main.cf"), main_cf(task, &log))?;
    fs::write(
        settings.join("master.cf"),
        MASTER_CF.replace("ADDRESS", &address.to_string()),
    )?;
    let command = |what: &str| {
        let mut command = Command::new(sbin("postfix"));
        command.arg("-c").arg(&settings).arg(what);
        command
    };
    run(&mut command("start"), &task.folder.join("start"))?;
    let pid = fs::read_to_string(task.folder.join("queue/pid/master.pid"))?;
    let pid = pid.trim().parse().map_err(io::Error::other)?;
    Relay::greeted(address, pid, Ending::Ask(command("stop")), &log)
}

fn main_cf(task: &Task<'_>, log: &Path) -> String {
    let folder = task.folder.display();
    let log = log.display();
    let (host, port) = (task.sink.ip(), task.sink.port());
    let connections = task.connections;
    let mut text = format!(
        "compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {log}
maillog_file_prefixes = {folder}
myhostname = relay.example.com
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.1/32
relayhost = [{host}]:{port}
smtpd_peername_lookup = no
local_header_rewrite_clients =
in_flow_delay = 0
minimal_backoff_time = 60s
queue_run_delay = 60s
default_process_limit = 100
initial_destination_concurrency = {connections}
smtp_destination_concurrency_limit = {connections}
"
    );
    let reuses = task.messages_per_connection != Some(1);
    if reuses {
        let _ = writeln!(text, "smtp_connection_cache_destinations = {host}");
    } else {
        text += "smtp_connection_cache_on_demand = no\n";
    }
    if let Some(messages) = task.messages_per_connection {
        let _ = writeln!(text, "smtp_connection_reuse_count_limit = {messages}");
    }
    if task.tls {
        let (key, certificate) = (tls::file("relay.key"), tls::file("relay.pem"));
        let _ = writeln!(
            text,
            "smtpd_tls_chain_files = {}, {}",
            key.display(),
            certificate.display()
        );
        text += "smtpd_tls_security_level = may\n";
        text += "smtp_tls_security_level = encrypt\n";
        if reuses {
            text += "smtp_tls_connection_reuse = yes\n";
        }
    }
    text
}

/// The services that relaying needs, and those that they depend on; none runs in a chroot.
const MASTER_CF: &str = "\
ADDRESS inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
";
