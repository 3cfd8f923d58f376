//! The report about one domain and one day (RFC 8460 §4.4), as JSON and compressed.
//!
//! Does no I/O.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::observation::{AppliedPolicy, ReportedPolicy, SessionFailure};
use crate::smtp::address::{Domain, Mailbox};

/// The results of one domain on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsReport {
    /// The name of the reporting organization.
    pub organization: String,
    /// The UTC day.
    pub day: Date,
    /// The contact address for questions.
    pub contact: Mailbox,
    /// The id of the report, which stays the same if it is sent again.
    pub id: String,
    /// The domain that the report is about.
    pub domain: Domain,
    /// The counts by policy; at least one.
    pub policies: Vec<PolicyCounts>,
}

/// The sessions under one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyCounts {
    /// The policy.
    pub policy: AppliedPolicy,
    /// The sessions that met the policy.
    pub succeeded: u64,
    /// The sessions that did not.
    pub failed: u64,
    /// Their failures, each with its number of sessions.
    pub failures: Vec<(SessionFailure, u64)>,
}

/// Returns the first moment of a UTC day.
#[must_use]
pub fn day_start(day: Date) -> Timestamp {
    day.to_zoned_datetime(TimeZone::UTC)
        .map_or(Timestamp::MIN, |zoned| zoned.timestamp())
}

/// Returns the last second of a UTC day.
#[must_use]
pub fn day_end(day: Date) -> Timestamp {
    day.at(23, 59, 59, 0)
        .to_zoned_datetime(TimeZone::UTC)
        .map_or(Timestamp::MAX, |zoned| zoned.timestamp())
}

/// Returns the UTC day of a time.
#[must_use]
pub fn day_of(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

impl TlsReport {
    /// Returns the report as JSON (RFC 8460 §4.4).
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Serializing structs with text keys into memory cannot fail.
        serde_json::to_vec_pretty(&JsonReport::of(self)).unwrap_or_default()
    }

    /// Returns the JSON compressed with gzip (RFC 8460 §5.2).
    #[must_use]
    pub fn to_gzip(&self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory cannot fail.
        let _written = encoder.write_all(&self.to_json());
        encoder.finish().unwrap_or_default()
    }

    /// Returns the name of the attached file (RFC 8460 §5.1).
    #[must_use]
    pub fn file_name(&self, submitter: &Domain) -> String {
        let (begin, end) = (
            day_start(self.day).as_second(),
            day_end(self.day).as_second(),
        );
        format!(
            "{submitter}!{}!{begin}!{end}!{}.json.gz",
            self.domain,
            self.unique_part()
        )
    }

    /// Returns the unique part of the id, reduced to letters and digits.
    pub(super) fn unique_part(&self) -> String {
        self.id
            .split('@')
            .next()
            .unwrap_or_default()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect()
    }

    /// Returns the number of sessions that met their policy, and of those that did not.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        self.policies.iter().fold((0, 0), |(good, bad), one| {
            (good + one.succeeded, bad + one.failed)
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonReport<'a> {
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
    policy: JsonAppliedPolicy<'a>,
    summary: JsonSummary,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failure_details: Vec<JsonFailure<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonAppliedPolicy<'a> {
    policy_type: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    policy_string: &'a [String],
    policy_domain: &'a str,
    /// A list, as in erratum 6241; the text of §4.4 has a single pattern.
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

impl<'a> JsonReport<'a> {
    fn of(report: &'a TlsReport) -> Self {
        Self {
            organization_name: &report.organization,
            date_range: JsonRange {
                start_datetime: day_start(report.day),
                end_datetime: day_end(report.day),
            },
            contact_info: report.contact.to_string(),
            report_id: &report.id,
            policies: report.policies.iter().map(JsonPolicy::of).collect(),
        }
    }
}

impl<'a> JsonPolicy<'a> {
    fn of(counts: &'a PolicyCounts) -> Self {
        let (policy_string, mx_host): (&[String], &[String]) = match &counts.policy.found {
            ReportedPolicy::Tlsa(records) => (records, &[]),
            ReportedPolicy::Sts { lines, mx } => (lines, mx),
            ReportedPolicy::Nothing => (&[], &[]),
        };
        Self {
            policy: JsonAppliedPolicy {
                policy_type: counts.policy.found.kind(),
                policy_string,
                policy_domain: counts.policy.domain.as_str(),
                mx_host,
            },
            summary: JsonSummary {
                total_successful_session_count: counts.succeeded,
                total_failure_session_count: counts.failed,
            },
            failure_details: counts.failures.iter().map(JsonFailure::of).collect(),
        }
    }
}

impl<'a> JsonFailure<'a> {
    fn of((failure, sessions): &'a (SessionFailure, u64)) -> Self {
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
