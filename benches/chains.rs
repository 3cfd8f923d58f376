//! Measures the time for which a well-behaved client waits while others make Gatepost search for
//! certificate paths: 20 connections show a certificate with 11 small CA certificates of one name
//! above it, from a connector that requires a chain, and repeat MAIL FROM. Meanwhile a client sends
//! a message every tenth of a second. Everything runs over loopback and STARTTLS, with the daemon
//! built like the packages.
//!
//! `cargo bench --bench chains` measures; the bar is 0.5 s for each message, from the TCP
//! connection to the 250 after its content, and exit status 1 means that it was missed. `cargo
//! bench --bench chains -- PROGRAM` measures another binary.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOSTILE: usize = 20;
const CERTIFICATES: usize = 11;
const MESSAGES: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);
const BAR: Duration = Duration::from_millis(500);
/// A message that takes longer than this counts as lost.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // A test runner that runs every target started this.
        println!("run me with: cargo bench --bench chains");
        return ExitCode::SUCCESS;
    }
    let program = arguments
        .iter()
        .find(|argument| *argument != "--bench")
        .map_or(env!("CARGO_BIN_EXE_gatepost"), |path| path);
    match run(Path::new(program)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(program: &Path) -> io::Result<bool> {
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(program, folder.path())?;
    let (hostile, good) = (connector(Some(hostile_chain()?))?, connector(None)?);
    // The load has its own runtime, so that the well-behaved client waits only for the relay.
    let (load, client) = (runtime()?, runtime()?);
    client.block_on(greeting(relay.address))?;
    let quiet = client.block_on(measure(&good, relay.address))?;
    let refused = Arc::new(AtomicUsize::new(0));
    for _ in 0..HOSTILE {
        let (hostile, refused, address) = (hostile.clone(), Arc::clone(&refused), relay.address);
        load.spawn(async move {
            loop {
                // A hostile connection is opened again, whatever ended it.
                if pester(&hostile, address, &refused).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
    client.block_on(async { tokio::time::sleep(Duration::from_secs(1)).await });
    let before = refused.load(Relaxed);
    let began = Instant::now();
    let busy = client.block_on(measure(&good, relay.address))?;
    let rate = (refused.load(Relaxed) - before)
        / usize::try_from(began.elapsed().as_secs())
            .unwrap_or(usize::MAX)
            .max(1);
    load.shutdown_background();
    println!("{MESSAGES} messages of a good client, milliseconds from connection to 250");
    println!("                                                  median   slowest");
    for (what, times) in [
        ("alone", &quiet),
        ("beside 20 connections with hostile chains", &busy),
    ] {
        let milliseconds = |at: usize| times[at].as_secs_f64() * 1000.0;
        println!(
            "{what:<50} {:>5.1} {:>9.1}",
            milliseconds(times.len() / 2),
            milliseconds(times.len() - 1)
        );
    }
    println!("MAIL FROM of the hostile connections refused meanwhile: {rate} a second");
    Ok(busy[busy.len() - 1] < BAR)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

/// Returns a host's certificate and key, under the name of an authority that eleven certificates
/// share, each with another key.
fn hostile_chain() -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let authority = || {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let key = || KeyPair::generate().map_err(io::Error::other);
    let (leaf_key, signer) = (key()?, key()?);
    let leaf = CertificateParams::new(vec!["mail.partner.example".to_owned()])
        .map_err(io::Error::other)?;
    let leaf = leaf
        .signed_by(&leaf_key, &Issuer::from_params(&authority(), &signer))
        .map_err(io::Error::other)?;
    let mut chain = vec![leaf.der().clone()];
    for _ in 0..CERTIFICATES {
        chain.push(
            authority()
                .self_signed(&key()?)
                .map_err(io::Error::other)?
                .der()
                .clone(),
        );
    }
    Ok((
        chain,
        PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into(),
    ))
}

fn connector(
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for root in rustls::pki_types::pem::PemObject::pem_file_iter(file("ca.pem"))
        .map_err(io::Error::other)?
    {
        roots
            .add(root.map_err(io::Error::other)?)
            .map_err(io::Error::other)?;
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let config = match identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(io::Error::other)?,
        None => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Returns the path of a file in `certs/`.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("certs")
        .join(name)
}

/// The relay; dropping this ends it.
struct Relay {
    address: SocketAddr,
    child: Child,
}

impl Relay {
    fn start(program: &Path, folder: &Path) -> io::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let settings = folder.join("gatepost.toml");
        let [certificate, key, trust] = ["relay.pem", "relay.key", "ca.pem"]
            .map(|name| toml::Value::from(file(name).to_string_lossy().as_ref()).to_string());
        std::fs::write(
            &settings,
            format!(
                r#"hostname = "relay.example.com"
postmaster = "postmaster@example.com"
[admin]
socket = ""
http = ""
[spool]
path = "spool"
[evidence]
path = ""
[dns]
dnssec = "off"
[tls]
certificate = {certificate}
key = {key}
[[listener]]
name = "mx"
address = ["{address}"]
tls = "opportunistic"
[relay]
domains = ["example.com"]
[log]
format = "text"
level = "error"
[[connector]]
name = "ours"
domains = ["example.com"]
[connector.outbound]
route = ["127.0.0.1:1"]
[[connector]]
name = "partner"
domains = ["partner.example"]
names = ["mail.partner.example"]
trust = {trust}
[connector.inbound]
tls = "forced"
verify = "name"
"#
            ),
        )?;
        let mut command = Command::new(program);
        command
            .args(["run", "--config"])
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(Self {
            address,
            child: command.spawn()?,
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The spool is not needed any more.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("process {} could not be ended: {error}", self.child.id());
        }
    }
}

async fn greeting(address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Reads a reply with all its lines, and returns its code.
async fn code<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>) -> io::Result<String> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? < 4 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.as_bytes()[3] != b'-' {
            return Ok(line[..3].to_owned());
        }
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufStream<S>,
    text: &str,
) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await?;
    code(stream).await
}

async fn secure(
    tls: &TlsConnector,
    address: SocketAddr,
) -> io::Result<BufStream<tokio_rustls::client::TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufStream::new(stream);
    code(&mut stream).await?;
    say(&mut stream, "EHLO client.bench.example\r\n").await?;
    say(&mut stream, "STARTTLS\r\n").await?;
    let name = ServerName::try_from("relay.example.com").map_err(io::Error::other)?;
    let mut stream = BufStream::new(tls.connect(name, stream.into_inner()).await?);
    say(&mut stream, "EHLO client.bench.example\r\n").await?;
    Ok(stream)
}

/// Runs one hostile connection, until the 421 for too many errors.
async fn pester(tls: &TlsConnector, address: SocketAddr, refused: &AtomicUsize) -> io::Result<()> {
    let mut stream = secure(tls, address).await?;
    loop {
        match say(&mut stream, "MAIL FROM:<someone@partner.example>\r\n")
            .await?
            .as_str()
        {
            "550" => refused.fetch_add(1, Relaxed),
            "421" => return Ok(()),
            other => return Err(io::Error::other(format!("MAIL was answered with {other}"))),
        };
    }
}

/// Sends messages one after another, each on its own connection; returns their times, the shortest
/// first.
async fn measure(tls: &TlsConnector, address: SocketAddr) -> io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..MESSAGES {
        let began = Instant::now();
        tokio::time::timeout(PATIENCE, message(tls, address)).await??;
        times.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    times.sort();
    Ok(times)
}

async fn message(tls: &TlsConnector, address: SocketAddr) -> io::Result<()> {
    let mut stream = secure(tls, address).await?;
    for (text, wanted) in [
        ("MAIL FROM:<someone@elsewhere.example>\r\n", "250"),
        ("RCPT TO:<someone@example.com>\r\n", "250"),
        ("DATA\r\n", "354"),
        ("Subject: hello\r\n\r\nhello\r\n.\r\n", "250"),
    ] {
        let code = say(&mut stream, text).await?;
        if code != wanted {
            return Err(io::Error::other(format!(
                "{text:?} was answered with {code}"
            )));
        }
    }
    Ok(())
}
