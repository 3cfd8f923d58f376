//! A batch of counted sessions, and the limits on the texts in it.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::civil::Date;

use super::observation::{
    AppliedPolicy, Observation, ReportedPolicy, SessionFailure, SessionResult,
};
use super::report::day_of;
use crate::smtp::address::Domain;

/// The most characters of a host name.
pub(super) const NAME_MAX: usize = 255;

/// The most characters of a failure reason code.
pub(super) const CODE_MAX: usize = 100;

/// The most characters of additional information.
pub(super) const INFORMATION_MAX: usize = 300;

/// The most strings of a policy.
pub(super) const STRINGS_MAX: usize = 64;

/// The most characters of one string of a policy.
pub(super) const STRING_MAX: usize = 1100;

/// The key under which sessions are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CountKey {
    pub(super) day: Date,
    pub(super) domain: Domain,
    pub(super) policy: Arc<AppliedPolicy>,
    /// The failure, or `None` for successful sessions.
    pub(super) failure: Option<SessionFailure>,
}

/// Counts that are not on disk yet.
#[derive(Debug, Default)]
pub(crate) struct CountBatch(pub(super) HashMap<CountKey, u64>);

impl CountBatch {
    pub(super) fn add(&mut self, observation: Observation) {
        let Observation {
            at,
            domain,
            policy,
            session,
        } = observation;
        let failure = match session {
            SessionResult::Succeeded => None,
            SessionResult::Failed(failure) => Some(truncate_failure(failure)),
        };
        let policy = if fits(&policy) {
            policy
        } else {
            Arc::new(truncate_policy(&policy))
        };
        *self
            .0
            .entry(CountKey {
                day: day_of(at),
                domain,
                policy,
                failure,
            })
            .or_default() += 1;
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&CountKey, u64)> {
        self.0.iter().map(|(key, sessions)| (key, *sessions))
    }

    pub(super) fn sessions(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Limits the length of each text of a failure and removes control characters.
pub(super) fn truncate_failure(failure: SessionFailure) -> SessionFailure {
    let truncate = |text: Option<String>, most: usize| {
        text.map(|text| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(most)
                .collect::<String>()
        })
        .filter(|text| !text.is_empty())
    };
    let SessionFailure {
        result,
        sending_ip,
        mx,
        helo,
        receiving_ip,
        reason,
        information,
    } = failure;
    SessionFailure {
        result,
        sending_ip,
        mx: truncate(mx, NAME_MAX),
        helo: truncate(helo, NAME_MAX),
        receiving_ip,
        reason: truncate(reason, CODE_MAX),
        information: truncate(information, INFORMATION_MAX),
    }
}

pub(super) fn fits(policy: &AppliedPolicy) -> bool {
    let fit = |strings: &[String]| {
        strings.len() <= STRINGS_MAX && strings.iter().all(|one| one.len() <= STRING_MAX)
    };
    match &policy.found {
        ReportedPolicy::Tlsa(records) => fit(records),
        ReportedPolicy::Sts { lines, mx } => fit(lines) && fit(mx),
        ReportedPolicy::Nothing => true,
    }
}

pub(super) fn truncate_policy(policy: &AppliedPolicy) -> AppliedPolicy {
    let truncate = |strings: &[String]| {
        strings
            .iter()
            .take(STRINGS_MAX)
            .map(|one| one.chars().take(STRING_MAX / 4).collect())
            .collect::<Vec<String>>()
    };
    let found = match &policy.found {
        ReportedPolicy::Tlsa(records) => ReportedPolicy::Tlsa(truncate(records)),
        ReportedPolicy::Sts { lines, mx } => ReportedPolicy::Sts {
            lines: truncate(lines),
            mx: truncate(mx),
        },
        ReportedPolicy::Nothing => ReportedPolicy::Nothing,
    };
    AppliedPolicy {
        domain: policy.domain.clone(),
        found,
    }
}
