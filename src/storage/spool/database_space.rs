//! The space that the database takes up, which the system's figures of the disk do not show.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The size of a page in the log in octets, with its header.
const LOG_PAGE: u64 = 4096 + 24;

/// The length of the log in octets above which new mail is rejected. Only a log that cannot be moved
/// becomes so long.
const LOG_LIMIT: u64 = 256 << 20;

/// The space that the database and its log take up. The writer keeps it up to date after each
/// transaction.
#[derive(Debug)]
pub(super) struct DatabaseSpace {
    log_limit: u64,
    log: AtomicU32,
    log_file: AtomicU64,
    free: AtomicU64,
    growth: AtomicU64,
}

/// The figures of a database after a transaction, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DatabaseSizes {
    /// The size of the file of the log. The part after the log's end is written again.
    pub(super) log_file: u64,
    /// The pages in the database that are free.
    pub(super) free: u64,
    /// The octets by which the database grows when the log is moved into it.
    pub(super) growth: u64,
}

impl DatabaseSpace {
    /// Creates the figures of an empty database. `log_limit` is in octets.
    pub(super) fn with_limit(log_limit: Option<u64>) -> Self {
        Self {
            log_limit: log_limit.unwrap_or(LOG_LIMIT),
            log: AtomicU32::new(0),
            log_file: AtomicU64::new(0),
            free: AtomicU64::new(0),
            growth: AtomicU64::new(0),
        }
    }

    /// Returns the length of the log in octets if it is above the limit.
    pub(super) fn log_over_limit(&self) -> Option<u64> {
        let log = Self::octets(self.log());
        (log > self.log_limit).then_some(log)
    }

    /// Returns the length of the log in pages.
    pub(super) fn log(&self) -> u32 {
        self.log.load(Ordering::Relaxed)
    }

    /// Sets the length of the log in pages.
    pub(super) fn set_log(&self, pages: u32) {
        self.log.store(pages, Ordering::Relaxed);
    }

    /// Returns the octets of so many pages of the log.
    pub(super) fn octets(pages: u32) -> u64 {
        u64::from(pages) * LOG_PAGE
    }

    /// Sets the figures after a transaction.
    pub(super) fn set_sizes(&self, sizes: DatabaseSizes) {
        self.log_file.store(sizes.log_file, Ordering::Relaxed);
        self.free.store(sizes.free, Ordering::Relaxed);
        self.growth.store(sizes.growth, Ordering::Relaxed);
    }

    /// Returns the octets that the log can take without growing its file.
    pub(super) fn log_room(&self) -> u64 {
        let log_file = self.log_file.load(Ordering::Relaxed);
        log_file.saturating_sub(Self::octets(self.log()))
    }

    /// Returns the octets of free pages in the database.
    pub(super) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Returns the octets by which the database grows when the log is moved into it.
    pub(super) fn growth(&self) -> u64 {
        self.growth.load(Ordering::Relaxed)
    }
}
