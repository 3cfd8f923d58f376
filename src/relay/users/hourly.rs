//! The messages and recipients of users in an hour, and the users that have reached a limit.
//!
//! The allowance of an hour may be used at once and refills evenly, as the rates of clients do. Times
//! are relative to any fixed moment.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

const HOUR: Duration = Duration::from_hours(1);

/// An action of a user that has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HourlyRate {
    /// Messages: MAIL commands.
    Messages,
    /// Recipients: RCPT commands.
    Recipients,
}

impl HourlyRate {
    /// The key of a user.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Messages => "messages_per_hour",
            Self::Recipients => "recipients_per_hour",
        }
    }

    /// The noun of the reply.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Recipients => "recipients",
        }
    }
}

/// The answer to an event above a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HourlyLimitReached {
    /// The action.
    pub rate: HourlyRate,
    /// The events that are allowed in an hour.
    pub most: u32,
    /// The time after which one more event is allowed.
    pub wait: Duration,
    /// True if the user has not reached this limit within the last hour: the administrator is
    /// informed once.
    pub is_news: bool,
}

/// A user that has reached a limit within the last hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitedUser {
    /// The name of the user, as the file has it.
    pub name: String,
    /// The limit.
    pub rate: HourlyRate,
    /// The first time.
    pub since: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// The number of times.
    pub times: u64,
}

/// The events of all users in the last hour. Only users of the file have entries.
#[derive(Debug, Default)]
pub struct HourlyRates {
    /// The times at which the allowances are full again.
    full_at: HashMap<(String, HourlyRate), Duration>,
    limited: HashMap<(String, HourlyRate), (Duration, LimitedUser)>,
}

impl HourlyRates {
    /// Counts an event of the user `name`.
    ///
    /// # Errors
    /// The limit that is reached; the event is not counted then.
    pub fn count(
        &mut self,
        name: &str,
        (rate, most): (HourlyRate, u32),
        now: Duration,
        at: Timestamp,
    ) -> Result<(), HourlyLimitReached> {
        self.forget_old(now);
        let key = (name.to_owned(), rate);
        let full_at = self
            .full_at
            .get(&key)
            .map_or(now, |full_at| (*full_at).max(now));
        let due = full_at + HOUR / most.max(1);
        let wait = due.saturating_sub(now).saturating_sub(HOUR);
        if wait.is_zero() {
            self.full_at.insert(key, due);
            return Ok(());
        }
        let is_news = !self.limited.contains_key(&key);
        let (last, limited) = self.limited.entry(key).or_insert_with(|| {
            let name = name.to_owned();
            (
                now,
                LimitedUser {
                    name,
                    rate,
                    since: at,
                    last: at,
                    times: 0,
                },
            )
        });
        *last = now;
        (limited.last, limited.times) = (at, limited.times.saturating_add(1));
        Err(HourlyLimitReached {
            rate,
            most,
            wait,
            is_news,
        })
    }

    /// Returns the users that have reached a limit within the last hour, the latest first.
    #[must_use]
    pub fn limited(&self, now: Duration) -> Vec<LimitedUser> {
        let recent = self.limited.values().filter(|(last, _)| now < *last + HOUR);
        let mut users: Vec<_> = recent.map(|(_, user)| user.clone()).collect();
        users.sort_by(|one, other| {
            other
                .last
                .cmp(&one.last)
                .then_with(|| one.name.cmp(&other.name))
        });
        users
    }

    /// Forgets the events of one user. `is_user` returns true for its name. Returns the limits that it
    /// had reached.
    pub fn release(&mut self, is_user: impl Fn(&str) -> bool, now: Duration) -> Vec<LimitedUser> {
        let mut released = self.limited(now);
        released.retain(|user| is_user(&user.name));
        self.full_at.retain(|(name, _), _| !is_user(name));
        self.limited.retain(|(name, _), _| !is_user(name));
        released
    }

    /// Forgets all events.
    pub fn clear(&mut self) {
        self.full_at.clear();
        self.limited.clear();
    }

    fn forget_old(&mut self, now: Duration) {
        self.limited.retain(|_, (last, _)| now < *last + HOUR);
        if self.full_at.len() > 1024 {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_is_released_has_its_allowance_again() {
        let (mut rates, now) = (HourlyRates::default(), Duration::from_mins(7));
        let send = |rates: &mut HourlyRates, name: &str, rate| {
            rates
                .count(name, (rate, 1), now, Timestamp::UNIX_EPOCH)
                .is_ok()
        };
        let (messages, recipients) = (HourlyRate::Messages, HourlyRate::Recipients);
        for (name, rate) in [("a", messages), ("a", recipients), ("b", messages)] {
            assert!(send(&mut rates, name, rate) && !send(&mut rates, name, rate));
        }
        let released = rates.release(|name| name == "a", now);
        let mut keys: Vec<_> = released
            .iter()
            .map(|user| (&*user.name, user.rate.key()))
            .collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [("a", "messages_per_hour"), ("a", "recipients_per_hour")]
        );
        assert_eq!(rates.release(|name| name == "a", now), []);
        assert!(send(&mut rates, "a", messages) && send(&mut rates, "a", recipients));
        assert!(!send(&mut rates, "b", messages), "another user");
    }

    #[test]
    fn an_allowance_of_an_hour_refills_evenly_and_news_come_once() {
        let mut rates = HourlyRates::default();
        let mut send = |name: &str, rate, minutes: i64| {
            let now = Duration::from_secs(u64::try_from(minutes).expect("small") * 60);
            let at = Timestamp::from_second(minutes * 60).expect("in range");
            rates
                .count(name, (rate, 4), now, at)
                .map_err(|reached| (reached.wait.as_secs() / 60, reached.is_news))
        };
        let messages = HourlyRate::Messages;
        for _ in 0..4 {
            assert_eq!(send("a", messages, 0), Ok(()));
        }
        assert_eq!(send("a", messages, 0), Err((15, true)));
        assert_eq!(send("a", messages, 5), Err((10, false)));
        assert_eq!(send("b", messages, 5), Ok(()), "another user");
        assert_eq!(
            send("a", HourlyRate::Recipients, 5),
            Ok(()),
            "something else"
        );
        assert_eq!(send("a", messages, 15), Ok(()));
        assert_eq!(send("a", messages, 15), Err((15, false)));
        for _ in 0..4 {
            assert_eq!(send("a", messages, 200), Ok(()));
        }
        assert_eq!(
            send("a", messages, 200),
            Err((15, true)),
            "an hour later it is news again"
        );
        let now = Duration::from_mins(200);
        let limited: Vec<_> = rates
            .limited(now)
            .into_iter()
            .map(|user| (user.name, user.times))
            .collect();
        assert_eq!(limited, [("a".to_owned(), 1)]);
        assert_eq!(rates.limited(now + HOUR), []);
    }
}
