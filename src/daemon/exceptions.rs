//! Exceptions that have ended: each is logged once, at the start, after a reload or when its last
//! day is over.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::config::{Connector, TlsException};
use crate::policy::connector::ended_exception;

/// The ended exceptions that have been logged: names of connectors and last days. An exception
/// that is no longer in the configuration is removed.
#[derive(Debug, Default)]
pub(super) struct AnnouncedExpiries(BTreeSet<(String, Date)>);

impl AnnouncedExpiries {
    /// Returns the exceptions that have ended and were not returned before.
    fn take_new<'a>(
        &mut self,
        connectors: &'a [Arc<Connector>],
        now: Timestamp,
    ) -> Vec<(&'a str, &'a TlsException)> {
        let ended: Vec<_> = connectors
            .iter()
            .filter_map(|connector| {
                Some((connector.name.as_str(), ended_exception(connector, now)?))
            })
            .collect();
        let before = std::mem::take(&mut self.0);
        self.0 = ended
            .iter()
            .map(|(name, exception)| ((*name).to_owned(), exception.until))
            .collect();
        let is_new = |(name, exception): &(&str, &TlsException)| {
            !before.contains(&((*name).to_owned(), exception.until))
        };
        ended.into_iter().filter(is_new).collect()
    }

    /// Logs the exceptions that have ended.
    pub(super) fn log_expired(&mut self, connectors: &[Arc<Connector>], now: Timestamp) {
        for (
            connector,
            TlsException {
                until,
                reason,
                location,
                ..
            },
        ) in self.take_new(connectors, now)
        {
            tracing::warn!(
                connector, %until, ?reason, place = %location,
                "the exception of a connector has ended: its own demand applies again; remove the exception from the file"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn connectors(exceptions: &[(&str, &str)]) -> Vec<Arc<Connector>> {
        let mut text = "hostname = \"relay.example.com\"\npostmaster = \"postmaster@example.com\"\n[[listener]]\n\
                        name = \"mx\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"off\"\n"
            .to_owned();
        for (name, until) in exceptions {
            write!(
                text,
                "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\n[connector.outbound]\ntls = \
                 \"forced\"\nexception = {{ tls = \"opportunistic\", until = \"{until}\", reason = \"why\" }}\n"
            )
            .expect("a string takes all");
        }
        parse(&text, Path::new("gatepost.toml"))
            .expect("a good configuration")
            .0
            .connectors
    }

    fn names(
        announced: &mut AnnouncedExpiries,
        connectors: &[Arc<Connector>],
        now: &str,
    ) -> Vec<String> {
        let news = announced.take_new(connectors, now.parse().expect("a time"));
        news.into_iter()
            .map(|(name, exception)| format!("{name} {}", exception.until))
            .collect()
    }

    #[test]
    fn each_expiry_is_logged_once() {
        let mut announced = AnnouncedExpiries::default();
        let file = connectors(&[("a", "2026-01-31"), ("b", "2026-02-28")]);
        for (now, news) in [
            ("2026-01-31T23:59:59Z", &[][..]),
            ("2026-02-01T00:00:00Z", &["a 2026-01-31"]),
            ("2026-02-01T00:01:00Z", &[]),
            ("2026-03-01T00:00:00Z", &["b 2026-02-28"]),
            ("2026-03-02T00:00:00Z", &[]),
        ] {
            assert_eq!(names(&mut announced, &file, now), news, "{now}");
        }
    }

    #[test]
    fn expiries_before_the_start_are_logged_and_new_ones_after_a_reload() {
        let mut announced = AnnouncedExpiries::default();
        let now = "2026-06-01T00:00:00Z";
        assert_eq!(
            names(&mut announced, &connectors(&[("a", "2026-01-31")]), now),
            ["a 2026-01-31"]
        );
        let longer = connectors(&[("a", "2026-03-31"), ("b", "2026-02-28")]);
        assert_eq!(
            names(&mut announced, &longer, now),
            ["a 2026-03-31", "b 2026-02-28"]
        );
        assert_eq!(
            names(&mut announced, &connectors(&[]), now),
            Vec::<String>::new()
        );
    }
}
