//! Plays the dialogues of `tests/it/dialogues/client` against the client machines.
//!
//! A file has settings (`key: value`), an empty line and a transcript: `S:` is what the peer says,
//! `C:` what must be said to it, `=` what is known afterwards. The peer's lines are fed in and the
//! transcript that comes about is compared with the file, line by line: what is not there was not
//! said. Each is played with the peer's lines in one piece and octet by octet (unless `pieces:
//! whole`).
//!
//! Settings: `starttls: wanted|not wanted|implicit` plays the opening; without it, `extensions:` are what
//! the peer offers. `from:`, `to:` (one or more, with `NOTIFY=`/`ORCPT=` behind), `size:`,
//! `smtputf8:`, `8bit:`, `ret:`, `envid:`, `requiretls: needed|welcome|not asked` describe the
//! message; without `from:` there is no transaction. `login: MECHANISM` logs in as "user" with the
//! `password:` or access token ("pencil" without it), the nonce of RFC 7677, and with `binding: yes` a channel binding. With `chunk: yes` the content goes with the
//! commands where the peer offers that; with `lmtp: yes` the peer speaks LMTP; with `early: yes` the peer says something before its end.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;

use gatepost::smtp::address::{Domain, Mailbox, ReversePath};
use gatepost::smtp::client::{
    Extensions, LoginDialogue, LoginEnd, LoginStep, Mail, NoStarttls, Opening, OpeningStep,
    ProtocolViolation, RecipientStatus, RequireTlsUse, StarttlsUse, Transaction, TransactionEnd,
    TransactionStep,
};
use gatepost::smtp::envelope::{BodyType, Envelope, Notify, Recipient, Ret};
use gatepost::smtp::reply::Reply;
use gatepost::smtp::sasl::{ClientPassword, ClientToken, Mechanism, SaslClient, TokenMechanism};

/// The mechanism of a login.
#[derive(Clone, Copy)]
enum LoginMechanism {
    Password(Mechanism),
    Token(TokenMechanism),
}

#[expect(clippy::struct_excessive_bools, reason = "each is a word of a script")]
struct Script {
    starttls: Option<StarttlsUse>,
    extensions: Extensions,
    envelope: Option<Envelope>,
    size: u64,
    promise: RequireTlsUse,
    whole: bool,
    chunk: bool,
    early: bool,
    lmtp: bool,
    login: Option<LoginMechanism>,
    password: String,
    binding: bool,
    transcript: String,
}

impl Script {
    /// Reads a setting behind `from:`, which is about the message.
    fn set_of_message(&mut self, key: &str, value: &str) {
        let Some(envelope) = &mut self.envelope else {
            return;
        };
        match key {
            "to" => envelope.recipients.push(recipient(value)),
            "smtputf8" => envelope.smtputf8 = value == "yes",
            "8bit" => {
                envelope.needs.eight_bit = value == "yes";
                envelope.body = BodyType::EightBitMime;
            }
            "ret" => {
                envelope.ret = Some(if value == "FULL" {
                    Ret::Full
                } else {
                    Ret::Hdrs
                });
            }
            "envid" => envelope.envid = Some(value.to_owned()),
            "requiretls" => self.promise = promise(value),
            "size" => self.size = value.parse().expect("a size"),
            "chunk" => self.chunk = value == "yes",
            "early" => self.early = value == "yes",
            "pieces" => self.whole = value == "whole",
            _ => panic!("unknown setting {key}"),
        }
    }
}

fn read(text: &str) -> Script {
    let (head, transcript) = text
        .split_once("\n\n")
        .expect("settings, an empty line, a transcript");
    let mut script = Script {
        starttls: None,
        extensions: Extensions::default(),
        envelope: None,
        size: 1000,
        promise: RequireTlsUse::Never,
        whole: false,
        chunk: false,
        early: false,
        lmtp: false,
        login: None,
        password: "pencil".to_owned(),
        binding: false,
        transcript: transcript.trim_end().to_owned(),
    };
    for line in head.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(": ").expect("key: value");
        if script.envelope.is_some() {
            script.set_of_message(key, value);
            continue;
        }
        match key {
            "starttls" => {
                script.starttls = Some(match value {
                    "wanted" => StarttlsUse::IfOffered,
                    "implicit" => StarttlsUse::Implicit,
                    _ => StarttlsUse::Never,
                });
            }
            "extensions" => {
                let lines = std::iter::once("peer").chain(value.split(", "));
                script.extensions = Extensions::of(&Reply::multiline(
                    250,
                    lines.map(|l| l.to_owned().into()).collect(),
                ));
            }
            "from" => {
                script.envelope = Some(Envelope::new(
                    ReversePath::parse(value.trim()).expect(value),
                    Vec::new(),
                ));
            }
            "pieces" => script.whole = value == "whole",
            "lmtp" => script.lmtp = value == "yes",
            "login" => {
                let password = Mechanism::parse(value).map(LoginMechanism::Password);
                let token = TokenMechanism::parse(value).map(LoginMechanism::Token);
                script.login = Some(password.or(token).expect(value));
            }
            "password" => value.clone_into(&mut script.password),
            "binding" => script.binding = value == "yes",
            _ => panic!("unknown setting {key}"),
        }
    }
    script.extensions.lmtp = script.lmtp;
    script
}

fn promise(value: &str) -> RequireTlsUse {
    match value {
        "needed" => RequireTlsUse::Always,
        "welcome" => RequireTlsUse::IfOffered,
        "not asked" => RequireTlsUse::Never,
        _ => panic!("requiretls: {value}?"),
    }
}

fn recipient(value: &str) -> Recipient {
    let mut words = value.split(' ');
    let mut recipient =
        Recipient::new(Mailbox::parse(words.next().expect("an address")).expect(value));
    for word in words {
        if let Some(orcpt) = word.strip_prefix("ORCPT=") {
            recipient.orcpt = Some(orcpt.to_owned());
        } else if word == "NOTIFY=NEVER" {
            recipient.notify = Some(Notify::Never);
        } else {
            let on = |what| word.contains(what);
            recipient.notify = Some(Notify::On {
                success: on("SUCCESS"),
                failure: on("FAILURE"),
                delay: on("DELAY"),
            });
        }
    }
    recipient
}

/// The peer of a play: what it still has to say, and the transcript so far.
struct DialogueStage {
    blocks: VecDeque<String>,
    bytewise: bool,
    input: Vec<u8>,
    out: Vec<u8>,
    transcript: String,
}

enum End<S> {
    TransactionStep(S),
    Lost,
    ProtocolViolation(ProtocolViolation),
}

impl DialogueStage {
    fn new(script: &Script, bytewise: bool) -> Self {
        let mut blocks: VecDeque<String> = VecDeque::new();
        let mut speaking = false;
        for line in script.transcript.lines() {
            match line.strip_prefix("S: ") {
                Some(words) => {
                    if !speaking {
                        blocks.push_back(String::new());
                    }
                    let block = blocks.back_mut().expect("just pushed");
                    writeln!(block, "{words}\r").expect("a string");
                    speaking = true;
                }
                None => speaking = false,
            }
        }
        Self {
            blocks,
            bytewise,
            input: Vec::new(),
            out: Vec::new(),
            transcript: String::new(),
        }
    }

    fn note(&mut self, line: &str) {
        self.flush();
        writeln!(self.transcript, "= {line}").expect("a string");
    }

    fn flush(&mut self) {
        let said = String::from_utf8(std::mem::take(&mut self.out)).expect("UTF-8");
        assert!(
            said.is_empty() || said.ends_with("\r\n"),
            "half a line was said: {said:?}"
        );
        for line in said.split_terminator("\r\n") {
            writeln!(self.transcript, "C: {line}").expect("a string");
        }
    }

    fn run<S>(
        &mut self,
        mut receive: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(usize, Option<S>), ProtocolViolation>,
    ) -> End<S> {
        loop {
            self.flush();
            let Some(block) = self.blocks.pop_front() else {
                return End::Lost;
            };
            for line in block.split_terminator("\r\n") {
                writeln!(self.transcript, "S: {line}").expect("a string");
            }
            let step = if self.bytewise { 1 } else { block.len() };
            let mut pieces = block.as_bytes().chunks(step);
            while let Some(piece) = pieces.next() {
                self.input.extend_from_slice(piece);
                match receive(&self.input, &mut self.out) {
                    Err(violation) => return End::ProtocolViolation(violation),
                    Ok((used, None)) => drop(self.input.drain(..used)),
                    Ok((used, Some(step))) => {
                        self.input.drain(..used);
                        if pieces.next().is_some() {
                            self.note("(the peer had more to say)");
                        }
                        return End::TransactionStep(step);
                    }
                }
            }
        }
    }
}

fn play(script: &Script, bytewise: bool) -> String {
    let mut stage = DialogueStage::new(script, bytewise);
    let mut extensions = Some(script.extensions);
    if let Some(starttls) = script.starttls {
        extensions = open(&mut stage, starttls, script.lmtp);
    }
    if let Some(mechanism) = script.login {
        log_in(&mut stage, script, mechanism);
    }
    if let (Some(envelope), Some(extensions)) = (&script.envelope, extensions) {
        hand_over(&mut stage, envelope, script, extensions);
    }
    if !stage.blocks.is_empty() {
        stage.note("(the peer was not heard to the end)");
    }
    stage.transcript.trim_end().to_owned()
}

fn open(stage: &mut DialogueStage, starttls: StarttlsUse, lmtp: bool) -> Option<Extensions> {
    let hostname = Domain::parse("relay.example.com").expect("a domain");
    let mut opening = Opening::new(&hostname, starttls);
    if lmtp {
        opening = opening.with_lmtp();
    }
    if starttls == StarttlsUse::Implicit {
        stage.note("handshake");
        opening.continue_under_tls(&mut stage.out);
    }
    loop {
        let end = stage.run(|input, out| opening.receive(input, out));
        let line = match end {
            End::TransactionStep(OpeningStep::Handshake) => {
                assert_eq!(
                    opening.extensions(),
                    Extensions::default(),
                    "what was said in the clear is forgotten"
                );
                stage.note("handshake");
                opening.continue_under_tls(&mut stage.out);
                continue;
            }
            End::TransactionStep(OpeningStep::Secured) => "open under TLS".to_owned(),
            End::TransactionStep(OpeningStep::InClear(NoStarttls::NotWanted)) => {
                "open in the clear: not wanted".to_owned()
            }
            End::TransactionStep(OpeningStep::InClear(NoStarttls::NotOffered)) => {
                "open in the clear: not offered".to_owned()
            }
            End::TransactionStep(OpeningStep::InClear(NoStarttls::Rejected(reply))) => {
                format!("open in the clear: rejected: {reply}")
            }
            End::TransactionStep(OpeningStep::InClear(NoStarttls::SpokeBeforeHandshake)) => {
                stage.note("spoilt: spoke before the handshake");
                return None;
            }
            End::TransactionStep(OpeningStep::Failed { stage: at, reply }) => {
                stage.note(&format!("failed at {at}: {reply}"));
                return None;
            }
            End::Lost => {
                stage.note(&format!("lost at {}", opening.awaited()));
                return None;
            }
            End::ProtocolViolation(violation) => {
                stage.note(&format!("violation: {violation}"));
                return None;
            }
        };
        stage.note(&line);
        return Some(opening.extensions());
    }
}

fn log_in(stage: &mut DialogueStage, script: &Script, mechanism: LoginMechanism) {
    let binding = script.binding.then_some(&[7; 32][..]);
    let exchange = match mechanism {
        LoginMechanism::Password(mechanism) => {
            let password = ClientPassword::new("user", &script.password).expect("usable");
            SaslClient::begin(mechanism, &password, binding, "rOprNGfwEbeRWgbNEkqO")
        }
        LoginMechanism::Token(mechanism) => {
            let login = ClientToken {
                user: "user@example.com".to_owned(),
                token: script.password.clone().into(),
                host: "server.example.com".to_owned(),
                port: 587,
            };
            SaslClient::begin_with_token(mechanism, &login)
        }
    };
    let mut login = LoginDialogue::start(exchange, &mut stage.out);
    loop {
        let line = match stage.run(|input, out| login.receive(input, out)) {
            End::TransactionStep(LoginStep::Derive(derivation)) => {
                login.respond_with(&derivation.run(), &mut stage.out);
                continue;
            }
            End::TransactionStep(LoginStep::Over(LoginEnd::Accepted)) => "logged in".to_owned(),
            End::TransactionStep(LoginStep::Over(LoginEnd::Rejected { reply, status })) => {
                let status = status.map(|status| format!(", status {status}"));
                format!("rejected: {reply}{}", status.unwrap_or_default())
            }
            End::TransactionStep(LoginStep::Over(LoginEnd::Cancelled(fault))) => {
                format!("cancelled: {fault}")
            }
            End::Lost => format!("lost at {}", login.awaited()),
            End::ProtocolViolation(violation) => format!("violation: {violation}"),
        };
        return stage.note(&line);
    }
}

fn hand_over(
    stage: &mut DialogueStage,
    envelope: &Envelope,
    script: &Script,
    extensions: Extensions,
) {
    let mut recipients: Vec<usize> = (0..envelope.recipients.len()).collect();
    while !recipients.is_empty() {
        let mail = Mail {
            envelope,
            size: script.size,
            recipients: &recipients,
            promise: script.promise,
        };
        if let Err(obstacle) = mail.fits(extensions) {
            stage.note(&obstacle.to_string());
            return;
        }
        let mut transaction = if script.chunk && Transaction::may_have_chunk(&mail, extensions) {
            Transaction::start_with_chunk(mail, extensions, b"(content)\r\n", &mut stage.out)
        } else {
            Transaction::start(mail, extensions, &mut stage.out)
        };
        loop {
            match stage.run(|input, out| receive(&mut transaction, input, out)) {
                End::TransactionStep(TransactionStep::Content) => {
                    stage.out.extend_from_slice(b"(content)\r\n.\r\n");
                    transaction.content_sent(script.early);
                    continue;
                }
                End::TransactionStep(TransactionStep::ChunkReply | TransactionStep::Over) => {}
                End::Lost => stage.note(&format!("lost at {}", transaction.awaited())),
                End::ProtocolViolation(violation) => stage.note(&format!("violation: {violation}")),
            }
            break;
        }
        let may_be_accepted = transaction.may_be_accepted();
        let results = transaction.into_results();
        let mut overflow = Vec::new();
        for (status, at) in results.recipients.iter().zip(&recipients) {
            if *status == RecipientStatus::Overflow {
                overflow.push(*at);
            }
            let words = words_for_recipient(status);
            stage.note(&format!("{}: {words}", envelope.recipients[*at].mailbox));
        }
        let ending = words_for(&results.ending);
        stage.note(&format!(
            "{ending}; {}{}",
            if results.reusable {
                "reusable"
            } else {
                "not reusable"
            },
            if may_be_accepted {
                "; may be accepted"
            } else {
                ""
            }
        ));
        recipients = if results.reusable && matches!(results.ending, TransactionEnd::Accepted(_)) {
            overflow
        } else {
            Vec::new()
        };
    }
}

/// The status of a recipient, as dialogues write it.
fn words_for_recipient(status: &RecipientStatus) -> String {
    match status {
        RecipientStatus::Pending => "open".to_owned(),
        RecipientStatus::Accepted => "accepted".to_owned(),
        RecipientStatus::Rejected(reply) => format!("refused: {reply}"),
        RecipientStatus::Delivered(reply) => format!("delivered: {reply}"),
        RecipientStatus::Undelivered(reply) => format!("undelivered: {reply}"),
        RecipientStatus::Overflow => "overflow".to_owned(),
    }
}

/// The end of a transaction, as dialogues write it.
fn words_for(ending: &TransactionEnd) -> String {
    match ending {
        TransactionEnd::Unfinished => "unfinished".to_owned(),
        TransactionEnd::Accepted(reply) => format!("taken: {reply}"),
        TransactionEnd::Rejected { stage, reply } => format!("refused at {stage}: {reply}"),
        TransactionEnd::Closing { stage, reply } => format!("closing at {stage}: {reply}"),
        TransactionEnd::NoRecipient => "no recipient".to_owned(),
        TransactionEnd::EachAnswered => "each answered".to_owned(),
    }
}

/// Goes on at once where only the reply to a chunk is awaited: then it has another time limit.
fn receive(
    transaction: &mut Transaction<'_>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(usize, Option<TransactionStep>), ProtocolViolation> {
    let (used, step) = transaction.receive(input, out)?;
    if step != Some(TransactionStep::ChunkReply) {
        return Ok((used, step));
    }
    assert!(
        transaction
            .recipients()
            .contains(&RecipientStatus::Accepted),
        "the reply to a chunk is awaited that is for nobody"
    );
    let (more, step) = transaction.receive(&input[used..], out)?;
    Ok((used + more, step))
}

#[test]
fn every_dialogue_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dialogues/client");
    let mut played = 0;
    let mut faults = String::new();
    for file in std::fs::read_dir(folder).expect("the folder") {
        let path = file.expect("a file").path();
        let script = read(&std::fs::read_to_string(&path).expect("readable"));
        let ways: &[bool] = if script.whole {
            &[false]
        } else {
            &[false, true]
        };
        for bytewise in ways {
            let came_about = play(&script, *bytewise);
            if came_about != script.transcript {
                let name = path.file_name().expect("a name").display();
                write!(
                    faults,
                    "\n{name} (octet by octet: {bytewise})\n--- wanted\n{}\n--- got\n{came_about}\n",
                    script.transcript
                )
                .expect("a string");
            }
        }
        played += 1;
    }
    assert!(faults.is_empty(), "{faults}");
    assert!(played >= 30, "only {played} dialogues were found");
}
