//! The pages of a database file, as the file format of SQLite has them, for a file whose tables
//! cannot be read through SQLite. It knows which pages are free, which are leaves of tables, and how
//! many columns the rows of a leaf have.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// The size of a page in octets: databases of ours have no other.
pub(super) const PAGE_SIZE: usize = 4096;
/// As [`PAGE_SIZE`].
const PAGE_OCTETS: u32 = 4096;
/// The number of octets of an entry in a page map.
const MAP_ENTRY: usize = 5;
/// The number of pages that one page map describes.
const MAPPED: u32 = PAGE_OCTETS / 5;
/// The page that SQLite never uses, because its locks are there.
const LOCK_PAGE: u32 = 0x4000_0000 / PAGE_OCTETS + 1;
/// The first octet of an inner page of a table, and of one of a table without row numbers.
const INNER: [u8; 2] = [5, 2];
/// The first octet of a leaf of a table.
const LEAF: u8 = 13;
/// The first octets of the pages that have rows of a table without row numbers: leaf and inner page.
const KEYED: [u8; 2] = [10, 2];

/// The first octets of the first page map.
pub(super) const FIRST_ENTRY: [u8; MAP_ENTRY] = [1, 0, 0, 0, 0];

/// The use of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageUse {
    /// A page of a table.
    Tree,
    /// A page that continues a row.
    Overflow,
    /// A page that is not in use. It may have rows from before.
    Free,
    /// Nothing in the file says it.
    Unknown,
}

/// The form of the rows on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowForm {
    /// True if the rows have numbers, false if the table has none (`WITHOUT ROWID`).
    pub(super) is_numbered: bool,
    /// The number of columns; `None` if the first row is damaged.
    pub(super) columns: Option<usize>,
}

/// The pages of a database file that nobody changes.
#[derive(Debug)]
pub(super) struct PageFile {
    file: File,
    /// The number of pages.
    pub(super) count: u32,
    /// True if the file has page maps, which say the use of each page.
    has_maps: bool,
    /// The free pages that the list of free pages leads to.
    free: BTreeSet<u32>,
    /// True if the list of free pages is complete.
    is_free_list_complete: bool,
}

impl PageFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let count = u32::try_from(file.metadata()?.len() / PAGE_SIZE as u64).unwrap_or(u32::MAX);
        let mut pages = Self {
            file,
            count,
            has_maps: false,
            free: BTreeSet::new(),
            is_free_list_complete: false,
        };
        let first = pages.read(1)?;
        // The first page after a map is the root of the first table. No page of a table begins so.
        pages.has_maps = pages.has(2) && pages.read(2)?.starts_with(&FIRST_ENTRY);
        pages.is_free_list_complete =
            pages.read_free_list(number(&first, 32), number(&first, 36))?;
        Ok(pages)
    }

    /// Returns the octets of a page. Pages are numbered from 1.
    fn read(&self, page: u32) -> io::Result<Vec<u8>> {
        let mut octets = vec![0; PAGE_SIZE];
        let at = (u64::from(page) - 1) * PAGE_SIZE as u64;
        self.file.read_exact_at(&mut octets, at)?;
        Ok(octets)
    }

    /// Reads the list of free pages. Returns whether all of it can be read.
    fn read_free_list(&mut self, first: u32, count: u32) -> io::Result<bool> {
        let mut trunk = first;
        while trunk != 0 {
            if !self.has(trunk) || !self.free.insert(trunk) {
                return Ok(false);
            }
            let octets = self.read(trunk)?;
            let leaves = number(&octets, 4);
            if leaves > MAX_LEAVES {
                return Ok(false);
            }
            for leaf in (0..leaves as usize).map(|at| number(&octets, 8 + 4 * at)) {
                if !self.has(leaf) || !self.free.insert(leaf) {
                    return Ok(false);
                }
            }
            trunk = number(&octets, 0);
        }
        Ok(self.free.len() as u64 == u64::from(count))
    }

    fn has(&self, page: u32) -> bool {
        (2..=self.count).contains(&page)
    }

    /// Returns the use of a page as the page maps have it, or else the list of free pages.
    pub(super) fn use_of(&self, page: u32) -> io::Result<PageUse> {
        if self.has_maps
            && let Some(found) = self.mapped_use(page)?
        {
            return Ok(found);
        }
        if self.free.contains(&page) {
            return Ok(PageUse::Free);
        }
        Ok(if self.is_free_list_complete {
            PageUse::Tree
        } else {
            PageUse::Unknown
        })
    }

    fn mapped_use(&self, page: u32) -> io::Result<Option<PageUse>> {
        let Some(map) = map_of(page) else {
            return Ok(None);
        };
        let octets = self.read(map)?;
        let at = MAP_ENTRY * (page - map - 1) as usize;
        Ok(match octets.get(at) {
            Some(1 | 5) => Some(PageUse::Tree),
            Some(2) => Some(PageUse::Free),
            Some(3 | 4) => Some(PageUse::Overflow),
            Some(_) | None => None,
        })
    }

    /// Returns the form of the rows that stand on a page; `None` if it has no rows.
    pub(super) fn rows_on(&self, page: u32) -> io::Result<Option<RowForm>> {
        let octets = self.read(page)?;
        let is_numbered = octets[0] == LEAF;
        if cell_count(&octets) == 0 || !(is_numbered || KEYED.contains(&octets[0])) {
            return Ok(None);
        }
        Ok(Some(RowForm {
            is_numbered,
            columns: column_count(&octets),
        }))
    }

    /// Returns the pages that the root of a table leads to. Damaged pages lead nowhere.
    pub(super) fn pages_below(&self, root: u32) -> io::Result<BTreeSet<u32>> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![root]);
        while let Some(page) = open.pop() {
            if !self.has(page) || !seen.insert(page) {
                continue;
            }
            let octets = self.read(page)?;
            if INNER.contains(&octets[0]) {
                open.push(number(&octets, 8));
                open.extend(cells(&octets).map(|cell| number(&octets, cell)));
            }
        }
        Ok(seen)
    }
}

/// The most entries of a page in the list of free pages.
const MAX_LEAVES: u32 = PAGE_OCTETS / 4 - 2;

/// Returns the page map that describes a page; `None` for page 1 and for a page map.
fn map_of(page: u32) -> Option<u32> {
    let before = page.checked_sub(2)?;
    let mut map = before / (MAPPED + 1) * (MAPPED + 1) + 2;
    if map == LOCK_PAGE {
        map += 1;
    }
    (page > map).then_some(map)
}

fn cell_count(octets: &[u8]) -> usize {
    short(octets, 3).unwrap_or(0)
}

/// Returns the offsets of the cells of a page.
fn cells(octets: &[u8]) -> impl Iterator<Item = usize> {
    let header = if INNER.contains(&octets[0]) { 12 } else { 8 };
    (0..cell_count(octets)).filter_map(move |cell| short(octets, header + 2 * cell))
}

/// Returns the number of columns of the first row on a page; `None` if that is damaged.
fn column_count(octets: &[u8]) -> Option<usize> {
    let mut at = cells(octets).next()?;
    if INNER.contains(&octets[0]) {
        at += 4;
    }
    let _payload = varint(octets, &mut at)?;
    if octets[0] == LEAF {
        let _row = varint(octets, &mut at)?;
    }
    let header = at;
    let length = usize::try_from(varint(octets, &mut at)?).ok()?;
    let mut columns = 0;
    while at < header.checked_add(length)? {
        let _type = varint(octets, &mut at)?;
        columns += 1;
    }
    Some(columns)
}

/// Returns the number of at most nine octets at `at`, and moves `at` after it.
fn varint(octets: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for nth in 1..=9 {
        let octet = *octets.get(*at)?;
        *at += 1;
        if nth == 9 {
            return Some(value << 8 | u64::from(octet));
        }
        value = value << 7 | u64::from(octet & 0x7f);
        if octet & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

fn short(octets: &[u8], at: usize) -> Option<usize> {
    let octets = octets.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([octets[0], octets[1]])))
}

/// Returns the number of four octets at `at`; 0 if they are not there.
fn number(octets: &[u8], at: usize) -> u32 {
    let found = octets.get(at..at + 4);
    let found = found.and_then(|octets| octets.try_into().ok());
    found.map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first table of a database without maps may have octets there that look like those of a map.
    #[test]
    fn the_second_page_says_the_use_of_others_if_it_is_a_map() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("database");
        for (begin, expected) in [(1, PageUse::Free), (LEAF, PageUse::Unknown)] {
            let mut octets = vec![0; 4 * PAGE_SIZE];
            // The list of free pages lacks one.
            octets[36..40].copy_from_slice(&1_u32.to_be_bytes());
            octets[PAGE_SIZE] = begin;
            // The entry of page 4.
            octets[PAGE_SIZE + MAP_ENTRY] = 2;
            std::fs::write(&path, octets).expect("ours");
            let pages = PageFile::open(&path).expect("ours");
            assert_eq!(pages.use_of(4).expect("ours"), expected, "{begin}");
        }
    }
}
