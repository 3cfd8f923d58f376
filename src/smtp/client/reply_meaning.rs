//! The meaning of some replies, by their codes and enhanced statuses.

use crate::smtp::reply::{Reply, Status};

/// The subject of the enhanced statuses about addresses.
const ADDRESSING: u16 = 1;

/// Returns true if a recipient was rejected only because the transaction has too many: 452, or 552
/// from servers that follow RFC 821 (RFC 5321 §4.5.3.1.10), or any 4.5.3. A 452 with another
/// enhanced status, as for a full mailbox, does not count.
pub(super) fn is_over_recipient_limit(reply: &Reply) -> bool {
    const TOO_MANY: Status = Status(5, 3);
    match (reply.code().get(), reply.enhanced()) {
        (452 | 552, None) => true,
        (code, Some(enhanced)) => enhanced.status() == TOO_MANY && (code < 500 || code == 552),
        _ => false,
    }
}

/// Returns true if the peer does not know the command, or not in this place (RFC 5321 §4.2.2).
pub(super) fn is_unknown_command(reply: &Reply) -> bool {
    matches!(reply.code().get(), 500..=504)
}

/// Returns true if the enhanced status is about an address (RFC 3463 §3.2), as in replies to MAIL and
/// RCPT.
pub(super) fn is_about_address(reply: &Reply) -> bool {
    subject(reply) == Some(ADDRESSING)
}

/// Returns true if the reply has an enhanced status, and that is not about an address.
pub(super) fn is_about_message(reply: &Reply) -> bool {
    subject(reply).is_some_and(|subject| subject != ADDRESSING)
}

fn subject(reply: &Reply) -> Option<u16> {
    reply.enhanced().map(|enhanced| enhanced.status().0)
}

/// Returns true if the octets begin with a reply by which a server says that it closes the
/// connection: 421, or 221 as after QUIT.
pub(super) fn is_farewell(octets: &[u8]) -> bool {
    octets.starts_with(b"421") || octets.starts_with(b"221")
}
