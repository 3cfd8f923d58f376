//! The stored form of envelopes: a stored envelope is read back unchanged, and a damaged one is
//! rejected or is a valid envelope.

use gatepost::smtp::envelope::Envelope;

pub(crate) fn run(input: &[u8]) {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(input) else { return };
    let text = check_stored(&envelope);
    // Every field may be missing in the input, and is written; this is the most that is added for
    // the envelope and each recipient.
    let most = 6 * input.len() + 256 + 64 * envelope.recipients.len();
    assert!(text.len() <= most, "{} octets became {}", input.len(), text.len());
    let _ = envelope.is_open();
}

/// Checks that an envelope is read back from its stored form unchanged; returns the stored form.
pub(crate) fn check_stored(envelope: &Envelope) -> String {
    let text = serde_json::to_string(envelope).expect("an envelope can be stored");
    match serde_json::from_str::<Envelope>(&text) {
        Ok(read) => assert_eq!(&read, envelope, "another envelope is read than was stored"),
        Err(fault) => panic!("a stored envelope cannot be read: {fault}: {text}"),
    }
    text
}
