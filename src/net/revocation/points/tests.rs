//! The times and limits of fetches, with a fetcher that behaves as a test wants and a clock that leaps.

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer,
    KeyIdMethod, KeyPair, SerialNumber, date_time_ymd,
};

use super::*;

/// The behaviour of a fetcher.
enum FetcherBehaviour {
    Fails,
    Hangs,
    Finds(Bytes),
}

/// A fetcher that counts its fetches.
struct Counted {
    behaviour: FetcherBehaviour,
    started: Arc<AtomicUsize>,
}

impl FetchCrl for Counted {
    fn fetch<'a>(&'a self, _: CrlRequest<'a>) -> CrlFuture<'a> {
        self.started.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            match &self.behaviour {
                FetcherBehaviour::Fails => Err("there is none".into()),
                FetcherBehaviour::Hangs => std::future::pending().await,
                FetcherBehaviour::Finds(crl) => {
                    let validators = CrlValidators::default();
                    Ok(CrlResponse::Content(crl.clone(), validators))
                }
            }
        })
    }
}

fn points(behaviour: FetcherBehaviour) -> (DistributionPoints, Arc<AtomicUsize>) {
    let started = Arc::<AtomicUsize>::default();
    let fetcher = Counted {
        behaviour,
        started: Arc::clone(&started),
    };
    let points = DistributionPoints::new(PointFiles::none(), Box::new(fetcher));
    (points, started)
}

fn key(url: &str) -> PointKey {
    PointKey {
        url: url.to_owned(),
        issuer: "an issuer".to_owned(),
    }
}

/// The need of a certificate of an authority, and a CRL of that.
fn need_and_crl() -> (CrlNeed, Bytes) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    let crl = CertificateRevocationListParams {
        this_update: date_time_ymd(2021, 1, 1),
        next_update: date_time_ymd(2090, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = crl
        .signed_by(&Issuer::from_params(&params, &key))
        .expect("a CRL");
    let need = CrlNeed::sample("http://crl.example/a.crl", certificate.der());
    (need, Bytes::copy_from_slice(crl.der()))
}

/// Lets the tasks that are ready run.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_holds_sessions_for_ten_seconds_and_ends_after_a_minute() {
    let (points, started) = points(FetcherBehaviour::Hangs);
    let (need, _) = need_and_crl();
    let ask = || points.request(key("http://crl.example/a.crl"), need.clone());
    assert!(ask().is_some(), "the first starts it");
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(
        ask().is_some(),
        "others wait for the rest of the ten seconds"
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(ask().is_none(), "then nobody waits");
    assert_eq!(
        (points.fetches(), started.load(Ordering::SeqCst)),
        ((0, 0), 1)
    );
    tokio::time::sleep(Duration::from_secs(50)).await;
    let failure = "http://crl.example/a.crl: it took longer than 60s";
    assert_eq!(points.summaries()[0].failure.as_deref(), Some(failure));
    assert_eq!(points.fetches(), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_failed_is_repeated_after_five_minutes() {
    let (points, started) = points(FetcherBehaviour::Fails);
    let (need, _) = need_and_crl();
    let ask = || points.request(key("http://crl.example/a.crl"), need.clone());
    assert!(ask().is_some());
    settle().await;
    for (seconds, starts, is_repeated) in [(0, false, 1), (295, false, 1), (10, true, 2)] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(ask().is_some(), starts, "{seconds}");
        settle().await;
        assert_eq!(started.load(Ordering::SeqCst), is_repeated);
    }
    // The periodic search does the same.
    points.refresh_due();
    settle().await;
    assert_eq!(started.load(Ordering::SeqCst), 2);
    tokio::time::sleep(RETRY).await;
    points.refresh_due();
    settle().await;
    assert_eq!(started.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_crl_in_use_is_fetched_every_hour_and_one_that_nobody_needs_no_longer() {
    let (need, crl) = need_and_crl();
    let (points, _) = points(FetcherBehaviour::Finds(crl));
    let done = async |count| {
        while points.fetches() != (count, 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        settle().await;
    };
    let ask = || points.request(key("http://crl.example/a.crl"), need.clone());
    assert!(ask().is_some());
    done(1).await;
    tokio::time::sleep(Duration::from_mins(59)).await;
    points.refresh_due();
    assert!(ask().is_none(), "the one that is held is current");
    tokio::time::sleep(Duration::from_mins(1)).await;
    points.refresh_due();
    done(2).await;
    assert!(points.summaries()[0].is_used);
    tokio::time::sleep(UNUSED).await;
    points.refresh_due();
    settle().await;
    assert_eq!(points.fetches(), (2, 0));
    assert!(!points.summaries()[0].is_used);
    assert!(
        points.summaries()[0].crl.is_some(),
        "it is held nevertheless"
    );
}

/// A need below this anchor.
fn need_below(anchor: &str) -> CrlNeed {
    let (mut need, _) = need_and_crl();
    need.anchor = anchor.to_owned();
    need
}

/// A host, and an anchor, have two of the six places for fetches.
#[tokio::test(start_paused = true)]
async fn a_host_or_an_anchor_that_hangs_leaves_places_for_others() {
    let one_host = |group: &str, number| (format!("{group}.example"), format!("{group}{number}"));
    let one_anchor = |group: &str, number| (format!("{group}{number}.example"), group.to_owned());
    for shared in [one_host, one_anchor] {
        let (points, started) = points(FetcherBehaviour::Hangs);
        let mut expected = 0;
        for (group, most) in [("one", 2), ("two", 2), ("three", 2), ("four", 0)] {
            for number in 0..5 {
                let (host, anchor) = shared(group, number);
                let url = format!("http://{host}/{number}.crl");
                let need = need_below(&anchor);
                assert!(points.request(key(&url), need).is_some(), "{url}");
            }
            settle().await;
            expected += most;
            assert_eq!(started.load(Ordering::SeqCst), expected, "{group}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_fetches_that_wait_for_an_anchor_are_limited() {
    let (points, _) = points(FetcherBehaviour::Hangs);
    let ask = |anchor: &str, number: usize| {
        let url = format!("http://{number}.example/{anchor}.crl");
        points.request(key(&url), need_below(anchor)).is_some()
    };
    for number in 0..2 * WAITING_MAX {
        assert_eq!(ask("greedy", number), number < WAITING_MAX, "{number}");
    }
    assert!(ask("other", 0));
    assert_eq!(points.summaries().len(), WAITING_MAX + 1);
}

/// The others have their turn when places are free.
#[tokio::test(start_paused = true)]
async fn the_fetches_of_crls_in_use_are_limited_for_an_anchor_too() {
    let (points, _) = points(FetcherBehaviour::Fails);
    for number in 0..2 * WAITING_MAX {
        let url = format!("http://{number}.example/");
        points.request(key(&url), need_below("greedy"));
        settle().await;
    }
    let hanging = Counted {
        behaviour: FetcherBehaviour::Hangs,
        started: Arc::default(),
    };
    points.replace(Box::new(hanging));
    points.refresh_due();
    let under_way = || {
        let all = points.0.points();
        let under_way = all.values().filter(|point| point.under_way().is_some());
        under_way.count()
    };
    assert_eq!(under_way(), WAITING_MAX);
    points.refresh_due();
    assert_eq!(under_way(), WAITING_MAX);
}

/// The one that was used least recently is another's.
#[tokio::test(start_paused = true)]
async fn an_anchor_with_many_distribution_points_loses_its_own_first() {
    let (points, _) = points(FetcherBehaviour::Fails);
    points.request(key("http://modest.example/"), need_below("modest"));
    for number in 0..300 {
        settle().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let url = format!("http://{number}.example/");
        points.request(key(&url), need_below("greedy"));
    }
    let all = points.summaries();
    assert_eq!(all.len(), COUNT_MAX);
    let has = |host: &str| all.iter().any(|point| point.host == host);
    assert!(has("modest.example") && has("299.example") && !has("0.example"));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_distribution_points_is_limited() {
    let (points, _) = points(FetcherBehaviour::Fails);
    let (need, _) = need_and_crl();
    for number in 0..300 {
        // The first one is needed again and again.
        for url in [
            "http://first.example/".to_owned(),
            format!("http://{number}.example/"),
        ] {
            points.request(key(&url), need.clone());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let all = points.summaries();
    assert_eq!(all.len(), COUNT_MAX);
    let has = |host: &str| all.iter().any(|point| point.host == host);
    assert!(has("first.example") && has("299.example") && !has("0.example"));
}

/// The least recently used CRL goes first, and the one that has just come stays.
#[test]
fn the_octets_of_all_crls_are_limited() {
    let (_, octets) = need_and_crl();
    let now = Instant::now();
    let mut points = HashMap::new();
    for age in 0..4 {
        let crl = Crl::parse_all(&octets).expect("a CRL").pop().map(Arc::new);
        let point = Point {
            crl,
            last_used: now - Duration::from_secs(age),
            ..Point::new(now)
        };
        points.insert(key(&format!("http://{age}.example/")), point);
    }
    let left = |points: &HashMap<PointKey, Point>| {
        let mut hosts: Vec<_> = points.keys().map(|key| key.host().to_owned()).collect();
        hosts.sort();
        hosts
    };
    evict(&mut points, (COUNT_MAX, 4 * octets.len()), None);
    assert_eq!(points.len(), 4);
    let oldest = key("http://3.example/");
    evict(&mut points, (COUNT_MAX, 3 * octets.len()), Some(&oldest));
    assert_eq!(left(&points), ["0.example", "1.example", "3.example"]);
    evict(&mut points, (COUNT_MAX, octets.len()), None);
    assert_eq!(left(&points), ["0.example"]);
}

/// The result of the check with one key says nothing about another of the same name.
#[test]
fn a_crl_is_signed_for_the_key_of_its_issuer_alone() {
    let ((own, octets), (other, _)) = (need_and_crl(), need_and_crl());
    let (own, other) = ((own, true), (other, false));
    for needs in [[&own, &other], [&other, &own]] {
        let crl = Crl::parse_all(&octets).expect("a CRL").remove(0);
        for (need, is_signed) in needs.repeat(2) {
            assert_eq!(need.is_signed(&crl), *is_signed);
        }
    }
}
