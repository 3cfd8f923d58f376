//! The report (RFC 8460 §4.4): one day of one domain, as JSON and compressed.
//!
//! Pure, but for the time that compressing takes.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::observation::{Failure, Found, Policy};
use crate::address::{Domain, Mailbox};

/// What was seen of a domain on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who reports, in words.
    pub organization: String,
    /// The UTC day.
    pub day: Date,
    /// Who answers questions.
    pub contact: Mailbox,
    /// Its name, the same however often it is sent.
    pub id: String,
    /// The domain it is for.
    pub domain: Domain,
    /// What was seen, by policy; at least one.
    pub policies: Vec<Counted>,
}

/// What was seen of sessions under one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The policy.
    pub policy: Policy,
    /// Sessions that met it.
    pub succeeded: u64,
    /// Sessions that did not.
    pub failed: u64,
    /// Those, each kind with its sessions.
    pub failures: Vec<(Failure, u64)>,
}

/// When a UTC day begins.
#[must_use]
pub fn begin(day: Date) -> Timestamp {
    day.to_zoned_datetime(TimeZone::UTC).map_or(Timestamp::MIN, |zoned| zoned.timestamp())
}

/// The last second of a UTC day.
#[must_use]
pub fn end(day: Date) -> Timestamp {
    day.at(23, 59, 59, 0).to_zoned_datetime(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

/// The UTC day of a time.
#[must_use]
pub fn day_of(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

impl Report {
    /// The report as JSON (RFC 8460 §4.4).
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        // Serializing plain structs with text for keys into memory cannot fail.
        serde_json::to_vec_pretty(&Json::of(self)).unwrap_or_default()
    }

    /// The JSON, compressed (RFC 8460 §5.2).
    #[must_use]
    pub fn gzip(&self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Neither can fail: everything goes to memory.
        let _written = encoder.write_all(&self.json());
        encoder.finish().unwrap_or_default()
    }

    /// The name of the file that the report travels as (RFC 8460 §5.1).
    #[must_use]
    pub fn file_name(&self, submitter: &Domain) -> String {
        let (begin, end) = (begin(self.day).as_second(), end(self.day).as_second());
        format!("{submitter}!{}!{begin}!{end}!{}.json.gz", self.domain, self.unique())
    }

    /// What tells it from others, in letters and digits alone.
    pub(super) fn unique(&self) -> String {
        self.id.split('@').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect()
    }

    /// Sessions that met their policy, and those that did not.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        self.policies.iter().fold((0, 0), |(good, bad), one| (good + one.succeeded, bad + one.failed))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Json<'a> {
    organization_name: &'a str,
    date_range: JsonRange,
    contact_info: String,
    report_id: &'a str,
    policies: Vec<JsonPolicy<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonRange {
    start_datetime: Timestamp,
    end_datetime: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonPolicy<'a> {
    policy: JsonFound<'a>,
    summary: JsonSummary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_details: Vec<JsonFailure<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonFound<'a> {
    policy_type: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    policy_string: &'a [String],
    policy_domain: &'a str,
    /// A list, as erratum 6241 has it; the text of §4.4 shows one pattern alone.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mx_host: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonSummary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonFailure<'a> {
    result_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sending_mta_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_mx_helo: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiving_ip: Option<String>,
    failed_session_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_information: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason_code: Option<&'a str>,
}

impl<'a> Json<'a> {
    fn of(report: &'a Report) -> Self {
        Self {
            organization_name: &report.organization,
            date_range: JsonRange { start_datetime: begin(report.day), end_datetime: end(report.day) },
            contact_info: report.contact.to_string(),
            report_id: &report.id,
            policies: report.policies.iter().map(JsonPolicy::of).collect(),
        }
    }
}

impl<'a> JsonPolicy<'a> {
    fn of(counted: &'a Counted) -> Self {
        let (policy_string, mx_host): (&[String], &[String]) = match &counted.policy.found {
            Found::Tlsa(records) => (records, &[]),
            Found::Sts { lines, mx } => (lines, mx),
            Found::Nothing => (&[], &[]),
        };
        Self {
            policy: JsonFound {
                policy_type: counted.policy.found.kind(),
                policy_string,
                policy_domain: counted.policy.domain.as_str(),
                mx_host,
            },
            summary: JsonSummary {
                total_successful_session_count: counted.succeeded,
                total_failure_session_count: counted.failed,
            },
            failure_details: counted.failures.iter().map(JsonFailure::of).collect(),
        }
    }
}

impl<'a> JsonFailure<'a> {
    fn of((failure, sessions): &'a (Failure, u64)) -> Self {
        Self {
            result_type: failure.result.as_str(),
            sending_mta_ip: failure.sending_ip.map(|ip| ip.to_string()),
            receiving_mx_hostname: failure.mx.as_deref(),
            receiving_mx_helo: failure.helo.as_deref(),
            receiving_ip: failure.receiving_ip.map(|ip| ip.to_string()),
            failed_session_count: *sessions,
            additional_information: failure.information.as_deref(),
            failure_reason_code: failure.reason.as_deref(),
        }
    }
}
