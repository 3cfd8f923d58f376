//! The metrics of this process, from /proc on Linux (proc(5)). A value that is missing there is 0.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

use crate::telemetry::Process;

/// Reads the values. That takes a few small reads from memory, and none from disk.
pub(super) fn read() -> Process {
    // The page size is queried, since pages of 64 KiB are common on 64-bit ARM. So is the length of
    // a tick.
    let page = u64::try_from(page_size()).unwrap_or(u64::MAX);
    // An `f64` is exact for every number of ticks that occurs.
    let ticks = f64::from(u32::try_from(clock_ticks_per_second()).unwrap_or(u32::MAX));
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may contain anything. The numbers follow its last parenthesis.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    // The first of them is field 3.
    let field = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let integer = |number: usize| {
        fields
            .get(number - 3)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let booted = fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = booted
        .lines()
        .find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok())
        .unwrap_or(0.0);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let descriptors_max = limits.lines().find_map(|line| {
        line.strip_prefix("Max open files")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    Process {
        resident: integer(24).saturating_mul(page),
        virtual_memory: integer(23),
        cpu: (field(14) + field(15)) / ticks,
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64),
        descriptors_max: descriptors_max.unwrap_or(0),
        threads: integer(20),
        started: booted + field(22) / ticks,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_values_of_this_process_are_plausible() {
        let process = super::read();
        assert!(
            process.resident > 1 << 20 && process.virtual_memory > process.resident,
            "{process:?}"
        );
        assert!(
            process.threads >= 1 && process.descriptors >= 3,
            "{process:?}"
        );
        assert!(
            process.descriptors_max >= process.descriptors,
            "{process:?}"
        );
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64();
        assert!(
            process.started > now - 3600.0 && process.started < now + 10.0,
            "{process:?}, now {now}"
        );
    }
}
