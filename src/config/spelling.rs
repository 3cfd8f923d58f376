//! Names that were probably meant by a misspelt one, and texts that fit into a message.

/// Makes a text fit for a message: one line, without control characters, at most 80 characters.
pub(super) fn shorten(text: &str) -> String {
    let plain = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    let mut line: String = text.chars().take(80).map(plain).collect();
    if text.chars().nth(80).is_some() {
        line.push('…');
    }
    line
}

/// Returns the candidate that was probably meant. About a third of its letters may differ; a short
/// one must be close, so that "none" is not suggested for "dane".
#[must_use]
pub fn nearest_word<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    if word.len() > 80 || !word.contains(char::is_alphabetic) {
        return None;
    }
    let distance = |candidate: &&&str| edit_distance(&word.to_ascii_lowercase(), candidate);
    let best = candidates.iter().min_by_key(distance)?;
    (distance(&best) <= (best.len() / 3).max(1)).then_some(*best)
}

/// The Levenshtein distance, in which two swapped neighbours count as one change.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + changed);
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
    fn a_misspelt_word_finds_the_nearest_candidate() {
        let words = ["hostname", "postmaster", "tls"];
        assert_eq!(nearest_word("hostnmae", &words), Some("hostname"));
        assert_eq!(nearest_word("Postmaster", &words), Some("postmaster"));
        assert_eq!(nearest_word("tsl", &words), Some("tls"));
        assert_eq!(nearest_word("pins", &words), None);
        assert_eq!(nearest_word("dane", &["none", "name"]), None);
        assert_eq!(nearest_word("1.1", &["1.2", "1.3"]), None);
        assert_eq!(nearest_word("x", &[]), None);
    }

    #[test]
    fn a_message_stays_one_line() {
        assert_eq!(shorten("a\nb\u{1b}[0m"), "a\\nb\\u{1b}[0m");
        assert_eq!(shorten(&"x".repeat(100)).chars().count(), 81);
    }
}
