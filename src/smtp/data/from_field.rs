//! The addresses of the From field (RFC 5322 §3.6.2), for users that may write as their own senders
//! alone.

use super::address_list::addresses;
use crate::smtp::address::Mailbox;

/// The most octets of all From fields. A longer one counts as unreadable.
const FROM_MAX: usize = 16 * 1024;
/// The name of the field.
const NAME: &[u8] = b"from";
/// The octets of other lines that are kept.
const NAME_MAX: usize = 64;

/// The reason why the authors of a message are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FromFault {
    /// There is no From field, or none with an address.
    #[error("The message has no From field with an address")]
    Missing,
    /// A From field cannot be read.
    #[error("The From field of the message cannot be read")]
    Unreadable,
}

/// Reads the From fields of a message, in pieces of any size.
#[derive(Debug, Default)]
pub struct FromReader {
    /// The line so far, without its line end; cut outside of a From field.
    line: Vec<u8>,
    /// True if the line so far continues a From field.
    is_from: bool,
    values: Vec<Vec<u8>>,
    is_too_long: bool,
    is_over: bool,
}

impl FromReader {
    /// Takes the next octets of the content.
    pub fn push(&mut self, mut content: &[u8]) {
        while !self.is_over && !content.is_empty() {
            let end = memchr::memchr(b'\n', content);
            let (part, rest) = content.split_at(end.unwrap_or(content.len()));
            self.add(part);
            if end.is_some() {
                self.end_line();
            }
            content = rest.get(1..).unwrap_or_default();
        }
    }

    fn add(&mut self, part: &[u8]) {
        let used: usize = self.values.iter().map(Vec::len).sum();
        let most = if self.may_be_from() {
            FROM_MAX.saturating_sub(used)
        } else {
            NAME_MAX
        };
        let fits = most.saturating_sub(self.line.len()).min(part.len());
        self.line.extend_from_slice(&part[..fits]);
        self.is_too_long |= fits < part.len() && self.may_be_from();
    }

    /// Returns true if the line so far is, continues or may become a From field.
    fn may_be_from(&self) -> bool {
        if matches!(self.line.first(), Some(b' ' | b'\t')) {
            return self.is_from;
        }
        let name = &self.line[..self.line.len().min(NAME.len())];
        let rest = self.line[name.len()..].trim_ascii_start();
        name.eq_ignore_ascii_case(&NAME[..name.len()]) && matches!(rest.first(), None | Some(b':'))
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        match line.first() {
            None => self.is_over = true,
            Some(b' ' | b'\t') => {
                if let (true, Some(last)) = (self.is_from, self.values.last_mut()) {
                    last.extend_from_slice(line);
                }
            }
            Some(_) => {
                let value = value(line);
                self.is_from = value.is_some();
                self.values.extend(value.map(<[u8]>::to_vec));
            }
        }
    }

    /// Returns the addresses of all From fields.
    ///
    /// # Errors
    /// [`FromFault`].
    pub fn finish(mut self) -> Result<Vec<Mailbox>, FromFault> {
        if !self.is_over {
            self.end_line();
        }
        if self.is_too_long {
            return Err(FromFault::Unreadable);
        }
        let mut authors = Vec::new();
        for value in &self.values {
            for listed in addresses(value).map_err(|_| FromFault::Unreadable)? {
                let author = Mailbox::parse(&listed.address).map_err(|_| FromFault::Unreadable)?;
                authors.push(author);
            }
        }
        if authors.is_empty() {
            return Err(FromFault::Missing);
        }
        Ok(authors)
    }
}

/// Returns the value of a From field; blanks before the colon are those of old mail (RFC 5322 §4.5).
fn value(line: &[u8]) -> Option<&[u8]> {
    let (name, rest) = line.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let blanks = rest
        .iter()
        .take_while(|octet| matches!(octet, b' ' | b'\t'))
        .count();
    rest[blanks..].strip_prefix(b":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, piece: usize) -> Result<Vec<String>, FromFault> {
        let mut reader = FromReader::default();
        for piece in content.as_bytes().chunks(piece) {
            reader.push(piece);
        }
        let authors = reader.finish()?;
        Ok(authors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_addresses_of_all_from_fields_are_found() {
        let long = format!("X: {}\r\nFrom: a@b.example\r\n\r\n", "x".repeat(100_000));
        let too_long = format!("From: {}a@b.example\r\n\r\n", " ".repeat(20_000));
        let gap = format!("From{}: a@b.example\r\n\r\n", " ".repeat(200));
        for (content, wanted) in [
            (gap.as_str(), Ok(vec!["a@b.example"])),
            (
                "From: a@b.example\r\n\r\nFrom: c@d.example\r\n",
                Ok(vec!["a@b.example"]),
            ),
            (
                "Subject: x\r\nFROM :\r\n \"B, A\" <a@b.example>,\r\n\tc@d.example (C)\r\nTo: e@f.example\r\n\r\n",
                Ok(vec!["a@b.example", "c@d.example"]),
            ),
            (
                "From: a@b.example\r\nX: y\r\nfrom: c@d.example\r\n\r\n",
                Ok(vec!["a@b.example", "c@d.example"]),
            ),
            ("From: a@b.example", Ok(vec!["a@b.example"])),
            (
                "From: Team: a@b.example, c@d.example;\r\n\r\n",
                Ok(vec!["a@b.example", "c@d.example"]),
            ),
            (&long, Ok(vec!["a@b.example"])),
            (
                "X: y\r\n From: a@b.example\r\n\r\n",
                Err(FromFault::Missing),
            ),
            ("\r\nFrom: a@b.example\r\n", Err(FromFault::Missing)),
            ("", Err(FromFault::Missing)),
            ("From: \"a@b.example\r\n\r\n", Err(FromFault::Unreadable)),
            ("From: a b@c.example\r\n\r\n", Err(FromFault::Unreadable)),
            ("From: root\r\n\r\n", Err(FromFault::Unreadable)),
            (&too_long, Err(FromFault::Unreadable)),
        ] {
            for piece in [1, 3, 7, 1_000_000] {
                let found = read(content, piece);
                let found: Result<Vec<&str>, FromFault> = match &found {
                    Ok(list) => Ok(list.iter().map(String::as_str).collect()),
                    Err(fault) => Err(*fault),
                };
                let shown = content.get(..60).unwrap_or(content);
                assert_eq!(&found, &wanted, "{shown:?} by {piece}");
            }
        }
    }
}
