//! Addresses out of a header field or an argument (RFC 5322 §3.4): lists, names, comments and groups.
//!
//! Only what names a mailbox is kept. Whether it is one is decided by [`crate::address`].

/// The addresses of a list, as they are written, without names and comments.
///
/// Quotes, comments and angle brackets that are not closed end with the text.
pub(super) fn addresses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut item = Item::default();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                item.push(c);
                while let Some(c) = chars.next() {
                    item.push(c);
                    match c {
                        '\\' => chars.next().into_iter().for_each(|c| item.push(c)),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '(' => comment(&mut chars),
            '<' => item.angle = Some(String::new()),
            '>' => item.closed = true,
            // What stood before was the name of a group; in angle brackets it is a source route.
            ':' if item.angle.is_none() && !item.plain.contains('[') => item = Item::default(),
            ',' | ';' if item.angle.is_none() || item.closed => std::mem::take(&mut item).end(&mut found),
            _ => item.push(c),
        }
    }
    item.end(&mut found);
    found
}

/// One item of the list, so far.
#[derive(Default)]
struct Item {
    plain: String,
    /// What stands in angle brackets.
    angle: Option<String>,
    closed: bool,
}

impl Item {
    fn push(&mut self, c: char) {
        match &mut self.angle {
            Some(_) if self.closed => {}
            Some(angle) => angle.push(c),
            None => self.plain.push(c),
        }
    }

    fn end(self, found: &mut Vec<String>) {
        let text = self.angle.unwrap_or(self.plain);
        // Blanks may stand around the dots and the at sign (RFC 5322 §4.4), and mean nothing there.
        let (mut quoted, mut escaped) = (false, false);
        let kept = |c: &char| {
            // Behind a backslash a quote is a character like any other.
            let plain = std::mem::take(&mut escaped);
            escaped = quoted && !plain && *c == '\\';
            quoted ^= !plain && *c == '"';
            quoted || !c.is_whitespace()
        };
        let address: String = text.chars().filter(kept).collect();
        if !address.is_empty() {
            found.push(address);
        }
    }
}

fn comment(chars: &mut std::str::Chars<'_>) {
    let mut depth = 1;
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::addresses;

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
            (", ,", &[]),
            ("<open@x.example", &["open@x.example"]),
            ("(never closed", &[]),
        ] {
            assert_eq!(addresses(text), wanted, "{text}");
        }
    }
}
