//! A bounded cache of answers, each with its expiry.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::time::Instant;

/// A cache of at most `max` values. When it is full, the half that was used the longest ago is
/// forgotten.
#[derive(Debug)]
pub(super) struct AnswerCache<K, V> {
    recent: HashMap<K, (Instant, V)>,
    older: HashMap<K, (Instant, V)>,
    max: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> AnswerCache<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            recent: HashMap::new(),
            older: HashMap::new(),
            max,
        }
    }

    /// Returns the value of a key if it has not expired.
    pub(super) fn get(&mut self, key: &K, now: Instant) -> Option<V> {
        if let Some((until, value)) = self.recent.get(key) {
            return (*until > now).then(|| value.clone());
        }
        let (key, (until, value)) = self.older.remove_entry(key)?;
        if until <= now {
            return None;
        }
        self.insert(key, until, value.clone());
        Some(value)
    }

    /// Returns the value that was stored last, expired or not.
    pub(super) fn last(&self, key: &K) -> Option<V> {
        let stored = self.recent.get(key).or_else(|| self.older.get(key));
        stored.map(|(_, value)| value.clone())
    }

    pub(super) fn insert(&mut self, key: K, until: Instant, value: V) {
        if self.recent.len() >= self.max / 2 && !self.recent.contains_key(&key) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.older.remove(&key);
        self.recent.insert(key, (until, value));
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.recent.remove(key);
        self.older.remove(key);
    }

    /// Returns the number of values that have not expired.
    pub(super) fn count(&self, now: Instant) -> usize {
        self.iter(now).count()
    }

    /// Returns the values that have not expired.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = (&K, &V)> {
        let all = self.recent.iter().chain(&self.older);
        all.filter(move |(_, (until, _))| *until > now)
            .map(|(key, (_, value))| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_value_expires() {
        let (mut cache, now) = (AnswerCache::new(10), Instant::now());
        let until = now + Duration::from_mins(1);
        cache.insert("a", until, 1);
        assert_eq!(cache.get(&"a", now), Some(1));
        assert_eq!(cache.get(&"a", until), None);
        assert_eq!((cache.count(now), cache.count(until)), (1, 0));
        cache.remove(&"a");
        assert_eq!(cache.get(&"a", now), None);
    }

    /// A thousand times as many keys as the cache may hold, while one of them is in use.
    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let (mut cache, now) = (AnswerCache::new(100), Instant::now());
        let until = now + Duration::from_mins(1);
        cache.insert(0, until, 0);
        for key in 1..100_000 {
            cache.insert(key, until, key);
            assert_eq!(cache.get(&0, now), Some(0), "at {key}");
            assert!(cache.recent.len() + cache.older.len() <= 100);
        }
        assert_eq!(cache.get(&1, now), None);
        assert_eq!(cache.get(&99_999, now), Some(99_999));
    }
}
