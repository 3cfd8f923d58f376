//! The chart of a connector's TLS coverage: a bar for each of the last days, as SVG.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::html::{Html, count};
use crate::telemetry::coverage::{DAYS, Day};

/// The width of a bar, in the units of the drawing.
const BAR: usize = 14;
/// The gap between two bars.
const GAP: usize = 4;
/// The height of a bar.
const HEIGHT: u64 = 48;

/// Draws the days. Without any mail, a sentence says so.
pub(super) fn draw(html: &mut Html, what: &str, days: &[Day], now: Timestamp) {
    let sum = |part: fn(&Day) -> u64| days.iter().map(part).fold(0_u64, u64::saturating_add);
    let (all, clear) = (sum(Day::total), sum(|day| day.clear));
    if all == 0 {
        html.element(
            "<p class=\"meta\">",
            what,
            ": no mail in the last 14 days</p>",
        );
        return;
    }
    let summary = format!(
        "{what}: {} of {} under TLS, {} with a peer that proved who it is",
        share(all - clear, all),
        count(all, "recipient", "recipients"),
        share(sum(|day| day.verified), all)
    );
    html.raw("<figure><svg role=\"img\" viewBox=\"0 0 ");
    html.raw(&format!(
        "{} {}\" aria-label=\"",
        DAYS * (BAR + GAP) - GAP,
        HEIGHT + 2
    ))
    .text(&summary);
    html.raw(", by day over the last 14 days\">");
    for (at, date) in dates(now).into_iter().enumerate() {
        bar(
            html,
            at * (BAR + GAP),
            date,
            days.iter().find(|day| day.date == date),
        );
    }
    html.element("</svg><figcaption>", &summary, "</figcaption></figure>");
}

/// Returns the last days, the oldest first.
fn dates(now: Timestamp) -> Vec<Date> {
    let today = now.to_zoned_datetime(TimeZone::UTC).date();
    let mut dates: Vec<Date> = std::iter::successors(Some(today), |date| date.yesterday().ok())
        .take(DAYS)
        .collect();
    dates.reverse();
    dates
}

/// Draws one day. All bars have the same height: they show shares, not amounts.
fn bar(html: &mut Html, x: usize, date: Date, day: Option<&Day>) {
    let Some(day) = day.filter(|day| day.total() > 0) else {
        html.raw(&rectangle("none", x, HEIGHT, 2)).raw("</rect>");
        return;
    };
    let title = format!(
        "{date}: {} verified, {} encrypted, {} in the clear",
        day.verified, day.encrypted, day.clear
    );
    let mut top = HEIGHT + 2;
    let parts = [
        ("verified", day.verified),
        ("encrypted", day.encrypted),
        ("clear", day.clear),
    ];
    let mut parts = parts.into_iter().filter(|(_, part)| *part > 0).peekable();
    while let Some((class, part)) = parts.next() {
        // Every part is visible, however small. The last part takes the rounding error.
        let height = u64::try_from(u128::from(part) * u128::from(HEIGHT) / u128::from(day.total()))
            .unwrap_or(HEIGHT);
        let height = if parts.peek().is_some() {
            height.clamp(2, HEIGHT - 4)
        } else {
            top.saturating_sub(2).max(2)
        };
        top -= height;
        html.raw(&rectangle(class, x, top, height))
            .element("<title>", &title, "</title></rect>");
    }
}

fn rectangle(class: &str, x: usize, y: u64, height: u64) -> String {
    format!("<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{BAR}\" height=\"{height}\">")
}

/// Formats a share in percent. "all" and "none" are exact.
fn share(part: u64, all: u64) -> String {
    if part == 0 || part >= all {
        return if part == 0 {
            "none".to_owned()
        } else {
            "all".to_owned()
        };
    }
    let permille = u64::try_from(u128::from(part) * 1000 / u128::from(all)).unwrap_or(999);
    match permille {
        0 => "less than 0.1 %".to_owned(),
        permille => format!("{}.{} %", permille / 10, permille % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_to_all() {
        assert_eq!(
            [
                share(0, 5),
                share(5, 5),
                share(999_999, 1_000_000),
                share(1, 1_000_000),
                share(1, 3)
            ],
            ["none", "all", "99.9 %", "less than 0.1 %", "33.3 %"]
        );
    }

    #[test]
    fn each_day_has_a_bar_and_the_chart_a_name() {
        let now: Timestamp = "2026-11-26T10:00:00Z".parse().expect("a time");
        let date = |text: &str| text.parse().expect("a date");
        let days = [
            Day {
                date: date("2026-11-25"),
                clear: 1,
                encrypted: 0,
                verified: 999,
            },
            Day {
                date: date("2026-11-26"),
                clear: 0,
                encrypted: 5,
                verified: 0,
            },
        ];
        let mut html = Html::default();
        draw(&mut html, "Sent", &days, now);
        let html = html.into_string();
        assert!(
            html.contains("aria-label=\"Sent: 99.9 % of 1,005 recipients under TLS, 99.4 % with"),
            "{html}"
        );
        assert!(
            html.contains("<title>2026-11-25: 999 verified, 0 encrypted, 1 in the clear</title>"),
            "{html}"
        );
        assert_eq!(html.matches("class=\"none\"").count(), DAYS - 2);
        assert_eq!(
            html.matches("class=\"clear\"").count(),
            1,
            "one in a thousand is seen"
        );
        let mut html = Html::default();
        draw(&mut html, "Sent", &[], now);
        assert_eq!(
            html.into_string(),
            "<p class=\"meta\">Sent: no mail in the last 14 days</p>"
        );
    }
}
