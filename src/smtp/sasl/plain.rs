//! The message of PLAIN (RFC 4616 §2).

use super::login::{LoginFault, PasswordLogin};
use super::prepared::Password;

/// Parses `[authzid] NUL authcid NUL password`. The authorization identity must be empty, or the
/// user that logs in: nobody acts for another.
// Rule: RFC 4616 §2.
pub(super) fn parse(message: &[u8]) -> Result<PasswordLogin, LoginFault> {
    let text = std::str::from_utf8(message).map_err(|_| LoginFault::Malformed)?;
    let mut parts = text.split('\0');
    let (Some(acting), Some(name), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(LoginFault::Malformed);
    };
    let login = PasswordLogin::new(name, Password::new(password))?;
    if acting.is_empty() || super::prepare_name(acting).as_ref() == Ok(&login.name) {
        Ok(login)
    } else {
        Err(LoginFault::OtherIdentity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_three_parts_and_one_identity() {
        let name = |message: &str| parse(message.as_bytes()).map(|login| login.name);
        for message in ["\0Tim\0tanstaaftanstaaf", "tim\0Tim\0x"] {
            assert_eq!(name(message).as_deref(), Ok("tim"), "{message:?}");
        }
        for (message, fault) in [
            ("", LoginFault::Malformed),
            ("\0tim", LoginFault::Malformed),
            ("\0tim\0x\0", LoginFault::Malformed),
            ("\0\0x", LoginFault::Malformed),
            ("\0tim\0", LoginFault::Malformed),
            ("kurt\0tim\0x", LoginFault::OtherIdentity),
        ] {
            assert_eq!(name(message), Err(fault), "{message:?}");
        }
        assert_eq!(
            parse(b"\0t\xff\0x").map(|login| login.name),
            Err(LoginFault::Malformed)
        );
    }
}
