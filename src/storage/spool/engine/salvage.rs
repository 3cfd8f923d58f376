//! Reads all rows of a damaged database that can be read, and writes them to a new one.
//!
//! A row is found by the page that it stands on, so a damaged inner page hides nothing. Pages that no
//! table leads to any more count if the file says that they are in use: a free page
//! may have rows that were removed long ago.
//!
//! SQLite itself reads the rows, from a copy of the file in which the root of the table is set to one
//! such page after the other. So nothing here knows the columns.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, Row};

use super::super::SpoolError;
use super::super::file::io_error;
use super::pages::{FIRST_ENTRY, PAGE_SIZE, PageFile, PageUse, RowForm};
use super::paths::SpoolPaths;
use super::quarantine::name;
use super::schema;
use crate::storage::bad_blocks::is_unreadable;
use crate::storage::files::with_suffix;

/// The rows that were found, and what was not.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    /// The number of rows in the new database.
    pub(super) rows: u64,
    /// Pages and rows that cannot be read, one text for each.
    pub(super) lost: Vec<String>,
}

impl Salvage {
    fn lose_page(&mut self, place: &TablePage, error: &rusqlite::Error) {
        let TablePage { page, table, .. } = place;
        self.lost.push(format!(
            "queue.db: page {page} of table {table} cannot be read: {error}"
        ));
    }
}

/// Writes all rows of the database in `damaged` that can be read to a new database in `work`, an
/// existing folder, and returns its path. Nothing in `damaged` changes.
pub(super) fn salvage(damaged: &SpoolPaths, work: &Path) -> Result<(PathBuf, Salvage), SpoolError> {
    let new = SpoolPaths::new(&work.join("new"));
    std::fs::create_dir(&new.folder).map_err(|error| io_error("create", &new.folder, &error))?;
    let mut found = Salvage::default();
    let copy = work.join("damaged.db");
    copy_pages(&damaged.database, &copy, &mut found)?;
    if damaged.wal.exists() {
        let log = with_suffix(&copy, "-wal");
        copy_pages(&damaged.wal, &log, &mut found)?;
    }
    let failed = |what: &'static str| {
        let copy = copy.clone();
        move |error| SpoolError::Io(format!("cannot {what} {}: {error}", copy.display()))
    };
    let database = schema::open(&new)?;
    let tables = tables(&database.connection).map_err(failed("make a new database beside"))?;
    drop(database);
    let roots = match fold(&copy, &tables) {
        Ok(roots) => roots,
        Err(error) => {
            let text = format!("queue.db: its first page cannot be read: {error}");
            found.lost.push(text);
            let template = work.join("template.db");
            make_template(&new.database, &template).map_err(failed("make a template for"))?;
            replace_first_page(&copy, &template)?;
            let mut roots = fold(&copy, &tables).map_err(failed("read"))?;
            // Databases of an earlier version have their tables there.
            roots.extend([2, 3].map(|root| (String::new(), root)));
            roots
        }
    };
    let pages = PageFile::open(&copy).map_err(|error| io_error("read", &copy, &error))?;
    let found_pages = pages_with_rows(&pages, &roots, &tables, &mut found);
    let found_pages = found_pages.map_err(|error| io_error("read", &copy, &error))?;
    copy_rows(&copy, &new.database, &found_pages, &mut found).map_err(failed("read"))?;
    Ok((new.database, found))
}

/// The tables of a database, each with the form of its rows.
type Tables = BTreeMap<String, RowForm>;

fn tables(connection: &Connection) -> rusqlite::Result<Tables> {
    let sql = "SELECT name, ncol, wr FROM pragma_table_list \
               WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let form = RowForm {
            is_numbered: !row.get(2)?,
            columns: Some(row.get(1)?),
        };
        Ok((row.get(0)?, form))
    })?;
    rows.collect()
}

/// Copies a file block by block. Blocks that the disk cannot read are zero in the copy.
fn copy_pages(from: &Path, to: &Path, found: &mut Salvage) -> Result<(), SpoolError> {
    let failed = |error| io_error("copy", from, &error);
    let source = File::open(from).map_err(failed)?;
    let size = source.metadata().map_err(failed)?.len();
    let target = File::create(to).map_err(|error| io_error("create", to, &error))?;
    let mut at = 0;
    while at < size {
        let left = usize::try_from(size - at).unwrap_or(PAGE_SIZE);
        let mut block = vec![0; left.min(PAGE_SIZE)];
        if let Err(error) = source.read_exact_at(&mut block, at) {
            if !is_unreadable(&error) {
                return Err(failed(error));
            }
            let file = from.display();
            found
                .lost
                .push(format!("{file}: octet {at} cannot be read: {error}"));
            block.fill(0);
        }
        let written = target.write_all_at(&block, at);
        written.map_err(|error| io_error("write", to, &error))?;
        at += block.len() as u64;
    }
    Ok(())
}

/// Moves the write-ahead log of the copy into it, so that the file alone has everything. Returns the
/// roots of those tables that it has.
fn fold(copy: &Path, tables: &Tables) -> rusqlite::Result<Vec<(String, u32)>> {
    let connection = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let sql = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table' AND rootpage > 0";
    let mut roots = connection
        .prepare(sql)?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<Vec<(String, u32)>>>()?;
    roots.retain(|(table, _)| tables.contains_key(table));
    connection.close().map_err(|(_, error)| error)?;
    if roots.is_empty() {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    }
    Ok(roots)
}

/// Makes a database with the tables of the new one, and with nothing else, so that its first page has
/// all their names.
fn make_template(new: &Path, template: &Path) -> rusqlite::Result<()> {
    let new = Connection::open_with_flags(new, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT sql FROM sqlite_schema WHERE type = 'table' ORDER BY rowid";
    let mut tables = new.prepare(sql)?;
    let tables = tables.query_map([], |row| row.get::<_, String>(0))?;
    let template = Connection::open(template)?;
    template.pragma_update(None, "page_size", PAGE_SIZE)?;
    template.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    for table in tables {
        let table = table?;
        let lines = table
            .lines()
            .map(|line| line.split("--").next().unwrap_or(""));
        template.execute_batch(&lines.map(str::trim).collect::<String>())?;
    }
    template.close().map_err(|(_, error)| error)
}

/// Replaces the first page of the copy by that of a database with the same tables.
fn replace_first_page(copy: &Path, template: &Path) -> Result<(), SpoolError> {
    let mut page = vec![0; PAGE_SIZE];
    let read = File::open(template).and_then(|file| {
        file.read_exact_at(&mut page, 0)?;
        file.metadata()
    });
    // The page names roots as far as the last page of the template.
    let least = read
        .map_err(|error| io_error("read", template, &error))?
        .len();
    let mut options = File::options();
    let written = options.read(true).write(true).open(copy).and_then(|file| {
        let pages = file.metadata()?.len().max(least) / PAGE_SIZE as u64;
        file.set_len(pages * PAGE_SIZE as u64)?;
        let pages = u32::try_from(pages).map_err(io::Error::other)?;
        page[28..32].copy_from_slice(&pages.to_be_bytes());
        // A list of free pages of which a page is missing: nothing is known about them.
        page[32..40].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        let mut second = [0; FIRST_ENTRY.len()];
        file.read_exact_at(&mut second, PAGE_SIZE as u64)?;
        if second != FIRST_ENTRY {
            // The database of an earlier version, without page maps.
            page[52..56].fill(0);
            page[64..68].fill(0);
        }
        file.write_all_at(&page, 0)
    });
    written.map_err(|error| io_error("write", copy, &error))
}

/// A page that has rows of a table.
#[derive(Debug)]
struct TablePage {
    page: u32,
    table: String,
    /// True if the rows have numbers.
    is_numbered: bool,
}

/// Returns the pages in use that have rows, each with the table that the rows may be of; more than one
/// table if nothing says which.
fn pages_with_rows(
    pages: &PageFile,
    roots: &[(String, u32)],
    tables: &Tables,
    found: &mut Salvage,
) -> io::Result<Vec<TablePage>> {
    let mut reached = BTreeMap::new();
    for (table, root) in roots {
        let below = pages.pages_below(*root)?;
        reached.extend(below.into_iter().map(|page| (page, table.as_str())));
    }
    let (mut all, mut doubtful) = (Vec::new(), 0_u64);
    for page in 2..=pages.count {
        let Some(form) = pages.rows_on(page)? else {
            continue;
        };
        let table = reached.get(&page).copied();
        match pages.use_of(page)? {
            PageUse::Free | PageUse::Overflow => continue,
            PageUse::Unknown if table.is_none() => {
                doubtful += 1;
                continue;
            }
            PageUse::Tree | PageUse::Unknown => {}
        }
        let may_be = |(name, known): &(&String, &RowForm)| {
            let is_damaged = form.columns.is_none() && table == Some(name.as_str());
            **known == form || is_damaged && known.is_numbered == form.is_numbered
        };
        let mut same: Vec<_> = tables.iter().filter(may_be).map(|(name, _)| name).collect();
        if same.iter().any(|name| Some(name.as_str()) == table) {
            same.retain(|name| Some(name.as_str()) == table);
        }
        all.extend(same.into_iter().map(|name| TablePage {
            page,
            table: name.clone(),
            is_numbered: form.is_numbered,
        }));
    }
    if doubtful > 0 {
        found.lost.push(format!(
            "queue.db: {doubtful} pages have rows, and nothing says whether they are in use; they are left out"
        ));
    }
    Ok(all)
}

/// Copies the rows of these pages to the new database.
fn copy_rows(
    copy: &Path,
    new: &Path,
    pages: &[TablePage],
    found: &mut Salvage,
) -> rusqlite::Result<()> {
    let target = Connection::open_with_flags(new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // It counts only when it is complete and synced.
    target.pragma_update(None, "synchronous", "OFF")?;
    let source = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    source.pragma_update(None, "journal_mode", "OFF")?;
    source.pragma_update(None, "synchronous", "OFF")?;
    source.pragma_update(None, "writable_schema", true)?;
    target.execute_batch("BEGIN")?;
    for place in pages {
        point_at(&source, place)?;
        if place.is_numbered {
            copy_numbered(&source, &target, place, found)?;
        } else {
            copy_keyed(&source, &target, place, found)?;
        }
    }
    target.execute_batch("COMMIT")?;
    target.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    target.close().map_err(|(_, error)| error)
}

/// Makes a page the root of its table.
fn point_at(source: &Connection, place: &TablePage) -> rusqlite::Result<()> {
    let sql = "UPDATE sqlite_schema SET rootpage = ?2 WHERE type = 'table' AND name = ?1";
    source.execute(sql, (&place.table, place.page))?;
    source.execute_batch("PRAGMA writable_schema = RESET; PRAGMA writable_schema = ON")
}

/// Copies the rows of the page that the table begins with, each for itself.
fn copy_numbered(
    source: &Connection,
    target: &Connection,
    place: &TablePage,
    found: &mut Salvage,
) -> rusqlite::Result<()> {
    let table = &place.table;
    let rows = source
        .prepare(&format!("SELECT rowid FROM {table} ORDER BY rowid"))
        .and_then(|mut statement| {
            let rows = statement.query_map([], |row| row.get::<_, i64>(0))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) if schema::is_unreadable(&error) => {
            found.lose_page(place, &error);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for row in rows {
        let read = source
            .prepare(&format!("SELECT * FROM {table} WHERE rowid = ?1"))
            .and_then(|mut statement| statement.query_row([row], values));
        match read {
            Ok(values) => found.rows += u64::from(write_row(target, table, &values)?),
            Err(error) => {
                let entry = name(row);
                let text = format!("{entry}: its row in table {table} cannot be read: {error}");
                found.lost.push(text);
            }
        }
    }
    Ok(())
}

/// Copies the rows of the page that the table begins with, and those that it leads to, from both ends.
fn copy_keyed(
    source: &Connection,
    target: &Connection,
    place: &TablePage,
    found: &mut Salvage,
) -> rusqlite::Result<()> {
    let table = &place.table;
    let key = "SELECT group_concat(name || ' DESC', ', ') FROM pragma_table_info(?1) WHERE pk > 0";
    let backwards: String = target.query_row(key, [table], |row| row.get(0))?;
    for order in [String::new(), format!("ORDER BY {backwards}")] {
        let mut statement = source.prepare(&format!("SELECT * FROM {table} {order}"))?;
        let mut rows = statement.query([])?;
        loop {
            match rows.next().and_then(|row| row.map(values).transpose()) {
                Ok(Some(values)) => found.rows += u64::from(write_row(target, table, &values)?),
                Ok(None) => return Ok(()),
                Err(error) => {
                    if order.is_empty() {
                        found.lose_page(place, &error);
                    }
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Returns the values of a row.
fn values(row: &Row<'_>) -> rusqlite::Result<Vec<Value>> {
    let value = |value: ValueRef<'_>| match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Blob(octets) => Value::Blob(octets.to_vec()),
        ValueRef::Text(octets) => match std::str::from_utf8(octets) {
            Ok(text) => Value::Text(text.to_owned()),
            // The checks of the row find it, and its octets are set aside.
            Err(_) => Value::Blob(octets.to_vec()),
        },
    };
    let columns = row.as_ref().column_count();
    (0..columns).map(|at| row.get_ref(at).map(value)).collect()
}

/// Writes a row. Returns whether the table can have it: a leaf may be that of another table.
fn write_row(target: &Connection, table: &str, values: &[Value]) -> rusqlite::Result<bool> {
    let marks = vec!["?"; values.len()].join(", ");
    let sql = format!("INSERT OR IGNORE INTO {table} VALUES ({marks})");
    let written = target
        .prepare_cached(&sql)?
        .execute(rusqlite::params_from_iter(values))?;
    Ok(written > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite would write a page map over the first table of a database that has none.
    #[test]
    fn a_first_page_says_whether_there_are_page_maps() {
        let folder = tempfile::tempdir().expect("a folder");
        let (copy, template) = (folder.path().join("copy"), folder.path().join("template"));
        let mut first = [0; PAGE_SIZE];
        first[52..56].copy_from_slice(&7_u32.to_be_bytes());
        first[64..68].copy_from_slice(&1_u32.to_be_bytes());
        std::fs::write(&template, first).expect("ours");
        for (begin, has_maps) in [(FIRST_ENTRY, true), ([13, 0, 0, 0, 0], false)] {
            let mut pages = vec![0xff; 2 * PAGE_SIZE];
            pages[PAGE_SIZE..PAGE_SIZE + begin.len()].copy_from_slice(&begin);
            std::fs::write(&copy, pages).expect("ours");
            replace_first_page(&copy, &template).expect("replaced");
            let written = std::fs::read(&copy).expect("ours");
            for at in [52, 64] {
                let is_set = written[at..at + 4] != [0; 4];
                assert_eq!(is_set, has_maps, "{begin:?} {at}");
            }
            assert!(written[PAGE_SIZE..].starts_with(&begin));
        }
    }
}
