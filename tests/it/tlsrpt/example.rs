//! The standard's own example.

use std::net::IpAddr;

use gatepost::relay::tlsrpt::report::{PolicyCounts, TlsReport};
use gatepost::relay::tlsrpt::{AppliedPolicy, ReportedPolicy, ResultType, SessionFailure};
use gatepost::smtp::address::Mailbox;
use serde_json::Value;

use super::service::{domain, json};

/// RFC 8460 appendix B, with erratum 6241 (`mx-host` is a list) and without the line break that the
/// page puts into a URI.
const EXAMPLE: &str = r#"{
  "organization-name": "Company-X",
  "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
  "contact-info": "sts-reporting@company-x.example",
  "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
  "policies": [{
    "policy": {
      "policy-type": "sts",
      "policy-string": ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
      "policy-domain": "company-y.example",
      "mx-host": ["*.mail.company-y.example"]
    },
    "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
    "failure-details": [{
      "result-type": "certificate-expired",
      "sending-mta-ip": "2001:db8:abcd:0012::1",
      "receiving-mx-hostname": "mx1.mail.company-y.example",
      "failed-session-count": 100
    }, {
      "result-type": "starttls-not-supported",
      "sending-mta-ip": "2001:db8:abcd:0013::1",
      "receiving-mx-hostname": "mx2.mail.company-y.example",
      "receiving-ip": "203.0.113.56",
      "failed-session-count": 200,
      "additional-information": "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported"
    }, {
      "result-type": "validation-failure",
      "sending-mta-ip": "198.51.100.62",
      "receiving-ip": "203.0.113.58",
      "receiving-mx-hostname": "mx-backup.mail.company-y.example",
      "failed-session-count": 3,
      "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
    }]
  }]
}"#;

/// Addresses as addresses: the example writes a leading zero that RFC 5952 leaves out.
fn plain(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Ok(address) = text.parse::<IpAddr>() {
                *text = address.to_string();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(fields) => fields.values_mut().for_each(plain),
        _ => {}
    }
}

fn failure(result: ResultType, from: &str, mx: &str) -> SessionFailure {
    SessionFailure {
        sending_ip: Some(from.parse().expect("an address")),
        mx: Some(format!("{mx}.mail.company-y.example")),
        ..SessionFailure::new(result)
    }
}

#[test]
fn the_report_of_appendix_b_comes_out_as_it_stands_there() {
    let texts = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let found = ReportedPolicy::Sts {
        lines: texts(&[
            "version: STSv1",
            "mode: testing",
            "mx: *.mail.company-y.example",
            "max_age: 86400",
        ]),
        mx: texts(&["*.mail.company-y.example"]),
    };
    let expired = failure(ResultType::CertificateExpired, "2001:db8:abcd:12::1", "mx1");
    let mut none = failure(
        ResultType::StartTlsNotSupported,
        "2001:db8:abcd:13::1",
        "mx2",
    );
    none.receiving_ip = "203.0.113.56".parse().ok();
    none.information = Some(
        "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported"
            .to_owned(),
    );
    let mut invalid = failure(ResultType::ValidationFailure, "198.51.100.62", "mx-backup");
    invalid.receiving_ip = "203.0.113.58".parse().ok();
    invalid.reason = Some("X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED".to_owned());
    let report = TlsReport {
        organization: "Company-X".to_owned(),
        day: "2016-04-01".parse().expect("a day"),
        contact: Mailbox::parse("sts-reporting@company-x.example").expect("a mailbox"),
        id: "5065427c-23d3-47ca-b6e0-946ea0e8c4be".to_owned(),
        domain: domain("company-y.example"),
        policies: vec![PolicyCounts {
            policy: AppliedPolicy {
                domain: domain("company-y.example"),
                found,
            },
            succeeded: 5326,
            failed: 303,
            failures: vec![(expired, 100), (none, 200), (invalid, 3)],
        }],
    };
    let mut expected: Value = serde_json::from_str(EXAMPLE).expect("the example");
    plain(&mut expected);
    assert_eq!(json(&report.to_gzip()), expected);
    assert_eq!(
        report.file_name(&domain("company-x.example")),
        "company-x.example!company-y.example!1459468800!1459555199!5065427c23d347cab6e0946ea0e8c4be.json.gz"
    );
}
