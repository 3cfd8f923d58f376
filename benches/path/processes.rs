//! What processes have used, from /proc: a process and all its descendants together, since Postfix is
//! many. Linux only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// The unit of the times in /proc/PID/stat. Linux shows them to programs in hundredths of a second,
/// whatever the kernel's own tick.
const TICK: Duration = Duration::from_millis(10);

/// What stands in /proc/PID/stat (see proc(5)).
struct Stat {
    /// Ended, and not yet waited for.
    zombie: bool,
    parent: u32,
    /// The process itself, all its threads, those that ended too.
    own: Duration,
    /// Children that ended and were waited for, and theirs.
    reaped: Duration,
    threads: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the fields are counted from behind it, where
    // field 3 of proc(5) is the first.
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

/// What a thread has run, to the nanosecond, given its folder in /proc.
fn run_time(folder: &Path) -> Option<Duration> {
    let text = fs::read_to_string(folder.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// This process and all its descendants that live.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
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

/// The processor time that a process and its descendants have used, living or ended. Exact while none of
/// them ends in the middle of it.
pub(crate) fn cpu_time(root: u32) -> Duration {
    family(root)
        .into_iter()
        .filter_map(|pid| {
            let stat = stat(pid)?;
            // Dozens of processes, each rounded down to hundredths, would look cheaper than they are.
            let exact = (stat.threads == 1).then(|| run_time(Path::new(&format!("/proc/{pid}")))).flatten();
            Some(exact.unwrap_or(stat.own) + stat.reaped)
        })
        .sum()
}

/// The processor time that everything on this computer has used, on all cores.
pub(crate) fn computer_time() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    // user nice system idle iowait irq softirq steal (see proc(5)); what guests use is in user already.
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8).enumerate();
    let busy = fields.filter(|(place, _)| !matches!(place, 3 | 4));
    let ticks = busy.filter_map(|(_, field)| field.parse::<u32>().ok());
    ticks.map(|ticks| TICK * ticks).sum()
}

/// Tells the processor time of one thread to any other.
pub(crate) struct ThreadClock {
    folder: PathBuf,
}

impl ThreadClock {
    /// That of the calling thread.
    ///
    /// # Errors
    /// If /proc does not tell.
    pub(crate) fn here() -> io::Result<Self> {
        // A path relative to /proc: PID/task/TID.
        Ok(Self { folder: Path::new("/proc").join(fs::read_link("/proc/thread-self")?) })
    }

    /// What the thread has used so far; nothing once it has ended.
    pub(crate) fn used(&self) -> Duration {
        run_time(&self.folder).unwrap_or_default()
    }
}

/// The most memory that each of the living processes ever had (`VmHWM`), in octets, all together; pages that
/// they share are counted once.
pub(crate) fn peak_memory(root: u32) -> u64 {
    let peak = |pid: u32| -> Option<u64> {
        let high = kibibytes(&format!("/proc/{pid}/status"), "VmHWM:")?;
        let rollup = format!("/proc/{pid}/smaps_rollup");
        // Pss gives each of n processes that share a page an nth of it.
        let shared = kibibytes(&rollup, "Rss:").zip(kibibytes(&rollup, "Pss:")).map_or(0, |(rss, pss)| rss - pss);
        Some(high.saturating_sub(shared) * 1024)
    };
    family(root).into_iter().filter_map(peak).sum()
}

fn kibibytes(file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Whether one of these processes still runs.
pub(crate) fn any_lives(processes: &[u32]) -> bool {
    processes.iter().any(|&pid| stat(pid).is_some_and(|stat| !stat.zombie))
}
