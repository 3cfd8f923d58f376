//! A small disk, and what fills it up.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::within;

/// A file system in memory; it goes when this does.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// `None` where we may not; root may.
    pub(crate) fn on(folder: PathBuf, size: u64) -> Option<Self> {
        let size = format!("size={size},mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "gatepost-test"]).arg(&folder).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(folder));
        }
        assert_ne!(fs::metadata("/proc/self").map_or(0, |own| own.uid()), 0, "root cannot mount a small file system");
        println!("SKIPPED: a small file system could not be mounted; run this as root");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a relay that is still being killed must not keep it.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} is still mounted", self.0.display());
    }
}

/// A file that takes up room.
#[derive(Debug)]
pub(crate) struct Ballast(PathBuf);

impl Ballast {
    pub(crate) fn at(file: PathBuf) -> Self {
        Self(file)
    }

    /// Grows it until `left` octets are free.
    pub(crate) fn leave(&self, left: u64) {
        let file = fs::File::options().create(true).truncate(false).write(true).open(&self.0).expect("the ballast");
        let grow = || {
            let length = file.metadata().expect("it is open").len();
            let free = free(&self.0);
            assert!(free >= left, "{free} octets are free and {left} should be");
            let length = (length + free - left).to_string();
            let grown =
                Command::new("fallocate").args(["--length", &length]).arg(&self.0).stderr(Stdio::null()).status();
            grown.is_ok_and(|grown| grown.success())
        };
        // The relay may take some in between.
        assert!(within(Duration::from_secs(5), grow), "{} was not made larger", self.0.display());
    }

    /// Takes whatever is free, again and again for a while, although the relay takes and gives back some in between.
    pub(crate) fn fill(&self, time: Duration) {
        let mut file = fs::File::create(&self.0).expect("the ballast");
        let (block, until) = (vec![0; 256 << 10], Instant::now() + time);
        while Instant::now() < until {
            if file.write(&block).is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    pub(crate) fn drop_all(self) {
        fs::remove_file(self.0).expect("the ballast");
    }
}

/// Octets that are free where a file is.
fn free(file: &Path) -> u64 {
    let told = Command::new("stat").args(["--file-system", "--format", "%a %S"]).arg(file).output().expect("stat");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let numbers: Vec<u64> = told.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [blocks, size] = numbers[..] else { panic!("stat said {told:?}") };
    blocks * size
}
