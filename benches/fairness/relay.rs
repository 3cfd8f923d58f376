//! The daemon under measurement.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::internet::Internet;

/// The daemon; dropping this ends it.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Relay {
    /// Starts the daemon, with the defaults for everything that an attack could use, except that
    /// reports are not limited: otherwise there would be no attack by reports.
    pub(crate) async fn start(internet: &Internet) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let address = free_address();
        let config = folder.path().join("gatepost.toml");
        fs::write(&config, configuration(address, internet)).expect("the folder is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().expect("the program starts");
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self {
            address,
            process,
            _folder: folder,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns a free address; nothing else uses it in the moment until the daemon does.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback")
}

fn configuration(address: SocketAddr, internet: &Internet) -> String {
    let Internet {
        names,
        mailbox_server,
        port,
        ..
    } = internet;
    let names = names.address;
    format!(
        "hostname = \"relay.example.com\"\npostmaster = \"postmaster@example.com\"\n[spool]\npath = \"spool\"\n\
         [evidence]\npath = \"\"\n[admin]\nsocket = \"admin.sock\"\nhttp = \"\"\n[log]\nlevel = \"error\"\n\
         [limits]\ndsn_per_minute = 100000\ndsn_per_minute_per_domain = 100000\n\
         [[listener]]\nname = \"mx\"\naddress = [\"{address}\"]\ntls = \"off\"\n\
         [relay]\nnetworks = [\"127.0.0.1/32\"]\ndomains = [\"example.com\"]\n\
         [dns]\nservers = [\"{names}\"]\ndnssec = \"off\"\n\
         [[connector]]\nname = \"internet\"\ndomains = [\"*\"]\n[connector.outbound]\nport = {port}\ntls = \"off\"\n\
         [[connector]]\nname = \"mailbox-server\"\ndomains = [\"example.com\"]\n[connector.outbound]\n\
         route = [\"{mailbox_server}\"]\ntls = \"off\"\n\
         [[connector]]\nname = \"partner\"\ndomains = [\"partner.example\"]\n[connector.outbound]\nport = {port}\n\
         tls = \"off\"\n"
    )
}
