//! The destination of the mail: a server that offers PIPELINING, CHUNKING, SIZE, 8BITMIME and, if it
//! has a certificate, STARTTLS, and records the number of each message. It stores nothing, so that
//! the benchmark measures only the relay's disk.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::ledger::Ledger;
use crate::message::number_of;
use crate::wire::{BESIDE_MESSAGE, Wire};

/// Serves all connections, until its runtime ends. The messages have `size` octets.
///
/// # Errors
/// Those of the listening socket.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    size: usize,
    ledger: Arc<Ledger>,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        ledger.connected();
        let (tls, ledger) = (tls.clone(), Arc::clone(&ledger));
        tokio::spawn(async move {
            // A dropped connection costs one message at most, and the ledger shows which.
            let _ = session(stream, tls, size, &ledger).await;
        });
    }
}

async fn session(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    size: usize,
    ledger: &Ledger,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // In the clear before TLS there are commands alone.
    let room = |size| size + BESIDE_MESSAGE;
    let clear = if tls.is_some() { 0 } else { size };
    let mut wire = Wire::new(stream, room(clear));
    wire.say(b"220 sink.example ESMTP\r\n").await?;
    let Some(tls) = tls else {
        return converse(&mut wire, false, size, ledger).await.map(drop);
    };
    if let End::StartTls = converse(&mut wire, true, size, ledger).await? {
        let stream = tls.accept(wire.into_stream()?).await?;
        converse(&mut Wire::new(stream, room(size)), false, size, ledger).await?;
    }
    Ok(())
}

enum End {
    Quit,
    StartTls,
}

/// Answers all complete input with one write, and waits for more.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    offers_tls: bool,
    size: usize,
    ledger: &Ledger,
) -> io::Result<End> {
    let mut replies = Vec::with_capacity(512);
    let (mut in_content, mut chunk, mut searched, mut recipients) = (false, None, 0, 0);
    loop {
        let mut end = None;
        while end.is_none() {
            if in_content {
                let Some(content) = wire.content(&mut searched) else {
                    break;
                };
                ledger.arrived(number_of(content, size), std::mem::take(&mut recipients));
                replies.extend_from_slice(b"250 2.0.0 taken\r\n");
                in_content = false;
                continue;
            }
            if let Some(octets) = chunk {
                let Some(content) = wire.chunk(octets) else {
                    break;
                };
                let content = content.strip_suffix(b"\r\n").unwrap_or(content);
                ledger.arrived(number_of(content, size), std::mem::take(&mut recipients));
                replies.extend_from_slice(b"250 2.0.0 taken\r\n");
                chunk = None;
                continue;
            }
            let Some(line) = wire.line() else { break };
            let (reply, what) = answer(line, offers_tls);
            replies.extend_from_slice(reply);
            match what {
                What::On => {}
                What::Recipient => recipients += 1,
                What::Content => in_content = true,
                What::Chunk(octets) => chunk = Some(octets),
                What::End(which) => end = Some(which),
            }
        }
        if !replies.is_empty() {
            wire.say(&replies).await?;
            replies.clear();
        }
        match end {
            Some(end) => return Ok(end),
            None => wire.fill().await?,
        }
    }
}

enum What {
    On,
    Recipient,
    Content,
    /// The last chunk of a message, with so many octets.
    Chunk(usize),
    End(End),
}

fn answer(line: &[u8], offers_tls: bool) -> (&'static [u8], What) {
    let verb = line.split(|&octet| octet == b' ').next().unwrap_or(line);
    let is = |word: &str| verb.eq_ignore_ascii_case(word.as_bytes());
    if is("RCPT") {
        (b"250 2.1.5 ok\r\n", What::Recipient)
    } else if is("MAIL") {
        (b"250 2.1.0 ok\r\n", What::On)
    } else if is("RSET") || is("NOOP") {
        (b"250 2.0.0 ok\r\n", What::On)
    } else if is("DATA") {
        (b"354 end with a dot\r\n", What::Content)
    } else if is("BDAT") {
        match chunk_size(line) {
            Some(octets) => (b"", What::Chunk(octets)),
            None => (b"501 5.5.4 one chunk, please\r\n", What::On),
        }
    } else if is("EHLO") && offers_tls {
        (b"250-sink.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 52428800\r\n250-STARTTLS\r\n250 8BITMIME\r\n", What::On)
    } else if is("EHLO") {
        (
            b"250-sink.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-SIZE 52428800\r\n250 8BITMIME\r\n",
            What::On,
        )
    } else if is("HELO") {
        (b"250 sink.example\r\n", What::On)
    } else if is("STARTTLS") && offers_tls {
        (b"220 2.0.0 go ahead\r\n", What::End(End::StartTls))
    } else if is("QUIT") {
        (b"221 2.0.0 bye\r\n", What::End(End::Quit))
    } else {
        (b"502 5.5.1 not known here\r\n", What::On)
    }
}

/// Returns the size in `BDAT n LAST`.
fn chunk_size(line: &[u8]) -> Option<usize> {
    let size = line.get(b"BDAT ".len()..)?.strip_suffix(b" LAST")?;
    std::str::from_utf8(size).ok()?.parse().ok()
}
