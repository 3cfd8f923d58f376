//! The server behind the relay: takes everything, and remembers who brought what for whom.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::message::{SENDER, recognise};
use super::within;

/// A message for one recipient, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// The name in the relay's EHLO: tests give each start of the relay its own.
    pub(crate) relay: String,
    pub(crate) sender: String,
    pub(crate) recipient: String,
    pub(crate) content: Arc<[u8]>,
    /// The time of its arrival, before it was answered.
    #[allow(dead_code, reason = "the durability tests compare it with a trace")]
    pub(crate) at: SystemTime,
}

/// The reply to a recipient that is not accepted.
type RecipientReply = dyn Fn(&str) -> Option<&'static str> + Send + Sync;

/// The state that the sessions of a sink share.
#[derive(Default)]
struct SinkState {
    arrived: Mutex<Vec<Arrival>>,
    /// Notified of each arrival.
    changed: Condvar,
    /// Replies to each RCPT command; without it all recipients are accepted.
    reply: Option<Box<RecipientReply>>,
}

impl fmt::Debug for SinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkState").finish_non_exhaustive()
    }
}

/// A server on a free port of loopback, as long as the test runs.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    state: Arc<SinkState>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    pub(crate) fn at(address: SocketAddr) -> Self {
        Self::with(address, SinkState::default())
    }

    /// Starts a server that asks `reply` for each recipient: with a reply, it is not accepted.
    #[allow(dead_code, reason = "for the durability tests")]
    pub(crate) fn replying(
        reply: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static,
    ) -> Self {
        let state = SinkState {
            arrived: Mutex::default(),
            changed: Condvar::new(),
            reply: Some(Box::new(reply)),
        };
        Self::with((Ipv4Addr::LOCALHOST, 0).into(), state)
    }

    fn with(address: SocketAddr, state: SinkState) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let sink = Self {
            address,
            state: Arc::new(state),
        };
        sink.serve(listener);
        sink
    }

    /// Serves one more listener. Its thread waits in accept(2) until the process ends.
    pub(crate) fn serve(&self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A session ends with its connection; what it was in the middle of never arrived.
                std::thread::spawn(move || session(stream, &state));
            }
        });
    }

    /// Returns the messages that have arrived so far.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.state.lock().clone()
    }

    /// Waits until `is_enough` of what has arrived, which is asked after each arrival; at most for
    /// this time. Returns whether it is.
    #[allow(dead_code, reason = "for the durability tests")]
    pub(crate) fn wait_until(
        &self,
        limit: Duration,
        mut is_enough: impl FnMut(&[Arrival]) -> bool,
    ) -> bool {
        let deadline = Instant::now() + limit;
        let mut arrived = self.state.lock();
        loop {
            if is_enough(&arrived) {
                return true;
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return false;
            }
            let waited = self.state.changed.wait_timeout(arrived, remaining);
            arrived = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The bodies of the messages that have arrived, without empty lines.
    pub(crate) fn bodies(&self) -> Vec<String> {
        let mut contents: Vec<_> = self
            .arrivals()
            .into_iter()
            .map(|arrival| arrival.content)
            .collect();
        contents.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let body = |content: &Arc<[u8]>| {
            let text = String::from_utf8_lossy(content).replace("\r\n", "\n");
            let body = text.split_once("\n\n").map_or("", |(_, body)| body);
            body.lines()
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("\n")
        };
        contents.iter().map(body).collect()
    }

    /// Waits until each of these recipients has had mail. Tells those that have not.
    pub(crate) fn wait_for<'a, T: AsRef<str>>(
        &self,
        recipients: &'a [T],
        limit: Duration,
    ) -> Vec<&'a str> {
        let mut missing = Vec::new();
        within(limit, || {
            let arrived = self.state.lock();
            let had: std::collections::HashSet<&str> =
                arrived.iter().map(|one| one.recipient.as_str()).collect();
            missing = recipients
                .iter()
                .map(AsRef::as_ref)
                .filter(|to| !had.contains(to))
                .collect();
            missing.is_empty()
        });
        missing
    }

    /// By recipient, the relays that brought its mail: more than one means that it came more than
    /// once.
    ///
    /// # Errors
    /// A message that is incomplete, that went to somebody else, or that nobody sent.
    pub(crate) fn tally(&self) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut tally: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for arrival in self.arrivals() {
            let name = recognise(&arrival.content)
                .map_err(|fault| format!("for {}: {fault}", arrival.recipient))?;
            if arrival.sender != SENDER || arrival.recipient.split('@').next() != Some(&name) {
                return Err(format!(
                    "{name} came from <{}> for <{}>",
                    arrival.sender, arrival.recipient
                ));
            }
            tally
                .entry(arrival.recipient)
                .or_default()
                .push(arrival.relay);
        }
        Ok(tally)
    }
}

impl SinkState {
    fn lock(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuses(&self, recipient: &str) -> Option<&'static str> {
        self.reply.as_ref().and_then(|reply| reply(recipient))
    }
}

fn session(stream: TcpStream, state: &SinkState) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    output.write_all(b"220 sink.example ESMTP\r\n")?;
    let (mut relay, mut sender, mut recipients) = (String::new(), String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "EHLO" => {
                rest.clone_into(&mut relay);
                output.write_all(b"250-sink.example\r\n250-8BITMIME\r\n250 SIZE\r\n")?;
                continue;
            }
            "MAIL" => {
                sender = path(rest);
                recipients.clear();
            }
            "RCPT" => {
                let recipient = path(rest);
                if let Some(reply) = state.refuses(&recipient) {
                    output.write_all(format!("{reply}\r\n").as_bytes())?;
                    continue;
                }
                recipients.push(recipient);
            }
            "DATA" if recipients.is_empty() => {
                output.write_all(b"503 5.5.1 no recipients\r\n")?;
                continue;
            }
            "DATA" => {
                output.write_all(b"354 go on\r\n")?;
                let content: Arc<[u8]> = content(&mut input)?.into();
                let arrival = |recipient: String| Arrival {
                    relay: relay.clone(),
                    sender: sender.clone(),
                    recipient,
                    content: Arc::clone(&content),
                    at: SystemTime::now(),
                };
                state.lock().extend(recipients.drain(..).map(arrival));
                state.changed.notify_all();
            }
            "QUIT" => return output.write_all(b"221 bye\r\n"),
            _ => {}
        }
        output.write_all(b"250 ok\r\n")?;
    }
}

/// Returns the text between the angle brackets.
fn path(argument: &str) -> String {
    let inside = argument
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    inside.map_or_else(String::new, |(path, _)| path.to_owned())
}

fn content(input: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        if input.read_until(b'\n', &mut content)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &content[start..] {
            b".\r\n" => {
                content.truncate(start);
                return Ok(content);
            }
            [b'.', ..] => drop(content.remove(start)),
            _ => {}
        }
    }
}
