//! Writes the stores that the tests of this subject open.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost::discovery::history::History;
use gatepost::discovery::mta_sts::{MtaSts, POLICY_FETCH_TIMEOUT, PublishedPolicy, WebSource};
use gatepost::policy::tls::{NoTls, TlsOutcome, TlsPolicy, Verdict, judge};
use gatepost::storage::evidence::Evidence;
use gatepost::storage::spool::{Spool as _, SqliteSpool};
use gatepost::telemetry::Monitor;
use gatepost::telemetry::certificates::PartnerCertificate;
use gatepost::telemetry::labels::Direction;

use super::{
    BEFORE_JUMP, FIRST, LAST, LATER, MTA_STS, RECORDS, at, certificate, domain, host, messages,
    observations, records, sessions,
};
use crate::published::host::{Host, World, plain};
use crate::support::chain::AppendRecords as _;
use crate::tlsrpt::service::ServiceFixture;

/// Writes the stores into `target/tmp/stores`. To replace those in `tests/it/data/stores` by stores
/// of the present version, run this with `cargo test --test it -- --ignored make_stores`, copy the
/// folder, and set [`super::MADE`].
#[tokio::test]
#[ignore = "makes test data"]
async fn make_stores() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("stores");
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("an earlier run made it");
    }
    let spool = folder.join("spool");
    make_queue(&spool).await;
    make_reports(&folder).await;
    make_history(&spool).await;
    make_policies(&spool).await;
    make_monitor(&spool);
    make_evidence(&folder.join("evidence")).await;
    for file in [
        "spool/reserve",
        "spool/lock",
        "evidence/reserve",
        "evidence/lock",
    ] {
        fs::remove_file(folder.join(file)).expect(file);
    }
    fs::remove_dir(spool.join("aside")).expect("nothing is damaged");
}

async fn make_queue(spool: &Path) {
    let open = || SqliteSpool::open(spool).expect("a spool");
    let opened = open();
    for (envelope, content) in messages() {
        let mut draft = opened.draft();
        draft.write(&content).await.expect("room");
        opened.commit(draft, envelope).await.expect("durable");
    }
    opened.close().await.expect("closed");
    // The machine was off for a month.
    let before = Duration::from_secs(at(BEFORE_JUMP).as_second().unsigned_abs());
    for file in ["queue.db", "queue.db-wal"] {
        let opened = fs::File::options().write(true).open(spool.join(file));
        if let Ok(opened) = opened {
            opened
                .set_modified(SystemTime::UNIX_EPOCH + before)
                .expect("ours");
        }
    }
    open().close().await.expect("closed");
    assert!(spool.join("leaps.json").exists());
}

/// Counts two days. The report of the first was tried once.
async fn make_reports(folder: &Path) {
    let mut fixture = ServiceFixture::in_folder(folder);
    fixture.sees(observations(FIRST)).await;
    fixture
        .network
        .publishes("v=TLSRPTv1; rua=https://collector.example/v1");
    *fixture.network.refuses.lock().expect("one thread") = true;
    fixture.reports(LATER).await;
    fixture.sees(observations(LATER)).await;
}

async fn make_history(spool: &Path) {
    let history = History::open(spool, at(FIRST)).expect("a memory");
    for (domain, mx, level, issuer, when) in sessions() {
        let _change = history.record(&host(domain), &host(mx), level, issuer, at(when));
    }
    let forgotten = host("forgotten.example");
    assert_eq!(
        history
            .forget(&forgotten, "they moved", "anna", at(LAST))
            .await
            .expect("written"),
        1
    );
    history.close().await;
}

async fn make_policies(spool: &Path) {
    let world = World::new(RECORDS).await;
    let server = Host::start(
        &world.authority.issue(&["mta-sts.good.example"]),
        plain(MTA_STS.as_bytes()),
    )
    .await;
    let (dns, https) = world.tools();
    let web = WebSource::new(dns, https).with_port_and_timeout(server.port, POLICY_FETCH_TIMEOUT);
    let policies = MtaSts::open_at(spool, web, Arc::new(|| at(FIRST))).expect("our own version");
    assert!(matches!(
        policies.policy(&domain("good.example")).await,
        PublishedPolicy::Policy(_)
    ));
}

fn make_monitor(spool: &Path) {
    let monitor = Monitor::default();
    let Verdict::Cleared(clearance) = judge(
        &TlsPolicy::Opportunistic,
        TlsOutcome::Clear(NoTls::NotOffered),
        &[],
    ) else {
        panic!("nothing is demanded")
    };
    monitor.delivered("partner", &clearance, 4711, 3, Duration::from_secs(1));
    let shown = PartnerCertificate {
        connector: "partner",
        direction: Direction::Outbound,
        host: "mx.partner.example".to_owned(),
        from: None,
        shown: certificate(),
        refused: None,
    };
    monitor.certificates().store_sent(shown, at(FIRST));
    monitor
        .certificates()
        .warn_expiring(&[], |_, _| true, at(LATER));
    monitor.save(spool);
}

/// A file for each day, as if each record had been written at its time.
async fn make_evidence(folder: &Path) {
    let evidence = Evidence::open(folder, Duration::from_hours(24 * 400)).expect("ours");
    evidence.append_all(records()).await.expect("written");
    evidence.close().await;
    let written = fs::read_dir(folder)
        .expect("ours")
        .map(|entry| entry.expect("an entry").path());
    let written = written
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .expect("a day");
    let text = fs::read_to_string(&written).expect("text");
    fs::remove_file(written).expect("ours");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    for (when, part) in [
        (FIRST, &lines[..3]),
        (LATER, &lines[3..4]),
        (LAST, &lines[4..]),
    ] {
        fs::write(folder.join(format!("{}.jsonl", &when[..10])), part.concat()).expect("ours");
    }
}
