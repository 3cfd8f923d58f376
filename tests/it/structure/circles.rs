//! Circles between files: file A uses a name that file B defines, and B, directly or through
//! others, one that A defines. A file that only re-exports a name does not use it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::imports::{Import, paths};
use super::proofs::without_tests;
use super::source::{Source, Token, is_word, text};

/// The keywords before the name of an item.
const ITEMS: [&str; 8] = [
    "fn", "struct", "enum", "trait", "type", "const", "static", "union",
];

type Module<'a> = Vec<&'a str>;

/// The names of one file.
#[derive(Default)]
struct Names<'a> {
    /// The names of its items.
    defined: HashSet<&'a str>,
    /// The names that it imports, and the path from the root of each.
    imported: HashMap<&'a str, Module<'a>>,
    /// The paths that it uses, from the root.
    used: BTreeSet<Module<'a>>,
}

/// The circles between files, one line each.
pub(crate) fn faults(sources: &[Source]) -> Vec<String> {
    let production = sources.iter().filter(|source| !source.is_test());
    let files: Vec<_> = production
        .map(|source| (source, without_tests(&source.tokens())))
        .collect();
    let modules: HashSet<Module<'_>> = files.iter().map(|(source, _)| source.module()).collect();
    let names: BTreeMap<Module<'_>, Names<'_>> = files
        .iter()
        .map(|(source, tokens)| {
            (
                source.module(),
                names_of(&source.module(), tokens, &modules),
            )
        })
        .collect();
    let edges: BTreeMap<_, BTreeSet<_>> = names
        .iter()
        .map(|(module, of)| {
            let to = of
                .used
                .iter()
                .filter_map(|path| definition(&names, path, 0));
            (module.clone(), to.filter(|to| to != module).collect())
        })
        .collect();
    let mut left: BTreeSet<_> = edges.keys().cloned().collect();
    let mut circles = Vec::new();
    while let Some(module) = left.pop_first() {
        let reached = reach(&edges, &module);
        if !reached.contains(&module) {
            continue;
        }
        let circle: BTreeSet<_> = reached
            .into_iter()
            .filter(|other| reach(&edges, other).contains(&module))
            .collect();
        left.retain(|other| !circle.contains(other));
        let ties = circle.iter().flat_map(|from| {
            let to = edges[from].intersection(&circle);
            to.map(|to| format!("{} uses {}", from.join("::"), to.join("::")))
        });
        circles.push(ties.collect::<Vec<_>>().join("; "));
    }
    circles
}

/// All modules that a module leads to, over one edge or more.
fn reach<'a>(
    edges: &BTreeMap<Module<'a>, BTreeSet<Module<'a>>>,
    from: &Module<'a>,
) -> BTreeSet<Module<'a>> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in &edges[module] {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    reached
}

/// The module whose file defines what a path names; `None` for a module itself.
fn definition<'a>(
    names: &BTreeMap<Module<'a>, Names<'a>>,
    path: &[&'a str],
    steps: usize,
) -> Option<Module<'a>> {
    let depth = (0..=path.len())
        .rev()
        .find(|depth| names.contains_key(&path[..*depth]))?;
    let (module, rest) = path.split_at(depth);
    let name = rest.first()?;
    let of = &names[module];
    match of.imported.get(name) {
        // A chain of re-exports is short; a longer one is an import of itself.
        Some(import) if !of.defined.contains(name) && steps < 8 => {
            let onward: Vec<_> = import.iter().chain(&rest[1..]).copied().collect();
            definition(names, &onward, steps + 1)
        }
        _ => Some(module.to_vec()),
    }
}

fn names_of<'a>(
    module: &[&'a str],
    tokens: &[Token<'a>],
    modules: &HashSet<Module<'a>>,
) -> Names<'a> {
    let mut names = Names::default();
    for pair in tokens.windows(2) {
        if ITEMS.contains(&pair[0].text) && is_word(pair[1].text) {
            names.defined.insert(pair[1].text);
        }
    }
    let depth = module.len();
    for path in paths(tokens, depth, |word| {
        let child: Module<'a> = module.iter().copied().chain([word]).collect();
        modules.contains(&child)
    }) {
        let Some(words) = path.absolute(module) else {
            continue;
        };
        let Some(import) = path.import else {
            names.used.insert(words);
            continue;
        };
        // A re-exported name that stands nowhere else in the file is not used by it.
        let uses = tokens
            .iter()
            .filter(|token| token.text == path.name)
            .count();
        if import == Import::Private || uses > 1 {
            names.used.insert(words.clone());
        }
        names.imported.insert(path.name, words);
    }
    // Through an imported module: `access::may_relay`.
    for at in 0..tokens.len() {
        let before = at.checked_sub(1).map_or("", |before| text(tokens, before));
        if before != "::"
            && text(tokens, at + 1) == "::"
            && is_word(text(tokens, at + 2))
            && let Some(import) = names.imported.get(tokens[at].text)
        {
            let mut words = import.clone();
            words.push(text(tokens, at + 2));
            names.used.insert(words);
        }
    }
    names
}
