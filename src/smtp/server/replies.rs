//! The replies of the server.

use super::{Channel, Profile};
use crate::smtp::address::Domain;
use crate::smtp::data::ContentFault;
use crate::smtp::envelope::QueueId;
use crate::smtp::reply::{Reply, Status};
use crate::smtp::sasl::{LoginFault, Mechanism};

// Subject and detail of enhanced status codes (RFC 3463 §3, RFC 2034 §4).
const OTHER: Status = Status(0, 0);
const PROTOCOL: Status = Status(5, 0);
const BAD_COMMAND: Status = Status(5, 1);

/// Returns true if the command is accepted in the clear although TLS is required: those of RFC 3207
/// §4, and HELO and RSET, which reveal nothing either.
// Rule: policy table (inbound).
pub(super) fn is_allowed_before_tls(verb: &[u8]) -> bool {
    ["NOOP", "EHLO", "HELO", "STARTTLS", "RSET", "QUIT"]
        .iter()
        .any(|free| verb.eq_ignore_ascii_case(free.as_bytes()))
}

/// Returns true if the command is accepted before a login where one is required. XCLIENT comes from
/// our own proxies before anything else, and HELP is answered as ever.
// Rule: RFC 4954 §6.
pub(super) fn is_allowed_before_login(verb: &[u8]) -> bool {
    is_allowed_before_tls(verb)
        || ["AUTH", "HELP", "XCLIENT"]
            .iter()
            .any(|free| verb.eq_ignore_ascii_case(free.as_bytes()))
}

// Rule: RFC 3207 §2; RFC 4954 §3; RFC 5321 §4.1.1.1, §4.2.4, §4.5.3.1.7.
pub(super) fn ehlo(profile: &Profile, channel: Channel) -> Reply {
    let mut lines = vec![
        profile.hostname.to_string().into(),
        "PIPELINING".into(),
        format!("SIZE {}", profile.message_size).into(),
        "8BITMIME".into(),
        "SMTPUTF8".into(),
        "ENHANCEDSTATUSCODES".into(),
        "CHUNKING".into(),
        "DSN".into(),
        "HELP".into(),
    ];
    // XCLIENT is not offered before TLS where TLS is required.
    if profile.xclient && channel != Channel::Required {
        lines.push("XCLIENT NAME ADDR PORT PROTO HELO LOGIN".into());
    }
    match channel {
        Channel::Clear => {}
        Channel::Offered | Channel::Required => lines.push("STARTTLS".into()),
        // RFC 8689 §2: REQUIRETLS is offered only under TLS; AUTH as well, since a password in the
        // clear is everybody's.
        Channel::Tls => {
            if !profile.mechanisms.is_empty() {
                let names: Vec<_> = profile.mechanisms.iter().map(Mechanism::name).collect();
                lines.push(format!("AUTH {}", names.join(" ")).into());
            }
            lines.push("REQUIRETLS".into());
        }
    }
    Reply::multiline(250, lines)
}

// Rule: RFC 5321 §4.2.
pub(super) fn greeting(hostname: &Domain) -> Reply {
    Reply::bare(220, format!("{hostname} ESMTP Gatepost"))
}

pub(super) fn xclient_denied() -> Reply {
    Reply::new(550, Status(7, 0), "XCLIENT is not taken from this address")
}

// Rule: RFC 5321 §4.2.2, §4.2.3.
pub(super) fn ok() -> Reply {
    Reply::new(250, OTHER, "Ok")
}

pub(super) fn sender_ok() -> Reply {
    Reply::new(250, Status(1, 0), "Sender ok")
}

pub(super) fn recipient_ok() -> Reply {
    Reply::new(250, Status(1, 5), "Recipient ok")
}

pub(super) fn go_ahead() -> Reply {
    Reply::bare(354, "End the message with <CR><LF>.<CR><LF>")
}

pub(super) fn chunk_ok(size: u64) -> Reply {
    Reply::new(250, OTHER, format!("Ok: {size} octets received"))
}

pub(super) fn queued(id: QueueId) -> Reply {
    Reply::new(250, OTHER, format!("Ok: queued as {id}"))
}

// Rule: RFC 5321 §4.1.1.10.
pub(super) fn bye(hostname: &Domain) -> Reply {
    Reply::new(221, OTHER, format!("{hostname} closing the connection"))
}

pub(super) fn ready_for_tls() -> Reply {
    Reply::new(220, OTHER, "Ready to start TLS")
}

// Rule: RFC 5321 §4.1.1.6.
pub(super) fn cannot_verify() -> Reply {
    Reply::new(
        252,
        OTHER,
        "Cannot verify an address; send mail and its sender will know",
    )
}

// Rule: RFC 5321 §4.1.1.8.
pub(super) fn help() -> Reply {
    Reply::new(
        214,
        OTHER,
        "EHLO HELO STARTTLS MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT (RFC 5321)",
    )
}

// Rule: RFC 5321 §4.1.4.
pub(super) fn out_of_order(what: &'static str) -> Reply {
    Reply::new(503, BAD_COMMAND, what)
}

// Rule: RFC 5321 §4.1.1.7, §4.2.4.
pub(super) fn not_implemented(verb: &str) -> Reply {
    Reply::new(502, BAD_COMMAND, format!("{verb} is not available here"))
}

pub(super) fn no_valid_recipients() -> Reply {
    Reply::new(554, BAD_COMMAND, "No valid recipients")
}

// Rule: RFC 5321 §4.5.3.1.10.
pub(super) fn too_many_recipients() -> Reply {
    Reply::new(
        452,
        Status(5, 3),
        "Too many recipients; send the others in another transaction",
    )
}

pub(super) fn too_large(limit: u64) -> Reply {
    ContentFault::TooLarge(limit).reply()
}

/// Rejects REQUIRETLS where it was not offered: such a parameter is treated as unknown (RFC 5321
/// §4.1.1.11).
pub(super) fn require_tls_not_offered() -> Reply {
    Reply::new(
        555,
        Status(5, 4),
        "REQUIRETLS is offered under TLS alone, in the answer to EHLO",
    )
}

// Rule: RFC 3207 §4.
pub(super) fn starttls_first() -> Reply {
    Reply::new(530, Status(7, 0), "Must issue a STARTTLS command first")
}

// Rule: RFC 4954 §6.
pub(super) fn authenticated() -> Reply {
    Reply::new(235, Status(7, 0), "Authentication successful")
}

// Rule: RFC 4954 §6.
pub(super) fn login_first() -> Reply {
    Reply::new(530, Status(7, 0), "Authentication required")
}

// Rule: RFC 4954 §6.
pub(super) fn encryption_required() -> Reply {
    Reply::new(
        538,
        Status(7, 11),
        "Encryption required for AUTH; use STARTTLS first",
    )
}

// Rule: RFC 4954 §6.
pub(super) fn mechanism_too_weak() -> Reply {
    Reply::new(534, Status(7, 9), "Authentication mechanism is too weak")
}

// Rule: RFC 4954 §4.
pub(super) fn unknown_mechanism() -> Reply {
    Reply::new(504, Status(5, 4), "Unrecognized authentication type")
}

// Rule: RFC 4954 §4.
pub(super) fn auth_cancelled() -> Reply {
    Reply::new(501, Status(7, 0), "Authentication cancelled")
}

// Rule: RFC 4954 §4, §6.
pub(super) fn auth_line_too_long() -> Reply {
    Reply::new(
        500,
        Status(5, 6),
        "Authentication exchange line is too long",
    )
}

// Rule: RFC 4954 §4.
pub(super) fn auth_malformed(fault: LoginFault) -> Reply {
    Reply::new(
        501,
        Status(5, 2),
        format!("Cannot decode the response: {fault}"),
    )
}

/// Rejects the parameter AUTH of MAIL where AUTH was not offered (RFC 5321 §4.1.1.11).
pub(super) fn auth_parameter_not_offered() -> Reply {
    Reply::new(555, Status(5, 4), "Parameter AUTH is not supported")
}

// Rule: RFC 3207 §6.
pub(super) fn input_after_starttls() -> Reply {
    Reply::new(501, PROTOCOL, "Nothing may follow STARTTLS in clear")
}

pub(super) fn input_after_data() -> Reply {
    Reply::new(554, PROTOCOL, "A message must wait for the answer to DATA")
}

// Rule: RFC 5321 §4.3.1.
pub(super) fn pregreet() -> Reply {
    Reply::new(
        554,
        PROTOCOL,
        "The server speaks first; wait for its greeting",
    )
}

pub(super) fn unauthorized_pipelining() -> Reply {
    Reply::new(
        554,
        PROTOCOL,
        "Wait for the answer to EHLO, which offers PIPELINING, before the next command",
    )
}

pub(super) fn too_many_errors(hostname: &Domain) -> Reply {
    Reply::new(
        421,
        Status(7, 0),
        format!("{hostname} Too many errors, closing the connection"),
    )
}

pub(super) fn too_many_junk_commands(hostname: &Domain) -> Reply {
    let text = format!(
        "{hostname} Too many commands without a message (RSET, NOOP and the like), closing the connection"
    );
    Reply::new(421, Status(7, 0), text)
}

// Rule: RFC 5321 §3.8, §4.3.2.
pub(super) fn closing(hostname: &Domain, reason: CloseReason) -> Reply {
    match reason {
        CloseReason::Timeout => Reply::new(
            421,
            Status(4, 2),
            format!("{hostname} Waited too long, closing the connection"),
        ),
        CloseReason::NoMessage => Reply::new(
            421,
            Status(4, 2),
            format!("{hostname} No message for too long, closing the connection"),
        ),
        CloseReason::Crowded => Reply::new(
            421,
            Status(3, 2),
            format!("{hostname} Too busy, other clients are waiting; try again later"),
        ),
        CloseReason::Shutdown => Reply::new(
            421,
            Status(3, 2),
            format!("{hostname} Service is shutting down"),
        ),
    }
}

/// The reason why the server ends a session by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client was silent for too long.
    Timeout,
    /// The client has sent no message for too long.
    NoMessage,
    /// Other clients are waiting, and this one has sent no message for a while.
    Crowded,
    /// Gatepost is stopping.
    Shutdown,
}
