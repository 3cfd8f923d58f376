//! The resources that processes used, from /proc: of a process with all its descendants, since
//! Postfix has many processes. Linux only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// The unit of the times in /proc/PID/stat. Linux shows them in hundredths of a second, whatever
/// the kernel's own tick.
const TICK: Duration = Duration::from_millis(10);

/// The fields of /proc/PID/stat (see proc(5)).
struct Stat {
    /// True if the process ended and its parent has not waited for it yet.
    zombie: bool,
    parent: u32,
    /// The time of the process with all its threads, including ended ones.
    own: Duration,
    /// The time of children that ended and were waited for, and of their children.
    reaped: Duration,
    threads: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any character; the fields are counted after it,
    // where field 3 of proc(5) is the first.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u32>().ok();
    Some(Stat {
        zombie: *fields.first()? == "Z",
        parent: number(4)?,
        own: TICK * (number(14)? + number(15)?),
        reaped: TICK * (number(16)? + number(17)?),
        threads: number(20)?,
    })
}

/// Returns the run time of a thread in nanoseconds, from its folder in /proc.
fn run_time(folder: &Path) -> Option<Duration> {
    let text = fs::read_to_string(folder.join("schedstat")).ok()?;
    text.split(' ')
        .next()?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

/// Returns this process and all its living descendants.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some((pid, stat)) = pid.and_then(|pid| Some((pid, stat(pid)?))) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        family.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    family
}

/// Returns the processor time of a process and its descendants, living or ended. Exact if none of
/// them ends meanwhile.
pub(crate) fn cpu_time(root: u32) -> Duration {
    family(root)
        .into_iter()
        .filter_map(|pid| {
            let stat = stat(pid)?;
            // Times of dozens of processes, each rounded down to hundredths, would be too low in
            // sum.
            let exact = (stat.threads == 1)
                .then(|| run_time(Path::new(&format!("/proc/{pid}"))))
                .flatten();
            Some(exact.unwrap_or(stat.own) + stat.reaped)
        })
        .sum()
}

/// Returns the processor time of the whole computer, on all cores.
pub(crate) fn computer_time() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    // user nice system idle iowait irq softirq steal (see proc(5)); user already includes guests.
    let fields = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .enumerate();
    let busy = fields.filter(|(place, _)| !matches!(place, 3 | 4));
    let ticks = busy.filter_map(|(_, field)| field.parse::<u32>().ok());
    ticks.map(|ticks| TICK * ticks).sum()
}

/// Reads the processor time of one thread from any other.
pub(crate) struct ThreadClock {
    folder: PathBuf,
}

impl ThreadClock {
    /// Creates a clock of the calling thread.
    ///
    /// # Errors
    /// An error if /proc cannot be read.
    pub(crate) fn here() -> io::Result<Self> {
        // This path is relative to /proc: PID/task/TID.
        Ok(Self {
            folder: Path::new("/proc").join(fs::read_link("/proc/thread-self")?),
        })
    }

    /// Returns the time of the thread so far; `None` once it has ended.
    pub(crate) fn used(&self) -> Duration {
        run_time(&self.folder).unwrap_or_default()
    }
}

/// Returns the sum of the peak memory of each living process (`VmHWM`), in octets; shared pages are
/// counted once.
pub(crate) fn peak_memory(root: u32) -> u64 {
    let peak = |pid: u32| -> Option<u64> {
        let high = kibibytes(&format!("/proc/{pid}/status"), "VmHWM:")?;
        let rollup = format!("/proc/{pid}/smaps_rollup");
        // Pss counts an nth of a page that n processes share.
        let shared = kibibytes(&rollup, "Rss:")
            .zip(kibibytes(&rollup, "Pss:"))
            .map_or(0, |(rss, pss)| rss - pss);
        Some(high.saturating_sub(shared) * 1024)
    };
    family(root).into_iter().filter_map(peak).sum()
}

/// Returns the memory of a process (`VmRSS`), in octets.
pub(crate) fn memory(pid: u32) -> u64 {
    kibibytes(&format!("/proc/{pid}/status"), "VmRSS:").unwrap_or_default() * 1024
}

/// Returns the octets that a process has caused to be written to disks.
pub(crate) fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"));
    line.and_then(|octets| octets.trim().parse().ok())
        .unwrap_or_default()
}

fn kibibytes(file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Returns whether one of these processes still runs.
pub(crate) fn any_lives(processes: &[u32]) -> bool {
    processes
        .iter()
        .any(|&pid| stat(pid).is_some_and(|stat| !stat.zombie))
}
