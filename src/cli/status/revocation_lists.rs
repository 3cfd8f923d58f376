//! The certificate revocation lists on the screen of `gatepost status`.

use jiff::Timestamp;

use crate::admin::api::status::CrlStatus;
use crate::cli::format::{Table, plain, short};

/// The heading of the table.
pub(super) const HEADING: &str = "revocation lists";

/// Returns the table of the lists.
pub(super) fn table(crls: &[CrlStatus], now: Timestamp) -> Table {
    let mut table = Table::new(&["revocation list", "lists", "issued", "expires"]);
    for crl in crls {
        let day = |time: Option<Timestamp>| {
            time.map_or_else(String::new, |time| time.strftime("%Y-%m-%d").to_string())
        };
        let expires = match crl.next_update {
            _ if !crl.in_use => "not in use".to_owned(),
            Some(at) if at <= now => "EXPIRED".to_owned(),
            at => day(at),
        };
        let entries = match crl.issuer {
            Some(_) => crl.entries.to_string(),
            None => String::new(),
        };
        table.row([plain(&crl.source), entries, day(crl.this_update), expires]);
        let failure = crl.failure.as_ref();
        table.note(failure.map_or_else(String::new, |why| format!("NOT FETCHED: {}", short(why))));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_list_is_shown_with_its_end_or_its_failure() {
        let at = |text: &str| Some(text.parse().expect("a time"));
        let fetched = CrlStatus {
            source: "http://crl.partner.example/ca.crl".to_owned(),
            in_use: true,
            issuer: Some("CN=Partner".to_owned()),
            entries: 12,
            this_update: at("2026-11-26T00:00:00Z"),
            next_update: at("2026-12-03T00:00:00Z"),
            failure: None,
        };
        let missing = CrlStatus {
            issuer: None,
            entries: 0,
            this_update: None,
            next_update: None,
            failure: Some("it answered\u{1b}[31m 404".to_owned()),
            ..fetched.clone()
        };
        let unused = CrlStatus {
            in_use: false,
            ..fetched.clone()
        };
        let shown = |crl: &CrlStatus, now| {
            let now = at(now).expect("a time");
            table(std::slice::from_ref(crl), now).render(80)
        };
        let of = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let head = "revocation list lists issued expires http://crl.partner.example/ca.crl";
        for (crl, now, expected) in [
            (&fetched, "2026-11-30T00:00:00Z", "12 2026-11-26 2026-12-03"),
            (&fetched, "2026-12-03T00:00:00Z", "12 2026-11-26 EXPIRED"),
            (&unused, "2026-12-03T00:00:00Z", "12 2026-11-26 not in use"),
        ] {
            assert_eq!(of(&shown(crl, now)), format!("{head} {expected}"));
        }
        let text = shown(&missing, "2026-11-30T00:00:00Z");
        assert!(
            text.contains("NOT FETCHED: it answered") && !text.contains('\u{1b}'),
            "{text}"
        );
    }
}
