//! The first octets of a PostgreSQL server, without a database behind them.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// The octets of an `SSLRequest`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// `AuthenticationCleartextPassword`, and an error that refuses the password.
const ASK: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const REFUSE: &[u8] = b"E\0\0\0\x1eSFATAL\0C28P01\0Mwrong one\0\0";

/// The server's part after a connection is there.
#[derive(Clone)]
pub(super) enum Manner {
    /// It has no TLS, and asks for the password in the clear.
    WithoutTls,
    /// It speaks TLS, and asks for the password then.
    Tls(Arc<ServerConfig>),
    /// It speaks TLS, and passes everything on to a server.
    Before(Arc<ServerConfig>, String),
    /// It accepts connections and says nothing.
    Hanging,
}

/// A server that reports what it hears of each connection after `SSLRequest` and the handshake.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    heard: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Front {
    pub(super) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (report, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (manner, report) = (manner.clone(), report.clone());
                tokio::spawn(async move {
                    let heard = serve(stream, manner).await;
                    // The test may be over.
                    let _ = report.send(heard);
                });
            }
        });
        Self { address, heard }
    }

    /// Returns what the next connection that has ended said.
    pub(super) async fn heard(&mut self) -> Vec<u8> {
        let next = tokio::time::timeout(super::safety::PATIENCE, self.heard.recv());
        next.await.expect("a connection").expect("it runs")
    }
}

async fn serve(mut stream: TcpStream, manner: Manner) -> Vec<u8> {
    if matches!(manner, Manner::Hanging) {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        return heard;
    }
    let mut request = [0; 8];
    stream.read_exact(&mut request).await.expect("a request");
    assert_eq!(request, SSL_REQUEST, "it asks for TLS first");
    match manner {
        Manner::WithoutTls | Manner::Hanging => {
            stream.write_all(b"N").await.expect("it listens");
            // A client that went on would be asked for the password at once.
            let _ = stream.write_all(ASK).await;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            heard
        }
        Manner::Tls(config) => match accept(stream, config).await {
            Some(stream) => ask_for_password(stream).await,
            None => Vec::new(),
        },
        Manner::Before(config, server) => {
            if let Some(mut stream) = accept(stream, config).await {
                let mut server = TcpStream::connect(server).await.expect("a server");
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            }
            Vec::new()
        }
    }
}

async fn accept(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    stream.write_all(b"S").await.expect("it listens");
    TlsAcceptor::from(config).accept(stream).await.ok()
}

/// Asks for the password and refuses it. Returns all that was said.
async fn ask_for_password<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Vec<u8> {
    let mut heard = Vec::new();
    let Ok(length) = stream.read_u32().await else {
        return heard;
    };
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await.expect("a startup");
    heard.extend(&startup);
    stream.write_all(ASK).await.expect("it listens");
    let mut kind_and_length = [0; 5];
    stream
        .read_exact(&mut kind_and_length)
        .await
        .expect("a password");
    let length = u32::from_be_bytes(kind_and_length[1..].try_into().expect("four octets"));
    let mut password = vec![0; length as usize - 4];
    stream.read_exact(&mut password).await.expect("a password");
    heard.extend(&password);
    let _ = stream.write_all(REFUSE).await;
    heard
}
