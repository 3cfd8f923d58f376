//! Comma-separated values as RFC 4180 has them, for spreadsheets.
//!
//! What comes in a message may look like a formula, and a spreadsheet would carry it out: such a cell begins
//! with an apostrophe here. JSON has every text as it is.

/// One line.
pub(super) fn line<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = cells.into_iter().map(cell).collect::<Vec<_>>().join(",");
    line.push_str("\r\n");
    line
}

fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
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
    fn cells_are_quoted_where_they_must_be_and_formulas_are_disarmed() {
        assert_eq!(line(["a", "", "b c"]), "a,,b c\r\n");
        assert_eq!(line(["a,b", "say \"no\"", "two\nlines"]), "\"a,b\",\"say \"\"no\"\"\",\"two\nlines\"\r\n");
        assert_eq!(line(["=1+1", "-1", "@x", "=a,b", "a=b"]), "'=1+1,'-1,'@x,\"'=a,b\",a=b\r\n");
    }
}
