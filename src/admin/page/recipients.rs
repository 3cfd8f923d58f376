//! The section about the `[[recipients]]` tables.

use super::html::Html;
use crate::admin::api::status::RelayStatus;

/// Writes the section, if there is a table.
pub(super) fn section(html: &mut Html, status: &RelayStatus) {
    if status.recipients.is_empty() {
        return;
    }
    html.raw("<section aria-labelledby=\"recipients\"><h2 id=\"recipients\">Recipients</h2><ul>");
    for table in &status.recipients {
        html.element("<li><h3>", &table.domains.join(", "), "</h3>");
        html.element("<p class=\"meta\">", &table.describe(), "</p>");
        for trouble in table.troubles() {
            html.element("<p><span class=\"state warn\">", &trouble, "</span></p>");
        }
        html.raw("</li>");
    }
    html.raw("</ul></section>\n");
}
