//! Changes of the text of a file of users. Everything else in the file, comments too, stays as it
//! is.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::SettingValue;
use crate::smtp::sasl::prepare_name;

/// A value of a key, in the form in which the file has it.
pub type UserKey<'a> = (&'a str, SettingValue);

/// Appends a user with these keys.
#[must_use]
pub fn add_user(text: &str, keys: &[UserKey<'_>]) -> String {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str("[[user]]\n");
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_unset()) {
        text.push_str(&line(key, value));
    }
    text
}

/// Sets keys of a user. `None` if there is no such user, or if it is not written as a `[[user]]`
/// table.
#[must_use]
pub fn set_keys(text: &str, name: &str, keys: &[UserKey<'_>]) -> Option<String> {
    let mut text = text.to_owned();
    for (key, value) in keys {
        text = set_key(&text, name, key, value)?;
    }
    Some(text)
}

fn set_key(text: &str, name: &str, key: &str, value: &SettingValue) -> Option<String> {
    let (document, _) = DeTable::parse_recoverable(text);
    let users = users(document.get_ref());
    let item = users.iter().find(|item| is_named(item, name))?;
    header(text, item)?;
    let DeValue::Table(table) = item.get_ref() else {
        return None;
    };
    let mut text = text.to_owned();
    match table.get(key) {
        Some(found) if value.is_unset() => {
            let start = line_start(&text, found.span().start);
            let end = line_end(&text, found.span().end);
            text.replace_range(start..end, "");
        }
        Some(found) => text.replace_range(found.span(), &value.to_string()),
        None if value.is_unset() => {}
        None => {
            let at = line_end(&text, table.get("name")?.span().end);
            text.insert_str(at, &line(key, value));
        }
    }
    Some(text)
}

/// Removes a user. `None` if there is no such user, or if it is not written as a `[[user]]` table.
#[must_use]
pub fn remove_user(text: &str, name: &str) -> Option<String> {
    let (document, _) = DeTable::parse_recoverable(text);
    let users = users(document.get_ref());
    let at = users.iter().position(|item| is_named(item, name))?;
    let start = header(text, users[at])?;
    let end = match users.get(at + 1) {
        // Comments and blank lines directly above the next user belong to it.
        Some(next) => above_comments(text, header(text, next)?),
        None => text.len(),
    };
    let mut rest = text.to_owned();
    rest.replace_range(start..end.max(start), "");
    Some(rest)
}

/// Returns the tables of the users.
fn users<'d>(document: &'d DeTable<'d>) -> Vec<&'d Spanned<DeValue<'d>>> {
    match document.get("user").map(Spanned::get_ref) {
        Some(DeValue::Array(items)) => items.iter().collect(),
        Some(_) | None => Vec::new(),
    }
}

fn is_named(item: &Spanned<DeValue<'_>>, name: &str) -> bool {
    let DeValue::Table(table) = item.get_ref() else {
        return false;
    };
    let found = table.get("name").and_then(|name| name.get_ref().as_str());
    found
        .is_some_and(|found| prepare_name(found).is_ok_and(|found| Ok(found) == prepare_name(name)))
}

/// Returns the start of the line `[[user]]` of a table; `None` if it is written otherwise.
fn header(text: &str, item: &Spanned<DeValue<'_>>) -> Option<usize> {
    let start = line_start(text, item.span().start);
    text[start..]
        .trim_start()
        .starts_with("[[")
        .then_some(start)
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |end| end + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

/// Returns the start of the comments directly above a line.
fn above_comments(text: &str, mut start: usize) -> usize {
    while start > 0 {
        let above = line_start(text, start - 1);
        if !text[above..start].trim_start().starts_with('#') {
            break;
        }
        start = above;
    }
    start
}

fn line(key: &str, value: &SettingValue) -> String {
    format!("{key} = {value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# All users.\nsalt_secret = \"x\"\n\n[[user]]\nname = \"a\"  # the first\npassword = \"p\"\n\
                        # The scanner on the second floor.\n[[user]]\nname = \"B\"\npassword = \"q\"\ndisabled = true";

    #[test]
    fn a_user_is_appended() {
        let keys = [
            ("name", SettingValue::text("c\"d")),
            ("scram", SettingValue::Unset),
            ("senders", SettingValue::list(["x@y.example"])),
        ];
        let added = "\n\n[[user]]\nname = \"c\\\"d\"\nsenders = [\"x@y.example\"]\n";
        assert_eq!(add_user(FILE, &keys), format!("{FILE}{added}"));
        assert_eq!(add_user("", &keys), &added[2..]);
    }

    #[test]
    fn keys_are_replaced_added_and_removed_and_the_others_stay() {
        let set = |name, keys: &[UserKey<'_>]| set_keys(FILE, name, keys);
        let password = ("password", SettingValue::text("new"));
        assert_eq!(
            set("A", &[password]),
            Some(FILE.replace("\"p\"", "\"new\""))
        );
        let disabled = ("disabled", SettingValue::from(true));
        assert_eq!(
            set("a", &[disabled]),
            Some(FILE.replace("# the first\n", "# the first\ndisabled = true\n"))
        );
        let enabled = ("disabled", SettingValue::Unset);
        assert_eq!(
            set("b", &[enabled]),
            Some(FILE.replace("\ndisabled = true", "\n"))
        );
        assert_eq!(set("c", &[("disabled", SettingValue::from(true))]), None);
        let inline = "user = [{ name = \"a\", password = \"p\" }]";
        assert_eq!(
            set_keys(inline, "a", &[("password", SettingValue::text("new"))]),
            None
        );
    }

    #[test]
    fn a_user_is_removed_and_comments_of_the_next_stay() {
        let first = remove_user(FILE, "a").expect("it is there");
        assert_eq!(
            first,
            FILE.replace(
                "[[user]]\nname = \"a\"  # the first\npassword = \"p\"\n",
                ""
            )
        );
        let last = remove_user(&first, "b").expect("it is there");
        assert_eq!(
            last,
            "# All users.\nsalt_secret = \"x\"\n\n# The scanner on the second floor.\n"
        );
        assert_eq!(remove_user(FILE, "c"), None);
    }
}
