//! The users of this system, from its list of accounts (passwd(5)).

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// The login name.
    pub(super) name: String,
    /// The full name, if the account has one.
    pub(super) full_name: Option<String>,
}

impl User {
    /// Returns the user that this process runs as. Environment variables such as `USER` are not
    /// used, since the caller can set them.
    pub(super) fn caller() -> Option<Self> {
        Self::with_id(rustix::process::getuid().as_raw())
    }

    /// Returns the user with this id.
    pub(super) fn with_id(uid: u32) -> Option<Self> {
        let accounts = std::fs::read("/etc/passwd").unwrap_or_default();
        Self::find(&String::from_utf8_lossy(&accounts), uid)
    }

    fn find(accounts: &str, uid: u32) -> Option<Self> {
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            if fields.nth(1)?.parse() != Ok(uid) {
                return None;
            }
            // The full name is the first part of the field; `&` stands for the login name.
            let full_name = fields
                .nth(1)
                .and_then(|gecos| gecos.split(',').next())
                .unwrap_or_default();
            let full_name = full_name.replace('&', name);
            Some(Self {
                name: name.to_owned(),
                full_name: Some(full_name).filter(|name| !name.trim().is_empty()),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::User;

    #[test]
    fn the_account_is_found_by_its_number() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000:Alice Doe,Room 1,,:/home/alice:/bin/sh\n\
                        eric:x:1001:1001::/home/eric:/bin/sh\n";
        let alice = User {
            name: "alice".into(),
            full_name: Some("Alice Doe".into()),
        };
        assert_eq!(User::find(accounts, 1000), Some(alice));
        assert_eq!(
            User::find(accounts, 1001).map(|user| user.full_name),
            Some(None)
        );
        assert_eq!(User::find(accounts, 7), None);
    }
}
