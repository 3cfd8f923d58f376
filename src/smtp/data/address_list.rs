//! The parser of address lists in header fields and arguments (RFC 5322 §3.4), with display names,
//! comments and groups.
//!
//! A list with any error is rejected as a whole. If the parser skipped an address, the sender would
//! believe that its recipient gets the message; if it joined two words to one address, the message
//! would go to a stranger. [`crate::smtp::address`] checks the mailboxes themselves.

/// The maximum length of quoted input in an error, in characters.
const QUOTE_MAX: usize = 60;

/// An address in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAddress {
    /// The address without display name, comments and blanks.
    pub address: String,
    /// True if the address has a domain.
    pub has_domain: bool,
    /// The offset in the list at which the address ends.
    pub end: usize,
}

/// The reason why a list of addresses is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    /// A quoted string, comment, address literal or angle bracket has no end.
    #[error("a {0} is not closed")]
    Unclosed(&'static str),
    /// A closing character has no opening one before it.
    #[error("a \"{0}\" closes nothing")]
    Unopened(char),
    /// Several words stand in place of one address.
    #[error(
        "\"{0}\" is not one address: put a comma between two addresses, and angle brackets around one with a name"
    )]
    NotOne(String),
    /// A group has no name.
    #[error("an address is empty")]
    Empty,
    /// An address is not UTF-8.
    #[error("\"{0}\" is not UTF-8")]
    NotUtf8(String),
}

/// Returns the addresses of a list. Empty angle brackets give an empty address.
///
/// # Errors
/// The first error in the list.
pub fn addresses(text: &[u8]) -> Result<Vec<ListedAddress>, ListFault> {
    let mut found = Vec::new();
    let mut item = ListItem::default();
    let mut tokens = Tokens { text, at: 0 };
    while let Some(token) = tokens.next()? {
        match token.mark {
            Some(b'<') => {
                if item.angle.is_some() {
                    return Err(item.not_one(text, token.end));
                }
                item.angle = Some(tokens.until_closed()?);
            }
            Some(b'>') => return Err(ListFault::Unopened('>')),
            Some(b':')
                if item.angle.is_some()
                    || item.words.iter().any(|word| word.mark == Some(b'@')) =>
            {
                return Err(item.not_one(text, token.end));
            }
            // The words before a colon are the name of a group.
            Some(b':') if item.words.is_empty() => return Err(ListFault::Empty),
            Some(b':') => item = ListItem::default(),
            Some(b',' | b';') => std::mem::take(&mut item).end(text, &mut found)?,
            _ if item.angle.is_some() => return Err(item.not_one(text, token.end)),
            _ => item.words.push(token),
        }
    }
    item.end(text, &mut found)?;
    Ok(found)
}

/// A word (an atom, a quoted string or an address literal), or a special character between words.
#[derive(Debug, Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
    /// The special character; `None` for a word.
    mark: Option<u8>,
}

/// The item between two commas of a list, while it is parsed.
#[derive(Default)]
struct ListItem {
    /// The tokens outside of angle brackets.
    words: Vec<Token>,
    /// The offset of the opening angle bracket, and the tokens inside.
    angle: Option<(usize, Vec<Token>)>,
}

impl ListItem {
    /// Returns the error for an item that is not one address. `end` is the end of the offending
    /// token.
    fn not_one(&self, text: &[u8], end: usize) -> ListFault {
        let start = self
            .words
            .first()
            .map(|word| word.start)
            .or(self.angle.as_ref().map(|(start, _)| *start));
        ListFault::NotOne(quoted(text, start.unwrap_or(end), end))
    }

    /// Adds the address of the item to `found`. An item without words is ignored.
    fn end(self, text: &[u8], found: &mut Vec<ListedAddress>) -> Result<(), ListFault> {
        match self.angle {
            Some((_, inside)) => found.push(address(text, &inside)?),
            None if self.words.is_empty() => {}
            None => found.push(address(text, &self.words)?),
        }
        Ok(())
    }
}

/// Joins the tokens of one address. Blanks and comments are allowed around dots and the at sign
/// (RFC 5322 §4.4), but not between two words.
fn address(text: &[u8], words: &[Token]) -> Result<ListedAddress, ListFault> {
    let (start, end) = (
        words.first().map_or(0, |word| word.start),
        words.last().map_or(0, |word| word.end),
    );
    let are_both_words = |pair: &[Token]| pair[0].mark.is_none() && pair[1].mark.is_none();
    if words.windows(2).any(are_both_words) {
        return Err(ListFault::NotOne(quoted(text, start, end)));
    }
    let octets: Vec<u8> = words
        .iter()
        .flat_map(|word| &text[word.start..word.end])
        .copied()
        .collect();
    let address = String::from_utf8(octets)
        .ok()
        .filter(|address| !address.contains('\u{fffd}'));
    let Some(address) = address else {
        return Err(ListFault::NotUtf8(quoted(text, start, end)));
    };
    Ok(ListedAddress {
        address,
        has_domain: words.iter().any(|word| word.mark == Some(b'@')),
        end,
    })
}

/// Returns a part of a list for an error message: on one line, without control characters, and cut.
fn quoted(text: &[u8], start: usize, end: usize) -> String {
    let part = String::from_utf8_lossy(&text[start..end]);
    let words: Vec<_> = part.split_whitespace().collect();
    let line = words.join(" ").replace(char::is_control, "?");
    if line.chars().count() <= QUOTE_MAX {
        return line;
    }
    line.chars().take(QUOTE_MAX).chain(['…']).collect()
}

/// Splits a list into tokens.
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl Tokens<'_> {
    /// Returns the next token, after any blanks and comments.
    fn next(&mut self) -> Result<Option<Token>, ListFault> {
        while let Some(&octet) = self.text.get(self.at) {
            let start = self.at;
            self.at += 1;
            let mark = match octet {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                b'(' => {
                    self.comment()?;
                    continue;
                }
                b')' | b']' => return Err(ListFault::Unopened(char::from(octet))),
                b'"' => {
                    self.enclosed(b'"', "quoted string")?;
                    None
                }
                b'[' => {
                    self.enclosed(b']', "\"[\"")?;
                    None
                }
                b'.' | b'@' | b':' | b',' | b';' | b'<' | b'>' => Some(octet),
                _ => {
                    let is_end = |octet: &u8| b" \t\r\n()[]\".@:,;<>".contains(octet);
                    let more = self.text[self.at..].iter().position(is_end);
                    self.at = more.map_or(self.text.len(), |more| self.at + more);
                    None
                }
            };
            return Ok(Some(Token {
                start,
                end: self.at,
                mark,
            }));
        }
        Ok(None)
    }

    /// Reads the tokens in angle brackets, up to the closing one. Colons are allowed there, for
    /// source routes. Returns the offset of the opening bracket as well.
    fn until_closed(&mut self) -> Result<(usize, Vec<Token>), ListFault> {
        let (open, mut inside) = (self.at - 1, Vec::new());
        while let Some(token) = self.next()? {
            match token.mark {
                Some(b'>') => return Ok((open, inside)),
                Some(b'<' | b',' | b';') => break,
                _ => inside.push(token),
            }
        }
        Err(ListFault::Unclosed("\"<\""))
    }

    /// Skips to after the closing character. A backslash escapes the character after it.
    fn enclosed(&mut self, close: u8, what: &'static str) -> Result<(), ListFault> {
        while let Some(&octet) = self.text.get(self.at) {
            self.at += 1;
            match octet {
                b'\\' => self.at += 1,
                octet if octet == close => return Ok(()),
                _ => {}
            }
        }
        Err(ListFault::Unclosed(what))
    }

    /// Skips a comment with the comments in it.
    fn comment(&mut self) -> Result<(), ListFault> {
        let mut depth = 1_usize;
        while let Some(&octet) = self.text.get(self.at) {
            self.at += 1;
            match octet {
                b'\\' => self.at += 1,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
        Err(ListFault::Unclosed("comment"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let found = addresses(text.as_bytes()).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        found.into_iter().map(|found| found.address).collect()
    }

    #[test]
    fn names_comments_and_groups_are_parsed() {
        for (text, wanted) in [
            ("a@x.example", &["a@x.example"][..]),
            (
                "a@x.example, b@x.example,\r\n\tc@x.example",
                &["a@x.example", "b@x.example", "c@x.example"],
            ),
            (
                "Bob <b@x.example>, \"Last, First\" <l@x.example>",
                &["b@x.example", "l@x.example"],
            ),
            (
                "b@x.example (Bob, at home (really)), c@x.example",
                &["b@x.example", "c@x.example"],
            ),
            (
                "Friends: a@x.example, B <b@x.example>;, c@x.example",
                &["a@x.example", "b@x.example", "c@x.example"],
            ),
            ("undisclosed-recipients:;", &[]),
            ("\"odd, local\"@x.example", &["\"odd, local\"@x.example"]),
            ("\"a\\\"b\"@x.example", &["\"a\\\"b\"@x.example"]),
            ("\"a\\\" b\"@x.example", &["\"a\\\" b\"@x.example"]),
            ("\"a \\\\\" @ x.example", &["\"a \\\\\"@x.example"]),
            ("B <\"a\\\" b\" @x.example>", &["\"a\\\" b\"@x.example"]),
            (
                "<@relay.example:a@x.example>",
                &["@relay.example:a@x.example"],
            ),
            ("a@[IPv6:2001:db8::1]", &["a@[IPv6:2001:db8::1]"]),
            ("root", &["root"]),
            ("a . b @ x.example", &["a.b@x.example"]),
            ("a (one) @ (two) x.example (three)", &["a@x.example"]),
            (
                "name.@x.example, a..b@x.example",
                &["name.@x.example", "a..b@x.example"],
            ),
            ("Dr. J. [Ext] Doe <d@x.example> (at work)", &["d@x.example"]),
            ("b@x.example <b@x.example>", &["b@x.example"]),
            ("a@x.example; b@x.example", &["a@x.example", "b@x.example"]),
            ("j\u{fc}rgen@x.example", &["j\u{fc}rgen@x.example"]),
            ("<>", &[""]),
            (", ,", &[]),
            ("", &[]),
        ] {
            assert_eq!(texts(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_list_with_an_error_is_rejected_as_a_whole() {
        for (text, fault) in [
            (
                "Bob <bob@x.example, Alice <alice@x.example>",
                "a \"<\" is not closed",
            ),
            ("<open@x.example", "a \"<\" is not closed"),
            (
                "a@x.example (never closed, b@x.example",
                "a comment is not closed",
            ),
            ("a@x.example, (a (b)", "a comment is not closed"),
            (
                "\"Bob <bob@x.example>, alice@x.example",
                "a quoted string is not closed",
            ),
            ("a@[192.0.2.1, b@x.example", "a \"[\" is not closed"),
            ("a@x.example, b@x.example>", "a \">\" closes nothing"),
            ("a@x.example), b@x.example", "a \")\" closes nothing"),
            (
                "Alice Smith alice@x.example",
                "\"Alice Smith alice@x.example\" is not one address",
            ),
            (
                "a@x.example b@x.example",
                "\"a@x.example b@x.example\" is not one address",
            ),
            (
                "a@x.example, Alice Smith",
                "\"Alice Smith\" is not one address",
            ),
            ("alice(comment)smith@x.example", "is not one address"),
            ("\"a\"b@x.example", "is not one address"),
            (
                "Bob <b@x.example> c@x.example, d@x.example",
                "\"Bob <b@x.example> c\" is not one address",
            ),
            ("<b@x.example> <c@x.example>", "is not one address"),
            (
                "Bob <bob smith@x.example>",
                "\"bob smith@x.example\" is not one address",
            ),
            (
                "bob@x.example: alice@x.example",
                "\"bob@x.example:\" is not one address",
            ),
            (": alice@x.example", "an address is empty"),
            ("j\u{fffd}rgen@x.example", "is not UTF-8"),
        ] {
            let message = addresses(text.as_bytes()).expect_err(text).to_string();
            assert!(message.contains(fault), "{text}: {message}");
        }
        assert!(
            addresses(b"j\xfcrgen@x.example").is_err(),
            "an address was made up"
        );
        assert_eq!(
            texts(&format!("{} <a@x.example>", "x ".repeat(200))),
            ["a@x.example"]
        );
        let long = addresses("x ".repeat(200).as_bytes())
            .expect_err("no address")
            .to_string();
        assert!(long.len() < 250, "{long}");
    }

    #[test]
    fn the_end_of_each_address_is_known() {
        let text = "root (Cron), Bob <bob>, \"a b\", c@x.example";
        let found = addresses(text.as_bytes()).expect("a list");
        let ends: Vec<_> = found
            .iter()
            .map(|found| (&text[..found.end], found.has_domain))
            .collect();
        let wanted = [
            ("root", false),
            ("root (Cron), Bob <bob", false),
            ("root (Cron), Bob <bob>, \"a b\"", false),
            (text, true),
        ];
        assert_eq!(ends, wanted);
    }
}
