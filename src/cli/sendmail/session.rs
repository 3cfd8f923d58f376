//! `sendmail -bs`: an SMTP session on standard input and output, passed to the relay command by
//! command.
//!
//! Standard input may be a file with a whole session, and its lines may end with LF. The relay
//! drops clients that send a command before the reply to the one before it, so this module waits
//! for the replies: it sends each command after the reply to the one before, and content after the
//! reply 354.

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver};

use super::message::strip_line_end;
use crate::smtp::reply::ReplyParser;

/// Passes standard input to the relay, and its replies to standard output, until the relay closes
/// the connection.
///
/// # Errors
/// The connection breaks.
pub(super) fn run(stream: &TcpStream) -> io::Result<()> {
    let mut relay = stream.try_clone()?;
    let (code_sender, codes) = mpsc::channel();
    // The thread is not joined: it ends with the process, since a read from standard input cannot
    // be interrupted.
    std::thread::spawn(move || {
        let _ = send_commands(BufReader::new(io::stdin()), &mut relay, &codes);
        let _ = relay.shutdown(Shutdown::Write);
    });
    let (mut input, mut stdout) = (stream, io::stdout().lock());
    let (mut parser, mut unread, mut block) = (Some(ReplyParser::default()), Vec::new(), [0; 2048]);
    loop {
        let length = match input.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // If the caller has closed its end, the session is over.
        if stdout
            .write_all(&block[..length])
            .and_then(|()| stdout.flush())
            .is_err()
        {
            return Ok(());
        }
        unread.extend_from_slice(&block[..length]);
        while let Some(replies) = &mut parser {
            match replies.parse(&unread) {
                Ok((used, reply)) => {
                    unread.drain(..used);
                    let Some(reply) = reply else { break };
                    // Sending fails if the other thread has ended at the end of standard input.
                    let _ = code_sender.send(reply.code().get());
                }
                // From here on it is TLS, or the peer is not a relay: no command waits for a reply.
                Err(_) => parser = None,
            }
        }
        if parser.is_none() {
            unread.clear();
        }
    }
}

/// Sends commands and content, each after the reply before it, until the input or the replies end.
/// `codes` are the codes of the replies.
fn send_commands(
    mut input: impl BufRead,
    relay: &mut impl Write,
    codes: &Receiver<u16>,
) -> io::Result<()> {
    let mut line = Vec::new();
    // The first reply is the greeting.
    let mut code = codes.recv();
    while code.is_ok() {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        send_line(&mut line, relay)?;
        let text = String::from_utf8_lossy(&line).to_ascii_uppercase();
        let mut words = text.split_ascii_whitespace();
        match (
            words.next(),
            words.next().and_then(|size| size.parse().ok()),
        ) {
            (Some("BDAT"), Some(size)) => {
                // A chunk follows its command at once, without a reply between them (RFC 3030 §2).
                io::copy(&mut input.by_ref().take(size), relay)?;
                code = codes.recv();
            }
            (Some("DATA"), _) => {
                code = codes.recv();
                if code == Ok(354) {
                    if !send_content(&mut input, relay)? {
                        return Ok(());
                    }
                    code = codes.recv();
                }
            }
            (Some("STARTTLS"), _) => {
                code = codes.recv();
                if code == Ok(220) {
                    io::copy(&mut input, relay)?;
                    return Ok(());
                }
            }
            _ => code = codes.recv(),
        }
    }
    Ok(())
}

/// Sends content up to the line with the final dot. Returns false if the input ends before it.
fn send_content(input: &mut impl BufRead, relay: &mut impl Write) -> io::Result<bool> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(false);
        }
        if send_line(&mut line, relay)? && line == b"." {
            return Ok(true);
        }
    }
}

/// Sends a line with CR LF as its line end. Returns false for a line without a line end, at the end
/// of the input, which is sent without one.
fn send_line(line: &mut Vec<u8>, relay: &mut impl Write) -> io::Result<bool> {
    let is_complete = line.ends_with(b"\n");
    strip_line_end(line);
    let end = if is_complete { &b"\r\n"[..] } else { b"" };
    relay.write_all(&[line, end].concat())?;
    Ok(is_complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the part of an input that the relay receives while it sends these replies.
    fn received(input: &[u8], replies: &[u16]) -> String {
        let (sender, receiver) = mpsc::channel();
        for code in replies {
            sender.send(*code).expect("the receiver exists");
        }
        drop(sender);
        let mut relay = Vec::new();
        send_commands(input, &mut relay, &receiver).expect("writing to a Vec cannot fail");
        String::from_utf8(relay).expect("text")
    }

    #[test]
    fn a_command_waits_for_the_reply_before_it() {
        let input = b"EHLO me\nNOOP\nQUIT\n";
        assert_eq!(received(input, &[]), "");
        assert_eq!(received(input, &[220]), "EHLO me\r\n");
        assert_eq!(
            received(input, &[220, 250, 250]),
            "EHLO me\r\nNOOP\r\nQUIT\r\n"
        );
    }

    #[test]
    fn content_waits_for_its_354() {
        let input = b"data\nSubject: a\rb\r\n..\n.\nQUIT\n";
        assert_eq!(received(input, &[220]), "data\r\n");
        assert_eq!(
            received(input, &[220, 354]),
            "data\r\nSubject: a b\r\n..\r\n.\r\n"
        );
        assert_eq!(
            received(input, &[220, 354, 250]),
            "data\r\nSubject: a b\r\n..\r\n.\r\nQUIT\r\n"
        );
        // Without 354 the lines that follow are commands.
        assert_eq!(received(input, &[220, 503]), "data\r\nSubject: a b\r\n");
    }

    #[test]
    fn a_bdat_chunk_follows_its_command_unchanged() {
        let input = b"BDAT 6 LAST\na\nb\rc\nQUIT\n";
        assert_eq!(
            received(input, &[220, 250]),
            "BDAT 6 LAST\r\na\nb\rc\nQUIT\r\n"
        );
        assert_eq!(received(input, &[220]), "BDAT 6 LAST\r\na\nb\rc\n");
    }

    #[test]
    fn octets_after_starttls_are_unchanged() {
        assert_eq!(
            received(b"STARTTLS\n\x16\n\n\r", &[220, 220]),
            "STARTTLS\r\n\x16\n\n\r"
        );
        assert_eq!(
            received(b"STARTTLS\nQUIT\n", &[220, 502]),
            "STARTTLS\r\nQUIT\r\n"
        );
    }

    #[test]
    fn an_incomplete_last_line_gets_no_line_end() {
        assert_eq!(received(b"QUI", &[220]), "QUI");
        assert_eq!(received(b"DATA\na\n.", &[220, 354]), "DATA\r\na\r\n.");
    }
}
