//! The standard sections of a manual page, and the files that several of them name.

/// The standard sections of a page.
pub(super) struct PageSections {
    /// The exit statuses with their meanings.
    pub(super) exit: Vec<(u8, &'static str)>,
    /// The files that the command reads or writes.
    pub(super) files: Vec<FileEntry>,
    /// Other pages.
    pub(super) see_also: Vec<&'static str>,
}

/// A file that a command reads or writes.
#[derive(Clone, Copy)]
pub(super) struct FileEntry {
    /// The path by default.
    pub(super) path: &'static str,
    /// Its content, and the key that names another path.
    pub(super) content: &'static str,
}

const fn file(path: &'static str, content: &'static str) -> FileEntry {
    FileEntry { path, content }
}

pub(super) const CONFIG: FileEntry = file(
    "/etc/gatepost/gatepost.toml",
    "The configuration, unless --config names another file.",
);
pub(super) const CONFIG_WITH_DATABASE: FileEntry = file(
    "/etc/gatepost/gatepost.toml",
    "Names the database in [spool] url. This command does not read it.",
);
pub(super) const SOCKET: FileEntry = file(
    "/run/gatepost/admin.sock",
    "The socket of the running daemon, unless [admin] socket names another one.",
);
pub(super) const SPOOL: FileEntry = file(
    "/var/spool/gatepost",
    "The queue, unless [spool] path names another folder.",
);
pub(super) const USERS: FileEntry = file(
    "/etc/gatepost/users.toml",
    "The users, where [users] file names this file; nobody but its owner may read it.",
);
pub(super) const CONNECTORS: FileEntry = file(
    "/etc/gatepost/connectors.d/DOMAIN.toml",
    "The new connector, where include has \"connectors.d/*.toml\".",
);
pub(super) const EVIDENCE: FileEntry = file(
    "/var/lib/gatepost/evidence",
    "The records for auditors, unless [evidence] path names another folder.",
);
pub(super) const EVIDENCE_DAY: FileEntry = file(
    "/var/lib/gatepost/evidence/2026-11-26.jsonl",
    "The records of one day (UTC), one line of JSON for each.",
);
pub(super) const EVIDENCE_CLOSED: FileEntry = file(
    "/var/lib/gatepost/evidence/2026-11-25.jsonl.gz",
    "The records of a day that is over, compressed; zcat(1) shows them.",
);
pub(super) const EVIDENCE_TORN: FileEntry = file(
    "/var/lib/gatepost/evidence/torn-*",
    "An incomplete record that a crash left; a record of the kind torn names it.",
);
pub(super) const DEMO: FileEntry = file(
    "$TMPDIR/gatepost-demo-*",
    "Configuration, certificates and queue of the demo; /tmp if TMPDIR is not set. The folder is deleted at the end.",
);

/// Exit status 2 of every command.
pub(super) const UNUSABLE: (u8, &str) = (
    2,
    "The arguments are unusable, or the configuration has errors.",
);

/// Exit statuses of commands that ask the running daemon. `failure` also covers output that cannot
/// be written.
pub(super) fn exit(success: &'static str, failure: &'static str) -> Vec<(u8, &'static str)> {
    vec![(0, success), (1, failure), UNUSABLE]
}

impl PageSections {
    /// Collects the sections.
    pub(super) fn new(
        exit: Vec<(u8, &'static str)>,
        files: &[FileEntry],
        see_also: &[&'static str],
    ) -> Self {
        Self {
            exit,
            files: files.to_vec(),
            see_also: see_also.to_vec(),
        }
    }
}
