//! The two that are asked: Gatepost's resolver and Unbound's library, each with a cold cache.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use gatepost::config;
use gatepost::net::dns::{AnswerRecords, Dns, DnsAnswer, Exchange, LookupError};
use gatepost::smtp::address::Domain;

use super::question::{Kind, Question};
use super::verdict::{Finding, Found, Ours, Verdict};
use super::wire::{Name, hex, kind, labels, text, unhex};
use crate::support::config::ConfigBuilder;

/// The resolver under test, as it is configured for a name server and a trust anchor.
pub(crate) struct Gatepost(config::DnsConfig);

impl Gatepost {
    pub(crate) fn new(folder: &Path) -> Self {
        let anchor = folder.join("root.dnskey");
        let dns = format!(
            "servers = [\"127.0.0.1:53\"]\ndnssec = \"require\"\ntrust_anchor = \"{}\"",
            anchor.display()
        );
        Self(ConfigBuilder::new().table("dns", &dns).parse().dns)
    }

    pub(crate) async fn ask(&self, server: SocketAddr, question: &Question) -> Ours {
        let mut config = self.0.clone();
        config.servers[0].value = server;
        let dns = Dns::new(&config).expect("a resolver");
        let domain = || Domain::parse(&question.name).expect("a domain");
        match question.kind {
            Kind::Mx => ours(dns.mx(&domain()).await, |mx| match &mx.exchange {
                Exchange::Host(host) => format!("{} {host}", mx.preference),
                Exchange::Null => format!("{} .", mx.preference),
                Exchange::NotAHost(name) => format!("{} {name}", mx.preference),
            }),
            Kind::Addresses => ours(dns.addresses(&domain()).await, ToString::to_string),
            Kind::Txt => ours(dns.txt(&question.name).await, Clone::clone),
            Kind::Tlsa(port) => ours(dns.tlsa(port, &domain()).await, |tlsa| {
                format!(
                    "{} {} {} {}",
                    tlsa.usage,
                    tlsa.selector,
                    tlsa.matching,
                    hex(&tlsa.data)
                )
            }),
        }
    }
}

fn ours<T>(outcome: Result<DnsAnswer<T>, LookupError>, show: impl Fn(&T) -> String) -> Ours {
    let now = Instant::now();
    match outcome {
        Ok(answer) => {
            let found = match &answer.found {
                AnswerRecords::Records(records) => {
                    Found::Records(records.iter().map(show).collect())
                }
                AnswerRecords::NoData => Found::NoData,
                AnswerRecords::NoDomain => Found::NoDomain,
            };
            let finding = Finding {
                found,
                end: answer.name.clone(),
            };
            let verdict = if answer.security.is_secure() {
                Verdict::Secure(finding)
            } else {
                Verdict::Insecure(finding)
            };
            let holds = answer.expires.saturating_duration_since(now);
            Ours {
                verdict,
                first: Some(answer.first_link.is_secure()),
                holds,
            }
        }
        Err(fault) => {
            let verdict = match &fault {
                LookupError::Bogus(why) => Verdict::Bogus(why.clone()),
                LookupError::Server(_) | LookupError::Timeout => Verdict::None(fault.to_string()),
            };
            Ours {
                verdict,
                first: None,
                holds: std::time::Duration::ZERO,
            }
        }
    }
}

/// Processes with Unbound's library, one for each core.
pub(crate) struct Unbound {
    helpers: Vec<Mutex<Helper>>,
    /// Has the configuration.
    _folder: tempfile::TempDir,
}

struct Helper {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Unbound {
    /// Starts them; each question gets a cache of its own.
    pub(crate) fn start(folder: &Path, count: usize) -> Self {
        let own = tempfile::tempdir().expect("a folder");
        let configuration = own.path().join("cold.conf");
        let lines = format!(
            "server:\n directory: \"{0}\"\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n use-syslog: no\n verbosity: 0\n do-ip6: no\n \
             module-config: \"validator iterator\"\n trust-anchor-file: \"{0}/root.dnskey\"\n \
             do-not-query-localhost: no\n local-zone: \"test.\" nodefault\n local-zone: \"invalid.\" nodefault\n \
             harden-below-nxdomain: no\n aggressive-nsec: no\n qname-minimisation: no\n prefetch: no\n \
             prefetch-key: no\n trust-anchor-signaling: no\n edns-buffer-size: 4096\n msg-cache-size: 256k\n rrset-cache-size: 256k\n \
             key-cache-size: 64k\n neg-cache-size: 64k\n infra-cache-numhosts: 10\n outgoing-range: 64\n",
            folder.display()
        );
        std::fs::write(&configuration, lines).expect("written");
        let helpers = (0..count)
            .map(|_| Mutex::new(Helper::start(&configuration)))
            .collect();
        Self {
            helpers,
            _folder: own,
        }
    }

    /// Asks one question of a server; it blocks.
    pub(crate) fn ask(&self, server: SocketAddr, name: &Name, kind: u16) -> Verdict {
        let free = self
            .helpers
            .iter()
            .find_map(|helper| helper.try_lock().ok());
        let mut helper = free.unwrap_or_else(|| {
            self.helpers[usize::from(server.port()) % self.helpers.len()]
                .lock()
                .expect("no panic")
        });
        writeln!(helper.input, "{} {} {kind}", server.port(), text(name))
            .expect("cold_cache.py reads");
        let mut line = String::new();
        helper
            .output
            .read_line(&mut line)
            .expect("cold_cache.py writes");
        drop(helper);
        verdict(&line, kind)
    }
}

impl Helper {
    fn start(configuration: &Path) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/it/dnssec_differential/cold_cache.py");
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(configuration)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's Python with python3-unbound");
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        Self {
            process,
            input,
            output,
        }
    }
}

fn verdict(line: &str, kind: u16) -> Verdict {
    let words: Vec<&str> = line.trim_end_matches('\n').split('\t').collect();
    let [word, code, end, data, why] = words[..] else {
        panic!("cold_cache.py says {line:?}")
    };
    let records: BTreeSet<String> = data
        .split(',')
        .filter(|data| *data != "-")
        .map(|data| record(&unhex(data), kind))
        .collect();
    let found = match (records.is_empty(), code) {
        (false, _) => Found::Records(records),
        (true, "3") => Found::NoDomain,
        (true, _) => Found::NoData,
    };
    let finding = Finding {
        found,
        end: end.trim_end_matches('.').to_lowercase(),
    };
    match word {
        "secure" => Verdict::Secure(finding),
        "insecure" => Verdict::Insecure(finding),
        "bogus" => Verdict::Bogus(why.to_owned()),
        _ => Verdict::None(format!("code {code} {why}")),
    }
}

/// The data of a record in the form that Gatepost gives it.
fn record(data: &[u8], of: u16) -> String {
    match (of, data) {
        (kind::A, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
        (kind::AAAA, _) => <[u8; 16]>::try_from(data)
            .map(|octets| Ipv6Addr::from(octets).to_string())
            .unwrap_or_default(),
        (kind::MX, [high, low, host @ ..]) => {
            let host = text(host);
            let host = if host == "." {
                "."
            } else {
                host.trim_end_matches('.')
            };
            format!(
                "{} {}",
                u16::from_be_bytes([*high, *low]),
                host.to_lowercase()
            )
        }
        // Character-strings have the form of labels.
        (kind::TXT, _) => {
            let strings = [data, &[0]].concat();
            String::from_utf8_lossy(&labels(&strings).concat()).into_owned()
        }
        (kind::TLSA, [usage, selector, matching, rest @ ..]) => {
            format!("{usage} {selector} {matching} {}", hex(rest))
        }
        _ => hex(data),
    }
}
