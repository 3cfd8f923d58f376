//! strace, and the traces it writes.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Everything that changes a file or a folder, or makes a change durable.
pub(crate) const CHANGES: &str = "write,pwrite64,writev,fsync,fdatasync,ftruncate,fallocate,rename,renameat,renameat2,unlink,unlinkat";
/// The other calls that a replay needs: files that are opened, and the talk on sockets.
pub(crate) const TALK: &str = "openat,mkdir,read,recvfrom,sendto";

/// The command that starts a program under strace: its trace goes to `file`. Not with
/// --seccomp-bpf, for all its speed: strace 6.1 then forgets the signals that it should inject.
pub(crate) fn command(file: &Path, options: &[&str]) -> Vec<String> {
    let fixed = ["strace", "-f", "-qq", "-yy", "-xx", "-ttt", "-o"];
    let words = fixed
        .iter()
        .map(ToString::to_string)
        .chain([file.display().to_string()]);
    words
        .chain(options.iter().map(ToString::to_string))
        .collect()
}

/// A system call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    pub(crate) args: String,
    /// The value that it returned; `None` if it never returned, or failed.
    pub(crate) result: Option<u64>,
    /// Lines of the trace: a thread goes on only when strace has written its line.
    pub(crate) began: usize,
    pub(crate) ended: usize,
    /// The time at which it ended.
    pub(crate) at: SystemTime,
}

impl Call {
    /// The file or the socket behind the first descriptor.
    pub(crate) fn target(&self) -> Option<String> {
        let rest = self.args.split_once('<')?.1;
        let end = rest
            .match_indices('>')
            .map(|(at, _)| at)
            .find(|at| !rest[..*at].ends_with('-'))?;
        Some(String::from_utf8_lossy(&unhex(&rest[..end])).into_owned())
    }

    /// The strings among the arguments: paths, or what is read or written.
    pub(crate) fn strings(&self) -> Vec<Vec<u8>> {
        self.args.split('"').skip(1).step_by(2).map(unhex).collect()
    }

    /// All of them together.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.strings().concat()
    }

    pub(crate) fn says(&self, words: &str) -> bool {
        memchr::memmem::find(&self.data(), words.as_bytes()).is_some()
    }

    /// The last argument that is a number.
    pub(crate) fn last_number(&self) -> Option<u64> {
        self.args.rsplit(", ").next()?.trim().parse().ok()
    }

    pub(crate) fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync")
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(self.name.as_str(), "write" | "writev" | "pwrite64")
    }
}

/// `\x61b` → `ab`.
fn unhex(text: &str) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = rest
            .strip_prefix(b"\\x")
            .and_then(|hex| hex.split_at_checked(2));
        let octet = escaped.and_then(|(hex, after)| {
            let digits = std::str::from_utf8(hex).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (octet, after) = octet.unwrap_or((*first, after));
        octets.push(octet);
        rest = after;
    }
    octets
}

/// Reads a trace: the calls in the order of their ends.
pub(crate) fn read(file: &Path) -> Vec<Call> {
    let text =
        std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut open: HashMap<u32, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((thread, time, words)) = head(line) else {
            continue;
        };
        let (began, whole) = if let Some(rest) = words.strip_prefix("<... ") {
            let Some((began, start)) = open.remove(&thread) else {
                continue;
            };
            (
                began,
                start + rest.split_once("resumed>").map_or("", |(_, rest)| rest),
            )
        } else if let Some(start) = words.strip_suffix("<unfinished ...>") {
            open.insert(thread, (number, start.to_owned()));
            continue;
        } else {
            (number, words.to_owned())
        };
        let Some((name, args, result)) = parts(&whole) else {
            continue;
        };
        let result = result
            .split_whitespace()
            .next()
            .and_then(|result| result.split('<').next()?.parse().ok());
        let (name, args) = (name.to_owned(), args.to_owned());
        calls.push(Call {
            thread,
            name,
            args,
            result,
            began,
            ended: number,
            at: time,
        });
    }
    calls
}

fn head(line: &str) -> Option<(u32, SystemTime, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (time, words) = rest.trim_start().split_once(' ')?;
    let (seconds, micros) = time.split_once('.')?;
    let since =
        Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?);
    Some((thread.parse().ok()?, SystemTime::UNIX_EPOCH + since, words))
}

/// `name(args) = result`.
fn parts(call: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = call.split_once('(')?;
    let mut closes = rest.match_indices(')').map(|(at, _)| at);
    let (at, result) =
        closes.find_map(|at| Some((at, rest[at + 1..].trim_start().strip_prefix("= ")?)))?;
    Some((name, &rest[..at], result))
}
