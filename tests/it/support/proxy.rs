//! An HTTP proxy that plays a part.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use gatepost::config::ProxyAddress;
use gatepost::smtp::address::Host;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The answer to each request that the proxy has read.
#[derive(Debug, Clone)]
pub(crate) enum ProxyPart {
    /// These octets; behind them all octets pass to and from this port.
    Leads(&'static str, u16),
    /// These octets, and the end of the connection.
    Ends(Vec<u8>),
    /// These octets, and nothing more; the connection stays open.
    Waits(&'static str),
    /// These octets once, and those again and again.
    Endless(&'static str, &'static str),
}

/// The usual answer to CONNECT.
pub(crate) const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n";

/// Serves until it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(role: ProxyPart) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, role, Arc::clone(&heard)));
        Self {
            port,
            heard,
            _tasks: tasks,
        }
    }

    /// The value of `http_proxy` that leads here.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn address(&self) -> ProxyAddress {
        ProxyAddress {
            host: Host::parse("[127.0.0.1]").expect("an address"),
            port: self.port,
        }
    }

    /// The head of each request.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("sound").clone()
    }
}

async fn serve(listener: TcpListener, role: ProxyPart, heard: Arc<Mutex<Vec<String>>>) {
    let mut sessions = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (role, heard) = (role.clone(), Arc::clone(&heard));
        sessions.spawn(async move {
            // The client may go whenever it has enough.
            let _gone = play(client, role, &heard).await;
        });
    }
}

async fn play(
    mut client: TcpStream,
    role: ProxyPart,
    heard: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    heard.lock().expect("sound").push(request);
    match role {
        ProxyPart::Leads(answer, port) => {
            client.write_all(answer.as_bytes()).await?;
            let mut host = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            tokio::io::copy_bidirectional(&mut client, &mut host).await?;
        }
        ProxyPart::Ends(answer) => {
            client.write_all(&answer).await?;
            client.shutdown().await?;
        }
        ProxyPart::Waits(answer) => {
            client.write_all(answer.as_bytes()).await?;
            std::future::pending::<()>().await;
        }
        ProxyPart::Endless(answer, again) => {
            client.write_all(answer.as_bytes()).await?;
            loop {
                client.write_all(again.as_bytes()).await?;
            }
        }
    }
    Ok(())
}
