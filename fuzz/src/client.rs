//! The client side of a session with a hostile server: the opening, then a transaction.

use std::sync::LazyLock;

use gatepost::smtp::address::{Domain, Mailbox, ReversePath};
use gatepost::smtp::client::{
    Extensions, Mail, Opening, OpeningStep, ProtocolViolation, RecipientStatus, RequireTlsUse,
    StarttlsUse, Transaction, TransactionEnd, TransactionStep,
};
use gatepost::smtp::command::Command;
use gatepost::smtp::envelope::{Envelope, Notify, Recipient, Ret};
use gatepost::smtp::reply::Severity;

use crate::cuts::Cuts;
use crate::talk;

/// The maximum number of commands in one group.
const GROUP_MAX: usize = 130;

/// The maximum length in octets of a stored reply as it is shown: text, code, status and separators
/// of lines.
const SHOWN_MAX: usize = 1024 + 16 + 128 * 3;

/// The envelopes: a plain one, and one with every parameter.
static ENVELOPES: LazyLock<[Envelope; 2]> = LazyLock::new(|| {
    let mailbox = |text: &str| Mailbox::parse(text).expect("a mailbox");
    let to = |text: &str| Recipient::new(mailbox(text));
    let plain = Envelope::new(
        ReversePath::Null,
        (0..3).map(|at| to(&format!("r{at}@example.net"))).collect(),
    );
    let notify = Some(Notify::On {
        success: true,
        failure: true,
        delay: false,
    });
    let orcpt = Some("rfc822;someone+40else.example".to_owned());
    let mut rich = Envelope::new(
        ReversePath::Mailbox(mailbox("s\u{fc}nder@example.org")),
        vec![
            Recipient {
                notify,
                orcpt,
                ..to("\"a b\"@example.net")
            },
            to("j\u{f6}@example.net"),
            to("c@[192.0.2.1]"),
        ],
    );
    (rich.ret, rich.envid) = (Some(Ret::Hdrs), Some("QQ314159".to_owned()));
    rich.needs.eight_bit = true;
    [plain, rich]
});

pub(crate) fn run(input: &[u8]) {
    let (cuts, rest) = Cuts::take(input);
    let Some((kind, wire)) = rest.split_first() else {
        return;
    };
    let hostname = Domain::parse("relay.example.com").expect("a domain");
    let starttls = if kind & 1 == 0 {
        StarttlsUse::IfOffered
    } else {
        StarttlsUse::Never
    };
    let envelope = &ENVELOPES[usize::from(kind >> 1 & 1)];
    let promise = [
        RequireTlsUse::Never,
        RequireTlsUse::IfOffered,
        RequireTlsUse::Always,
        RequireTlsUse::Never,
    ][usize::from(kind >> 2 & 3)];
    let mut peer = Peer {
        pieces: cuts.polite(wire).into_iter(),
        buffer: Vec::new(),
    };
    let Some(extensions) = open(&mut peer, &hostname, starttls) else {
        return;
    };
    let all: Vec<usize> = (0..envelope.recipients.len()).collect();
    let mail = Mail {
        envelope,
        size: 1000,
        recipients: &all,
        promise,
    };
    let is_fit = |recipient: &Recipient| Mail::recipient_fits(recipient, extensions).is_ok();
    if mail.fits(extensions).is_ok() && envelope.recipients.iter().all(is_fit) {
        transact(&mut peer, mail, extensions);
    }
}

/// The input from the server.
struct Peer<'a> {
    pieces: std::vec::IntoIter<&'a [u8]>,
    buffer: Vec<u8>,
}

impl Peer<'_> {
    /// Processes input until the next step. `None` if the server breaks the protocol or its input
    /// ends.
    fn listen<S>(
        &mut self,
        mut receive: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(usize, Option<S>), ProtocolViolation>,
    ) -> Option<S> {
        loop {
            if self.buffer.is_empty() {
                self.buffer.extend_from_slice(self.pieces.next()?);
            }
            let mut out = Vec::new();
            let (used, step) = receive(&self.buffer, &mut out).ok()?;
            self.buffer.drain(..used);
            check_said(&out);
            if step.is_some() {
                return step;
            }
            self.buffer.extend_from_slice(self.pieces.next()?);
        }
    }
}

/// Checks that a strict server accepts what we send.
fn check_said(out: &[u8]) {
    let lines = talk::lines(out);
    assert!(lines.len() <= GROUP_MAX, "{} commands at once", lines.len());
    for line in lines.into_iter().filter(|line| *line != b".") {
        let shown = line.escape_ascii();
        assert!(
            Command::parse(line).is_ok(),
            "we say what we would refuse: {shown}"
        );
    }
}

fn open(peer: &mut Peer<'_>, hostname: &Domain, starttls: StarttlsUse) -> Option<Extensions> {
    let mut opening = Opening::new(hostname, starttls);
    let mut step = peer.listen(|input, out| opening.receive(input, out))?;
    let mut is_secured = false;
    if step == OpeningStep::Handshake {
        assert!(
            starttls == StarttlsUse::IfOffered && peer.buffer.is_empty(),
            "a handshake behind octets in clear"
        );
        assert_eq!(
            opening.extensions(),
            Extensions::default(),
            "what was said in clear is remembered"
        );
        let mut out = Vec::new();
        opening.continue_under_tls(&mut out);
        check_said(&out);
        is_secured = true;
        step = peer.listen(|input, out| opening.receive(input, out))?;
    }
    match step {
        OpeningStep::Failed { .. } => None,
        OpeningStep::Handshake => panic!("a handshake within TLS"),
        OpeningStep::Secured | OpeningStep::InClear(_) => {
            assert_eq!(
                step == OpeningStep::Secured,
                is_secured,
                "TLS is claimed or forgotten"
            );
            assert!(
                is_secured || !opening.extensions().require_tls,
                "REQUIRETLS in clear"
            );
            assert!(
                opening.replies() <= 6,
                "{} replies are heard",
                opening.replies()
            );
            Some(opening.extensions())
        }
    }
}

fn transact(peer: &mut Peer<'_>, mail: Mail<'_>, extensions: Extensions) {
    let mut out = Vec::new();
    let mut transaction = Transaction::start(mail, extensions, &mut out);
    check_said(&out);
    let (mut is_sent, mut steps) = (false, 0);
    while let Some(step) = peer.listen(|input, out| transaction.receive(input, out)) {
        steps += 1;
        assert!(steps <= 2, "the transaction never ends");
        if step == TransactionStep::ChunkReply {
            panic!("no chunk was sent");
        }
        if step == TransactionStep::Over {
            break;
        }
        is_sent = true;
        let accepted = transaction
            .recipients()
            .iter()
            .filter(|status| **status == RecipientStatus::Accepted)
            .count();
        assert!(accepted > 0, "content for nobody");
        transaction.content_sent(false);
    }
    assert!(
        transaction.replies() <= mail.recipients.len() + 4,
        "{} replies are heard",
        transaction.replies()
    );
    let results = transaction.into_results();
    assert_eq!(results.recipients.len(), mail.recipients.len());
    assert!(
        results
            .last_named
            .is_none_or(|at| at < mail.recipients.len())
    );
    match results.ending {
        TransactionEnd::Accepted(reply) => {
            assert!(
                is_sent && reply.severity() == Severity::Success,
                "delivered, with {reply}"
            );
            assert!(
                results.recipients.contains(&RecipientStatus::Accepted),
                "delivered to nobody"
            );
        }
        TransactionEnd::Rejected { reply, .. } => {
            assert!(
                reply.to_string().len() <= SHOWN_MAX,
                "a long answer is kept"
            )
        }
        TransactionEnd::Unfinished => assert!(
            !results.reusable,
            "a session is reused in the middle of a transaction"
        ),
        TransactionEnd::Closing { .. } => {
            assert!(!results.reusable, "a session is reused behind a 421")
        }
        TransactionEnd::NoRecipient | TransactionEnd::EachAnswered => {}
    }
}
