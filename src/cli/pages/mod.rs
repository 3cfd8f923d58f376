//! `gatepost pages`: writes the manual pages and shell completions of the commands.
//!
//! The command is hidden, since only packaging needs it. gatepost.toml(5) is written by hand, in
//! `config/package/`.

mod page_sections;
mod sections;
mod spool_sections;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use page_sections::{FileEntry, PageSections};

/// Write manual pages and shell completions
#[derive(Debug, Args)]
pub(super) struct PagesArguments {
    /// The folder in which man/ and completions/ are created
    folder: PathBuf,
}

/// The reason why the pages cannot be written.
#[derive(Debug, thiserror::Error)]
enum PagesError {
    /// A file cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A command has no sections, which is a bug in Gatepost.
    #[error("{0} has no EXIT STATUS, FILES and SEE ALSO")]
    NoSections(String),
}

/// Writes the pages of a command and its subcommands.
pub(super) fn run(arguments: &PagesArguments, program: &Command) -> ExitCode {
    match write(&arguments.folder, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatepost pages: {}: {error}", arguments.folder.display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path, program: &Command) -> Result<(), PagesError> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    for (name, page) in pages(program)? {
        fs::write(man.join(format!("{name}.1")), page)?;
    }
    let mut command = program.clone();
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command, "gatepost", &completions)?;
    }
    Ok(())
}

/// Returns the page of each command that is not hidden, with its name, such as
/// `gatepost-queue-list`.
fn pages(program: &Command) -> Result<Vec<(String, Vec<u8>)>, PagesError> {
    let mut root = program.clone().disable_help_subcommand(true);
    root.build();
    let (mut commands, mut pages) = (vec![root], Vec::new());
    while let Some(command) = commands.pop() {
        commands.extend(
            command
                .get_subcommands()
                .filter(|child| !child.is_hide_set())
                .cloned(),
        );
        let name = command
            .get_display_name()
            .unwrap_or_else(|| command.get_name())
            .to_owned();
        let sections =
            PageSections::of(&name).ok_or_else(|| PagesError::NoSections(name.clone()))?;
        pages.push((name, page(command, &sections)?));
    }
    Ok(pages)
}

/// Returns the page of a command.
fn page(command: Command, sections: &PageSections) -> io::Result<Vec<u8>> {
    let has_options = command
        .get_arguments()
        .any(|argument| !argument.is_hide_set());
    let has_commands = command.get_subcommands().any(|child| !child.is_hide_set());
    let man = Man::new(command)
        .source(concat!("Gatepost ", env!("CARGO_PKG_VERSION")))
        .manual("Gatepost");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if has_options {
        man.render_options_section(&mut page)?;
    }
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    let PageSections {
        exit,
        files,
        see_also,
    } = sections;
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in exit {
        item(&mut roff, bold(status.to_string()), meaning);
    }
    roff.control("SH", ["FILES"]);
    for FileEntry { path, content } in files {
        item(&mut roff, italic(*path), content);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text(references(see_also));
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// Adds a tagged paragraph.
fn item(roff: &mut Roff, tag: Inline, text: &str) {
    roff.control("TP", []);
    roff.text([tag]);
    roff.text([roman(text)]);
}

/// Returns references to pages such as `gatepost-check(1)`, the names in bold.
fn references(pages: &[&str]) -> Vec<Inline> {
    let mut line = Vec::new();
    for (at, page) in pages.iter().enumerate() {
        let (name, section) = page.split_at(page.find('(').unwrap_or(page.len()));
        let separator = if at + 1 < pages.len() { ", " } else { "" };
        line.extend([bold(name), roman(format!("{section}{separator}"))]);
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// The pages of other packages that ours refer to.
    const FOREIGN: [&str; 6] = [
        "sendmail(1)",
        "systemd.socket(5)",
        "systemctl(1)",
        "journalctl(1)",
        "openssl-s_client(1)",
        "psql(1)",
    ];

    fn text(page: &[u8]) -> &str {
        std::str::from_utf8(page).expect("UTF-8")
    }

    /// Returns the lines of a section.
    fn section<'a>(page: &'a [u8], title: &str) -> Vec<&'a str> {
        let heading = |line: &&str| line.starts_with(".SH ");
        let is_title = |line: &str| line.trim_start_matches(".SH ").trim_matches('"') == title;
        let mut lines = text(page)
            .lines()
            .skip_while(|line| !heading(line) || !is_title(line));
        assert!(
            lines.next().is_some(),
            "{title} is missing in\n{}",
            text(page)
        );
        lines.take_while(|line| !heading(line)).collect()
    }

    /// Each command has a page with EXIT STATUS, FILES and SEE ALSO, none of which is empty.
    #[test]
    fn each_command_has_a_page_with_the_standard_sections() {
        let pages = pages(&Cli::command()).expect("each command has sections");
        assert!(pages.len() > 20, "{} pages", pages.len());
        for (name, page) in &pages {
            for title in [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "EXIT STATUS",
                "FILES",
                "SEE ALSO",
            ] {
                assert!(!section(page, title).is_empty(), "{name}: {title} is empty");
            }
            let statuses: Vec<_> = section(page, "EXIT STATUS")
                .into_iter()
                .filter(|line| *line == ".TP")
                .collect();
            assert!(statuses.len() > 2, "{name}: an exit status is missing");
        }
    }

    /// A page refers to pages that exist: those of other commands, gatepost.toml(5), and a few of
    /// other packages. It does not refer to itself.
    #[test]
    fn references_lead_to_pages_that_exist() {
        let pages = pages(&Cli::command()).expect("each command has sections");
        let exists = |page: &str| {
            FOREIGN.contains(&page)
                || page == "gatepost.toml(5)"
                || pages
                    .iter()
                    .any(|(name, _)| page.strip_suffix("(1)") == Some(name))
        };
        for (name, _) in &pages {
            let PageSections { see_also, .. } = PageSections::of(name).expect("sections");
            for page in &see_also {
                assert!(exists(page), "{name}: {page} does not exist");
                assert_ne!(
                    page.strip_suffix("(1)"),
                    Some(name.as_str()),
                    "a page that refers to itself"
                );
            }
        }
    }

    /// A command that stands in no page's list of sections cannot be packaged without them.
    #[test]
    fn an_unknown_command_has_no_sections() {
        assert!(PageSections::of("gatepost-frobnicate").is_none());
    }
}
