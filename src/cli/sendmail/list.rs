//! Addresses out of a header field or an argument (RFC 5322 §3.4): lists, names, comments and groups.
//!
//! A list is read whole or refused whole: an address that is passed over would be a recipient whom the sender believes
//! served, and one put together from two words a stranger. The syntax of the mailboxes themselves is checked by
//! [`crate::address`].

/// Characters of a fault's text, at most.
const QUOTE_MAX: usize = 60;

/// An address as it stands in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The address without name, comments and blanks.
    pub(super) address: String,
    /// Checks for a domain.
    pub(super) has_domain: bool,
    /// The offset in the list at which its last word ends.
    pub(super) end: usize,
}

/// The reason why a list of addresses cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListFault {
    /// A quoted string, comment, address literal or angle bracket without its end.
    #[error("a {0} is not closed")]
    Unclosed(&'static str),
    /// The end of one of these without its beginning.
    #[error("a \"{0}\" closes nothing")]
    Unopened(char),
    /// Two words where one address should stand.
    #[error("\"{0}\" is not one address: write a comma between two, and angle brackets around one behind a name")]
    NotOne(String),
    /// Angle brackets with nothing between them, or a colon behind nothing.
    #[error("an address is empty")]
    Empty,
    /// An address in an unknown encoding.
    #[error("\"{0}\" is not UTF-8")]
    NotUtf8(String),
}

/// The addresses of a list, without names and comments; the empty text where angle brackets are empty.
///
/// # Errors
/// [`ListFault`], whichever of the addresses it concerns.
pub(super) fn addresses(text: &[u8]) -> Result<Vec<Found>, ListFault> {
    let mut found = Vec::new();
    let mut item = Item::default();
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
            Some(b':') if item.angle.is_some() || item.words.iter().any(|word| word.mark == Some(b'@')) => {
                return Err(item.not_one(text, token.end));
            }
            // What stood before is the name of a group.
            Some(b':') if item.words.is_empty() => return Err(ListFault::Empty),
            Some(b':') => item = Item::default(),
            Some(b',' | b';') => std::mem::take(&mut item).end(text, &mut found)?,
            _ if item.angle.is_some() => return Err(item.not_one(text, token.end)),
            _ => item.words.push(token),
        }
    }
    item.end(text, &mut found)?;
    Ok(found)
}

/// A word (an atom, a quoted string or an address literal), or one of the characters that part words.
#[derive(Debug, Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
    /// The character, where it is no word.
    mark: Option<u8>,
}

/// One item of a list.
#[derive(Default)]
struct Item {
    /// The text outside angle brackets.
    words: Vec<Token>,
    /// The text inside angle brackets, and the place where they open.
    angle: Option<(usize, Vec<Token>)>,
}

impl Item {
    fn not_one(&self, text: &[u8], end: usize) -> ListFault {
        let start = self.words.first().map(|word| word.start).or(self.angle.as_ref().map(|(start, _)| *start));
        ListFault::NotOne(quoted(text, start.unwrap_or(end), end))
    }

    fn end(self, text: &[u8], found: &mut Vec<Found>) -> Result<(), ListFault> {
        match self.angle {
            Some((_, inside)) => found.push(address(text, &inside)?),
            None if self.words.is_empty() => {}
            None => found.push(address(text, &self.words)?),
        }
        Ok(())
    }
}

/// Joins the words of one address. Blanks and comments may stand around its dots and its at sign (RFC 5322 §4.4),
/// never between two words.
fn address(text: &[u8], words: &[Token]) -> Result<Found, ListFault> {
    let (start, end) = (words.first().map_or(0, |word| word.start), words.last().map_or(0, |word| word.end));
    let apart = |pair: &[Token]| pair[0].mark.is_none() && pair[1].mark.is_none();
    if words.windows(2).any(apart) {
        return Err(ListFault::NotOne(quoted(text, start, end)));
    }
    let octets: Vec<u8> = words.iter().flat_map(|word| &text[word.start..word.end]).copied().collect();
    let address = String::from_utf8(octets).ok().filter(|address| !address.contains('\u{fffd}'));
    let Some(address) = address else { return Err(ListFault::NotUtf8(quoted(text, start, end))) };
    Ok(Found { address, has_domain: words.iter().any(|word| word.mark == Some(b'@')), end })
}

/// Part of a list as a message shows it.
fn quoted(text: &[u8], start: usize, end: usize) -> String {
    let part = String::from_utf8_lossy(&text[start..end]);
    let words: Vec<_> = part.split_whitespace().collect();
    let line = words.join(" ").replace(char::is_control, "?");
    if line.chars().count() <= QUOTE_MAX {
        return line;
    }
    line.chars().take(QUOTE_MAX).chain(['…']).collect()
}

struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl Tokens<'_> {
    /// The next token; blanks and comments are passed over.
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
            return Ok(Some(Token { start, end: self.at, mark }));
        }
        Ok(None)
    }

    /// What stands in angle brackets, up to their end; a source route keeps its colon.
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

    /// Goes behind the closing character; one behind a backslash closes nothing.
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

    /// Goes behind a comment, and those in it.
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
    fn every_way_to_write_an_address_is_understood() {
        for (text, wanted) in [
            ("a@x.example", &["a@x.example"][..]),
            ("a@x.example, b@x.example,\r\n\tc@x.example", &["a@x.example", "b@x.example", "c@x.example"]),
            ("Bob <b@x.example>, \"Last, First\" <l@x.example>", &["b@x.example", "l@x.example"]),
            ("b@x.example (Bob, at home (really)), c@x.example", &["b@x.example", "c@x.example"]),
            ("Friends: a@x.example, B <b@x.example>;, c@x.example", &["a@x.example", "b@x.example", "c@x.example"]),
            ("undisclosed-recipients:;", &[]),
            ("\"odd, local\"@x.example", &["\"odd, local\"@x.example"]),
            ("\"a\\\"b\"@x.example", &["\"a\\\"b\"@x.example"]),
            ("\"a\\\" b\"@x.example", &["\"a\\\" b\"@x.example"]),
            ("\"a \\\\\" @ x.example", &["\"a \\\\\"@x.example"]),
            ("B <\"a\\\" b\" @x.example>", &["\"a\\\" b\"@x.example"]),
            ("<@relay.example:a@x.example>", &["@relay.example:a@x.example"]),
            ("a@[IPv6:2001:db8::1]", &["a@[IPv6:2001:db8::1]"]),
            ("root", &["root"]),
            ("a . b @ x.example", &["a.b@x.example"]),
            ("a (one) @ (two) x.example (three)", &["a@x.example"]),
            ("name.@x.example, a..b@x.example", &["name.@x.example", "a..b@x.example"]),
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
    fn a_list_with_one_fault_is_no_list() {
        for (text, fault) in [
            ("Bob <bob@x.example, Alice <alice@x.example>", "a \"<\" is not closed"),
            ("<open@x.example", "a \"<\" is not closed"),
            ("a@x.example (never closed, b@x.example", "a comment is not closed"),
            ("a@x.example, (a (b)", "a comment is not closed"),
            ("\"Bob <bob@x.example>, alice@x.example", "a quoted string is not closed"),
            ("a@[192.0.2.1, b@x.example", "a \"[\" is not closed"),
            ("a@x.example, b@x.example>", "a \">\" closes nothing"),
            ("a@x.example), b@x.example", "a \")\" closes nothing"),
            ("Alice Smith alice@x.example", "\"Alice Smith alice@x.example\" is not one address"),
            ("a@x.example b@x.example", "\"a@x.example b@x.example\" is not one address"),
            ("a@x.example, Alice Smith", "\"Alice Smith\" is not one address"),
            ("alice(comment)smith@x.example", "is not one address"),
            ("\"a\"b@x.example", "is not one address"),
            ("Bob <b@x.example> c@x.example, d@x.example", "\"Bob <b@x.example> c\" is not one address"),
            ("<b@x.example> <c@x.example>", "is not one address"),
            ("Bob <bob smith@x.example>", "\"bob smith@x.example\" is not one address"),
            ("bob@x.example: alice@x.example", "\"bob@x.example:\" is not one address"),
            (": alice@x.example", "an address is empty"),
            ("j\u{fffd}rgen@x.example", "is not UTF-8"),
        ] {
            let told = addresses(text.as_bytes()).expect_err(text).to_string();
            assert!(told.contains(fault), "{text}: {told}");
        }
        assert!(addresses(b"j\xfcrgen@x.example").is_err(), "an address was made up");
        assert_eq!(texts(&format!("{} <a@x.example>", "x ".repeat(200))), ["a@x.example"]);
        let long = addresses("x ".repeat(200).as_bytes()).expect_err("no address").to_string();
        assert!(long.len() < 250, "{long}");
    }

    #[test]
    fn an_address_is_found_where_it_stands() {
        let text = "root (Cron), Bob <bob>, \"a b\", c@x.example";
        let found = addresses(text.as_bytes()).expect("a list");
        let ends: Vec<_> = found.iter().map(|found| (&text[..found.end], found.has_domain)).collect();
        let wanted = [
            ("root", false),
            ("root (Cron), Bob <bob", false),
            ("root (Cron), Bob <bob>, \"a b\"", false),
            (text, true),
        ];
        assert_eq!(ends, wanted);
    }
}
