//! Included files: what they may have, in which order they are read, and where their faults are.

use std::fs;

use gatepost::config::{self, Config, Fault};

const MAIN: &str = "hostname = \"relay.example.com\"\npostmaster = \"p@example.com\"\n";
const LISTENER: &str = "[[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n";

/// A folder with a configuration that includes what the first argument says, and these files.
fn folder(include: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let main = format!("{MAIN}include = {include}\n{LISTENER}");
    fs::write(folder.path().join("gatepost.toml"), main).expect("our own folder");
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("our own folder");
        fs::write(file, text).expect("our own folder");
    }
    folder
}

fn read(folder: &tempfile::TempDir) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    config::read(&folder.path().join("gatepost.toml"))
}

/// The faults, each with its file without the folder.
fn faults(folder: &tempfile::TempDir) -> Vec<String> {
    let faults = read(folder).expect_err("there is a fault");
    let shown = |fault: &Fault| {
        let text = format!("{}: {}", fault.location, fault.message);
        text.replace(&format!("{}/", folder.path().display()), "")
    };
    faults.iter().map(shown).collect()
}

fn connector(name: &str) -> String {
    format!(
        "[[connector]]\nname = \"{name}\"\ndomains = [\"{name}.example\"]\noutbound.tls = \"forced\"\n"
    )
}

#[test]
fn connectors_are_read_in_the_order_of_patterns_and_names() {
    let (b, a, z) = (connector("b"), connector("a"), connector("z"));
    let folder = folder(
        "[\"z.toml\", \"d/*.toml\", \"d/a.toml\"]",
        &[
            ("z.toml", &z),
            ("d/b.toml", &b),
            ("d/a.toml", &format!("\u{feff}{a}")),
            ("d/.hidden.toml", "not toml"),
            ("d/a.toml~", "not toml"),
            ("d/folder.toml/x.toml", "not toml"),
        ],
    );
    let (config, warnings) = read(&folder).expect("a good configuration");
    let names: Vec<_> = config
        .connectors
        .iter()
        .map(|each| each.name.as_str())
        .collect();
    assert_eq!(names, ["z", "a", "b"]);
    assert_eq!(warnings, []);
}

#[test]
fn a_path_in_an_included_file_starts_from_its_own_folder() {
    let pinned = connector("a") + "outbound.verify = \"chain\"\ntrust = \"authority.pem\"\n";
    let folder = folder("[\"d/*.toml\"]", &[("d/a.toml", &pinned)]);
    let (config, _) = read(&folder).expect("a good configuration");
    let shown = format!("{:?}", config.connectors[0]);
    let path = folder.path().join("d/authority.pem");
    assert!(shown.contains(&*path.to_string_lossy()), "{shown}");
}

#[test]
fn recipients_are_read_from_included_files_too() {
    let table = |domain| {
        format!("[[recipients]]\ndomains = [\"{domain}\"]\nfrom = \"file\"\nfile = \"list.txt\"\n")
    };
    let text = format!("{}{}", table("a.example"), connector("x"));
    let files = [
        ("d/a.toml", text.as_str()),
        ("d/b.toml", &table("b.example")),
    ];
    let (config, _) = read(&folder("[\"d/*.toml\"]", &files)).expect("a good configuration");
    let domains: Vec<_> = config
        .recipients
        .iter()
        .map(|table| table.domains[0].to_string())
        .collect();
    assert_eq!(domains, ["a.example", "b.example"]);
    assert_eq!(config.connectors.len(), 1);
    let shown = format!("{:?}", config.recipients[0].source);
    assert!(shown.contains("/d/list.txt"), "{shown}");
}

#[test]
fn each_fault_names_its_own_file_and_line() {
    let (a, again) = (connector("a"), connector("a"));
    for (files, expected) in [
        (
            vec![(
                "d/a.toml",
                "[[connector]]\nname = \"a\"\ndomains = [\"a.example\"]\noutbound.tls = \"forcd\"\n",
            )],
            vec!["d/a.toml:4:16: tls cannot be \"forcd\""],
        ),
        (vec![("d/a.toml", "[[connector]\n")], vec!["d/a.toml:1:"]),
        (
            vec![("d/a.toml", &*a), ("d/b.toml", &*again)],
            vec!["d/b.toml:2:8: ", "d/b.toml:3:12: "],
        ),
        (
            vec![(
                "d/a.toml",
                "hostname = \"x.example\"\n[[conector]]\nname = \"a\"\n",
            )],
            vec![
                "d/a.toml:1:1: \"hostname\" has no place in an included file",
                "d/a.toml:2:3: \"conector\" has no place in an included file",
            ],
        ),
        (
            vec![
                (
                    "d/a.toml",
                    "[[recipients]]\ndomains = [\"a.example\"]\nfrom = \"ask\"\nfile = \"x\"\n",
                ),
                (
                    "d/b.toml",
                    "\n[[recipients]]\ndomains = [\"a.example\"]\nfrom = \"asc\"\n",
                ),
            ],
            vec![
                "d/a.toml:4:8: file has no use",
                "d/b.toml:3:12: [[recipients]] already lists \"a.example\"",
                "d/b.toml:4:8: from cannot be \"asc\"",
            ],
        ),
        (
            vec![("d/a.toml", "include = [\"b.toml\"]\n")],
            vec!["d/a.toml:1:1: \"include\" has no place in an included file"],
        ),
        (
            vec![(
                "d/a.toml",
                "[[connector]]\nname = \"a\"\ndomains = [\"a.example\"]\ntls = \"forced\"\n",
            )],
            vec!["d/a.toml:4:1: unknown key \"tls\" in [[connector]]"],
        ),
    ] {
        let found = faults(&folder("[\"d/*.toml\"]", &files));
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} is not at {expected}");
        }
    }
}

/// A misspelt path must not silently leave out what connectors demand.
#[test]
fn a_file_or_folder_that_is_not_there_is_a_fault_and_an_empty_folder_a_warning() {
    for (include, expected) in [
        (
            "[\"d/a.toml\"]",
            "gatepost.toml:3:12: include: no file matches \"d/a.toml\"",
        ),
        (
            "[\"d/*.toml\"]",
            "gatepost.toml:3:12: include: no file matches \"d/*.toml\"",
        ),
        (
            "[\"***\"]",
            "gatepost.toml:3:12: include: \"***\" is no pattern",
        ),
        ("\"d/*.toml\"", "gatepost.toml:3:11: include must be a list"),
        (
            "[\"*.toml\"]",
            "gatepost.toml:1:1: this file includes itself",
        ),
    ] {
        let found = faults(&folder(include, &[]));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(expected), "{}", found[0]);
    }
    let empty = folder("[\"d/*.toml\"]", &[("d/README", "")]);
    let (_, warnings) = read(&empty).expect("a good configuration");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert_eq!(warnings[0].message, "include: no file matches \"d/*.toml\"");
}

#[test]
fn the_digest_covers_all_files() {
    let folder = folder("[\"d/*.toml\"]", &[("d/a.toml", &connector("a"))]);
    let digest = |folder: &tempfile::TempDir| {
        let (config, _) = read(folder).expect("a good configuration");
        config.source.digest
    };
    let before = digest(&folder);
    let file = folder.path().join("d/a.toml");
    fs::write(&file, connector("a") + "# changed\n").expect("our own folder");
    assert_ne!(digest(&folder), before);
    fs::write(&file, connector("a")).expect("our own folder");
    assert_eq!(digest(&folder), before);
}

/// A folder that is not mounted, or a misspelt pattern, must not take away what is demanded of
/// partners. Files that are to go are removed with their pattern.
#[test]
fn included_files_that_are_gone_are_a_fault_of_the_change() {
    let (a, b) = (connector("a"), connector("b"));
    let both = [("d/a.toml", &*a), ("e/b.toml", &*b), ("f/README", "")];
    let patterns = "[\"d/*.toml\", \"./e//*.toml\", \"f/*.toml\"]";
    for (include, files, wanted) in [
        (patterns, &both[..], None),
        (
            patterns,
            &[("d/README", ""), both[1], both[2]],
            Some("d/*.toml"),
        ),
        (
            patterns,
            &[both[0], ("e/README", ""), both[2]],
            Some("./e//*.toml"),
        ),
        (
            "[\"d/*.tml\", \"e/*.toml\", \"f/*.toml\"]",
            &both,
            Some("d/*.tml"),
        ),
        // The pattern is gone too, or matches another file, or never had one.
        ("[\"./e//*.toml\", \"f/*.toml\"]", &both, None),
        (patterns, &[("d/c.toml", &*a), both[1], both[2]], None),
        ("[\"d/*.toml\", \"f/*.toml\"]", &both, None),
        ("[\"d/*.toml\", \"e/*.toml\", \"f/*.cf\"]", &both, None),
    ] {
        let before = folder(patterns, &both);
        let (old, _) = read(&before).expect("a good configuration");
        // The same files later, in the same place.
        let place = before.path().to_owned();
        for name in ["d", "e", "f"] {
            fs::remove_dir_all(place.join(name)).expect("our own folder");
        }
        let main = format!("{MAIN}include = {include}\n{LISTENER}");
        fs::write(place.join("gatepost.toml"), main).expect("our own folder");
        for (name, text) in files {
            let file = place.join(name);
            fs::create_dir_all(file.parent().expect("a parent")).expect("our own folder");
            fs::write(file, text).expect("our own folder");
        }
        let (new, _) = read(&before).expect("good in itself");
        let faults = config::lost_files(&old.source, &new.source);
        let found: Vec<_> = faults.iter().map(|fault| &*fault.message).collect();
        match wanted {
            None => assert_eq!(found, [""; 0], "{include}"),
            Some(pattern) => {
                assert_eq!(found.len(), 1, "{include}: {found:?}");
                let begin = format!("include: no file matches \"{pattern}\"");
                assert!(found[0].starts_with(&begin), "{include}: {found:?}");
                assert_eq!(faults[0].location.line, 3);
            }
        }
    }
}
