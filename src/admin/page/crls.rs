//! The section of the certificate revocation lists.

use super::html::Html;
use super::sections::{end_section, list_section};
use crate::admin::api::status::{CrlStatus, RelayStatus};

/// Adds the section, if there are CRLs.
pub(super) fn section(html: &mut Html, status: &RelayStatus) {
    if status.crls.is_empty() {
        return;
    }
    let words = ("crls", "Revocation lists", "None.");
    list_section(html, words, &status.crls, |html, crl: &CrlStatus| {
        let (class, state) = match crl.next_update {
            _ if !crl.in_use => ("warn", "not in use"),
            None => ("bad", "not fetched"),
            Some(at) if at <= status.at => ("bad", "expired"),
            Some(_) if crl.failure.is_some() => ("warn", "last fetch failed"),
            Some(_) => ("good", "current"),
        };
        html.element("<div class=\"row\"><h3>", &crl.source, "</h3>");
        html.raw(&format!("<span class=\"state {class}\">"))
            .text(state)
            .raw("</span></div><p class=\"meta\">");
        if let (Some(issuer), Some(until)) = (&crl.issuer, crl.next_update) {
            html.text(&format!("{issuer}, {} listed; until ", crl.entries))
                .time(until);
        }
        html.raw("</p>");
        if let Some(failure) = &crl.failure {
            html.element("<p>", failure, "</p>");
        }
    });
    end_section(html, status.more_crls);
}
