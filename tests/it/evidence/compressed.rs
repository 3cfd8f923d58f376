//! Closed days are compressed, and everything that reads evidence reads both forms.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gatepost::storage::evidence::{
    Defect, Evidence, Period, Verification, deliveries, first_record, verify,
};
use jiff::Timestamp;

use super::folder::until;
use super::world::{KEEP, compress, files, folder, lines, name, one_delivery, put, write};
use crate::support::chain::AppendRecords as _;

/// A chain of seven records: two of an old day, three of one between, two of today.
pub(super) async fn three_days() -> tempfile::TempDir {
    let folder = folder();
    write(folder.path(), 6).await;
    let all = lines(&folder.path().join(name(0)));
    for (days_ago, part) in [(9, &all[..2]), (5, &all[2..5]), (0, &all[5..])] {
        put(&folder.path().join(name(days_ago)), part);
    }
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let name = |path: &std::path::PathBuf| {
        path.file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned()
    };
    files(folder).iter().map(name).collect()
}

/// The number of deliveries, and the verification.
fn read(folder: &Path) -> (u64, Verification) {
    let mut count = 0;
    let read = deliveries(folder, Period::ALL, |_, _, _| count += 1).expect("readable");
    (count, read.chain)
}

#[tokio::test]
async fn a_closed_day_is_compressed_and_reads_as_before() {
    let folder = three_days().await;
    let before = verify(folder.path(), &[]).expect("readable").last;
    // Of a day that is not there any more, so that it is not compressed again at once.
    let left_by_a_crash = folder.path().join(format!("{}.gz.new", name(10)));
    fs::write(&left_by_a_crash, "half").expect("ours");
    let evidence = Evidence::open(folder.path(), KEEP).expect("ours");
    assert!(!left_by_a_crash.exists());
    let compressed = [
        format!("{}.gz", name(9)),
        format!("{}.gz", name(5)),
        name(0),
    ];
    until(|| names(folder.path()) == compressed).await;
    let (count, chain) = read(folder.path());
    assert_eq!((count, chain.records, chain.findings), (6, 7, vec![]));
    assert_eq!(chain.last, before);
    evidence
        .append(Timestamp::now(), one_delivery("later.example"))
        .await
        .expect("written");
    evidence.close().await;
    assert_eq!(read(folder.path()).0, 7);
    assert_eq!(names(folder.path()), compressed, "today is not compressed");
    let first = first_record(folder.path()).expect("readable");
    assert_eq!(first.expect("a record").seq, 1);
}

/// After the file of today is lost, the chain continues after the last compressed record, in a
/// later file.
#[tokio::test]
async fn a_chain_continues_after_a_compressed_day() {
    let folder = folder();
    write(folder.path(), 2).await;
    compress(&folder.path().join(name(0)));
    write(folder.path(), 1).await;
    let (count, chain) = read(folder.path());
    assert_eq!((count, chain.findings), (3, vec![]));
    let tomorrow = Timestamp::now() + Duration::from_hours(24);
    assert_eq!(
        names(folder.path()),
        [
            format!("{}.gz", name(0)),
            format!("{}.jsonl", tomorrow.strftime("%Y-%m-%d"))
        ],
        "nothing is appended to a compressed day"
    );
}

type Damage = (&'static str, fn(Vec<u8>) -> Vec<u8>, &'static str);

const DAMAGES: [Damage; 6] = [
    (
        "cut",
        |mut octets| octets.drain(..octets.len() - 20).collect(),
        "file",
    ),
    ("empty", |_| Vec::new(), "file"),
    (
        "an octet changed",
        |mut octets| {
            let middle = octets.len() / 2;
            octets[middle] ^= 0x55;
            octets
        },
        "",
    ),
    (
        "another checksum",
        |mut octets| {
            let at = octets.len() - 8;
            octets[at] ^= 1;
            octets
        },
        "checksum",
    ),
    (
        "text behind it",
        |octets| [octets, b"text".to_vec()].concat(),
        "",
    ),
    ("an endless line", |_| bomb(), "256 times its size"),
];

/// A small file that stands for 64 MiB.
fn bomb() -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let block = vec![b' '; 64 << 10];
    for _ in 0..1024 {
        encoder.write_all(&block).expect("memory");
    }
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn a_damaged_compressed_day_is_a_defect_with_file_and_line() {
    for (damage, apply, words) in DAMAGES {
        let folder = three_days().await;
        let day = compress(&folder.path().join(name(5)));
        let octets = fs::read(&day).expect("ours");
        fs::write(&day, apply(octets)).expect("ours");
        let (count, chain) = read(folder.path());
        let found = chain
            .findings
            .iter()
            .find(|finding| matches!(finding.found, Defect::Damaged { .. }));
        let found = found.unwrap_or_else(|| panic!("{damage}: {:?}", chain.findings));
        assert_eq!(found.file, day, "{damage}");
        // A changed octet may stand for several line ends.
        assert!(
            (1..=4).contains(&found.line) || damage == "an octet changed",
            "{damage}: line {}",
            found.line
        );
        let text = found.to_string();
        assert!(
            text.contains("damaged from this line on: ") && text.contains(words),
            "{damage}: {text}"
        );
        assert!(count >= 3, "{damage}: the other days are read, {count}");
    }
}
