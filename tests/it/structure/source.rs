//! Rust source as the tests of the structure read it: words and punctuation, each with its line.
//!
//! Comments and the insides of literals are left out, so that neither a doc-link nor a log filter
//! looks like an import and no brace in a string is counted. This is no parser: it relies on code
//! that compiles and that rustfmt has been over.

/// A word, a literal (as `""`), `::`, or one character of punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// The text.
    pub(crate) text: &'a str,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// One file under `src/`.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path, from `src/`.
    pub(crate) path: String,
    /// The text.
    pub(crate) text: String,
}

impl Source {
    /// A file, by its path from `src/` and its text.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Its place among the modules: `spool/engine.rs` is `["spool", "engine"]`. The roots of the
    /// two crates, `lib.rs` and `main.rs`, are no modules.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" || path == "main" {
            Vec::new()
        } else {
            path.split('/').collect()
        }
    }

    /// Returns true for a file of a module, such as `storage::spool`.
    pub(crate) fn is_in(&self, module: &str) -> bool {
        let of = self.module().join("::");
        of == module || of.starts_with(&format!("{module}::"))
    }

    /// Returns true for a file of unit tests.
    pub(crate) fn is_test(&self) -> bool {
        self.module().contains(&"tests")
    }

    /// Its words and punctuation.
    pub(crate) fn tokens(&self) -> Vec<Token<'_>> {
        let (mut tokens, mut rest, mut line) = (Vec::new(), self.text.as_str(), 1);
        while let Some((length, token)) = piece(rest) {
            let (text, after) = rest.split_at(length);
            match token {
                Piece::Skipped => {}
                Piece::Literal => tokens.push(Token { text: "\"\"", line }),
                Piece::Kept => tokens.push(Token { text, line }),
            }
            line += text.matches('\n').count();
            rest = after;
        }
        tokens
    }
}

/// The text of the token at `at`; nothing beyond the end.
pub(crate) fn text<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

/// Returns true if a token is an identifier, a keyword or a number.
pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(word_character)
}

/// Returns the end of the item that starts at `at`: the index of its `;`, or of the brace that
/// closes its body.
pub(crate) fn end_of_item(tokens: &[Token<'_>], at: usize) -> usize {
    let mut nested = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" => nested += 1,
            ")" | "]" => nested = nested.saturating_sub(1),
            ";" if nested == 0 => return index,
            "{" if nested == 0 => return closing_brace(tokens, index),
            _ => {}
        }
    }
    tokens.len()
}

/// The index of the brace that closes the one at `open`.
fn closing_brace(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => return index,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

enum Piece {
    Skipped,
    Literal,
    Kept,
}

/// The length of the next piece of a text, and what it is.
fn piece(rest: &str) -> Option<(usize, Piece)> {
    let first = rest.chars().next()?;
    if first.is_whitespace() {
        return Some((first.len_utf8(), Piece::Skipped));
    }
    if let Some(length) = comment(rest) {
        return Some((length, Piece::Skipped));
    }
    if let Some(length) = string(rest).or_else(|| character(rest)) {
        return Some((length, Piece::Literal));
    }
    let word = rest.find(|c| !word_character(c)).unwrap_or(rest.len());
    let length = if word > 0 {
        word
    } else if rest.starts_with("::") {
        2
    } else {
        first.len_utf8()
    };
    Some((length, Piece::Kept))
}

fn word_character(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

/// The length of a string literal: plain, raw, of bytes or for C.
fn string(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    if let Some(raw) = inner.strip_prefix('r') {
        let hashes = raw.bytes().take_while(|&byte| byte == b'#').count();
        let body = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(rest.len() - body.len() + length);
    }
    let body = inner.strip_prefix('"')?;
    Some(rest.len() - body.len() + until_unescaped('"', body))
}

/// The length of a character literal; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('\'')?;
    let before = rest.len() - body.len();
    let first = body.chars().next()?;
    if first == '\\' {
        return Some(before + until_unescaped('\'', body));
    }
    body[first.len_utf8()..]
        .starts_with('\'')
        .then_some(before + first.len_utf8() + 1)
}

/// The length of `body` up to and with the first `end` that has no backslash before it.
fn until_unescaped(end: char, body: &str) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == end => return at + c.len_utf8(),
            _ => {}
        }
    }
    body.len()
}
