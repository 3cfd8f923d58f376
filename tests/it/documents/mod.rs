//! The documents of the repository agree with its code: `docs/rules.md` with the rules that it
//! lists, every document with the paths that it names, and all texts with the glossary.

mod paths;
mod rules;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

/// Files by their path from the root of the repository.
type Files = BTreeMap<String, String>;

/// The text of every file below these folders of the repository.
fn files_below(folders: &[&str]) -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Files::new();
    let mut open: Vec<_> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("a folder of the repository")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let name = path
                    .strip_prefix(root)
                    .expect("below the root")
                    .to_string_lossy()
                    .into_owned();
                files.insert(name, text);
            }
        }
    }
    files
}

/// The documents: those at the root of the repository, and those in `docs`.
fn documents() -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = files_below(&["docs"]);
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ] {
        documents.insert(
            name.to_owned(),
            std::fs::read_to_string(root.join(name)).expect(name),
        );
    }
    documents.retain(|name, _| {
        Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "md")
    });
    documents
}

/// The texts between backticks, in their order.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}
