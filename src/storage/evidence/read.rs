//! Reads the records that concern mail, and verifies the chain on the way.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::chain::{self, Link, RecordHash};
use super::days;
use super::error::EvidenceError;
use super::lines::Lines;
use super::record::{self, AcceptanceRecord, DeliveryRecord, EvidenceRecord};
use super::source::EvidenceSource;
use super::verify::{Verification, read_chain};

/// The time of the records that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Period {
    /// The earliest time; `None` for all records before `until`.
    pub from: Option<Timestamp>,
    /// The time before which the records are; `None` for all records since `from`.
    pub until: Option<Timestamp>,
}

impl Period {
    /// The period of all records.
    pub const ALL: Self = Self {
        from: None,
        until: None,
    };

    /// Returns the period from the first to the last day, both included, in UTC.
    #[must_use]
    pub fn of_days(first: Option<Date>, last: Option<Date>) -> Self {
        // Fails only at the ends of the calendar.
        let start = |day: Date| {
            day.to_zoned_datetime(TimeZone::UTC)
                .ok()
                .map(|start| start.timestamp())
        };
        let until = last
            .and_then(|last| last.checked_add(1.day()).ok())
            .and_then(start);
        Self {
            from: first.and_then(start),
            until,
        }
    }

    fn contains(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| at >= from) && self.until.is_none_or(|until| at < until)
    }
}

/// The result of reading.
#[derive(Debug)]
pub struct ReadResult {
    /// The number of lines that were left out because they are not valid records; `chain` names
    /// them.
    pub bad: u64,
    /// The verification of the chain from the first file that was read to the end.
    pub chain: Verification,
}

/// A record that concerns mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailRecord {
    /// A message was accepted.
    Accepted(Box<AcceptanceRecord>),
    /// The result of one attempt for one recipient.
    Delivery(Box<DeliveryRecord>),
}

impl MailRecord {
    /// The queue id of the message.
    #[must_use]
    pub fn queue_id(&self) -> &str {
        match self {
            Self::Accepted(acceptance) => &acceptance.queue_id,
            Self::Delivery(delivery) => &delivery.queue_id,
        }
    }

    /// The sender (reverse-path); empty for the null sender.
    #[must_use]
    pub fn sender(&self) -> &str {
        match self {
            Self::Accepted(acceptance) => &acceptance.from,
            Self::Delivery(delivery) => &delivery.from,
        }
    }

    /// The domain that the connector was chosen for: that of the sender of an accepted message,
    /// that of the recipient of a delivery.
    #[must_use]
    pub fn domain(&self) -> &str {
        match self {
            Self::Accepted(acceptance) => &acceptance.domain,
            Self::Delivery(delivery) => &delivery.domain,
        }
    }

    /// The name of the connector.
    #[must_use]
    pub fn connector(&self) -> &str {
        match self {
            Self::Accepted(acceptance) => &acceptance.by.connector,
            Self::Delivery(delivery) => &delivery.connector,
        }
    }
}

/// Reads every delivery of a period; see [`records`].
///
/// # Errors
/// [`EvidenceError`] if the folder or a file in it cannot be read.
pub fn deliveries<'a>(
    source: impl Into<EvidenceSource<'a>>,
    period: Period,
    mut each: impl FnMut(&str, &Link, DeliveryRecord),
) -> Result<ReadResult, EvidenceError> {
    records(source, period, |line, link, record| match record {
        MailRecord::Accepted(_) => {}
        MailRecord::Delivery(delivery) => each(line, link, *delivery),
    })
}

/// Reads every mail record of a period, in the order in which they were written. `each` receives
/// the line, its link and the record; for a line with several recipients, once for each.
///
/// Files of days before the period are not read, except for the last one: with it, the chain is
/// verified from the record before the period to its end.
///
/// # Errors
/// [`EvidenceError`] if the folder or a file in it cannot be read.
pub fn records<'a>(
    source: impl Into<EvidenceSource<'a>>,
    period: Period,
    each: impl FnMut(&str, &Link, MailRecord),
) -> Result<ReadResult, EvidenceError> {
    // After the clock was set back, records are in a later file than their day, never in an earlier
    // one.
    let first_day = period
        .from
        .and_then(|from| days::day(from).checked_sub(1.day()).ok());
    read(source.into(), first_day, &[], period, each)
}

/// Reads every mail record of a period, and verifies the chain from its first record on. `heads`
/// are hashes that were kept elsewhere; each must be in the chain.
///
/// # Errors
/// [`EvidenceError`] if the folder or a file in it cannot be read.
pub fn records_of_verified_chain<'a>(
    source: impl Into<EvidenceSource<'a>>,
    period: Period,
    heads: &[RecordHash],
    each: impl FnMut(&str, &Link, MailRecord),
) -> Result<ReadResult, EvidenceError> {
    read(source.into(), None, heads, period, each)
}

fn read(
    source: EvidenceSource<'_>,
    first_day: Option<Date>,
    heads: &[RecordHash],
    period: Period,
    mut each: impl FnMut(&str, &Link, MailRecord),
) -> Result<ReadResult, EvidenceError> {
    let mut bad = 0;
    let chain = read_chain(source, first_day, heads, |line, link| {
        let (Some(link), Ok(text)) = (link, std::str::from_utf8(line)) else {
            bad += 1;
            return;
        };
        if !period.contains(link.time) {
            return;
        }
        match serde_json::from_str(text) {
            Ok(EvidenceRecord::Delivery(delivery)) => match record::recipients(text) {
                Ok(None) => each(text, link, MailRecord::Delivery(delivery)),
                Ok(Some(recipients)) => {
                    for to in recipients {
                        let delivery = DeliveryRecord {
                            to,
                            ..(*delivery).clone()
                        };
                        each(text, link, MailRecord::Delivery(Box::new(delivery)));
                    }
                }
                Err(record::UnknownForm) => bad += 1,
            },
            Ok(EvidenceRecord::Accepted(acceptance)) => {
                each(text, link, MailRecord::Accepted(acceptance));
            }
            Ok(
                EvidenceRecord::Begun { .. }
                | EvidenceRecord::Torn { .. }
                | EvidenceRecord::Dropped { .. }
                | EvidenceRecord::Unknown,
            ) => {}
            Err(_) => bad += 1,
        }
    })?;
    Ok(ReadResult { bad, chain })
}

/// Returns the first valid record; `None` if there is none.
///
/// # Errors
/// [`EvidenceError`] if the folder or a file in it cannot be read.
pub fn first_record<'a>(
    source: impl Into<EvidenceSource<'a>>,
) -> Result<Option<Link>, EvidenceError> {
    let source = source.into();
    if let Some(chain) = source.chain {
        for day in chain.days()? {
            if let Some(link) = first_link(&mut chain.lines(day))? {
                return Ok(Some(link));
            }
        }
        return Ok(None);
    }
    for file in source.files()? {
        if let Some(link) = first_link(&mut Lines::open(&file)?)? {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// Returns the first valid record of some lines.
fn first_link(lines: &mut Lines) -> Result<Option<Link>, EvidenceError> {
    while let Some(line) = lines.next()? {
        if let Ok(link) = chain::read(line.text) {
            return Ok(Some(link));
        }
    }
    Ok(None)
}
