//! Comma-separated values (RFC 4180) for spreadsheets.
//!
//! A cell that a spreadsheet would evaluate as a formula gets an apostrophe before it, since the
//! texts come from messages of strangers. JSON output has the texts unchanged.

/// Returns a line with its line end.
pub(super) fn line<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = cells.into_iter().map(cell).collect::<Vec<_>>().join(",");
    line.push_str("\r\n");
    line
}

/// Returns a cell, in quotes if it needs them.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        "'"
    } else {
        ""
    };
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        format!("{guard}{text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_if_necessary_and_formulas_get_an_apostrophe() {
        assert_eq!(line(["a", "", "b c"]), "a,,b c\r\n");
        assert_eq!(
            line(["a,b", "say \"no\"", "two\nlines"]),
            "\"a,b\",\"say \"\"no\"\"\",\"two\nlines\"\r\n"
        );
        assert_eq!(
            line(["=1+1", "-1", "@x", "=a,b", "a=b"]),
            "'=1+1,'-1,'@x,\"'=a,b\",a=b\r\n"
        );
    }
}
