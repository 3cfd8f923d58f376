//! `gatepost status DOMAIN`: shows what waits for one domain and why, what its senders read, the
//! demand and the downgrade memory, and the commands that help.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use crate::admin::api::domain::{
    DomainConnector, DomainQueue, DomainStatus, LastAttemptStatus, MtaStsStatus,
};
use crate::admin::api::{FailureReason, RememberedHost};
use crate::cli::format::{age, count_age, plain, time, time_and_wait, wrap};
use crate::cli::history;
use crate::discovery::history::TlsLevel;

/// The width of the labels.
const LABEL: usize = 13;

/// The JSON document.
#[derive(Debug, Serialize)]
pub(super) struct DomainStatusDocument<'a> {
    #[serde(flatten)]
    status: &'a DomainStatus,
    /// True if the daemon knows more of the domain than its connector.
    known: bool,
    commands: Vec<HelpfulCommand>,
}

/// A command that helps in the present situation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct HelpfulCommand {
    command: String,
    /// The effect of the command, as an imperative.
    purpose: &'static str,
}

/// Returns true if the daemon knows more of a domain than its connector.
pub(super) fn is_known(status: &DomainStatus) -> bool {
    let has_mail = status.queue.waiting > 0 || status.queue.held > 0;
    let has_memory =
        !status.memory.is_empty() || !status.forgotten.is_empty() || status.mta_sts.is_some();
    has_mail || has_memory || status.last_attempt.is_some()
}

/// Returns the JSON document about a domain.
pub(super) fn document(status: &DomainStatus) -> DomainStatusDocument<'_> {
    DomainStatusDocument {
        status,
        known: is_known(status),
        commands: commands(status),
    }
}

/// Returns the screen for a terminal with `width` columns.
pub(super) fn screen(status: &DomainStatus, width: usize) -> String {
    let mut screen = Screen {
        text: String::new(),
        width,
        now: status.at,
    };
    let domain = plain(&status.domain);
    let _ = writeln!(screen.text, "{domain}, {}\n", time(status.at));
    if is_known(status) {
        screen.queue(status);
        screen.last_attempt(status.last_attempt.as_ref(), status.since);
        screen.senders(status);
    } else {
        let since = time(status.since);
        let unknown = format!(
            "nothing is known of this domain: no mail for it waits or was tried since the start ({since}), and no TLS and \
             no MTA-STS policy of it are remembered"
        );
        wrap(&mut screen.text, "", "", &unknown, width);
        screen.text.push('\n');
    }
    screen.connector(&status.connector);
    if let Some(last) = &status.last_attempt {
        screen.line(
            "demand",
            &format!("{}, at the last attempt", plain(&last.demand)),
        );
    }
    screen.mta_sts(status.mta_sts.as_ref());
    if is_known(status) {
        screen.memory(status);
    }
    screen.commands(&commands(status));
    screen.text
}

/// The screen while it is written.
struct Screen {
    text: String,
    width: usize,
    now: Timestamp,
}

// Writing into a String cannot fail, so the results of `write!` are ignored below.
impl Screen {
    /// Adds a text behind a label. An empty label continues the line before.
    fn line(&mut self, label: &str, text: &str) {
        let label = format!("{label:<LABEL$}");
        wrap(&mut self.text, &label, &" ".repeat(LABEL), text, self.width);
    }

    fn queue(&mut self, status: &DomainStatus) {
        let queue = &status.queue;
        let DomainQueue {
            counted,
            waiting,
            held,
            oldest,
            next,
            ..
        } = queue;
        let mut parts: Vec<String> = Vec::new();
        parts.extend((*waiting > 0).then(|| format!("{waiting} waiting")));
        parts.extend((*held > 0).then(|| format!("{held} held until an operator decides")));
        let counted = count_age(*counted, self.now).map(|age| format!("; {age}"));
        let counted = counted.unwrap_or_default();
        if parts.is_empty() {
            return self.line("queue", &format!("no mail waits{counted}"));
        }
        parts.extend(oldest.map(|oldest| format!("oldest {}", age(oldest, self.now))));
        self.line("queue", &(parts.join(", ") + &counted));
        match next {
            Some(next) => self.line("next attempt", &time_and_wait(*next, self.now)),
            None if *waiting > 0 => {
                self.line("next attempt", "now, or as soon as a connection is free");
            }
            None => {}
        }
        if let Some(expires) = queue.expires.filter(|_| *waiting > 0) {
            let which = if *waiting == 1 { "it" } else { "the oldest" };
            self.line(
                "expires",
                &if expires > self.now {
                    format!("{}; then {which} bounces", time_and_wait(expires, self.now))
                } else {
                    format!("{}: {which} bounces after a last attempt", time(expires))
                },
            );
        }
        self.reasons(status);
    }

    /// Adds the backoff, and why mail waits. A reason that the last attempt has is not repeated.
    fn reasons(&mut self, status: &DomainStatus) {
        let queue = &status.queue;
        let failed = status
            .last_attempt
            .as_ref()
            .filter(|last| last.outcome != "delivered");
        let mut shown: Vec<String> = failed.map(attempt_reason).into_iter().collect();
        let mut because = |cause: &FailureReason| {
            let cause = reason(cause);
            if shown.iter().any(|shown| is_same(shown, &cause)) {
                return String::new();
            }
            shown.push(cause.clone());
            format!(": {cause}")
        };
        let down = queue.destination_down.as_ref().map(|down| {
            let (until, because) = (time_and_wait(down.until, self.now), because(&down.reason));
            format!("the destination is not tried until {until}{because}")
        });
        let part = queue.part_down.as_ref().map(|down| {
            let (part, until) = (plain(&down.part), time_and_wait(down.until, self.now));
            format!("{part} is not tried until {until}{}", because(&down.reason))
        });
        for text in down.into_iter().chain(part) {
            self.line("backoff", &text);
        }
        let own = queue.reason.as_ref().map(reason);
        let is_news =
            |own: &String| failed.is_none() && !shown.iter().any(|shown| is_same(shown, own));
        if let Some(own) = own.filter(is_news) {
            self.line("reason", &own);
        }
    }

    fn last_attempt(&mut self, last: Option<&LastAttemptStatus>, since: Timestamp) {
        let Some(last) = last else {
            return self.line(
                "last attempt",
                &format!("none since the start ({})", time(since)),
            );
        };
        let LastAttemptStatus {
            at,
            queue_id,
            outcome,
            tls,
            ..
        } = last;
        let (outcome, id, ago) = (plain(outcome), plain(queue_id), age(*at, self.now));
        self.line(
            "last attempt",
            &format!("{}, {ago} ago: {outcome} ({id})", time(*at)),
        );
        self.line("", &attempt_reason(last));
        if let Some(tls) = tls {
            self.line("", &format!("TLS: {}", plain(tls)));
        }
    }

    /// Adds what the senders have been sent, and what a report says.
    fn senders(&mut self, status: &DomainStatus) {
        let queue = &status.queue;
        let mut parts: Vec<String> = Vec::new();
        if queue.waiting > 0 {
            parts.push(match queue.delays_reported {
                0 => "no delay report was sent".to_owned(),
                count => format!(
                    "a delay report was sent for {count} of {} waiting",
                    queue.waiting
                ),
            });
            let next = queue.next_delay_report.filter(|next| *next > self.now);
            parts.extend(
                next.map(|next| format!("next delay report {}", time_and_wait(next, self.now))),
            );
        }
        let bounced = status
            .last_attempt
            .as_ref()
            .filter(|last| last.outcome == "bounced");
        parts.extend(bounced.map(|last| {
            let report = if last.reported {
                "gets a failure report"
            } else {
                "gets no failure report"
            };
            format!("the sender of the bounced message {report}")
        }));
        let waiting = Some(parts.join("; ")).filter(|text| !text.is_empty());
        let held = (queue.held > 0).then(|| {
            let report = if queue.reports_holds {
                "a delay report was sent if a TLS policy held it, none if an operator did"
            } else {
                "no report was sent, as [queue] warn_after says"
            };
            format!("held mail: {report}; it bounces only by an order")
        });
        for (at, text) in waiting.into_iter().chain(held).enumerate() {
            self.line(if at == 0 { "senders" } else { "" }, &text);
        }
        let queued = queue
            .reason
            .as_ref()
            .and_then(|reason| reason.explanation.as_deref());
        let last = status
            .last_attempt
            .as_ref()
            .and_then(|last| last.explanation.as_deref());
        if let Some(explanation) = queued.or(last) {
            self.line("report text", &format!("\"{}\"", plain(explanation)));
        }
    }

    fn connector(&mut self, connector: &DomainConnector) {
        let DomainConnector {
            name,
            demand,
            exception,
            on_failure,
            downgrade,
        } = connector;
        let keys = format!(
            "on_failure = \"{}\", downgrade = \"{}\"",
            plain(on_failure),
            plain(downgrade)
        );
        self.line(
            "connector",
            &format!("{}: {}; {keys}", plain(name), plain(demand)),
        );
        if let Some(exception) = exception {
            let (tls, reason) = (plain(&exception.tls), plain(&exception.reason));
            self.line(
                "exception",
                &format!("{tls} until {} ({reason})", exception.until),
            );
        }
    }

    fn mta_sts(&mut self, policy: Option<&MtaStsStatus>) {
        let Some(MtaStsStatus {
            mode,
            mx,
            fetched,
            expires,
            ..
        }) = policy
        else {
            return;
        };
        let (mode, mx) = (plain(mode), plain(&mx.join(", ")));
        let (fetched, expires) = (age(*fetched, self.now), time_and_wait(*expires, self.now));
        self.line(
            "MTA-STS",
            &format!("{mode}: {mx}; fetched {fetched} ago, cached until {expires}"),
        );
    }

    fn memory(&mut self, status: &DomainStatus) {
        let _ = writeln!(self.text, "\ndowngrade memory:");
        if status.memory.is_empty() {
            let _ = writeln!(self.text, "  no TLS of this domain is remembered");
        } else {
            let table = history::table(&status.memory).render(self.width.saturating_sub(2));
            for line in table.lines() {
                let _ = writeln!(self.text, "  {line}");
            }
        }
        for entry in &status.forgotten {
            let (at, reason) = (entry.at.strftime("%Y-%m-%d"), plain(&entry.reason));
            self.line(
                "forgotten",
                &format!("{at} by {}: {reason}", plain(&entry.who)),
            );
        }
    }

    fn commands(&mut self, commands: &[HelpfulCommand]) {
        let _ = writeln!(self.text, "\ncommands:");
        for HelpfulCommand { command, purpose } in commands {
            let _ = writeln!(self.text, "  {command}");
            wrap(&mut self.text, "      ", "      ", purpose, self.width);
        }
    }
}

fn reason(reason: &FailureReason) -> String {
    plain(&format!("{} {}", reason.status, reason.text))
}

/// Returns the status code and the text of an attempt.
fn attempt_reason(last: &LastAttemptStatus) -> String {
    plain(&format!("{} {}", last.status, last.text))
}

/// Returns whether a shown reason, which may have been cut, is this one.
fn is_same(shown: &str, cause: &str) -> bool {
    shown == cause
        || shown
            .strip_suffix('…')
            .is_some_and(|start| cause.starts_with(start))
}

/// Returns the commands that help in the present situation, the most useful first.
fn commands(status: &DomainStatus) -> Vec<HelpfulCommand> {
    let (domain, queue) = (plain(&status.domain), &status.queue);
    let mut commands = Vec::new();
    let mut add = |is_useful: bool, command: String, purpose: &'static str| {
        if is_useful {
            commands.push(HelpfulCommand { command, purpose });
        }
    };
    let has_mail = queue.waiting > 0 || queue.held > 0;
    let has_failed = has_mail && queue.reason.is_some()
        || status
            .last_attempt
            .as_ref()
            .is_some_and(|last| last.outcome != "delivered");
    add(
        has_failed || !is_known(status),
        format!("gatepost probe {domain}"),
        "dial its hosts now, and see the result that mail would have",
    );
    add(
        has_mail,
        format!("gatepost queue list --domain {domain}"),
        "list the messages",
    );
    add(
        queue.waiting > 0,
        format!("gatepost queue retry --domain {domain}"),
        "try now, once the cause is repaired",
    );
    let held = queue.held > 0;
    add(
        held,
        format!("gatepost queue release --domain {domain} --state held"),
        "deliver what is held, once the cause is repaired",
    );
    add(
        held,
        format!("gatepost queue bounce --domain {domain} --state held"),
        "return what is held to its senders",
    );
    let lost_tls = |host: &RememberedHost| host.worse && host.level == TlsLevel::Plain;
    add(
        status.connector.downgrade == "refuse" && status.memory.iter().any(lost_tls),
        format!("gatepost history forget {domain} --reason TEXT"),
        "accept that the domain has no TLS now; ask its administrators first",
    );
    add(
        status.last_attempt.is_some(),
        format!("gatepost evidence list --domain {domain}"),
        "list all attempts on record",
    );
    add(
        true,
        format!("gatepost explain {domain}"),
        "show what each layer demands of mail to it, and why",
    );
    commands
}

#[cfg(test)]
mod tests;
