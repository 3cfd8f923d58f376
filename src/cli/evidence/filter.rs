//! The options that select records.

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;

use crate::config;
use crate::smtp::address::{Host, Mailbox};
use crate::storage::evidence::{MailRecord, Period, RecordedAssurance, RecordedOutcome};

/// The options that select records; a record must match all of them.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct FilterArguments {
    /// Only accepted messages (in), or only deliveries (out)
    #[arg(long, value_name = "DIRECTION")]
    direction: Option<MailDirection>,
    /// Only records of this day (UTC) and later: 2026-11-01
    #[arg(long, value_name = "DAY", value_parser = day)]
    from: Option<Date>,
    /// Only records of this day (UTC) and earlier: 2026-11-30
    #[arg(long, value_name = "DAY", value_parser = day)]
    to: Option<Date>,
    /// Only records of this age or younger: 12h, 30d
    #[arg(long, value_name = "AGE", value_parser = age, conflicts_with_all = ["from", "to"])]
    since: Option<Duration>,
    /// Only deliveries to this recipient domain, and messages from this sender domain
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    domain: Option<Host>,
    /// Only deliveries to domains of this connector, and messages from domains of this connector
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    connector: Option<String>,
    /// Only mail of this sender: an address, a domain, or "" for the null sender of reports
    #[arg(long, value_name = "ADDRESS|DOMAIN", value_parser = sender)]
    sender: Option<SenderFilter>,
    /// Only records of this message
    #[arg(long, value_name = "ID")]
    queue_id: Option<String>,
    /// Only recipients that were delivered without TLS; with --direction in, messages that were
    /// accepted without TLS
    #[arg(long)]
    clear: bool,
}

/// The direction of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum MailDirection {
    /// Accepted messages
    In,
    /// Deliveries
    Out,
}

/// A sender to select by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SenderFilter {
    Null,
    Address(Mailbox),
    Domain(Host),
}

fn age(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "an age is written as 12h or 30d".to_owned())
}

fn day(text: &str) -> Result<Date, String> {
    // Other forms of ISO 8601 are valid for the parser, and a time of day among them would be
    // ignored.
    let day = text
        .parse::<Date>()
        .ok()
        .filter(|day| day.to_string() == text);
    day.ok_or_else(|| "a day is written as 2026-11-30, and must exist".to_owned())
}

fn domain(text: &str) -> Result<Host, String> {
    Host::parse(text).map_err(|error| error.to_string())
}

fn sender(text: &str) -> Result<SenderFilter, String> {
    let bare = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .unwrap_or(text);
    if bare.is_empty() {
        Ok(SenderFilter::Null)
    } else if bare.contains('@') {
        Mailbox::parse(bare)
            .map(SenderFilter::Address)
            .map_err(|error| error.to_string())
    } else {
        Host::parse(bare)
            .map(SenderFilter::Domain)
            .map_err(|error| error.to_string())
    }
}

impl SenderFilter {
    /// Returns whether a recorded sender matches. The case of the local part does not matter, so
    /// that an auditor misses nothing.
    fn matches(&self, sender: &str) -> bool {
        match self {
            Self::Null => sender.is_empty(),
            Self::Address(mailbox) => mailbox.to_string().eq_ignore_ascii_case(sender),
            Self::Domain(host) => sender
                .rsplit_once('@')
                .is_some_and(|(_, domain)| *domain == host.to_string()),
        }
    }
}

/// The selected period, as it was asked for.
#[derive(Debug, Clone, Copy)]
enum AskedPeriod {
    Days(Option<Date>, Option<Date>),
    Since(Timestamp),
}

/// The reason why the arguments select no period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("--from {from} is after --to {to}")]
pub(super) struct ReversedDays {
    from: Date,
    to: Date,
}

/// The records that are selected.
#[derive(Debug)]
pub(super) struct RecordFilter<'a> {
    arguments: &'a FilterArguments,
    asked: AskedPeriod,
}

impl FilterArguments {
    /// Returns the filter. Without a period, records of `default_age` and younger are selected, or
    /// all records.
    ///
    /// # Errors
    /// [`ReversedDays`] if the first day is after the last one.
    pub(super) fn filter(
        &self,
        default_age: Option<Duration>,
    ) -> Result<RecordFilter<'_>, ReversedDays> {
        let has_days = self.from.is_some() || self.to.is_some();
        let asked = match self.since.or(default_age.filter(|_| !has_days)) {
            Some(age) => {
                AskedPeriod::Since(Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN))
            }
            None => AskedPeriod::Days(self.from, self.to),
        };
        match (self.from, self.to) {
            (Some(from), Some(to)) if from > to => Err(ReversedDays { from, to }),
            _ => Ok(RecordFilter {
                arguments: self,
                asked,
            }),
        }
    }
}

impl RecordFilter<'_> {
    /// The direction, if only one is selected.
    pub(super) fn direction(&self) -> Option<MailDirection> {
        self.arguments.direction
    }

    /// The name of the connector, if only one is selected.
    pub(super) fn connector(&self) -> Option<&str> {
        self.arguments.connector.as_deref()
    }

    /// The period of the selected records.
    pub(super) fn period(&self) -> Period {
        match self.asked {
            AskedPeriod::Days(from, to) => Period::of_days(from, to),
            AskedPeriod::Since(since) => Period {
                from: Some(since),
                until: None,
            },
        }
    }

    /// Returns the period as text, with a blank before; nothing if all records are selected.
    pub(super) fn period_text(&self) -> String {
        match self.asked {
            AskedPeriod::Days(None, None) => String::new(),
            AskedPeriod::Days(Some(from), None) => format!(" since {from} (UTC)"),
            AskedPeriod::Days(None, Some(to)) => format!(" up to {to} (UTC)"),
            AskedPeriod::Days(Some(from), Some(to)) => format!(" between {from} and {to} (UTC)"),
            AskedPeriod::Since(since) => since.strftime(" since %Y-%m-%d %H:%M UTC").to_string(),
        }
    }

    /// Returns every given option with its value; none of the period.
    fn options(&self) -> Vec<String> {
        let FilterArguments {
            direction,
            domain,
            connector,
            sender,
            queue_id,
            clear,
            ..
        } = self.arguments;
        let mut options = Vec::new();
        options.extend(direction.map(|direction| match direction {
            MailDirection::In => "accepted messages".to_owned(),
            MailDirection::Out => "deliveries".to_owned(),
        }));
        options.extend(domain.as_ref().map(|domain| format!("domain {domain}")));
        options.extend(
            connector
                .as_ref()
                .map(|connector| format!("connector {connector}")),
        );
        options.extend(sender.as_ref().map(|sender| match sender {
            SenderFilter::Null => "sender <>".to_owned(),
            SenderFilter::Address(mailbox) => format!("sender {mailbox}"),
            SenderFilter::Domain(host) => format!("sender domain {host}"),
        }));
        options.extend(queue_id.as_ref().map(|id| format!("message {id}")));
        options.extend(clear.then(|| "in the clear".to_owned()));
        options
    }

    /// Returns the selection as text, for the output; `None` if there is no option but a default.
    pub(super) fn text(&self) -> Option<String> {
        let mut parts = self.options();
        let FilterArguments {
            from, to, since, ..
        } = self.arguments;
        if from.is_some() || to.is_some() || since.is_some() {
            parts.insert(0, self.period_text().trim_start().to_owned());
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Returns the given options without the period; `None` if there are none.
    pub(super) fn options_text(&self) -> Option<String> {
        let options = self.options();
        (!options.is_empty()).then(|| options.join(", "))
    }

    /// Returns whether a record of the period is selected.
    pub(super) fn matches(&self, record: &MailRecord) -> bool {
        let FilterArguments {
            direction,
            domain,
            connector,
            sender,
            queue_id,
            clear,
            ..
        } = self.arguments;
        let is_direction = |wanted: MailDirection| match record {
            MailRecord::Accepted(_) => wanted == MailDirection::In,
            MailRecord::Delivery(_) => wanted == MailDirection::Out,
        };
        direction.is_none_or(is_direction)
            && domain
                .as_ref()
                .is_none_or(|domain| domain.to_string() == record.domain())
            && connector
                .as_ref()
                .is_none_or(|connector| connector == record.connector())
            && sender
                .as_ref()
                .is_none_or(|sender| sender.matches(record.sender()))
            && queue_id
                .as_ref()
                .is_none_or(|id| id.eq_ignore_ascii_case(record.queue_id()))
            && (!clear || self.is_clear(record))
    }

    /// Returns whether mail was transferred without TLS. Accepted messages count only if they are
    /// asked for.
    fn is_clear(&self, record: &MailRecord) -> bool {
        let session = match record {
            MailRecord::Accepted(acceptance) if self.direction() == Some(MailDirection::In) => {
                &acceptance.by.session
            }
            MailRecord::Accepted(_) => return false,
            MailRecord::Delivery(delivery) => match (delivery.outcome, &delivery.session) {
                (RecordedOutcome::Delivered, Some(session)) => session,
                _ => return false,
            },
        };
        session.level == RecordedAssurance::Clear
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct FilterCommand {
        #[command(flatten)]
        filter: FilterArguments,
    }

    fn arguments(options: &[&str]) -> Result<FilterArguments, String> {
        let command = FilterCommand::try_parse_from([&["evidence"], options].concat());
        command
            .map(|command| command.filter)
            .map_err(|error| error.to_string())
    }

    /// Days are those of the calendar, in one form, and in order.
    #[test]
    fn a_day_that_is_none_is_an_error() {
        for (options, expected) in [
            (
                &["--from", "2026-11-31"][..],
                "a day is written as 2026-11-30, and must exist",
            ),
            (&["--from", "2026-13-01"], "a day is written as"),
            (&["--to", "20261130"], "a day is written as"),
            (&["--to", "2026-11-30T12:00"], "a day is written as"),
            (&["--to", "yesterday"], "a day is written as"),
            (&["--to", ""], "a day is written as"),
            (
                &["--since", "7d", "--from", "2026-11-01"],
                "cannot be used with",
            ),
            (&["--sender", "a b"], "is not a domain name"),
            (&["--sender", "alice@"], "is not a domain name"),
            (&["--connector", ""], "a value is required"),
        ] {
            let error = arguments(options).expect_err("it is refused");
            assert!(error.contains(expected), "{options:?}: {error}");
        }
        let reversed =
            arguments(&["--from", "2026-11-30", "--to", "2026-11-01"]).expect("both exist");
        assert_eq!(
            reversed
                .filter(None)
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Err("--from 2026-11-30 is after --to 2026-11-01".to_owned())
        );
    }

    /// Both days belong to the period, and the days are those of UTC.
    #[test]
    fn a_period_has_its_first_and_its_last_day() {
        let at = |text: &str| Some(text.parse::<Timestamp>().expect("a time"));
        for (options, from, until, text) in [
            (
                &["--from", "2026-11-01", "--to", "2026-11-30"][..],
                at("2026-11-01T00:00:00Z"),
                at("2026-12-01T00:00:00Z"),
                " between 2026-11-01 and 2026-11-30 (UTC)",
            ),
            (
                &["--from", "2026-11-01"],
                at("2026-11-01T00:00:00Z"),
                None,
                " since 2026-11-01 (UTC)",
            ),
            (
                &["--to", "2026-11-01"],
                None,
                at("2026-11-02T00:00:00Z"),
                " up to 2026-11-01 (UTC)",
            ),
            (&[], None, None, ""),
            (
                &["--to", "9999-12-31"],
                None,
                None,
                " up to 9999-12-31 (UTC)",
            ),
        ] {
            let arguments = arguments(options).expect("it is understood");
            let filter = arguments.filter(None).expect("the days are in order");
            assert_eq!(filter.period(), Period { from, until }, "{options:?}");
            assert_eq!(filter.period_text(), text);
        }
    }

    /// A default age applies only where no period is given.
    #[test]
    fn a_given_period_replaces_the_default() {
        let month = Some(Duration::from_hours(24 * 30));
        let unlimited = |options: &[&str]| {
            let arguments = arguments(options).expect("it is understood");
            arguments
                .filter(month)
                .expect("in order")
                .period()
                .from
                .is_none()
        };
        assert!(!unlimited(&[]) && !unlimited(&["--since", "1d"]));
        assert!(unlimited(&["--to", "2026-11-30"]));
    }

    /// Returns whether the options select this delivery.
    fn selects(options: &[&str], from: &str, outcome: &str, level: &str) -> bool {
        let text = format!(
            r#"{{"queue_id":"0SBE82JF40000","message_id":null,"from":"{from}","to":"c@clinic.example",
            "domain":"clinic.example","attempt":1,"connector":"clinic","configuration":"","policy":null,"exception":null,
            "host":null,"address":null,"session":{{"level":"{level}","no_tls":null,"tls":null}},"unmet":null,
            "downgraded_from":null,"standing":"met","outcome":"{outcome}","status":"2.0.0","reply":null,"reason":null}}"#
        );
        let record = MailRecord::Delivery(serde_json::from_str(&text).expect("a delivery"));
        let arguments = arguments(options).expect("it is understood");
        arguments.filter(None).expect("in order").matches(&record)
    }

    /// Each option alone excludes a record that does not match it.
    #[test]
    fn a_record_must_match_every_option() {
        for (options, delivery, expected) in [
            ("", "a@b.example deferred clear", true),
            ("--domain Clinic.example", "a@b.example delivered tls", true),
            ("--domain example", "a@b.example delivered tls", false),
            ("--connector clinic", "a@b.example delivered tls", true),
            ("--connector Clinic", "a@b.example delivered tls", false),
            ("--sender A@B.example", "a@b.example delivered tls", true),
            ("--sender <a@b.example>", "a@b.example delivered tls", true),
            ("--sender a@b.example", "aa@b.example delivered tls", false),
            ("--sender B.example", "a@b.example delivered tls", true),
            ("--sender b.example", "a@c.b.example delivered tls", false),
            ("--sender b.example", " delivered tls", false),
            ("--sender ", " delivered tls", true),
            ("--sender <>", "a@b.example delivered tls", false),
            ("--direction out", "a@b.example delivered tls", true),
            ("--direction in", "a@b.example delivered tls", false),
            (
                "--queue-id 0sbe82jf40000",
                "a@b.example delivered tls",
                true,
            ),
            (
                "--queue-id 0sbe82jf40001",
                "a@b.example delivered tls",
                false,
            ),
            ("--clear", "a@b.example delivered clear", true),
            ("--clear", "a@b.example delivered tls", false),
            ("--clear", "a@b.example deferred clear", false),
            (
                "--clear --connector other",
                "a@b.example delivered clear",
                false,
            ),
        ] {
            // A space at the end stands before an empty argument.
            let words = options.split(' ').filter(|_| !options.is_empty());
            let options: Vec<_> = words.collect();
            let [from, outcome, level] = delivery.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{delivery}");
            };
            assert_eq!(
                selects(&options, from, outcome, level),
                expected,
                "{options:?}: {delivery}"
            );
        }
    }
}
