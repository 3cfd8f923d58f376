//! Measures the time until a message is durable in the spool, with the removal soon after, as
//! deliveries do it. For comparison, in the same run on the same disk: an append-only file with one
//! shared `fdatasync`, and one synced file per message.
//!
//! `cargo bench --bench spool` runs everything; `cargo bench --bench spool -- 20 4096` runs only 20
//! writers of 4,096 octets. `SPOOL_BENCH_DIR` names a folder on the disk to measure;
//! `SPOOL_BENCH_SECONDS` is the duration of each measurement (default 3).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatepost::smtp::address::{Mailbox, ReversePath};
use gatepost::smtp::envelope::{Envelope, Recipient};
use gatepost::storage::spool::{Claim, Spool as _, SqliteSpool};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

const WRITERS: [usize; 3] = [1, 20, 200];
const SIZES: [usize; 3] = [4 << 10, 256 << 10, 5 << 20];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // A test runner that runs every target started this.
        println!("run me with: cargo bench --bench spool");
        return;
    }
    let wanted: Vec<usize> = arguments
        .iter()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let seconds = std::env::var("SPOOL_BENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(3.0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    println!(
        "writers     octets  what              messages/s   of bare   CPU µs/msg    p50 ms    p99 ms    max ms"
    );
    for writers in WRITERS
        .into_iter()
        .filter(|writers| wanted.first().is_none_or(|only| only == writers))
    {
        for size in SIZES
            .into_iter()
            .filter(|size| wanted.get(1).is_none_or(|only| only == size))
        {
            runtime.block_on(compare(writers, size, Duration::from_secs_f64(seconds)));
        }
    }
    if wanted.is_empty() {
        runtime.block_on(start_up(50_000));
    }
}

fn place() -> tempfile::TempDir {
    let folder = std::env::var_os("SPOOL_BENCH_DIR");
    tempfile::tempdir_in(folder.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into()))
        .expect("a folder to measure in")
}

/// Measures the time of a start with `messages` of 4 KiB in the queue.
async fn start_up(messages: usize) {
    let folder = place();
    let store = Arc::new(Store::Spool(Box::new(
        SqliteSpool::open(folder.path()).expect("a spool"),
    )));
    let body = Bytes::from(vec![b'x'; 4 << 10]);
    let writers = (0..100).map(|_| {
        let (store, body) = (Arc::clone(&store), body.clone());
        tokio::spawn(async move {
            for _ in 0..messages / 100 {
                store.accept(&body).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    drop(store);
    let begun = Instant::now();
    let spool = SqliteSpool::open(folder.path()).expect("a spool");
    let opened = begun.elapsed();
    let (listing, mut last, mut found) = (Instant::now(), None, 0);
    loop {
        let page = spool.scan(last, 1000).await.expect("listed");
        let Some(stored) = page.last() else { break };
        (last, found) = (Some(stored.id), found + page.len());
    }
    println!(
        "a queue of {found}: opened in {opened:.0?}, listed in {:.0?}",
        listing.elapsed()
    );
}

async fn compare(writers: usize, size: usize, time: Duration) {
    let folder = place();
    let body = Bytes::from(
        b"0123456789abcdef012345\r\n"
            .iter()
            .copied()
            .cycle()
            .take(size)
            .collect::<Vec<_>>(),
    );
    let mut bare = None;
    for (name, store) in [
        (
            "bare append",
            Store::Log(Log::start(&folder.path().join("log"))),
        ),
        (
            "file per message",
            Store::Files(Files::start(folder.path().join("files"))),
        ),
        (
            "spool",
            Store::Spool(Box::new(
                SqliteSpool::open(&folder.path().join("spool")).expect("a spool"),
            )),
        ),
    ] {
        let store = Arc::new(store);
        // The first run warms up: the steady state of a relay is measured.
        measure(&store, writers, &body, time / 3).await;
        let measured = measure(&store, writers, &body, time).await;
        let rate = measured.rate();
        let of_bare = rate / *bare.get_or_insert(rate) * 100.0;
        println!(
            "{writers:>7} {size:>10}  {name:<16} {rate:>11.0} {of_bare:>8.0}% {:>12.1} {:>9.2} {:>9.2} {:>9.2}",
            measured.cpu.as_secs_f64() * 1e6 / float(measured.latencies.len()),
            measured.percentile(50),
            measured.percentile(99),
            measured.percentile(100),
        );
        if let Ok(Store::Spool(spool)) = Arc::try_unwrap(store) {
            let stats = spool.stats();
            let gathered = stats.operations / stats.transactions.max(1);
            println!("                    ({gathered} operations to a transaction)");
        }
    }
}

struct Measured {
    took: Duration,
    cpu: Duration,
    latencies: Vec<Duration>,
}

impl Measured {
    fn rate(&self) -> f64 {
        float(self.latencies.len()) / self.took.as_secs_f64()
    }

    /// The latencies, in milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        self.latencies[(self.latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3
    }
}

/// Runs writers that accept a message and remove it, again and again. The latency is that of
/// accepting.
async fn measure(store: &Arc<Store>, writers: usize, body: &Bytes, time: Duration) -> Measured {
    let (start, cpu) = (Instant::now(), cpu_time());
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, body) = (Arc::clone(store), body.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while latencies.is_empty() || start.elapsed() < time {
                    let begun = Instant::now();
                    let accepted = store.accept(&body).await;
                    latencies.push(begun.elapsed());
                    store.remove(accepted).await;
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a writer"));
    }
    let (took, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    latencies.sort_unstable();
    Measured {
        took,
        cpu,
        latencies,
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("no bench has that many"))
}

/// Returns the processor time of this process so far, user and system, to a hundredth of a second.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .collect();
    // Fields 14 and 15 of proc(5), counted from the third, in the ticks of USER_HZ, which is 100.
    let ticks: u64 =
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}

/// A message that a store has accepted.
enum Accepted {
    Number(u64),
    Claim(Claim),
}

enum Store {
    Log(Log),
    Files(Files),
    Spool(Box<SqliteSpool>),
}

impl Store {
    async fn accept(&self, body: &Bytes) -> Accepted {
        match self {
            Self::Log(log) => Accepted::Number(log.append(body.clone()).await),
            Self::Files(files) => Accepted::Number(files.accept(body.clone()).await),
            Self::Spool(spool) => {
                let mut draft = spool.draft();
                // The content arrives in chunks, as from a connection.
                for chunk in body.chunks(16 << 10) {
                    draft.write(chunk).await.expect("written");
                }
                let committed = spool.commit(draft, envelope()).await;
                Accepted::Claim(committed.expect("durable").1.claim)
            }
        }
    }

    async fn remove(&self, accepted: Accepted) {
        match (self, accepted) {
            (Self::Log(log), Accepted::Number(id)) => {
                let _written = log.append(Bytes::copy_from_slice(&id.to_le_bytes())).await;
            }
            (Self::Files(files), Accepted::Number(id)) => files.remove(id).await,
            (Self::Spool(spool), Accepted::Claim(claim)) => {
                spool.remove(claim).await.expect("removed");
            }
            _ => panic!("a message of another store"),
        }
    }
}

fn envelope() -> Envelope {
    let sender = ReversePath::parse("somebody@example.org").expect("valid");
    Envelope::new(
        sender,
        vec![Recipient::new(
            Mailbox::parse("somebody.else@example.net").expect("valid"),
        )],
    )
}

/// One file with one writer and one sync for all waiting messages: the lowest cost of durability.
/// It frees no space and cannot find a message again.
struct Log {
    waiting: Arc<(Mutex<Waiting>, Condvar)>,
    writer: Option<std::thread::JoinHandle<()>>,
    next: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    records: Vec<(Bytes, oneshot::Sender<()>)>,
    ended: bool,
}

impl Log {
    fn start(path: &Path) -> Self {
        let waiting: Arc<(Mutex<Waiting>, Condvar)> = Arc::default();
        let mut file = File::create(path).expect("a log");
        let shared = Arc::clone(&waiting);
        let writer = std::thread::spawn(move || {
            let mut block = Vec::new();
            loop {
                let guard = shared.0.lock().expect("no panic");
                let mut guard = shared
                    .1
                    .wait_while(guard, |all| all.records.is_empty() && !all.ended)
                    .expect("no panic");
                let records = std::mem::take(&mut guard.records);
                drop(guard);
                if records.is_empty() {
                    break;
                }
                block.clear();
                for (record, _) in &records {
                    block.extend_from_slice(record);
                }
                file.write_all(&block).expect("room");
                file.sync_data().expect("a disk");
                for (_, reply) in records {
                    reply.send(()).expect("a writer waits");
                }
            }
        });
        Self {
            waiting,
            writer: Some(writer),
            next: AtomicU64::new(0),
        }
    }

    async fn append(&self, record: Bytes) -> u64 {
        let (reply, answer) = oneshot::channel();
        self.waiting
            .0
            .lock()
            .expect("no panic")
            .records
            .push((record, reply));
        self.waiting.1.notify_one();
        answer.await.expect("synced");
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.waiting.0.lock().expect("no panic").ended = true;
        self.waiting.1.notify_one();
        if let Some(writer) = self.writer.take() {
            writer.join().expect("no panic");
        }
    }
}

/// One file per message: written, synced, renamed, and its folder synced. It is removed without a
/// sync.
struct Files {
    folder: PathBuf,
    next: AtomicU64,
}

impl Files {
    fn start(folder: PathBuf) -> Self {
        std::fs::create_dir(&folder).expect("a folder");
        Self {
            folder,
            next: AtomicU64::new(0),
        }
    }

    async fn accept(&self, body: Bytes) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.clone();
        let written = spawn_blocking(move || {
            let part = folder.join(format!("{id}.part"));
            let mut file = File::create(&part)?;
            file.write_all(&body)?;
            file.sync_all()?;
            std::fs::rename(&part, folder.join(id.to_string()))?;
            File::open(&folder)?.sync_all()
        });
        written.await.expect("no panic").expect("durable");
        id
    }

    async fn remove(&self, id: u64) {
        let path = self.folder.join(id.to_string());
        spawn_blocking(move || std::fs::remove_file(path))
            .await
            .expect("no panic")
            .expect("removed");
    }
}
