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

/// A host has two of the four places for fetches.
#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_leaves_places_for_others() {
    let (points, started) = points(FetcherBehaviour::Hangs);
    let (need, _) = need_and_crl();
    let mut expected = 0;
    for (host, most) in [("one.example", 2), ("TWO.example", 2), ("three.example", 0)] {
        for number in 0..5 {
            let url = format!("http://{host}/{number}.crl");
            assert!(points.request(key(&url), need.clone()).is_some(), "{url}");
        }
        settle().await;
        expected += most;
        assert_eq!(started.load(Ordering::SeqCst), expected, "{host}");
    }
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
