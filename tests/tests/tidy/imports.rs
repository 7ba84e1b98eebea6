//! How many names a file imports: a file that imports half of the workspace has more than one idea.

use crate::measures::Finding;
use crate::source::Package;

/// The number of imported names that nine of ten files of `packages` do not exceed.
pub(crate) fn p90(packages: &[&Package]) -> Finding {
    let files = packages.iter().flat_map(|package| &package.files);
    let mut counts: Vec<_> = files
        .map(|file| {
            let uses = file.tree.items.iter().filter_map(|item| match item {
                syn::Item::Use(item) => Some(names(&item.tree)),
                _ => None,
            });
            (uses.sum::<usize>(), file.path.display().to_string())
        })
        .collect();
    counts.sort();
    let rank = (counts.len().saturating_sub(1) * 9 + 5) / 10;
    Finding {
        count: counts.get(rank).map_or(0, |(count, _)| *count),
        places: counts.iter().rev().take(20).map(|(count, path)| format!("{path}: {count} names")).collect(),
    }
}

fn names(tree: &syn::UseTree) -> usize {
    match tree {
        syn::UseTree::Path(path) => names(&path.tree),
        syn::UseTree::Group(group) => group.items.iter().map(names).sum(),
        syn::UseTree::Name(_) | syn::UseTree::Rename(_) | syn::UseTree::Glob(_) => 1,
    }
}

#[test]
fn names_are_counted_and_not_lines() {
    let uses = "use a::{B, c::{D, E as F}, G::*};\nuse h;\n#[cfg(test)]\nuse i::J;\n";
    let package = Package::sample(&[("lib.rs", uses)]);
    assert_eq!(p90(&[&package]).count, 5);
}
