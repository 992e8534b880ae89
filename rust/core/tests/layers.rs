//! The layer table in `lib.rs` is the rule: a module names only itself and modules before it in the table.
//!
//! Sources are read as text. Comments and tests may name anything.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the table, lowest first: the quoted names of `//! | L1 | `name`, `name` (what they do) |`.
fn table(lib: &str) -> Vec<String> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | L"));
    let cells = rows.filter_map(|row| row.split('|').nth(1)?.split('(').next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Modules of this crate that a source names; `depth` is 1 in the file of a top-level module, 2 below it.
fn named(source: &str, depth: usize) -> Vec<&str> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let root = "super::".repeat(depth);
    code.flat_map(|line| line.split("crate::").skip(1).chain(line.split(root.as_str()).skip(1)))
        .map(|path| {
            assert!(!path.starts_with(['{', '*']), "one `use` for each module, so that this test can read it: {path}");
            path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
        })
        .filter(|name| *name != "super")
        .collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

#[test]
fn modules_know_only_those_before_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(root.join("lib.rs")).unwrap();
    let order = table(&lib);
    let mut declared: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    declared.sort_unstable();
    let mut listed: Vec<&str> = order.iter().map(String::as_str).collect();
    listed.sort_unstable();
    assert_eq!(declared, listed, "modules of the crate and of the table");

    let mut known = 0;
    for path in sources(&root) {
        let parts = path.strip_prefix(&root).unwrap().with_extension("");
        let parts: Vec<&str> = parts.iter().map(|part| part.to_str().unwrap()).collect();
        if matches!(parts.as_slice(), ["lib"] | [.., "tests"]) {
            continue;
        }
        let depth = parts.iter().filter(|part| **part != "mod").count();
        let own = order.iter().position(|module| module == parts[0]);
        for name in named(&fs::read_to_string(&path).unwrap(), depth) {
            let other = order.iter().position(|module| module == name);
            assert!(other.is_some(), "{}: `crate::{name}` is in no layer", path.display());
            assert!(other <= own, "{}: `{}` must not know `{name}`, which stands above it", path.display(), parts[0]);
            known += 1;
        }
    }
    assert!(known > 50, "only {known} uses found: does this test still read the sources?");
}

#[test]
fn uses_are_found() {
    let source = "//! [`crate::a`]\nuse crate::b::{C, D};\nuse super::e::f;\nfn f() { crate::g::h() } // crate::k
#[cfg(test)]\nmod tests {\n    use crate::l;\n}\n";
    assert_eq!(named(source, 1), ["b", "e", "g"]);
    assert_eq!(named(source, 2), ["b", "g"]);
    assert_eq!(named("use super::a::b;\nuse super::super::c::d;\n", 2), ["c"]);
    let lib =
        "//! | layer | modules |\n//! |---|---|\n//! | L0 | `a`, `b` |\n//! | L1 | `c` (`X` -> `Y`) |\npub mod a;\n";
    assert_eq!(table(lib), ["a", "b", "c"]);
}
