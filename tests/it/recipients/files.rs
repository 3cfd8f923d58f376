//! Files of recipients that change, and files that cannot be used.

use std::path::Path;
use std::time::Duration;

use gatepost::relay::recipient_tables::{KnownAnswer, RecipientAnswer, RecipientTables};
use gatepost::smtp::address::Mailbox;

use super::tables;
use super::world::{configured, file_at};

/// Writes a new version of the file, with another time of change.
fn rewrite(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("the folder is ours");
    std::fs::rename(&new, path).expect("the folder is ours");
}

fn exists(tables: &RecipientTables, mailbox: &str) -> bool {
    let mailbox = Mailbox::parse(mailbox).expect("a mailbox");
    let table = tables.find(&mailbox).expect("a table");
    table.known(&mailbox) == KnownAnswer::Known(Ok(RecipientAnswer::Exists))
}

#[test]
fn a_new_version_is_used_and_a_broken_one_changes_nothing() {
    let (path, table) = file_at("one@example.com\n");
    let folder = tempfile::tempdir().expect("a folder");
    let tables = tables(&configured(&folder, "", &table, &[]));
    assert!(exists(&tables, "one@example.com") && !exists(&tables, "two@example.com"));
    assert_eq!(tables.refresh(), (vec![], vec![]), "nothing has changed");

    rewrite(&path, "two@example.com\n@all.example.com\n");
    let (replaced, faults) = tables.refresh();
    assert_eq!((replaced.len(), faults.len()), (1, 0));
    assert_eq!((replaced[0].addresses, replaced[0].domains), (1, 1));
    assert!(!exists(&tables, "one@example.com") && exists(&tables, "two@example.com"));

    for (broken, line) in [
        ("one@example.com\nnonsense\n", 2),
        ("", 1),
        ("# nobody\n", 1),
        ("\nx@\n", 2),
    ] {
        rewrite(&path, broken);
        for _ in 0..2 {
            let (replaced, faults) = tables.refresh();
            assert_eq!((replaced.len(), faults.len()), (0, 1), "{broken:?}");
            assert_eq!(&*faults[0].location.file, &*path);
            assert_eq!(faults[0].location.line, line, "{broken:?}");
            assert!(exists(&tables, "two@example.com"), "{broken:?}");
        }
    }
    std::fs::remove_file(&path).expect("the file is ours");
    let (replaced, faults) = tables.refresh();
    assert_eq!((replaced.len(), faults.len()), (0, 1));
    assert!(faults[0].message.contains("cannot be read"), "{faults:?}");
    assert!(exists(&tables, "two@example.com"));

    rewrite(&path, "three@example.com\n");
    let (replaced, faults) = tables.refresh();
    assert_eq!((replaced.len(), faults.len()), (1, 0));
    assert!(exists(&tables, "three@example.com") && !exists(&tables, "two@example.com"));
}

#[test]
fn a_relay_does_not_start_with_a_file_that_it_cannot_use() {
    let folder = tempfile::tempdir().expect("a folder");
    for (text, wanted) in [
        ("one@example.com\ntwo\n", ":2:1: \"two\" is not a recipient"),
        ("", ":1:1: the file lists no recipient"),
    ] {
        let (_, table) = file_at(text);
        let faults = RecipientTables::load(&configured(&folder, "", &table, &[]));
        let faults = faults.expect_err("a fault");
        assert!(faults[0].to_string().contains(wanted), "{faults:?}");
    }
    let (path, table) = file_at("one@example.com\n");
    std::fs::remove_file(&path).expect("the file is ours");
    let faults = RecipientTables::load(&configured(&folder, "", &table, &[]));
    let faults = faults.expect_err("a fault");
    assert!(
        faults[0].to_string().contains("cannot be read"),
        "{faults:?}"
    );
    // A folder is not a file, and reading a pipe would wait for ever.
    std::fs::create_dir(&path).expect("the folder is ours");
    let faults = RecipientTables::load(&configured(&folder, "", &table, &[]));
    assert!(faults.is_err());
}

#[test]
fn the_keys_have_their_defaults() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configured(
        &folder,
        "",
        "[[recipients]]\ndomains = [\"example.com\"]\nfrom = \"ask\"\n",
        &[],
    );
    let table = &config.recipients[0];
    assert_eq!(table.cache, Duration::from_hours(1));
    assert_eq!(table.cache_of_no(), Duration::from_mins(6));
    assert_eq!(table.on_trouble.as_str(), "defer");
    assert_eq!(table.source.key(), "ask");
    let (_, listed) = file_at("one@example.com\n");
    let searched = "[[recipients]]\ndomains = [\"unchecked.example\"]\nfrom = \"ldap\"\n\
                    url = \"ldap://127.0.0.1\"\nbase = \"dc=example\"\nfilter = \"(mail=%s)\"\n";
    let config = configured(&folder, "", &format!("{listed}{searched}"), &[]);
    let tags: Vec<_> = config
        .recipients
        .iter()
        .map(|table| table.plus_tags)
        .collect();
    assert_eq!(tags, [true, false], "a file, a directory");
}

#[test]
fn tags_count_where_the_administrator_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    for (keys, of_tag) in [
        ("", true),
        ("plus_tags = true\n", true),
        ("plus_tags = false\n", false),
    ] {
        let (_, table) = file_at("one@example.com\ntwo+tag@example.com\n");
        let tables = tables(&configured(&folder, "", &format!("{table}{keys}"), &[]));
        assert_eq!(exists(&tables, "one+tag@example.com"), of_tag, "{keys}");
        assert!(exists(&tables, "one@example.com") && exists(&tables, "two+tag@example.com"));
        assert!(!exists(&tables, "two@example.com"), "{keys}");
    }
}
