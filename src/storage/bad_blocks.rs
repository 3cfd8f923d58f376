//! Reads files around the blocks that the disk cannot read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::io::Errno;

/// The size of a block in octets: that of a page of the system, which reads no less.
const BLOCK: u64 = 4096;

/// Octets of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SalvagedOctets {
    /// The octets, with zeros in place of those that cannot be read.
    pub(super) octets: Vec<u8>,
    /// The places in the file that cannot be read, in their order.
    pub(super) unreadable: Vec<Range<u64>>,
}

/// Returns whether the error means that the disk cannot read these octets, and no later try can
/// either. Any other error may pass.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    // EUCLEAN: the file system found its structures, or its checksum of the data, damaged.
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::UCLEAN))
}

/// Reads a file as a whole.
pub(super) fn read_file(path: &Path) -> io::Result<SalvagedOctets> {
    match std::fs::read(path) {
        Ok(octets) => Ok(SalvagedOctets {
            octets,
            unreadable: Vec::new(),
        }),
        Err(error) if is_unreadable(&error) => {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            read_blocks(|block, at| file.read_exact_at(block, at), 0..length)
        }
        Err(error) => Err(error),
    }
}

/// Reads a part of a file.
pub(super) fn read_part(file: &File, place: Range<u64>) -> io::Result<SalvagedOctets> {
    let mut octets = vec![0; length(&place)];
    match file.read_exact_at(&mut octets, place.start) {
        Ok(()) => Ok(SalvagedOctets {
            octets,
            unreadable: Vec::new(),
        }),
        Err(error) if is_unreadable(&error) => {
            read_blocks(|block, at| file.read_exact_at(block, at), place)
        }
        Err(error) => Err(error),
    }
}

/// Reads block by block.
fn read_blocks(
    read: impl Fn(&mut [u8], u64) -> io::Result<()>,
    place: Range<u64>,
) -> io::Result<SalvagedOctets> {
    let mut found = SalvagedOctets {
        octets: vec![0; length(&place)],
        unreadable: Vec::new(),
    };
    let (mut at, mut left) = (place.start, &mut found.octets[..]);
    while !left.is_empty() {
        let end = (at + 1).next_multiple_of(BLOCK).min(place.end);
        let (block, others) = left.split_at_mut(length(&(at..end)));
        match read(block, at) {
            Ok(()) => {}
            Err(error) if is_unreadable(&error) => {
                block.fill(0);
                match found.unreadable.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => found.unreadable.push(at..end),
                }
            }
            Err(error) => return Err(error),
        }
        (at, left) = (end, others);
    }
    Ok(found)
}

/// Returns the number of octets, which fits the memory unless the file does not.
fn length(place: &Range<u64>) -> usize {
    usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of sevens with these bad blocks.
    fn disk(bad: &[u64], error: Errno) -> impl Fn(&mut [u8], u64) -> io::Result<()> {
        move |block, at| {
            assert!(at / BLOCK == (at + block.len() as u64 - 1) / BLOCK, "{at}");
            if bad.contains(&(at / BLOCK)) {
                block.fill(9);
                return Err(error.into());
            }
            block.fill(7);
            Ok(())
        }
    }

    #[test]
    fn blocks_that_cannot_be_read_are_zero_and_named() {
        for error in [Errno::IO, Errno::UCLEAN] {
            let found = read_blocks(disk(&[1, 2, 4], error), 100..5 * BLOCK - 10);
            let found = found.expect("the rest can be read");
            assert_eq!(
                found.unreadable,
                [BLOCK..3 * BLOCK, 4 * BLOCK..5 * BLOCK - 10]
            );
            for (at, octet) in (100..).zip(&found.octets) {
                let is_bad = found.unreadable.iter().any(|place| place.contains(&at));
                assert_eq!(*octet, if is_bad { 0 } else { 7 }, "{at}");
            }
            assert_eq!(found.octets.len() as u64, 5 * BLOCK - 110);
        }
    }

    #[test]
    fn an_error_that_may_pass_is_no_bad_block() {
        for error in [Errno::NOMEM, Errno::NFILE, Errno::INTR] {
            read_blocks(disk(&[1], error), 0..3 * BLOCK).expect_err("it is passed on");
        }
    }

    #[test]
    fn a_sound_file_is_read_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, [1, 2, 3, 4, 5]).expect("written");
        let all = read_file(&path).expect("read");
        assert_eq!(
            (&all.octets[..], &all.unreadable[..]),
            (&[1, 2, 3, 4, 5][..], &[][..])
        );
        let file = File::open(&path).expect("ours");
        let part = read_part(&file, 1..4).expect("read");
        assert_eq!(
            (&part.octets[..], &part.unreadable[..]),
            (&[2, 3, 4][..], &[][..])
        );
        let beyond = read_part(&file, 3..6).expect_err("it is shorter");
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }
}
