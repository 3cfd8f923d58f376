//! EXIT STATUS, FILES and SEE ALSO of each manual page.

use super::page_sections::{
    CONFIG, CONNECTORS, DEMO, EVIDENCE, EVIDENCE_CLOSED, EVIDENCE_DAY, EVIDENCE_TORN, PageSections,
    SOCKET, SPOOL, UNUSABLE, USERS, exit,
};
use super::spool_sections;

impl PageSections {
    /// Returns the sections of a page, such as `gatepost-queue-list`.
    pub(super) fn of(page: &str) -> Option<Self> {
        let command = page.strip_prefix("gatepost-").unwrap_or_default();
        match command.split_once('-').unwrap_or((command, "")) {
            ("", "") if page == "gatepost" => Some(root()),
            ("run", "") => Some(daemon()),
            ("check", "") => Some(check()),
            ("explain", "") => Some(Self::new(
                exit(
                    "The policy is explained, and mail can be delivered.",
                    "Mail could not be delivered at all, or the output cannot be written.",
                ),
                &[CONFIG, SOCKET],
                &[
                    "gatepost-probe(1)",
                    "gatepost-check(1)",
                    "gatepost-history(1)",
                    "gatepost.toml(5)",
                ],
            )),
            ("probe", "") => Some(Self::new(
                exit(
                    "Mail would be delivered today; with --all, to each domain.",
                    "Mail would not be delivered today, or the output cannot be written.",
                ),
                &[CONFIG, SOCKET],
                &[
                    "gatepost-explain(1)",
                    "gatepost-status(1)",
                    "gatepost.toml(5)",
                    "openssl-s_client(1)",
                ],
            )),
            ("connector", action) => connector(action),
            ("status", "") => Some(status()),
            ("queue", action) => queue(action),
            ("history", action) => history(action),
            ("reload", "") => Some(reload()),
            ("test", "mail") => Some(test_mail()),
            ("clients", action) => clients(action),
            ("node", action) => node(action),
            ("user", action) => login_users(action),
            ("evidence", "archive") => Some(evidence_archive()),
            ("evidence", action) => evidence(action),
            ("spool", action) => spool_sections::spool(action),
            ("sendmail", "") => Some(sendmail()),
            ("demo", "") => Some(Self::new(
                vec![
                    (0, "Each outcome is the promised one."),
                    (
                        1,
                        "An outcome is another one, the demo could not be played, or --cluster was interrupted.",
                    ),
                    (2, "The arguments are unusable."),
                ],
                &[DEMO],
                &[
                    "gatepost(1)",
                    "gatepost-run(1)",
                    "gatepost-node(1)",
                    "gatepost.toml(5)",
                ],
            )),
            _ => None,
        }
    }
}

fn status() -> PageSections {
    PageSections::new(
        exit(
            "The state is shown.",
            "Nothing is known of the domain, with --ready the relay is not ready, no daemon answers, or the output cannot be written.",
        ),
        &[CONFIG, SOCKET],
        &[
            "gatepost-queue(1)",
            "gatepost-explain(1)",
            "gatepost-probe(1)",
            "gatepost-history(1)",
            "journalctl(1)",
        ],
    )
}

fn root() -> PageSections {
    PageSections::new(
        vec![
            (0, "The command succeeded."),
            (
                1,
                "The answer is negative, or the command failed; see its own page.",
            ),
            (
                2,
                "The arguments are unusable, or the configuration has errors; \"gatepost check\" reports errors with 1.",
            ),
        ],
        &[CONFIG, SOCKET, SPOOL, EVIDENCE],
        &[
            "gatepost-run(1)",
            "gatepost-check(1)",
            "gatepost-explain(1)",
            "gatepost-probe(1)",
            "gatepost-connector(1)",
            "gatepost-queue(1)",
            "gatepost-history(1)",
            "gatepost-clients(1)",
            "gatepost-user(1)",
            "gatepost-node(1)",
            "gatepost-evidence(1)",
            "gatepost-spool(1)",
            "gatepost-status(1)",
            "gatepost-sendmail(1)",
            "gatepost-demo(1)",
            "gatepost.toml(5)",
        ],
    )
}

fn daemon() -> PageSections {
    PageSections::new(
        vec![
            (0, "The daemon was stopped in an orderly way."),
            (
                1,
                "It failed, was stopped at once by a second signal, or could not start; systemd starts it again.",
            ),
            (
                2,
                "The arguments are unusable, or the configuration has errors; systemd does not start it again.",
            ),
        ],
        &[CONFIG, SPOOL, EVIDENCE, SOCKET],
        &[
            "gatepost-check(1)",
            "gatepost-status(1)",
            "gatepost.toml(5)",
            "systemctl(1)",
            "systemd.socket(5)",
        ],
    )
}

fn check() -> PageSections {
    PageSections::new(
        vec![
            (
                0,
                "There is no error; with --against, no difference either.",
            ),
            (
                1,
                "There are errors; with --against, there are differences. Or the output cannot be written.",
            ),
            (
                2,
                "The arguments are unusable, there is no connector of that name, or the configurations cannot be compared.",
            ),
        ],
        &[CONFIG, SOCKET],
        &[
            "gatepost.toml(5)",
            "gatepost-explain(1)",
            "gatepost-probe(1)",
            "gatepost-run(1)",
            "systemctl(1)",
        ],
    )
}

fn queue(action: &str) -> Option<PageSections> {
    let list = "A message that was named is not in the queue, no daemon answers, or the output cannot be written.";
    let change = "No message matches, the order is refused for one, no daemon answers, or the output cannot be written.";
    let (success, failure) = match action {
        "" => (
            "The messages are shown, or the order is carried out.",
            "No message matches, an order is refused, no daemon answers, or the output cannot be written.",
        ),
        "list" => ("The messages are listed.", list),
        "show" => (
            "The messages are shown.",
            "No message matches, no daemon answers, or the output cannot be written.",
        ),
        "retry" => (
            "The messages are being delivered, or will be at once.",
            change,
        ),
        "hold" => ("The messages are held.", change),
        "release" => ("The messages are released.", change),
        "remove" => ("The messages are removed.", change),
        "bounce" => ("The messages are bounced.", change),
        _ => return None,
    };
    let see_also: &[_] = match action {
        "" => &[
            "gatepost-queue-list(1)",
            "gatepost-queue-show(1)",
            "gatepost-queue-retry(1)",
            "gatepost-queue-hold(1)",
            "gatepost-queue-release(1)",
            "gatepost-queue-remove(1)",
            "gatepost-queue-bounce(1)",
            "gatepost-status(1)",
        ],
        "list" => &[
            "gatepost-queue(1)",
            "gatepost-queue-show(1)",
            "gatepost-status(1)",
        ],
        "hold" => &[
            "gatepost-queue(1)",
            "gatepost-queue-list(1)",
            "gatepost-queue-release(1)",
        ],
        "release" => &[
            "gatepost-queue(1)",
            "gatepost-queue-list(1)",
            "gatepost-queue-hold(1)",
        ],
        "remove" => &[
            "gatepost-queue(1)",
            "gatepost-queue-list(1)",
            "gatepost-queue-bounce(1)",
        ],
        "bounce" => &[
            "gatepost-queue(1)",
            "gatepost-queue-list(1)",
            "gatepost-queue-remove(1)",
        ],
        _ => &["gatepost-queue(1)", "gatepost-queue-list(1)"],
    };
    Some(PageSections::new(
        exit(success, failure),
        &[CONFIG, SOCKET],
        see_also,
    ))
}

fn history(action: &str) -> Option<PageSections> {
    let no_daemon = "No daemon answers, or the output cannot be written.";
    let unknown = "The domain is not in the downgrade memory, no daemon answers, or the output cannot be written.";
    let (success, failure, see_also): (_, _, &[_]) = match action {
        "" => (
            "The memory is listed, or the domain is forgotten.",
            unknown,
            &[
                "gatepost-history-list(1)",
                "gatepost-history-forget(1)",
                "gatepost-explain(1)",
                "gatepost.toml(5)",
            ],
        ),
        "list" => (
            "The memory is listed.",
            unknown,
            &["gatepost-history(1)", "gatepost-history-forget(1)"],
        ),
        "forget" => (
            "The domain is forgotten, or DNSSEC is.",
            no_daemon,
            &[
                "gatepost-history(1)",
                "gatepost-history-list(1)",
                "gatepost-explain(1)",
            ],
        ),
        _ => return None,
    };
    Some(PageSections::new(
        exit(success, failure),
        &[CONFIG, SOCKET],
        see_also,
    ))
}

fn connector(action: &str) -> Option<PageSections> {
    let success = "The file is written, and mail would be delivered under it today; with --stdout, it is printed.";
    let failure = "There is no file: the domain has a connector already, the file exists, no host offers TLS that a connector could demand, or the output cannot be written.";
    let see_also: &[_] = match action {
        "" => &["gatepost-connector-add(1)", "gatepost.toml(5)"],
        "add" => &[
            "gatepost-probe(1)",
            "gatepost-explain(1)",
            "gatepost-check(1)",
            "gatepost-reload(1)",
            "gatepost.toml(5)",
        ],
        _ => return None,
    };
    Some(PageSections::new(
        exit(success, failure),
        &[CONFIG, CONNECTORS, SOCKET],
        see_also,
    ))
}

fn reload() -> PageSections {
    PageSections::new(
        exit(
            "The new configuration is in use.",
            "The daemon keeps the configuration that it has, or no daemon answers.",
        ),
        &[CONFIG, SOCKET],
        &[
            "gatepost-check(1)",
            "gatepost-run(1)",
            "gatepost.toml(5)",
            "systemctl(1)",
        ],
    )
}

fn test_mail() -> PageSections {
    PageSections::new(
        exit(
            "The message was delivered.",
            "It was not accepted, has bounced, or is still in the queue.",
        ),
        &[CONFIG, SOCKET, EVIDENCE],
        &[
            "gatepost-explain(1)",
            "gatepost-probe(1)",
            "gatepost-queue-show(1)",
            "gatepost-evidence-list(1)",
        ],
    )
}

fn node(action: &str) -> Option<PageSections> {
    let (success, failure, see_also): (_, _, &[_]) = match action {
        "" => (
            "The nodes are listed, or the node is drained or removed.",
            "The order is refused, the relay has a spool of its own, no daemon answers, or the output cannot be written.",
            &[
                "gatepost-node-list(1)",
                "gatepost-node-drain(1)",
                "gatepost-node-remove(1)",
                "gatepost.toml(5)",
            ],
        ),
        "list" => (
            "The nodes are listed.",
            "The relay has a spool of its own, no daemon answers, or the output cannot be written.",
            &[
                "gatepost-node(1)",
                "gatepost-node-drain(1)",
                "gatepost-node-remove(1)",
                "gatepost-status(1)",
            ],
        ),
        "drain" => (
            "The order is stored; the node follows it within seconds.",
            "There is no such node, no other one takes mail, no daemon answers, or the output cannot be written.",
            &[
                "gatepost-node(1)",
                "gatepost-node-list(1)",
                "gatepost-status(1)",
            ],
        ),
        "remove" => (
            "The node is removed.",
            "There is no such node, it is alive, it has messages, no daemon answers, or the output cannot be written.",
            &["gatepost-node(1)", "gatepost-node-list(1)"],
        ),
        _ => return None,
    };
    Some(PageSections::new(
        exit(success, failure),
        &[CONFIG, SOCKET],
        see_also,
    ))
}

fn clients(action: &str) -> Option<PageSections> {
    let not_held =
        "The client is not held back, no daemon answers, or the output cannot be written.";
    let (success, failure, see_also): (_, _, &[_]) = match action {
        "" => (
            "The clients are listed or released.",
            not_held,
            &[
                "gatepost-clients-list(1)",
                "gatepost-clients-release(1)",
                "gatepost.toml(5)",
            ],
        ),
        "list" => (
            "The clients are listed, even if there are none.",
            "No daemon answers, or the output cannot be written.",
            &["gatepost-clients(1)", "gatepost-clients-release(1)"],
        ),
        "release" => (
            "The client is released.",
            not_held,
            &["gatepost-clients(1)", "gatepost-clients-list(1)"],
        ),
        _ => return None,
    };
    Some(PageSections::new(
        exit(success, failure),
        &[CONFIG, SOCKET],
        see_also,
    ))
}

fn login_users(action: &str) -> Option<PageSections> {
    let (success, failure) = match action {
        "" => (
            "The users are listed or changed.",
            "There is no such user, or it exists already.",
        ),
        "add" => ("The user is added.", "The user exists already."),
        "list" => (
            "The users are listed, even if there are none.",
            "The output cannot be written.",
        ),
        "passwd" | "remove" | "disable" | "enable" => {
            ("The user is changed.", "There is no such user.")
        }
        _ => return None,
    };
    let pages = [
        "gatepost-user(1)",
        "gatepost-user-add(1)",
        "gatepost-user-list(1)",
        "gatepost.toml(5)",
    ];
    let own = match action {
        "" => 0..1,
        "add" => 1..2,
        "list" => 2..3,
        _ => 0..0,
    };
    let see_also: Vec<_> = (0..pages.len())
        .filter(|at| !own.contains(at))
        .map(|at| pages[at])
        .collect();
    Some(PageSections::new(
        exit(success, failure),
        &[CONFIG, USERS],
        &see_also,
    ))
}

fn evidence_archive() -> PageSections {
    PageSections::new(
        vec![
            (0, "The days are in the other folder, and removed here."),
            (
                1,
                "No day is over, the copies cannot be made or verified, or the daemon does not answer. What was copied may stay in the other folder; run the command again.",
            ),
            UNUSABLE,
        ],
        &[CONFIG, SOCKET, EVIDENCE, EVIDENCE_DAY, EVIDENCE_CLOSED],
        &[
            "gatepost-evidence(1)",
            "gatepost-evidence-verify(1)",
            "gatepost.toml(5)",
        ],
    )
}

fn evidence(action: &str) -> Option<PageSections> {
    let damaged = "No record matches, the chain is not whole, a record cannot be read, or the output cannot be written.";
    let (success, failure, see_also): (_, _, &[_]) = match action {
        "" => (
            "The records are shown, the chain is whole, or the days are archived.",
            damaged,
            &[
                "gatepost-evidence-archive(1)",
                "gatepost-evidence-list(1)",
                "gatepost-evidence-summary(1)",
                "gatepost-evidence-verify(1)",
                "gatepost.toml(5)",
            ],
        ),
        "list" => (
            "The records are listed, and the chain is whole.",
            damaged,
            &[
                "gatepost-evidence(1)",
                "gatepost-evidence-summary(1)",
                "gatepost-evidence-verify(1)",
                "gatepost.toml(5)",
            ],
        ),
        "summary" => (
            "The records are counted, and the chain is whole.",
            damaged,
            &[
                "gatepost-evidence(1)",
                "gatepost-evidence-list(1)",
                "gatepost-evidence-verify(1)",
                "gatepost.toml(5)",
            ],
        ),
        "verify" => (
            "The chain is whole, and has each expected head.",
            "The chain is not whole, a record cannot be read, no record matches the options, or the output cannot be written.",
            &[
                "gatepost-evidence(1)",
                "gatepost-evidence-list(1)",
                "gatepost-evidence-summary(1)",
                "gatepost.toml(5)",
            ],
        ),
        _ => return None,
    };
    Some(PageSections::new(
        vec![
            (0, success),
            (1, failure),
            (
                2,
                "The arguments are unusable, neither the configuration nor a record has the connector, or the configuration has errors.",
            ),
        ],
        &[
            CONFIG,
            EVIDENCE,
            EVIDENCE_DAY,
            EVIDENCE_CLOSED,
            EVIDENCE_TORN,
        ],
        see_also,
    ))
}

fn sendmail() -> PageSections {
    PageSections::new(
        vec![
            (
                0,
                "The message is accepted for all recipients, or the queue command is carried out.",
            ),
            (
                1,
                "With -q, a message cannot be retried; with -bp, the output cannot be written.",
            ),
            (64, "The arguments are unusable."),
            (65, "The message is unusable."),
            (67, "A recipient is rejected."),
            (69, "The message is rejected."),
            (71, "The system reports an error."),
            (74, "The message cannot be read."),
            (75, "Try again later: the relay is down or busy."),
            (78, "The configuration has errors."),
        ],
        &[CONFIG, SOCKET],
        &[
            "gatepost-queue(1)",
            "gatepost-run(1)",
            "gatepost.toml(5)",
            "sendmail(1)",
        ],
    )
}
