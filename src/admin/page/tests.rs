//! Tests of the page: text of peers stays text, and no external resource is used.

use super::*;
use crate::admin::api::evidence::EvidenceStatus;
use crate::admin::api::status::{AttemptsStatus, ReportsStatus};

/// A status with markup in every text.
fn hostile() -> RelayStatus {
    let evil = "<script>alert(1)</script>\\\"'&";
    let text = format!(
        r#"{{"version":"1","hostname":"relay.example.com","since":"2026-11-26T00:00:00Z","at":"2026-11-26T01:00:00Z",
        "queue":{{"messages":1,"octets":5,"waiting":1,"held":1,"oldest":"2026-11-26T00:30:00Z","counted":null}},
        "troubles":[{{"domain":"{evil}","connector":"{evil}","waiting":1,"held":1,"oldest":"2026-11-26T00:30:00Z",
        "reason":{{"at":"2026-11-26T00:31:00Z","status":"4.7.5","text":"{evil}","host":null,"reply":null}},"next":null}}],
        "more_troubles":3,"connectors":[{{"name":"{evil}","outbound":"{evil}","inbound":"{evil}","sent":[],"received":[]}}],
        "more_connectors":0,"certificates":[{{"owner":"partner","place":"{evil}","connector":"{evil}","names":["{evil}"],
        "not_after":"2026-12-01T00:00:00Z","days_left":4,"refused":"{evil}"}}],"more_certificates":0,
        "crls":[{{"source":"{evil}","in_use":true,"issuer":"{evil}","entries":1,
        "this_update":"2026-11-26T00:00:00Z","next_update":"2026-12-26T00:00:00Z","failure":"{evil}"}}],"more_crls":0,
        "exceptions":[{{"connector":"{evil}","tls":"{evil}","until":"2026-12-01","reason":"{evil}"}}],
        "refusals":[{{"at":"2026-11-26T00:31:00Z","direction":"inbound","connector":"{evil}","peer":"{evil}","reason":"{evil}","times":2}}],
        "downgrades":[{{"at":"2026-11-26T00:31:00Z","connector":"{evil}","domain":"{evil}","host":"{evil}","was":"{evil}","got":"{evil}"}}],
        "recipients":[{{"domains":["{evil}"],"from":"ask","addresses":null,"known":1,"unknown":2,"pending":0,"trouble":"{evil}",
        "on_trouble":"defer","unchecked":["{evil}"]}}],
        "alarms":[{{"what":"new_issuer","issuer":"{evil}","since":"2026-11-26T00:31:00Z","domains":9,"of":10,"examples":["{evil}"]}}]}}"#
    );
    serde_json::from_str(&text).expect("a status")
}

#[test]
fn text_of_peers_never_becomes_markup() {
    let page = render(&hostile());
    assert!(!page.contains("<script"), "{page}");
    assert_eq!(
        page.matches("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;")
            .count(),
        29,
        "{page}"
    );
    assert!(
        page.contains("Alarm: check the network") && page.contains("and 3 more"),
        "{page}"
    );
}

#[test]
fn full_use_of_the_attempts_for_a_minute_is_shown_at_the_top() {
    let by_mx = |full| AttemptsStatus {
        share: "mx".to_owned(),
        most: 1200,
        running: 1200,
        slow: 900,
        waiting: 7,
        full_seconds: Some(full),
    };
    for (seconds, top) in [
        (59, "2 destinations in trouble"),
        (60, "All delivery attempts are in use"),
    ] {
        let status = RelayStatus {
            alarms: Vec::new(),
            more_troubles: 1,
            attempts: vec![by_mx(seconds)],
            ..hostile()
        };
        let page = render(&status);
        assert!(page.contains(top), "{top} is not in {page}");
        assert!(
            page.contains("Delivery attempts for destinations by MX: 1200 of 1200, 900 slow"),
            "{page}"
        );
        assert!(
            page.contains("all in use</span> 7 destinations wait"),
            "{page}"
        );
    }
}

#[test]
fn recipients_that_cannot_be_checked_are_shown_at_the_top() {
    let status = RelayStatus {
        alarms: Vec::new(),
        troubles: Vec::new(),
        more_troubles: 0,
        certificates: Vec::new(),
        crls: Vec::new(),
        more_crls: 0,
        ..hostile()
    };
    let page = render(&status);
    assert!(page.contains("Recipients cannot be checked"), "{page}");
    assert!(page.contains("NO ANSWER, mail is deferred"), "{page}");
    let none = render(&RelayStatus {
        recipients: Vec::new(),
        ..status
    });
    assert!(!none.contains("Recipients"), "{none}");
}

#[test]
fn waiting_reports_are_shown() {
    let line = "Reports to senders: 3 waiting; for the postmaster's next digest: 12";
    let reports = ReportsStatus {
        waiting: 3,
        for_digest: 12,
        ..ReportsStatus::default()
    };
    assert!(
        render(&RelayStatus {
            reports,
            ..hostile()
        })
        .contains(line)
    );
    assert!(!render(&hostile()).contains("Reports to senders"));
}

#[test]
fn the_page_uses_no_external_resource() {
    let page = render(&hostile());
    for elsewhere in [
        "http:", "https:", "//", "<script", "style=", " on", "@import", "url(",
    ] {
        let markup = page
            .split_once("<style>")
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        let found = markup.contains(elsewhere) && elsewhere != " on";
        assert!(!found, "{elsewhere} in {page}");
    }
    assert!(
        content_security_policy().starts_with("default-src 'none'; style-src 'sha256-"),
        "{}",
        content_security_policy()
    );
}

#[test]
fn a_lost_spool_is_shown_at_the_top() {
    let lost = RelayStatus {
        spool_lost: Some("/spool was moved; put <it> back".to_owned()),
        ..hostile()
    };
    let page = render(&lost);
    let (header, rest) = page.split_once("<main>").expect("a page");
    assert!(
        header.contains("Mail is rejected: the spool was lost"),
        "{header}"
    );
    assert!(
        rest.contains("</span> /spool was moved; put &lt;it&gt; back</p>"),
        "{rest}"
    );
    assert!(!render(&hostile()).contains("no delivery starts"));
}

#[test]
fn evidence_near_its_limit_is_shown_at_the_top() {
    let evidence = |rejects_mail, stuck| EvidenceStatus {
        octets: 96 << 20,
        max_octets: 100 << 20,
        percent: 96,
        level: "rejects_mail".to_owned(),
        rejects_mail,
        stuck,
    };
    for (rejects_mail, stuck, top) in [
        (false, false, "2 destinations in trouble"),
        (true, false, "Mail is rejected: the evidence is full"),
        (true, true, "Evidence cannot be written"),
        (false, true, "Evidence cannot be written"),
    ] {
        let status = RelayStatus {
            alarms: Vec::new(),
            more_troubles: 1,
            evidence: Some(evidence(rejects_mail, stuck)),
            ..hostile()
        };
        let page = render(&status);
        let (header, rest) = page.split_once("<main>").expect("a page");
        assert!(header.contains(top), "{header}");
        assert!(
            rest.contains("Evidence: 96 MiB of 100 MiB (96 %)"),
            "{rest}"
        );
        let is_marked = rest.contains("new mail is rejected</span>");
        assert_eq!(is_marked, rejects_mail, "{rest}");
    }
}
