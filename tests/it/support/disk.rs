//! A small disk, and what fills it up.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A file system in memory; it goes when this does.
#[derive(Debug)]
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// `None` where we may not; root may.
    pub(crate) fn on(folder: PathBuf, size: u64) -> Option<Self> {
        let size = format!("size={size},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "gatepost-test"])
            .arg(&folder)
            .output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(folder));
        }
        assert_ne!(
            fs::metadata("/proc/self").map_or(0, |own| own.uid()),
            0,
            "root cannot mount a small file system"
        );
        println!("SKIPPED: a small file system could not be mounted; run this as root");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a relay that is still being killed must not keep it.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "{} is still mounted",
            self.0.display()
        );
    }
}

/// A file that takes up room.
#[derive(Debug)]
pub(crate) struct Ballast(pub(crate) PathBuf);

impl Ballast {
    pub(crate) fn at(file: PathBuf) -> Self {
        Self(file)
    }

    /// Takes whatever is free, again and again for a while, although the relay takes and gives back
    /// some in between.
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
