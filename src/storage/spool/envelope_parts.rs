//! The parts of the envelope of a message to many recipients, so that a result costs as much as it
//! changes.
//!
//! A part replaces a part of the envelope that is stored as a unit: the state and the owed report
//! of one recipient, or everything but the recipients. A message to few recipients has no parts; its
//! envelope is replaced as a unit.

use serde::{Deserialize, Serialize};

use super::log::{EnvelopePart, PartPlace};
use crate::smtp::envelope::{AttemptFailure, Envelope, RecipientState};

/// The most recipients of a message without parts.
const FEW: usize = 16;
/// The number in the database of the part that has everything but the recipients.
const MESSAGE: i64 = -1;

/// The stored form of a recipient's part.
#[derive(Debug, Serialize, Deserialize)]
struct RecipientPart {
    state: RecipientState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owed: Option<Box<AttemptFailure>>,
}

/// Returns whether a message with this envelope may have parts.
pub(super) fn has_parts(envelope: &Envelope) -> bool {
    envelope.recipients.len() > FEW
}

/// Returns the parts in which two envelopes of a message differ; `None` if the envelope is to be
/// replaced as a unit.
pub(super) fn changed_parts(
    before: &Envelope,
    after: &Envelope,
) -> serde_json::Result<Option<Vec<EnvelopePart>>> {
    if !has_parts(after) || before.recipients.len() != after.recipients.len() {
        return Ok(None);
    }
    let mut parts = Vec::new();
    let message = without_recipients(after);
    if without_recipients(before) != message {
        parts.push(part(PartPlace::Message, &message)?);
    }
    let pairs = before.recipients.iter().zip(&after.recipients);
    for (at, (before, after)) in (0..).zip(pairs) {
        if (&before.state, &before.owed) != (&after.state, &after.owed) {
            let (state, owed) = (after.state.clone(), after.owed.clone());
            let place = PartPlace::Recipient(at);
            parts.push(part(place, &RecipientPart { state, owed })?);
        }
    }
    Ok(Some(parts))
}

fn part(place: PartPlace, value: &impl Serialize) -> serde_json::Result<EnvelopePart> {
    let json = serde_json::to_string(value)?.into();
    Ok(EnvelopePart { place, json })
}

/// Returns an envelope without its recipients.
fn without_recipients(envelope: &Envelope) -> Envelope {
    let Envelope {
        reverse_path,
        recipients: _,
        body,
        smtputf8,
        needs,
        ret,
        envid,
        tls,
        message_id,
        report,
        arrival,
        received,
        origin,
        confidential,
        connector,
    } = envelope;
    Envelope {
        reverse_path: reverse_path.clone(),
        recipients: Vec::new(),
        body: *body,
        smtputf8: *smtputf8,
        needs: *needs,
        ret: *ret,
        envid: envid.clone(),
        tls: *tls,
        message_id: message_id.clone(),
        report: *report,
        arrival: arrival.clone(),
        received: received.clone(),
        origin: *origin,
        confidential: *confidential,
        connector: connector.clone(),
    }
}

/// Puts a part in the place of the one of an envelope.
pub(super) fn merge_part(
    envelope: &mut Envelope,
    place: PartPlace,
    json: &str,
) -> Result<(), String> {
    let unreadable = |error: serde_json::Error| {
        let part = part_number(place);
        format!("part {part} of its envelope cannot be read: {error}")
    };
    match place {
        PartPlace::Message => {
            let recipients = std::mem::take(&mut envelope.recipients);
            *envelope = serde_json::from_str(json).map_err(unreadable)?;
            envelope.recipients = recipients;
        }
        PartPlace::Recipient(at) => {
            let recipient = usize::try_from(at)
                .ok()
                .and_then(|at| envelope.recipients.get_mut(at))
                .ok_or_else(|| format!("it has no recipient {at}, and a part about it"))?;
            let RecipientPart { state, owed } = serde_json::from_str(json).map_err(unreadable)?;
            (recipient.state, recipient.owed) = (state, owed);
        }
    }
    Ok(())
}

/// Returns the number of a part in the database.
pub(super) fn part_number(place: PartPlace) -> i64 {
    match place {
        PartPlace::Message => MESSAGE,
        PartPlace::Recipient(at) => i64::from(at),
    }
}

pub(super) fn place_of(number: i64) -> Option<PartPlace> {
    if number == MESSAGE {
        return Some(PartPlace::Message);
    }
    u32::try_from(number).ok().map(PartPlace::Recipient)
}
