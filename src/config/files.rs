//! Reads the file of a configuration and those that it includes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::{MatchOptions, Pattern};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Fault;
use super::fault_list::FaultList;
use super::parse::{parse_files, without_mark};
use super::settings::{Config, ConfigSource, SourceFile};
use super::spelling::shorten;
use crate::policy::location::{Located, Location};

/// The most files that a configuration may include.
const FILES_MAX: usize = 10_000;

/// The meaning of patterns: no hidden file, and `*` stays in its folder.
const PATTERNS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_leading_dot: true,
    require_literal_separator: true,
};

/// Reads and parses a configuration file, and the files that it includes. Returns warnings with the
/// configuration.
///
/// # Errors
/// All faults of the files, or a single one if the file cannot be read.
pub fn read(path: &Path) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let octets = std::fs::read(path).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => "Create it, or name another file with --config.",
            std::io::ErrorKind::PermissionDenied => {
                "Let the user that Gatepost runs as read it; for a command, use sudo."
            }
            _ => "Name a readable file with --config.",
        };
        vec![Fault {
            location: start(path),
            message: format!("the configuration cannot be read: {error}"),
            remedy: remedy.to_owned(),
        }]
    })?;
    let main = source_file(octets, path)?;
    let mut search = Search::default();
    search.find_all(&main);
    let (mut faults, files) = (search.faults, search.files);
    match parse_files(&main, files) {
        Ok((config, mut warnings)) if faults.is_empty() => {
            warnings.extend(search.warnings);
            Ok((config, warnings))
        }
        Ok(_) => Err(faults),
        Err(others) => {
            faults.extend(others);
            faults.sort();
            Err(faults)
        }
    }
}

/// A pattern of `include`: a folder, and the names of the files that are read from it.
#[derive(Debug, Clone)]
pub struct IncludedFolder {
    /// The folder. It starts from that of the main file.
    pub folder: PathBuf,
    names: Pattern,
}

impl IncludedFolder {
    /// Returns whether a file of this name would be read.
    #[must_use]
    pub fn reads(&self, name: &str) -> bool {
        self.names.matches_with(name, PATTERNS)
    }
}

/// Returns the patterns of `include` whose folder is written out, in the order of the file.
#[must_use]
pub fn included_folders(source: &ConfigSource) -> Vec<IncludedFolder> {
    let (document, _) = DeTable::parse_recoverable(&source.text);
    let include = document.get_ref().get("include");
    let Some(DeValue::Array(patterns)) = include.map(Spanned::get_ref) else {
        return Vec::new();
    };
    let main = source.file.parent().unwrap_or(Path::new(""));
    let folder = |written: &str| {
        let path = Path::new(written);
        let (parent, name) = (path.parent()?, path.file_name()?.to_str()?);
        let is_written_out = !parent.to_str()?.contains(['*', '?', '[']);
        is_written_out.then_some(IncludedFolder {
            folder: main.join(parent),
            names: Pattern::new(name).ok()?,
        })
    };
    let written = patterns.iter().filter_map(|each| each.get_ref().as_str());
    written.filter_map(folder).collect()
}

/// The search for included files.
#[derive(Default)]
struct Search {
    files: Vec<SourceFile>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Search {
    /// Finds and reads all files that a configuration includes, in the order of its patterns and of
    /// their names.
    fn find_all(&mut self, main: &SourceFile) {
        let folder = main.file.parent().unwrap_or(Path::new(""));
        for pattern in patterns(&main.text, &main.file) {
            self.find(&pattern.value, &pattern.location, folder);
        }
        if self.files.iter().any(|file| file.file == main.file) {
            self.files.clear();
            self.fault(
                &start(&main.file),
                "this file includes itself".to_owned(),
                "Put what is included in a folder of its own, such as connectors.d.",
            );
        }
    }

    fn find(&mut self, written: &str, location: &Location, folder: &Path) {
        let found = match glob::glob_with(&complete(written, folder), PATTERNS) {
            Ok(found) => found,
            Err(error) => {
                let message = format!("include: \"{}\" is no pattern: {error}", shorten(written));
                return self.fault(
                    location,
                    message,
                    "Write a path such as connectors.d/*.toml.",
                );
            }
        };
        let mut is_empty = true;
        for path in found {
            is_empty = false;
            match path {
                Ok(path) => self.add(&path, location),
                Err(error) => self.fault(
                    location,
                    format!(
                        "include: {} cannot be read: {}",
                        error.path().display(),
                        error.error()
                    ),
                    "Let the user that Gatepost runs as read it; for a command, use sudo.",
                ),
            }
        }
        if is_empty {
            self.report_no_file(written, location, folder);
        }
    }

    /// Reports that nothing matches: connectors that are not read demand nothing.
    fn report_no_file(&mut self, written: &str, location: &Location, folder: &Path) {
        let parent = folder.join(Path::new(written).parent().unwrap_or(Path::new("")));
        let message = format!("include: no file matches \"{}\"", shorten(written));
        let is_pattern = written.contains(['*', '?', '[']);
        let has_folder = parent.as_os_str().is_empty() || parent.is_dir();
        if is_pattern && (has_folder || parent.to_string_lossy().contains(['*', '?', '['])) {
            self.warnings.push(Fault {
                location: location.clone(),
                message,
                remedy: "Add a file there, or remove the pattern.".to_owned(),
            });
        } else {
            self.fault(location, message, "Correct the path, or create the file.");
        }
    }

    fn add(&mut self, path: &Path, location: &Location) {
        if self.files.iter().any(|file| *file.file == *path) {
            return;
        }
        if self.files.len() == FILES_MAX {
            let message = format!("include: there are more than {FILES_MAX} files");
            return self.fault(location, message, "Gather connectors in fewer files.");
        }
        let octets = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return,
            Ok(found) if !found.is_file() => Err("it is not a file".to_owned()),
            Ok(_) => std::fs::read(path).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match octets {
            Ok(octets) => match source_file(octets, path) {
                Ok(file) => self.files.push(file),
                Err(faults) => self.faults.extend(faults),
            },
            Err(error) => self.fault(
                location,
                format!("include: {} cannot be read: {error}", path.display()),
                "Let the user that Gatepost runs as read it; for a command, use sudo.",
            ),
        }
    }

    fn fault(&mut self, location: &Location, message: String, remedy: &str) {
        self.faults.push(Fault {
            location: location.clone(),
            message,
            remedy: remedy.to_owned(),
        });
    }
}

/// Returns the patterns in the text of a configuration file. A value that is no list of texts is left
/// to the parser.
fn patterns(text: &str, file: &Path) -> Vec<Located<String>> {
    let text = without_mark(text);
    let lines = FaultList::new(text, file);
    let (document, _) = DeTable::parse_recoverable(text);
    let include = document.get_ref().get("include");
    let Some(DeValue::Array(patterns)) = include.map(Spanned::get_ref) else {
        return Vec::new();
    };
    let located = |pattern: &Spanned<DeValue<'_>>| {
        Some(Located {
            value: pattern.get_ref().as_str()?.to_owned(),
            location: lines.location(pattern.span().start),
        })
    };
    patterns.iter().filter_map(located).collect()
}

/// Returns a pattern with the folder that it starts from.
fn complete(written: &str, folder: &Path) -> String {
    let folder = Pattern::escape(&folder.to_string_lossy());
    if Path::new(written).is_absolute() || folder.is_empty() {
        written.to_owned()
    } else {
        format!("{folder}/{written}")
    }
}

/// Returns a fault for each pattern of `new` that matches no file, if files that `old` includes are
/// not included any more: they were moved or are not mounted, or the pattern is misspelt, and
/// without their connectors nothing would be demanded of their domains. A pattern that matched no
/// file in `old` either is not the reason.
#[must_use]
pub fn lost_files(old: &ConfigSource, new: &ConfigSource) -> Vec<Fault> {
    let is_included = |file: &SourceFile| new.included.iter().any(|other| other.file == file.file);
    let Some(lost) = old.included.iter().find(|file| !is_included(file)) else {
        return Vec::new();
    };
    let before = patterns_without_files(old);
    let fault = |pattern: Located<String>| Fault {
        location: pattern.location,
        message: format!(
            "include: no file matches \"{}\", and {}, which is in force, would be left out",
            shorten(&pattern.value),
            lost.file.display()
        ),
        remedy:
            "Put the files back, or correct the pattern; if they are to go, remove the pattern too."
                .to_owned(),
    };
    let is_new = |pattern: &Located<String>| !before.iter().any(|one| one.value == pattern.value);
    let now = patterns_without_files(new).into_iter();
    now.filter(is_new).map(fault).collect()
}

/// Returns the patterns of a configuration that match none of its files.
fn patterns_without_files(source: &ConfigSource) -> Vec<Located<String>> {
    let folder = source.file.parent().unwrap_or(Path::new(""));
    // Without "." and doubled slashes, which are not in the names that are found.
    let plain = |path: &Path| path.components().collect::<PathBuf>();
    let has_file = |pattern: &Located<String>| {
        let complete = plain(Path::new(&complete(&pattern.value, folder)));
        Pattern::new(&complete.to_string_lossy()).is_ok_and(|pattern| {
            let mut files = source.included.iter();
            files.any(|file| pattern.matches_path_with(&plain(&file.file), PATTERNS))
        })
    };
    let mut all = patterns(&source.text, &source.file);
    all.retain(|pattern| !has_file(pattern));
    all
}

/// The start of a file.
fn start(file: &Path) -> Location {
    Location {
        file: Arc::from(file),
        line: 1,
        column: 1,
    }
}

/// Makes a source file of octets, which must be UTF-8.
fn source_file(octets: Vec<u8>, file: &Path) -> Result<SourceFile, Vec<Fault>> {
    match String::from_utf8(octets) {
        Ok(text) => Ok(SourceFile::new(&text, file)),
        Err(error) => Err(not_utf8(error.as_bytes(), file)),
    }
}

/// Reports the first octet that is not UTF-8 in each line.
fn not_utf8(octets: &[u8], file: &Path) -> Vec<Fault> {
    let (mut text, mut bad) = (String::new(), Vec::new());
    for chunk in octets
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(octets)
        .utf8_chunks()
    {
        text.push_str(chunk.valid());
        if let Some(octet) = chunk.invalid().first() {
            bad.push((text.len(), *octet));
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    let mut faults = FaultList::new(&text, file);
    for (offset, octet) in bad {
        let location = faults.location(offset);
        if !faults
            .errors
            .iter()
            .any(|fault| fault.location.line == location.line)
        {
            faults.add(
                &location,
                format!("the octet 0x{octet:02X} here is not UTF-8 text"),
                "Save the file as UTF-8.",
            );
        }
    }
    faults.errors
}
