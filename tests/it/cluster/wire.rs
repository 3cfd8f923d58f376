//! The network between a relay and a server: it can be cut, as by a switch that fails, and healed.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The interval at which a copy looks whether the wire is cut.
const LOOK: Duration = Duration::from_millis(20);

/// A port that leads to a server while the wire is whole. A cut loses nothing that was sent: it comes
/// when the wire is healed, unless one side has given up.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Wire {
    /// Makes a wire to a port of loopback.
    pub(super) fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let wire = Self {
            port: listener.local_addr().expect("bound").port(),
            is_cut: Arc::default(),
        };
        let is_cut = Arc::clone(&wire.is_cut);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let is_cut = Arc::clone(&is_cut);
                std::thread::spawn(move || connect(client, server, &is_cut));
            }
        });
        wire
    }

    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    pub(super) fn heal(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn wait(is_cut: &AtomicBool) {
    while is_cut.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK);
    }
}

fn connect(client: TcpStream, server: u16, is_cut: &Arc<AtomicBool>) {
    wait(is_cut);
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else {
        return;
    };
    let (Ok(client_copy), Ok(server_copy)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let other = Arc::clone(is_cut);
    std::thread::spawn(move || copy(server_copy, client_copy, &other));
    copy(client, server, is_cut);
}

/// Copies one direction until it ends.
fn copy(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut block = vec![0; 64 * 1024];
    while let Ok(octets @ 1..) = from.read(&mut block) {
        wait(is_cut);
        if to.write_all(&block[..octets]).is_err() {
            break;
        }
    }
    wait(is_cut);
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
