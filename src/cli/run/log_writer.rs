//! Gathers the lines of the log into few writes.
//!
//! A line waits up to [`DELAY`] for others, so that a relay under load writes a hundred lines at
//! once. Warnings and errors are written at once, after all lines before them; so is every line
//! once the log is closed, at the end of the process. If the reader of the log is slow, callers wait
//! for it as soon as [`WAITING_MAX`] octets wait.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The time for which a line waits for others.
const DELAY: Duration = Duration::from_millis(5);
/// The octets that may wait.
const WAITING_MAX: usize = 256 * 1024;

/// The destination of the log's lines. Cheap to clone.
#[derive(Clone)]
pub(super) struct LineGatherer(Arc<GathererState>);

struct GathererState {
    waiting: Mutex<WaitingLines>,
    /// Notified when a line waits and the writer thread sleeps until there is one.
    filled: Condvar,
    /// Locked before `waiting`, and for as long as lines are being written, so that they keep their
    /// order.
    output: Mutex<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct WaitingLines {
    octets: Vec<u8>,
    /// True while the writer thread sleeps until there is a line.
    is_idle: bool,
    /// True if no line waits any more.
    is_closed: bool,
}

impl LineGatherer {
    /// Starts the thread that writes the lines.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self::unattended(output);
        let gathered = lines.clone();
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || gathered.run())?;
        Ok(lines)
    }

    fn unattended(output: impl Write + Send + 'static) -> Self {
        Self(Arc::new(GathererState {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            output: Mutex::new(Box::new(output)),
        }))
    }

    fn run(&self) {
        loop {
            let mut waiting = self.waiting();
            while waiting.octets.is_empty() {
                waiting.is_idle = true;
                waiting = self
                    .0
                    .filled
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            waiting.is_idle = false;
            drop(waiting);
            // While there are lines, nobody needs to wake this thread.
            loop {
                std::thread::sleep(DELAY);
                if !self.flush() {
                    break;
                }
            }
        }
    }

    /// Adds a line. An urgent one is written at once.
    fn add(&self, line: &[u8], is_urgent: bool) {
        let mut waiting = self.waiting();
        waiting.octets.extend_from_slice(line);
        let writes = is_urgent || waiting.is_closed || waiting.octets.len() >= WAITING_MAX;
        let wakes = !writes && std::mem::take(&mut waiting.is_idle);
        drop(waiting);
        if writes {
            self.flush();
        } else if wakes {
            self.0.filled.notify_one();
        }
    }

    /// Writes all lines that wait. Returns false if there were none.
    fn flush(&self) -> bool {
        let mut output = self.0.output.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = std::mem::take(&mut self.waiting().octets);
        if lines.is_empty() {
            return false;
        }
        // Nobody could be informed of a failure: this is the log.
        let _ = output.write_all(&lines);
        drop(output);
        lines.clear();
        let mut waiting = self.waiting();
        if waiting.octets.capacity() == 0 && lines.capacity() <= WAITING_MAX {
            waiting.octets = lines;
        }
        true
    }

    /// Writes all lines that wait. From then on each line is written at once.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
        self.flush();
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingLines> {
        // No code panics while it holds the lock.
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer of one line.
pub(super) struct LineSink<'a> {
    lines: &'a LineGatherer,
    is_urgent: bool,
}

impl Write for LineSink<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.add(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineGatherer {
    type Writer = LineSink<'a>;

    fn make_writer(&'a self) -> LineSink<'a> {
        LineSink {
            lines: self,
            is_urgent: true,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineSink<'a> {
        LineSink {
            lines: self,
            // The more verbose level is the greater one.
            is_urgent: *metadata.level() <= Level::WARN,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// An output that passes each write to the test.
    struct LoggedWrites(mpsc::Sender<String>);

    impl Write for LoggedWrites {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8(octets.to_vec()).expect("UTF-8");
            self.0.send(text).expect("the test waits");
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs events whose lines go to a gatherer, and passes it and its writes on.
    fn with_lines(
        start: fn(LoggedWrites) -> LineGatherer,
        check: fn(&LineGatherer, mpsc::Receiver<String>),
    ) {
        let (sender, writes) = mpsc::channel();
        let lines = start(LoggedWrites(sender));
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(lines.clone())
            .with_ansi(false)
            .with_target(false)
            .without_time();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            check(&lines, writes);
        });
    }

    fn unattended(writes: LoggedWrites) -> LineGatherer {
        LineGatherer::unattended(writes)
    }

    #[test]
    fn a_warning_is_written_at_once_after_the_lines_before_it() {
        with_lines(unattended, |_, writes| {
            tracing::info!("one");
            tracing::debug!("two");
            assert!(writes.try_recv().is_err(), "they wait");
            tracing::warn!("three");
            assert_eq!(
                writes.try_recv().as_deref(),
                Ok(" INFO one\nDEBUG two\n WARN three\n")
            );
            tracing::error!("four");
            assert_eq!(writes.try_recv().as_deref(), Ok("ERROR four\n"));
            assert!(writes.try_recv().is_err(), "each once");
        });
    }

    #[test]
    fn a_closed_log_writes_each_line_at_once() {
        with_lines(unattended, |lines, writes| {
            tracing::info!("one");
            lines.close();
            assert_eq!(writes.try_recv().as_deref(), Ok(" INFO one\n"));
            tracing::info!("two");
            assert_eq!(writes.try_recv().as_deref(), Ok(" INFO two\n"));
        });
    }

    /// A log whose reader is slow does not grow without end.
    #[test]
    fn lines_are_written_when_too_many_wait() {
        with_lines(unattended, |_, writes| {
            let text = "x".repeat(1000);
            let most = WAITING_MAX / text.len() + 1;
            let written = (0..most).find_map(|_| {
                tracing::info!("{text}");
                writes.try_recv().ok()
            });
            let octets = written.map(|lines| lines.len());
            let expected = WAITING_MAX..WAITING_MAX + 2 * text.len();
            assert!(
                octets.is_some_and(|octets| expected.contains(&octets)),
                "{octets:?}"
            );
        });
    }

    #[test]
    fn a_line_that_waits_is_written_soon() {
        let start = |writes| LineGatherer::start(writes).expect("a thread");
        with_lines(start, |_, writes| {
            for text in ["one", "two"] {
                tracing::info!("{text}");
                assert_eq!(writes.recv(), Ok(format!(" INFO {text}\n")));
            }
        });
    }
}
