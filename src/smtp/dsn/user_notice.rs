//! The notice to the postmaster about a user that has reached a limit of its own.

use std::net::IpAddr;

use jiff::Timestamp;

use super::encode::quote;
use super::{MultipartBody, ReportMessage, header};
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::envelope::QueueId;

/// The most characters of a name.
const NAME_MAX: usize = 255;

/// A user that has reached a limit.
#[derive(Debug, Clone, Copy)]
pub struct UserNotice<'a> {
    /// The name of the user.
    pub user: &'a str,
    /// The key of the limit.
    pub limit: &'a str,
    /// The counted things, in the plural.
    pub noun: &'a str,
    /// The number that is allowed in an hour.
    pub most: u32,
    /// The client.
    pub peer: IpAddr,
}

/// Writes the notice. `report` is the id of its message.
#[must_use]
pub fn write_user_notice(
    hostname: &Domain,
    now: Timestamp,
    to: &Mailbox,
    notice: &UserNotice<'_>,
    report: QueueId,
) -> ReportMessage {
    let UserNotice {
        limit,
        noun,
        most,
        peer,
        ..
    } = notice;
    let user = quote(notice.user, NAME_MAX);
    let text = format!(
        "This is the mail relay at {hostname}.\r\n\r\n\
         A client that has logged in as this user has sent more than {most} {noun}\r\n\
         within an hour ({limit}):\r\n\r\n    user:   {user}\r\n    client: {peer}\r\n\r\n\
         Further ones are answered 450 until the hour allows more. A device may have gone\r\n\
         mad, or somebody may have stolen the password. On the relay,\r\n\r\n\
         \x20   gatepost user disable NAME    stops the user within a minute,\r\n\
         \x20   gatepost user passwd NAME     sets a new password,\r\n\
         \x20   gatepost clients list         shows who is held back now.\r\n\r\n\
         If the mail is legitimate, raise {limit} in the file of the users.\r\n\
         You get no further notice about this limit until the user has kept to it for an\r\n\
         hour.\r\n"
    );
    let mut parts = MultipartBody::new(report, !to.is_ascii());
    parts.add("text/plain; charset=utf-8", text.as_bytes());
    let subject = format!("A user has reached a limit: {limit}");
    parts.into_message(header(hostname, now, to, &subject, report), to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_names_user_client_and_limit_and_no_name_breaks_its_lines() {
        let notice = UserNotice {
            user: "a\r\nBcc: x",
            limit: "messages_per_hour",
            noun: "messages",
            most: 30,
            peer: "192.0.2.1".parse().expect("an address"),
        };
        let host = Domain::parse("relay.example").expect("valid");
        let to = Mailbox::parse("postmaster@example.com").expect("valid");
        let id = QueueId::from_number(1).expect("small");
        let written = write_user_notice(&host, Timestamp::UNIX_EPOCH, &to, &notice, id);
        let text = String::from_utf8(written.content).expect("ASCII");
        for wanted in [
            "Subject: A user has reached a limit: messages_per_hour\r\n",
            "sent more than 30 messages\r\n",
            "client: 192.0.2.1\r\n",
        ] {
            assert!(text.contains(wanted), "{text}");
        }
        assert!(!text.contains("\nBcc:"), "{text}");
        assert_eq!(written.envelope.recipients[0].mailbox, to);
    }
}
