//! The output of a command: its answer on standard output, and errors of a configuration on
//! standard error.

use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use super::format::{INDENT, width, wrap};
use crate::config::Fault;

/// The first error in writing to standard output.
static WRITE_ERROR: OnceLock<io::Error> = OnceLock::new();

/// Prints a text to standard output. An error is reported at the end by [`finish_output`], so that
/// an operation that has begun is completed.
pub(super) fn show(text: &str) {
    record_write_error(io::stdout().write_all(text.as_bytes()));
}

/// Remembers an error in writing to standard output. A closed pipe (`| head`) is not an error.
pub(super) fn record_write_error(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Only the first error is kept: later ones have the same cause.
        let _ = WRITE_ERROR.set(error);
    }
}

/// Returns true if a part of the output could not be written.
pub(super) fn has_write_error() -> bool {
    WRITE_ERROR.get().is_some()
}

/// Flushes standard output and returns the exit status of the command, or failure if the output is
/// incomplete.
pub(super) fn finish_output(status: ExitCode) -> ExitCode {
    record_write_error(io::stdout().flush());
    let Some(error) = WRITE_ERROR.get() else {
        return status;
    };
    eprintln!(
        "gatepost: cannot write the output, it is incomplete: {error}.\nFree some space or write it elsewhere, then run \
         the command again. A change that was ordered has been made."
    );
    ExitCode::FAILURE
}

/// Prints the errors that make a configuration file unusable, and their number.
pub(super) fn show_faults(file: &Path, faults: &[Fault]) {
    let count = if faults.len() == 1 {
        "1 error".to_owned()
    } else {
        format!("{} errors", faults.len())
    };
    let mut stderr = std::io::stderr().lock();
    let width = width();
    for fault in faults {
        let _ = stderr.write_all(fault_text("", fault, width).as_bytes());
    }
    let _ = writeln!(stderr, "{}: {count}", file.display());
}

/// Prints warnings about a configuration that is usable.
pub(super) fn show_warnings(warnings: &[Fault]) {
    let mut stderr = std::io::stderr().lock();
    let width = width();
    for warning in warnings {
        let _ = stderr.write_all(fault_text("warning: ", warning, width).as_bytes());
    }
}

/// Returns a fault, and its remedy below it, in lines of at most `width` columns.
fn fault_text(prefix: &str, fault: &Fault, width: usize) -> String {
    let mut text = String::new();
    let line = format!("{prefix}{}: {}", fault.location, fault.message);
    wrap(&mut text, "", INDENT, &line, width);
    wrap(&mut text, INDENT, INDENT, &fault.remedy, width);
    text
}
