//! The messages of the demo as the partner's server has received them.

use super::super::peer::PeerLog;

/// The subject of a message.
pub(super) fn subject(number: usize) -> String {
    format!("message-{number}.")
}

/// The arrivals of all messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrivals {
    /// The number of messages that arrived at least once.
    pub(super) arrived: usize,
    /// The messages that arrived more than once.
    pub(super) repeated: Vec<usize>,
    /// The number of commands and messages that came without TLS.
    pub(super) clear: usize,
}

impl Arrivals {
    /// Counts the arrivals of messages 1 to `messages`.
    pub(super) fn of(log: &PeerLog, messages: usize) -> Self {
        let copies = |number: &usize| {
            let subject = subject(*number);
            let all = log.messages.iter();
            all.filter(|(text, _)| text.contains(&subject)).count()
        };
        let sent = log.mail_from.iter().chain(&log.messages);
        Self {
            arrived: (1..=messages).filter(|number| copies(number) > 0).count(),
            repeated: (1..=messages).filter(|number| copies(number) > 1).collect(),
            clear: sent.filter(|(_, is_encrypted)| !is_encrypted).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_repeated_and_unencrypted_messages_are_counted() {
        let message = |number, tls| (format!("Subject: {}\n", subject(number)), tls);
        let log = PeerLog {
            mail_from: vec![("MAIL FROM:<a@b.example>".to_owned(), true)],
            messages: vec![message(11, true), message(2, false), message(11, true)],
            ..PeerLog::default()
        };
        let arrivals = Arrivals::of(&log, 12);
        assert_eq!(
            arrivals,
            Arrivals {
                arrived: 2,
                repeated: vec![11],
                clear: 1
            }
        );
    }
}
