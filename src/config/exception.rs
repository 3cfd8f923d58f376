//! `exception` of a connector: a lower demand that ends by itself.
//!
//! Only what is written is read here; whether it has ended is a question of the clock, which the
//! configuration does not have.

use jiff::civil::Date;
use toml::de::DeValue;

use super::partner::Level;
use super::place::Notes;
use super::reader::{Given, Table, Value, kind, short};
use super::values::{choice, text};
use super::{Exception, Located, Place, TlsDemand, VerifyWanted};
use crate::tls::TlsVersion;

/// Characters of a reason, at most: it stands in tables and in each delivery's record.
const REASON_MAX: usize = 200;

/// `exception` as written.
#[derive(Debug, Clone)]
pub(super) struct WrittenException {
    pub(super) tls: Level,
    pub(super) tls_place: Place,
    until: Date,
    reason: String,
}

impl WrittenException {
    /// Takes the table; all three of its keys must be there.
    pub(super) fn take(parent: &mut Table<'_>, notes: &mut Notes<'_>) -> Given<Self> {
        let mut table = parent.table(notes, "exception", "[connector.outbound.exception]");
        if table.is_absent() {
            return Given::Absent;
        }
        let place = table.place().clone();
        let levels = [("off", Level::Off), ("opportunistic", Level::Opportunistic), ("forced", Level::Forced)];
        let tls = table.required(notes, "tls", "tls = \"opportunistic\"", |value, notes| choice(value, notes, &levels));
        let until = table.required(notes, "until", "until = \"2027-01-31\"", date);
        let reason = table.required(notes, "reason", "reason = \"their new gateway, ticket 4711\"", reason);
        table.finish(notes);
        match (tls, until, reason) {
            (Given::Good(tls), Given::Good(until), Given::Good(reason)) => {
                let value = Self { tls: tls.value, tls_place: tls.place, until: until.value, reason: reason.value };
                Given::Good(Located { value, place })
            }
            _ => Given::Bad,
        }
    }

    pub(super) fn meant(self, min_version: TlsVersion, place: Place) -> Exception {
        let tls = match self.tls {
            Level::Off => TlsDemand::Off,
            Level::Opportunistic => TlsDemand::Opportunistic,
            Level::Forced => TlsDemand::Forced { min_version, verify: VerifyWanted::None },
        };
        Exception { tls, until: self.until, reason: self.reason, place }
    }
}

/// A day: `"2027-01-31"`, with or without quotes.
fn date(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<Date> {
    let written = match value.raw {
        DeValue::String(text) => text.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        other => kind(other).to_owned(),
    };
    // No clock time: the whole day is meant.
    let plain = written.len() == "2027-01-31".len();
    if let Some(date) = Some(&written).filter(|_| plain).and_then(|text| text.parse().ok()) {
        return Some(date);
    }
    let message = format!("{}: \"{}\" is not a day", value.key, short(&written));
    notes.fault(&value.place, message, "Write the last day on which it holds, such as \"2027-01-31\".");
    None
}

fn reason(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<String> {
    let reason = text(value, notes)?;
    if reason.trim().is_empty() || reason.contains(char::is_control) || reason.chars().count() > REASON_MAX {
        let remedy = format!("Write on one line, in at most {REASON_MAX} characters, why and who decided it.");
        notes.fault(&value.place, format!("{}: \"{}\" is not a reason", value.key, short(reason)), remedy);
        return None;
    }
    Some(reason.to_owned())
}
