//! The one thread that writes: everything that waits is appended at once and synced once.
//!
//! Nothing is given up while the process goes on: what cannot be written is tried again, and whoever handed
//! it in waits. After a failure the file is cut back to what is known to be durable and the same octets are
//! written anew, so that a sync that succeeds then speaks of them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::chain::Head;
use super::folder::{self, DayFile};
use super::record::Statement;
use super::{EvidenceError, Order};

mod clock;
#[cfg(test)]
mod tests;

use clock::Clock;
pub(super) use clock::Moment;

/// Octets that are written at once, at most, but for what one attempt hands in.
const BATCH: usize = 4 << 20;
/// How often old files are looked for.
const ROUND: Duration = Duration::from_hours(1);
/// How often it is looked whether there is room for a reserve again.
const LOOK: Duration = Duration::from_mins(1);
/// So long a record waits for others to share its sync with.
const FOR_COMPANY: Duration = Duration::from_millis(5);
/// Between two tries, and between two words about it.
const PAUSE: Duration = Duration::from_secs(2);
const REMINDER: Duration = Duration::from_mins(1);

/// The file of the day.
#[derive(Debug)]
struct Page {
    file: File,
    of: DayFile,
    /// Octets that are durable.
    length: u64,
    /// A write failed: behind `length` there may be anything.
    unsure: bool,
}

/// The end of the chain, and where it is written on.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    keep: Duration,
    head: Head,
    page: Option<Page>,
    clock: Clock,
    /// When old files were last looked for, and room for a reserve.
    tidied: Instant,
    looked: Instant,
    /// It was said that nothing is dropped because the clock is in doubt.
    is_doubt_told: bool,
    /// Since when nothing can be written, and when that was last said.
    trouble: Option<(Instant, Instant)>,
    /// Whether that is so now, for those who would begin more.
    stuck: Arc<AtomicBool>,
    _lock: File,
}

/// Tells that the thread has ended, however it did.
struct Ending(CancellationToken);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Writer {
    /// Takes the folder, sets right what a crash left, and says so in the chain.
    pub(super) fn open(
        folder: &Path,
        keep: Duration,
        now: Moment,
        stuck: Arc<AtomicBool>,
    ) -> Result<Self, EvidenceError> {
        let lock = folder::take(folder)?;
        let head = folder::recover(folder, now.wall)?;
        // Before anything is written with the time of now, which would be the newest.
        let days: Vec<_> = folder::files(folder)?.into_iter().map(|file| file.day).collect();
        let mut writer = Self {
            folder: folder.to_owned(),
            keep,
            head,
            page: None,
            clock: Clock::new(&days, keep, now),
            tidied: now.steady,
            looked: now.steady,
            is_doubt_told: false,
            trouble: None,
            stuck,
            _lock: lock,
        };
        let failed = |error: io::Error| EvidenceError::new("write to the evidence in", folder, &error);
        if let Some(newest) = days.last().filter(|newest| **newest > folder::day(now.wall)) {
            tracing::warn!(file = %DayFile::of(folder, *newest).path.display(), "the evidence reaches into the future; was the clock wrong? it goes on in that file");
        }
        if head == Head::START {
            let begun = Statement::Begun { gatepost: env!("CARGO_PKG_VERSION").to_owned() };
            writer.append(&[begun.inside(now.wall)], now).map_err(failed)?;
        }
        writer.tell_torn(now)?;
        writer.tidy(now);
        Ok(writer)
    }

    /// Says in the chain what was set aside. On a full disk a later start does; mail must not wait for it.
    fn tell_torn(&mut self, now: Moment) -> Result<(), EvidenceError> {
        for untold in folder::untold(&self.folder)? {
            let torn = [Statement::Torn { aside: untold.final_name(), octets: untold.octets }.inside(now.wall)];
            let mut told = self.append(&torn, now);
            if told.as_ref().is_err_and(folder::is_full) && folder::give_up_reserve(&self.folder) {
                told = self.append(&torn, now);
            }
            match told {
                Ok(()) => untold.told(&self.folder)?,
                Err(error) if folder::is_full(&error) => {
                    tracing::warn!(aside = %untold.path.display(), %error, "the evidence does not tell yet what was set aside; the next start with room on the disk does");
                    return Ok(());
                }
                Err(error) => return Err(EvidenceError::new("write to the evidence in", &self.folder, &error)),
            }
        }
        Ok(())
    }

    /// Starts the thread.
    pub(super) fn start(
        self,
        orders: Receiver<Order>,
        ending: Arc<AtomicBool>,
        ended: CancellationToken,
    ) -> Result<(), EvidenceError> {
        let folder = self.folder.clone();
        let run = move || {
            let _ending = Ending(ended);
            // Gone before that is told, and the lock with it.
            let mut writer = self;
            writer.run(&orders, &ending);
        };
        let started = std::thread::Builder::new().name("evidence-writer".into()).spawn(run);
        started.map(drop).map_err(|error| EvidenceError::new("start the writer of", &folder, &error))
    }

    fn run(&mut self, orders: &Receiver<Order>, ending: &AtomicBool) {
        loop {
            let order = orders.recv_timeout(LOOK);
            self.look_round(Moment::now());
            let mut next = match order {
                Ok(order) => {
                    // Nobody holds a connection or a client while he waits here.
                    std::thread::sleep(FOR_COMPANY);
                    Some(order)
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (mut lines, mut waiting, mut octets) = (Vec::new(), Vec::new(), 0);
            let mut closes = false;
            while let Some(order) = next {
                match order {
                    Order::Write { lines: more, done } => {
                        octets += more.iter().map(String::len).sum::<usize>();
                        lines.extend(more);
                        waiting.push(done);
                    }
                    Order::Keep(keep) => {
                        self.keep = keep;
                        self.tidy(Moment::now());
                    }
                    Order::Close => closes = true,
                }
                next = if closes || octets >= BATCH { None } else { orders.try_recv().ok() };
            }
            self.settle(&lines, waiting, ending);
            if closes {
                return;
            }
        }
    }

    /// What is done from time to time, however much there is to write.
    fn look_round(&mut self, now: Moment) {
        let since = |earlier| now.steady.saturating_duration_since(earlier);
        if since(self.tidied) >= ROUND {
            self.tidied = now.steady;
            self.tidy(now);
        } else if since(self.looked) >= LOOK {
            self.looked = now.steady;
            self.reserve();
        }
    }

    /// Writes a batch and answers for it. Where the process ends it may be given up; then nobody is answered.
    fn settle(&mut self, lines: &[String], waiting: Vec<oneshot::Sender<()>>, ending: &AtomicBool) {
        if lines.is_empty() {
            return;
        }
        let day = self.page.as_ref().map(|page| page.of.day);
        while let Err(error) = self.append(lines, Moment::now()) {
            if folder::is_full(&error) && folder::give_up_reserve(&self.folder) {
                tracing::warn!(folder = %self.folder.display(), "the disk is full; what was kept in reserve for evidence is given up");
                continue;
            }
            self.stuck.store(true, Ordering::Relaxed);
            // Looked at before the word and behind the try: the end has one try of its own.
            let gives_up = ending.load(Ordering::Relaxed);
            self.tell(&error, lines.len());
            if gives_up {
                self.forget();
                tracing::error!(folder = %self.folder.display(), records = lines.len(), "evidence was not written before the end: its deliveries are not marked as done, and may be repeated after the restart");
                return;
            }
            let until = Instant::now() + PAUSE;
            while Instant::now() < until && !ending.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        self.stuck.store(false, Ordering::Relaxed);
        if let Some((since, _)) = self.trouble.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(folder = %self.folder.display(), seconds, "evidence can be written again");
        }
        for done in waiting {
            // Who does not wait any more was cut short; it is durable all the same.
            let _ = done.send(());
        }
        if self.page.as_ref().map(|page| page.of.day) > day {
            self.tidy(Moment::now());
        }
    }

    /// Cuts off what may not be durable: the next process could not tell, and would go on from it.
    fn forget(&mut self) {
        if let Some(page) = self.page.as_ref().filter(|page| page.unsure && page.is_in_place()) {
            // Where this fails as well, the next process finds it.
            let _ = page.file.set_len(page.length);
        }
    }

    /// Says that nothing can be written: at once, then once a minute.
    fn tell(&mut self, error: &io::Error, records: usize) {
        let now = Instant::now();
        let since = self.trouble.map_or(now, |(since, _)| since);
        if self.trouble.is_some_and(|(_, told)| now.duration_since(told) < REMINDER) {
            return;
        }
        tracing::error!(
            folder = %self.folder.display(), %error, records, seconds = since.elapsed().as_secs(),
            "evidence cannot be written, and no delivery is finished without it: mail waits; make room, or see that the disk works"
        );
        self.trouble = Some((since, now));
    }

    /// Appends records, durably; all of them or, where this fails, none that counts.
    fn append(&mut self, lines: &[String], now: Moment) -> io::Result<()> {
        self.turn(now)?;
        let Some(page) = &mut self.page else { return Err(io::Error::other("there is no file")) };
        let (mut head, mut text) = (self.head, String::new());
        for line in lines {
            head.seal(line, &mut text);
        }
        if page.unsure {
            page.file.set_len(page.length)?;
        }
        page.unsure = true;
        if let Err(error) = page.file.write_all(text.as_bytes()).and_then(|()| page.file.sync_data()) {
            // At once: a process that is killed before the next try must not leave what may not be durable.
            let _next_try_cuts = page.file.set_len(page.length);
            return Err(error);
        }
        page.unsure = false;
        page.length += text.len() as u64;
        self.head = head;
        Ok(())
    }

    /// Opens the file of the day. Days do not go back, whatever the clock does: the order is that of the
    /// chain.
    fn turn(&mut self, now: Moment) -> io::Result<()> {
        let today = folder::day(now.wall);
        // What a failed write has left is cut off while the file is still ours: in the file of a day that is
        // over, it would be taken for records that stand twice.
        if let Some(page) = self.page.as_mut().filter(|page| page.unsure && page.is_in_place()) {
            page.file.set_len(page.length)?;
            page.file.sync_data()?;
            page.unsure = false;
        }
        if let Some(page) = &self.page {
            if page.of.day >= today && page.is_in_place() {
                return Ok(());
            }
            if page.of.day >= today {
                tracing::error!(
                    file = %page.of.path.display(),
                    "the file with the evidence was changed, moved or removed by somebody else; the chain goes on, and gatepost evidence verify tells what is missing"
                );
            }
        }
        let newest = folder::files(&self.folder).map_err(io::Error::other)?.pop();
        let day = newest.map_or(today, |newest| newest.day.max(today));
        self.page = Some(Page::open(&self.folder, day)?);
        Ok(())
    }

    /// Takes up some room, where there is plenty, for the records that a full disk must still take: without
    /// them no delivery is finished, and nothing of the queue leaves the disk.
    fn reserve(&self) {
        if let Err(error) = folder::keep_reserve(&self.folder) {
            tracing::debug!(folder = %self.folder.display(), %error, "no room is kept in reserve for evidence");
        }
    }

    /// Drops files that are too old, and says so in the chain first. What fails here is tried again later.
    fn tidy(&mut self, now: Moment) {
        self.reserve();
        let is_believed = self.clock.is_believed(now, self.keep);
        self.is_doubt_told &= !is_believed;
        if let Err(error) = self.drop_old(now, is_believed) {
            tracing::error!(folder = %self.folder.display(), %error, "old evidence could not be dropped; it is tried again");
        }
    }

    fn drop_old(&mut self, now: Moment, is_believed: bool) -> Result<(), EvidenceError> {
        let files = folder::files(&self.folder)?;
        // A file is as old as the last moment of its day.
        let Some(oldest) = now.wall.checked_sub(self.keep).ok().map(folder::day) else { return Ok(()) };
        let newest = files.last().map(|newest| newest.day);
        let (old, kept): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| file.day < oldest && Some(file.day) != newest);
        if old.is_empty() {
            return Ok(());
        }
        if !is_believed {
            if !std::mem::replace(&mut self.is_doubt_told, true) {
                tracing::warn!(folder = %self.folder.display(), clock = %now.wall, "no evidence is dropped for now: the clock is far ahead of the last record and of the time that has gone by; if it is wrong, set it, and nothing is lost; if it is right, what is older than [evidence] keep goes when it has gone on like that for a day");
            }
            return Ok(());
        }
        let last = before(&kept)?.unwrap_or(self.head);
        let files = old.len() as u64;
        let dropped = Statement::Dropped { files, last_seq: last.seq, last_hash: last.hash };
        self.append(&[dropped.inside(now.wall)], now)
            .map_err(|error| EvidenceError::new("write to the evidence in", &self.folder, &error))?;
        for file in &old {
            fs::remove_file(&file.path).map_err(|error| EvidenceError::new("remove", &file.path, &error))?;
        }
        tracing::info!(folder = %self.folder.display(), files, last_seq = last.seq, "evidence older than [evidence] keep was dropped");
        Ok(())
    }
}

/// The head before the first record of these files; `None` where they have none.
fn before(files: &[DayFile]) -> Result<Option<Head>, EvidenceError> {
    for file in files {
        let mut lines = super::read::Lines::open(&file.path)?;
        while let Some(line) = lines.next()? {
            if let Ok(link) = super::chain::read(line.text) {
                return Ok(Some(Head { seq: link.seq.saturating_sub(1), hash: link.prev }));
            }
        }
    }
    Ok(None)
}

impl Page {
    fn open(folder: &Path, day: jiff::civil::Date) -> io::Result<Self> {
        let of = DayFile::of(folder, day);
        let file = folder::append_to(&of.path)?;
        folder::sync(folder)?;
        let mut length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            // Somebody else's half line must not become part of ours.
            File::open(&of.path)?.read_exact_at(&mut last, length - 1)?;
        }
        if last != *b"\n" {
            (&file).write_all(b"\n")?;
            length += 1;
        }
        Ok(Self { file, of, length, unsure: false })
    }

    /// Whether it is still what its name leads to, and as long as we left it.
    fn is_in_place(&self) -> bool {
        let (Ok(named), Ok(ours)) = (fs::metadata(&self.of.path), self.file.metadata()) else { return false };
        (named.dev(), named.ino()) == (ours.dev(), ours.ino()) && (self.unsure || ours.len() == self.length)
    }
}
