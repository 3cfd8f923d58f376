//! A table of the document, read key by key: what is asked for is taken, what is left is unknown.
//!
//! Knows TOML's kinds and nothing of what a key means (see [`super::values`] and its neighbours). A
//! table of the wrong kind is noted once and then answers [`Given::Bad`] to everything, so that one
//! slip of the administrator is one fault.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::place::Notes;
use super::strays::Stray;
use super::{Located, Place};

/// One value of the document, with the key it stands under.
pub(super) struct Value<'d> {
    /// The key, as messages name it; for an item of a list, the list's.
    pub(super) key: &'static str,
    /// Where the value stands.
    pub(super) place: Place,
    /// The value as TOML has it.
    pub(super) raw: &'d DeValue<'d>,
}

impl<'d> Value<'d> {
    /// The items, where this is a list.
    pub(super) fn items(&self, notes: &Notes<'_>) -> Option<Vec<Value<'d>>> {
        let item = |raw: &'d Spanned<DeValue<'d>>| Value {
            key: self.key,
            place: notes.place(raw.span().start),
            raw: raw.get_ref(),
        };
        Some(self.raw.as_array()?.iter().map(item).collect())
    }
}

/// What became of a key.
#[derive(Debug, Clone)]
pub(super) enum Given<T> {
    /// Nobody wrote it.
    Absent,
    /// It was written and is wrong; a fault tells why. Rules that depend on it stay silent.
    Bad,
    /// It was written.
    Good(Located<T>),
}

impl<T> Given<T> {
    pub(super) fn value(&self) -> Option<&T> {
        self.located().map(|located| &located.value)
    }

    pub(super) fn located(&self) -> Option<&Located<T>> {
        match self {
            Self::Absent | Self::Bad => None,
            Self::Good(located) => Some(located),
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// The value, or this one where there is none.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Self::Absent | Self::Bad => default,
            Self::Good(located) => located.value,
        }
    }

    /// The value as rules see it: the default where nobody wrote one, nothing where it is bad.
    pub(super) fn meant(&self, default: T) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Absent => Some(default),
            Self::Bad => None,
            Self::Good(located) => Some(located.value.clone()),
        }
    }
}

/// A table, while its keys are taken.
pub(super) struct Table<'d> {
    title: &'static str,
    place: Place,
    content: Content<'d>,
    asked: Vec<&'static str>,
    /// Those of `asked` that are no tables.
    plain: Vec<&'static str>,
}

enum Content<'d> {
    Absent,
    Bad,
    Table(&'d DeTable<'d>),
}

impl<'d> Table<'d> {
    /// The document itself.
    pub(super) fn root(document: &'d DeTable<'d>, notes: &Notes<'_>) -> Self {
        Self {
            title: "",
            place: notes.place(0),
            content: Content::Table(document),
            asked: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Where the table's header stands; for an absent table, its parent's.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether nobody wrote it.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.content, Content::Absent)
    }

    fn get(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.push(key);
        match self.content {
            Content::Absent | Content::Bad => None,
            Content::Table(table) => table.get(key),
        }
    }

    /// Takes a key.
    pub(super) fn read<T>(
        &mut self,
        notes: &mut Notes<'_>,
        key: &'static str,
        read: impl FnOnce(&Value<'d>, &mut Notes<'_>) -> Option<T>,
    ) -> Given<T> {
        self.plain.push(key);
        let Some(raw) = self.get(key) else {
            return if matches!(self.content, Content::Bad) { Given::Bad } else { Given::Absent };
        };
        let value = Value { key, place: notes.place(raw.span().start), raw: raw.get_ref() };
        match read(&value, notes) {
            Some(meant) => Given::Good(Located { value: meant, place: value.place }),
            None => Given::Bad,
        }
    }

    /// Takes a key that has a default.
    pub(super) fn or<T>(
        &mut self,
        notes: &mut Notes<'_>,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'d>, &mut Notes<'_>) -> Option<T>,
    ) -> T {
        self.read(notes, key, read).or(default)
    }

    /// Takes a key that must be there; `example` shows in the remedy how it could look.
    pub(super) fn required<T>(
        &mut self,
        notes: &mut Notes<'_>,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&Value<'d>, &mut Notes<'_>) -> Option<T>,
    ) -> Given<T> {
        let given = self.read(notes, key, read);
        if !given.is_absent() {
            return given;
        }
        let inside = if self.title.is_empty() { "at the top".to_owned() } else { format!("to {}", self.title) };
        notes.fault(&self.place, format!("{key} is missing{}", self.within()), format!("Add {inside}: {example}"));
        Given::Bad
    }

    /// Takes a table; an absent one has only absent keys.
    pub(super) fn table(&mut self, notes: &mut Notes<'_>, key: &'static str, title: &'static str) -> Table<'d> {
        let Some(raw) = self.get(key) else {
            let content = if matches!(self.content, Content::Bad) { Content::Bad } else { Content::Absent };
            return Table { title, place: self.place.clone(), content, asked: Vec::new(), plain: Vec::new() };
        };
        let place = notes.place(raw.span().start);
        let content = match raw.get_ref() {
            DeValue::Table(table) => Content::Table(table),
            DeValue::Array(array) if array.iter().all(|item| item.get_ref().is_table()) => {
                let message = format!("{key} can stand here once only");
                notes.fault(&place, message, format!("Write {title} with single brackets, once."));
                Content::Bad
            }
            other => {
                let message = format!("{key} must be a table, not {}", kind(other));
                notes.fault(&place, message, format!("Write {title} on a line of its own and its keys below."));
                Content::Bad
            }
        };
        Table { title, place, content, asked: Vec::new(), plain: Vec::new() }
    }

    /// Takes an array of tables. Nothing where it is of the wrong kind.
    pub(super) fn tables(
        &mut self,
        notes: &mut Notes<'_>,
        key: &'static str,
        title: &'static str,
    ) -> Option<Vec<Table<'d>>> {
        let Some(raw) = self.get(key) else {
            return if matches!(self.content, Content::Bad) { None } else { Some(Vec::new()) };
        };
        let DeValue::Array(array) = raw.get_ref() else {
            let place = notes.place(raw.span().start);
            let message = format!("{key} must be a list of tables, not {}", kind(raw.get_ref()));
            notes.fault(&place, message, format!("Write {title}, with two brackets on each side, before its keys."));
            return None;
        };
        let mut tables = Vec::new();
        for item in array {
            let place = notes.place(item.span().start);
            let content = if let DeValue::Table(table) = item.get_ref() {
                Content::Table(table)
            } else {
                let message = format!("{key} must be a list of tables, but this is {}", kind(item.get_ref()));
                notes.fault(&place, message, format!("Write {title} before the keys of each."));
                Content::Bad
            };
            tables.push(Table { title, place, content, asked: Vec::new(), plain: Vec::new() });
        }
        Some(tables)
    }

    /// Notes every key that nobody asked for. Its remedy is found when all tables were read: it may belong to another.
    pub(super) fn finish(self, notes: &mut Notes<'_>) {
        notes.strays.know(self.title, &self.plain);
        let Content::Table(table) = self.content else { return };
        for key in table.keys() {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let place = notes.place(key.span().start);
            notes.strays.add(Stray { place, name: short(name), title: self.title, known: self.asked.clone() });
        }
    }

    fn within(&self) -> String {
        if self.title.is_empty() { String::new() } else { format!(" in {}", self.title) }
    }
}

/// What kind of value this is, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A text as a message can carry it: one line, no control characters, not endless.
pub(super) fn short(text: &str) -> String {
    let plain = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let mut line: String = text.chars().take(80).map(plain).collect();
    if text.chars().nth(80).is_some() {
        line.push('…');
    }
    line
}

/// The candidate that was probably meant: about a third of its letters may differ. A short word must be
/// close, lest "dane" be answered with "none".
pub(super) fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    if word.len() > 80 || !word.contains(char::is_alphabetic) {
        return None;
    }
    let distance = |candidate: &&&str| edit_distance(&word.to_ascii_lowercase(), candidate);
    let best = candidates.iter().min_by_key(distance)?;
    (distance(&best) <= (best.len() / 3).max(1)).then_some(*best)
}

/// Levenshtein's distance, with swapped neighbours counted as one change.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_word() {
        let words = ["hostname", "postmaster", "tls"];
        assert_eq!(nearest("hostnmae", &words), Some("hostname"));
        assert_eq!(nearest("Postmaster", &words), Some("postmaster"));
        assert_eq!(nearest("tsl", &words), Some("tls"));
        assert_eq!(nearest("pins", &words), None);
        assert_eq!(nearest("dane", &["none", "name"]), None);
        assert_eq!(nearest("1.1", &["1.2", "1.3"]), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn a_message_stays_one_line() {
        assert_eq!(short("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(short(&"x".repeat(100)).chars().count(), 81);
    }
}
