//! The sections of the page, from top to bottom.

use super::chart;
use super::html::{Html, count, number, size, span};
use crate::admin::api::HeldClient;
use crate::admin::api::status::{
    AttemptsStatus, CertificateOwner, CertificateStatus, ConnectorStatus, FailingDestination,
    RecentRefusal, RelayStatus,
};

/// The days before the expiry of a certificate at which it is marked as a warning.
const SOON: i64 = 30;
/// The days before the expiry of a certificate at which it is marked as bad.
const VERY_SOON: i64 = 7;

pub(super) fn header(html: &mut Html, status: &RelayStatus) {
    html.element(
        "<header><div><h1>",
        &status.hostname,
        "</h1><p class=\"meta\">Gatepost ",
    )
    .text(&status.version);
    html.raw(", up since ").time(status.since);
    html.element(" (", &span(status.since, status.at), ")</p></div>");
    let (class, words) = verdict(status);
    html.raw(&format!("<p class=\"state {class}\">"))
        .text(&words)
        .raw("</p></header>\n");
}

/// Returns the style class and the state of the relay in a few words.
fn verdict(status: &RelayStatus) -> (&'static str, String) {
    let ended = status
        .certificates
        .iter()
        .any(|own| own.owner == CertificateOwner::Own && own.days_left < 0);
    let soon = status
        .certificates
        .iter()
        .any(|own| own.owner == CertificateOwner::Own && own.days_left < SOON);
    let troubles = (status.troubles.len() + status.more_troubles) as u64;
    if status.spool_lost.is_some() {
        ("bad", "Mail is rejected: the spool was lost".to_owned())
    } else if !status.alarms.is_empty() {
        ("bad", "Alarm: check the network".to_owned())
    } else if ended {
        ("bad", "Our own certificate has expired".to_owned())
    } else if status.evidence.as_ref().is_some_and(|it| it.stuck) {
        ("bad", "Evidence cannot be written".to_owned())
    } else if status.evidence.as_ref().is_some_and(|it| it.rejects_mail) {
        ("bad", "Mail is rejected: the evidence is full".to_owned())
    } else if status.attempts.iter().any(AttemptsStatus::is_full) {
        ("bad", "All delivery attempts are in use".to_owned())
    } else if troubles > 0 {
        (
            "warn",
            count(
                troubles,
                "destination in trouble",
                "destinations in trouble",
            ),
        )
    } else if status
        .recipients
        .iter()
        .any(|table| table.trouble.is_some())
    {
        ("warn", "Recipients cannot be checked".to_owned())
    } else if !status.clients.short.is_empty() {
        ("warn", "Nearly all seats for clients are in use".to_owned())
    } else if status.queue.held > 0 {
        ("warn", "Held mail needs a decision".to_owned())
    } else if soon {
        ("warn", "Our own certificate expires soon".to_owned())
    } else {
        ("good", "All is well".to_owned())
    }
}

pub(super) fn alarms(html: &mut Html, status: &RelayStatus) {
    for alarm in &status.alarms {
        let what = match &alarm.issuer {
            None => "that took TLS before no longer do".to_owned(),
            Some(issuer) => {
                format!("show certificates of an issuer that was new to them: {issuer}")
            }
        };
        html.raw("<section class=\"bad\" role=\"alert\"><h2>Somebody may be between us and the Internet</h2><p>");
        html.text(&format!(
            "{} of {} unrelated domains {what}.",
            alarm.domains, alarm.of
        ))
        .raw("</p><p>Since ");
        html.time(alarm.since)
            .element(", ", &alarm.examples.join(", "), " …</p>");
        html.raw("<p>Check the firewall and its mail inspection first, then the provider's line.</p></section>\n");
    }
}

pub(super) fn queue(html: &mut Html, status: &RelayStatus) {
    let queue = &status.queue;
    html.raw("<section aria-labelledby=\"queue\"><h2 id=\"queue\">Queue</h2><dl class=\"tiles\">");
    let oldest = queue
        .oldest
        .map_or_else(|| "–".to_owned(), |oldest| span(oldest, status.at));
    for (name, value) in [
        ("messages", number(queue.messages)),
        ("recipients waiting", number(queue.waiting)),
        ("recipients held", number(queue.held)),
        ("oldest message", oldest),
        ("total size", size(queue.octets)),
    ] {
        html.element("<div><dt>", name, "</dt>")
            .element("<dd>", &value, "</dd></div>");
    }
    html.raw("</dl>");
    if let Some(reason) = &status.spool_lost {
        html.element(
            "<p><span class=\"state bad\">new mail is rejected and no delivery starts</span> ",
            reason,
            "</p>",
        );
    }
    let reports = &status.reports;
    if reports.waiting > 0 || reports.for_digest > 0 {
        html.element(
            "<p class=\"meta\">Reports to senders: ",
            &format!("{} waiting", number(reports.waiting)),
            "; ",
        );
        html.element(
            "for the postmaster's next digest: ",
            &number(reports.for_digest),
            "</p>",
        );
    }
    if let Some(evidence) = &status.evidence {
        html.element(
            "<p class=\"meta\">Evidence: ",
            &format!(
                "{} of {} ({} %)",
                size(evidence.octets),
                size(evidence.max_octets),
                evidence.percent
            ),
            "</p>",
        );
        if evidence.rejects_mail {
            html.raw("<p><span class=\"state bad\">new mail is rejected</span> Run gatepost evidence archive, or raise [evidence] max_size.</p>");
        }
    }
    for share in &status.attempts {
        html.element(
            "<p class=\"meta\">Delivery attempts for ",
            share.destinations(),
            ": ",
        );
        html.text(&format!("{} of {}", share.running, share.most));
        html.element(", ", &format!("{} slow", share.slow), "</p>");
        if share.waiting > 0 {
            let waits = count(share.waiting, "destination waits", "destinations wait");
            html.element(
                "<p><span class=\"state bad\">all in use</span> ",
                &waits,
                "</p>",
            );
        }
    }
    html.raw("</section>\n");
}

/// Starts a section with a list, or with a sentence if the list is empty.
pub(super) fn list_section<T>(
    html: &mut Html,
    (id, heading, nothing): (&str, &str, &str),
    items: &[T],
    each: impl Fn(&mut Html, &T),
) {
    html.raw(&format!(
        "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{heading}</h2>"
    ));
    if items.is_empty() {
        html.raw(&format!("<p class=\"meta\">{nothing}</p>"));
    } else {
        html.raw("<ul>");
        for item in items {
            html.raw("<li>");
            each(html, item);
            html.raw("</li>");
        }
        html.raw("</ul>");
    }
}

pub(super) fn end_section(html: &mut Html, more: usize) {
    if more > 0 {
        html.element("<p class=\"meta\">and ", &number(more as u64), " more</p>");
    }
    html.raw("</section>\n");
}

pub(super) fn troubles(html: &mut Html, status: &RelayStatus) {
    let words = (
        "troubles",
        "Destinations in trouble",
        "None: all attempts have succeeded.",
    );
    list_section(
        html,
        words,
        &status.troubles,
        |html, one: &FailingDestination| {
            html.element(
                "<div class=\"row\"><h3>",
                &one.domain,
                "</h3><span class=\"meta\">",
            );
            let mut waits = Vec::new();
            if one.waiting > 0 {
                waits.push(format!(
                    "{} waiting",
                    count(one.waiting, "recipient", "recipients")
                ));
            }
            if one.held > 0 {
                waits.push(format!("{} held", number(one.held)));
            }
            html.text(&waits.join(", ")).element(
                ", since ",
                &span(one.oldest, status.at),
                "</span></div><p>",
            );
            html.text(&one.reason.text).raw("</p><p class=\"meta\">");
            html.element("Connector ", &one.connector, "; ").element(
                "status ",
                &one.reason.status,
                "; last tried ",
            );
            html.time(one.reason.at);
            match one.next {
                Some(next) => html.element("; next in ", &span(status.at, next), "</p>"),
                None if one.waiting > 0 => html.raw("; next as soon as there is a connection</p>"),
                None => html.raw("; waits for an operator</p>"),
            };
        },
    );
    end_section(html, status.more_troubles);
}

pub(super) fn downgrades(html: &mut Html, status: &RelayStatus) {
    let words = ("downgrades", "Downgrade warnings", "None since the start.");
    list_section(html, words, &status.downgrades, |html, one| {
        html.element(
            "<div class=\"row\"><h3>",
            &one.domain,
            "</h3><span class=\"meta\">",
        )
        .time(one.at);
        html.element("</span></div><p>", &one.host, " had ")
            .text(&one.was)
            .element(" and now has ", &one.got, "</p>");
        html.element("<p class=\"meta\">Connector ", &one.connector, "</p>");
    });
    end_section(html, 0);
}

pub(super) fn connectors(html: &mut Html, status: &RelayStatus) {
    let words = ("connectors", "Connectors", "None.");
    list_section(
        html,
        words,
        &status.connectors,
        |html, one: &ConnectorStatus| {
            html.element("<h3>", &one.name, "</h3><p class=\"meta\">")
                .element("Sends with: ", &one.outbound, ". ");
            html.element(
                "Accepts with: ",
                &one.inbound,
                ".</p><div class=\"charts\"><div>",
            );
            chart::draw(html, "Sent", &one.sent, status.at);
            html.raw("</div><div>");
            chart::draw(html, "Received", &one.received, status.at);
            html.raw("</div></div>");
        },
    );
    html.raw("<p class=\"meta legend\">");
    for (class, words) in [
        ("verified", "TLS, the peer proved who it is"),
        ("encrypted", "TLS, the peer did not prove who it is"),
        ("clear", "in the clear"),
        ("none", "no mail"),
    ] {
        let square = "<svg aria-hidden=\"true\" viewBox=\"0 0 10 10\"><rect width=\"10\" height=\"10\" class=\"";
        html.raw("<span>")
            .raw(square)
            .raw(class)
            .element("\"></rect></svg>", words, "</span>");
    }
    html.raw("</p>");
    end_section(html, status.more_connectors);
}

pub(super) fn certificates(html: &mut Html, status: &RelayStatus) {
    let words = (
        "certificates",
        "Certificates",
        "None: this relay has no certificate, and no partner has presented one.",
    );
    list_section(
        html,
        words,
        &status.certificates,
        |html, one: &CertificateStatus| {
            let name = match &one.connector {
                None => format!("Ours: {}", one.place),
                Some(connector) => format!("{} ({connector})", one.place),
            };
            html.element("<div class=\"row\"><h3>", &name, "</h3>");
            let (class, left) = match one.days_left {
                ..0 => ("bad", "expired".to_owned()),
                days @ 0..VERY_SOON => ("bad", count(days.unsigned_abs(), "day left", "days left")),
                days @ VERY_SOON..SOON => {
                    ("warn", count(days.unsigned_abs(), "day left", "days left"))
                }
                days => ("good", count(days.unsigned_abs(), "day left", "days left")),
            };
            html.raw(&format!("<span class=\"state {class}\">"))
                .text(&left)
                .raw("</span></div><p class=\"meta\">");
            html.text(&one.names.join(", "))
                .raw("; until ")
                .time(one.not_after)
                .raw("</p>");
            if let Some(refused) = &one.refused {
                html.element(
                    "<p><span class=\"state bad\">refused</span> ",
                    refused,
                    "</p>",
                );
            }
        },
    );
    end_section(html, status.more_certificates);
}

pub(super) fn exceptions(html: &mut Html, status: &RelayStatus) {
    let words = ("exceptions", "Exceptions in force", "None.");
    list_section(html, words, &status.exceptions, |html, one| {
        html.element(
            "<div class=\"row\"><h3>",
            &one.connector,
            "</h3><span class=\"meta\">until ",
        );
        html.text(&one.until.to_string())
            .element(" UTC</span></div><p>", &one.tls, ": ")
            .text(&one.reason)
            .raw("</p>");
    });
    end_section(html, 0);
}

pub(super) fn clients(html: &mut Html, status: &RelayStatus) {
    let clients = &status.clients;
    let words = (
        "clients",
        "Clients held back by a limit",
        "None in the last hour.",
    );
    list_section(html, words, &clients.held, |html, one: &HeldClient| {
        html.element(
            "<div class=\"row\"><h3>",
            &one.client,
            "</h3><span class=\"meta\">last ",
        )
        .time(one.last);
        html.element("</span></div><p>", &one.limit, ", ")
            .text(&count(one.times, "time", "times"))
            .raw(", since ");
        html.time(one.since).raw("</p>");
    });
    html.element(
        "<p class=\"meta\">Sessions: ",
        &number(clients.sessions as u64),
        " of ",
    );
    html.text(&number(clients.sessions_max as u64))
        .raw("; by clients outside of [relay] networks: ");
    html.element("", &number(clients.strangers as u64), " of ")
        .text(&number(clients.strangers_max as u64));
    html.element(
        "; memory of transactions: ",
        &size(clients.transaction_memory),
        ".</p>",
    );
    end_section(html, clients.more_held);
}

pub(super) fn refusals(html: &mut Html, status: &RelayStatus) {
    let words = ("refusals", "Last refusals", "None since the start.");
    list_section(
        html,
        words,
        &status.refusals,
        |html, one: &RecentRefusal| {
            html.element(
                "<div class=\"row\"><h3>",
                &one.peer,
                "</h3><span class=\"meta\">",
            )
            .time(one.at);
            if one.times > 1 {
                html.element(", ", &number(one.times), " times");
            }
            html.element("</span></div><p>", &one.reason, "</p><p class=\"meta\">");
            html.text(if one.direction == "inbound" {
                "Mail to us"
            } else {
                "Mail from us"
            });
            if !one.connector.is_empty() {
                html.element("; connector ", &one.connector, "");
            }
            html.raw("</p>");
        },
    );
    end_section(html, 0);
}
