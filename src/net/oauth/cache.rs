//! The cached token of one identity, and the rules for its use: it is renewed shortly before it
//! expires, one fetch serves all that wait, and a failure holds for some seconds. No I/O: the time
//! comes from the caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::error::TokenError;
use super::request::UnsavedToken;
use super::response::AccessToken;

/// The time before its end at which a token is renewed, unless a fifth of its life is less.
const MARGIN_MAX: Duration = Duration::from_mins(5);
/// The time for which the first failure holds. It doubles with each failure in a row.
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// The longest time for which a failure holds.
const PAUSE_MAX: Duration = Duration::from_mins(2);
/// The time for which no second token is fetched because one was refused.
const REFUSAL_PAUSE: Duration = Duration::from_secs(30);

/// The result of a fetch.
pub(super) type FetchOutcome = Result<AccessToken, TokenError>;
/// The channel on which all that wait for a fetch get its result.
pub(super) type FetchWatch = watch::Receiver<Option<FetchOutcome>>;

/// The tokens of all identities of the process, so that connectors with the same settings share a
/// token, and a reload fetches none anew.
#[derive(Debug, Default)]
pub struct TokenCaches(Mutex<HashMap<String, Weak<Mutex<TokenCache>>>>);

impl TokenCaches {
    /// Returns the cache of an identity. It lives as long as one of its users.
    pub(super) fn of(&self, key: &str) -> Arc<Mutex<TokenCache>> {
        // No code panics while it holds the lock.
        let mut caches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|_, cache| cache.strong_count() > 0);
        if let Some(cache) = caches.get(key).and_then(Weak::upgrade) {
            return cache;
        }
        let cache = Arc::default();
        caches.insert(key.to_owned(), Arc::downgrade(&cache));
        cache
    }
}

/// Locks a cache. No code panics while it holds the lock.
pub(super) fn lock(cache: &Mutex<TokenCache>) -> MutexGuard<'_, TokenCache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The token of an identity.
#[derive(Default)]
pub(super) struct TokenCache {
    cached: Option<CachedToken>,
    /// The last token that was refused.
    refused: Option<AccessToken>,
    /// The time of the last refusal that led to a fetch.
    refused_at: Option<Timestamp>,
    failure: Option<HeldFailure>,
    /// The number of failures in a row.
    failures: u32,
    fetch: Option<FetchWatch>,
    /// The refresh token that could not be stored.
    pub(super) unsaved: Option<UnsavedToken>,
}

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenCache")
    }
}

struct CachedToken {
    token: AccessToken,
    fetched: Timestamp,
    renew: Timestamp,
    expires: Timestamp,
}

struct HeldFailure {
    error: TokenError,
    since: Timestamp,
    until: Timestamp,
}

/// The way to a token.
pub(super) enum TokenWay {
    /// There is a result already.
    Known(FetchOutcome),
    /// A fetch is under way.
    Wait(FetchWatch),
    /// The caller starts a fetch, and sends its result here.
    Fetch(watch::Sender<Option<FetchOutcome>>, FetchWatch),
}

impl TokenCache {
    /// Decides how a caller gets a token.
    pub(super) fn way(&mut self, now: Timestamp) -> TokenWay {
        // A clock that was set back makes no token younger.
        if let Some(cached) = &self.cached
            && (now < cached.fetched || now >= cached.expires)
        {
            self.cached = None;
        }
        if let Some(cached) = &self.cached
            && now < cached.renew
        {
            return TokenWay::Known(Ok(cached.token.clone()));
        }
        // A fetch whose task has ended without a result is over.
        if let Some(fetch) = &self.fetch
            && (fetch.borrow().is_some() || fetch.has_changed().is_ok())
        {
            return TokenWay::Wait(fetch.clone());
        }
        if let Some(failure) = &self.failure
            && (failure.since..failure.until).contains(&now)
        {
            return TokenWay::Known(self.despite(failure.error.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        self.fetch = Some(receiver.clone());
        TokenWay::Fetch(sender, receiver)
    }

    /// Returns the cached token, which is about to expire, in place of a failure to renew it.
    fn despite(&self, error: TokenError) -> FetchOutcome {
        match &self.cached {
            Some(cached) => Ok(cached.token.clone()),
            None => Err(error),
        }
    }

    /// Records a token.
    pub(super) fn fetched(
        &mut self,
        token: AccessToken,
        lifetime: Duration,
        now: Timestamp,
    ) -> AccessToken {
        let margin = MARGIN_MAX.min(lifetime / 5);
        self.cached = Some(CachedToken {
            token: token.clone(),
            fetched: now,
            renew: after(now, lifetime.saturating_sub(margin)),
            expires: after(now, lifetime),
        });
        (self.fetch, self.failure, self.failures) = (None, None, 0);
        token
    }

    /// Records a failure, which holds for some seconds.
    pub(super) fn failed(&mut self, error: TokenError, now: Timestamp) -> FetchOutcome {
        let pause = PAUSE_MAX.min(PAUSE_MIN * (1 << self.failures.min(10)));
        self.failures += 1;
        self.failure = Some(HeldFailure {
            error: error.clone(),
            since: now,
            until: after(now, pause),
        });
        self.fetch = None;
        self.despite(error)
    }

    /// Forgets a token that a smart host has refused, so that the next caller fetches another one.
    /// A token that comes again and is refused again stays, and so does one that is refused soon
    /// after another: neither would become better.
    pub(super) fn refuse(&mut self, token: &AccessToken, now: Timestamp) {
        let Some(cached) = self.cached.as_mut().filter(|cached| cached.token == *token) else {
            return;
        };
        if self.refused.as_ref() == Some(token) {
            return;
        }
        self.refused = Some(token.clone());
        match self.refused_at {
            Some(before) if before <= now && now < after(before, REFUSAL_PAUSE) => {
                cached.renew = cached.renew.min(after(before, REFUSAL_PAUSE));
            }
            _ => {
                self.refused_at = Some(now);
                self.cached = None;
            }
        }
    }

    /// Ends the pause after a failure, since the settings or their files may have changed.
    pub(super) fn forget_failure(&mut self) {
        (self.failure, self.failures) = (None, 0);
    }
}

/// Returns a later moment; the end of time at the latest.
fn after(moment: Timestamp, duration: Duration) -> Timestamp {
    let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    moment.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
