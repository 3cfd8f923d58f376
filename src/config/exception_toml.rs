//! The `exception` of a connector as written: a lower demand with a last day.
//!
//! Reading a configuration uses no clock. [`crate::policy::connector`] decides if an exception has
//! ended.

use jiff::civil::Date;
use toml::de::DeValue;

use super::fault_list::FaultList;
use super::reader::{Field, TableReader, TomlValue, kind_name};
use super::spelling::shorten;
use super::tls_level::WrittenTlsLevel;
use super::values::{choice, text};
use crate::policy::connector::{TlsDemand, TlsException, VerifyWanted};
use crate::policy::location::{Located, Location};
use crate::policy::tls::TlsVersion;

/// The most characters of a reason. It appears in tables and in the record of each delivery.
const REASON_MAX: usize = 200;

/// An `exception` table, as written.
#[derive(Debug, Clone)]
pub(super) struct ExceptionToml {
    pub(super) tls: WrittenTlsLevel,
    pub(super) tls_location: Location,
    until: Date,
    reason: String,
}

impl ExceptionToml {
    /// Reads the table. All three keys are mandatory.
    pub(super) fn read(parent: &mut TableReader<'_>, faults: &mut FaultList<'_>) -> Field<Self> {
        let mut table = parent.table(faults, "exception", "[connector.outbound.exception]");
        if table.is_absent() {
            return Field::Absent;
        }
        let location = table.location().clone();
        let tls = table.required(faults, "tls", "tls = \"opportunistic\"", |value, faults| {
            choice(value, faults, &WrittenTlsLevel::OUTBOUND)
        });
        let until = table.required(faults, "until", "until = \"2027-01-31\"", date);
        let reason = table.required(
            faults,
            "reason",
            "reason = \"their new gateway, ticket 4711\"",
            reason,
        );
        table.finish(faults);
        match (tls, until, reason) {
            (Field::Valid(tls), Field::Valid(until), Field::Valid(reason)) => {
                let value = Self {
                    tls: tls.value,
                    tls_location: tls.location,
                    until: until.value,
                    reason: reason.value,
                };
                Field::Valid(Located { value, location })
            }
            _ => Field::Invalid,
        }
    }

    pub(super) fn resolve(self, min_version: TlsVersion, location: Location) -> TlsException {
        let tls = match self.tls {
            WrittenTlsLevel::Off => TlsDemand::Off,
            WrittenTlsLevel::Opportunistic => TlsDemand::Opportunistic,
            WrittenTlsLevel::Forced => TlsDemand::Forced {
                min_version,
                verify: VerifyWanted::None,
            },
        };
        TlsException {
            tls,
            until: self.until,
            reason: self.reason,
            location,
        }
    }
}

/// Reads a day: `"2027-01-31"`, with or without quotes.
fn date(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Date> {
    let written = match value.raw {
        DeValue::String(text) => text.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        other => kind_name(other).to_owned(),
    };
    // The length excludes a day with a time of day.
    let plain = written.len() == "2027-01-31".len();
    if let Some(date) = Some(&written)
        .filter(|_| plain)
        .and_then(|text| text.parse().ok())
    {
        return Some(date);
    }
    let message = format!("{}: \"{}\" is not a day", value.key, shorten(&written));
    faults.add(
        &value.location,
        message,
        "Write the last day on which it holds, such as \"2027-01-31\".",
    );
    None
}

fn reason(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let reason = text(value, faults)?;
    if reason.trim().is_empty()
        || reason.contains(char::is_control)
        || reason.chars().count() > REASON_MAX
    {
        let remedy = format!(
            "Write on one line, in at most {REASON_MAX} characters, why and who decided it."
        );
        faults.add(
            &value.location,
            format!("{}: \"{}\" is not a reason", value.key, shorten(reason)),
            remedy,
        );
        return None;
    }
    Some(reason.to_owned())
}
