//! Files of a crate that import each other, directly or over other files: none of them can be read
//! alone.
//!
//! A file imports another one with `use`, or with a path that begins with `crate`, `self`, `super`
//! or a module. A name counts for the file that defines it, also when it comes through a re-export.
//! `mod child;` is no import, and `pub use child::Name` is one only if the file uses `Name` itself.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::measures::Finding;
use crate::source::{Package, child};

/// Re-exports of re-exports are followed this far; it ends a circle of globs.
const DEPTH_MAX: usize = 16;

/// The files that are in a circle.
pub(crate) fn files_in_circles(package: &Package) -> Finding {
    let graph = Graph::of(package);
    let mut finding = Finding::default();
    for circle in graph.circles() {
        let name = |file: &usize| package.files[*file].path.display().to_string();
        let imports = circle.iter().map(|file| {
            let to = graph.imports[*file].intersection(&circle).map(name).collect::<Vec<_>>();
            format!("{} imports {}", name(file), to.join(", "))
        });
        finding.add(circle.len(), imports.collect::<Vec<_>>().join("\n  "));
    }
    finding
}

/// Which file imports which.
struct Graph {
    imports: Vec<BTreeSet<usize>>,
}

impl Graph {
    fn of(package: &Package) -> Self {
        let modules = Modules::of(package);
        let mut imports = vec![BTreeSet::new(); package.files.len()];
        for (index, file) in package.files.iter().enumerate() {
            let mut paths = Paths { module: file.module.clone(), found: Vec::new(), names: Vec::new() };
            paths.visit_file(&file.tree);
            let exports = paths.names.iter().filter(|(module, name)| modules.exports(module, &name[0]));
            let used = paths.found.iter().chain(exports);
            imports[index] = used.filter_map(|(module, path)| modules.file_of(module, path, 0)).collect();
            imports[index].remove(&index);
        }
        Self { imports }
    }

    /// Groups of at least two files, each of which reaches all others.
    fn circles(&self) -> Vec<BTreeSet<usize>> {
        let reach: Vec<_> = (0..self.imports.len()).map(|file| self.reach(file)).collect();
        let mut circles = BTreeSet::new();
        for file in 0..reach.len() {
            if reach[file].contains(&file) {
                circles.insert(reach[file].iter().copied().filter(|other| reach[*other].contains(&file)).collect());
            }
        }
        circles.into_iter().collect()
    }

    fn reach(&self, from: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut waiting: Vec<usize> = self.imports[from].iter().copied().collect();
        while let Some(file) = waiting.pop() {
            if reached.insert(file) {
                waiting.extend(&self.imports[file]);
            }
        }
        reached
    }
}

/// The names of a module.
#[derive(Default)]
struct Module {
    file: usize,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Vec<String>>,
    /// The names among `imports` that `pub use` brings in.
    exports: BTreeSet<String>,
    globs: Vec<Vec<String>>,
}

/// All modules of a crate, by path.
struct Modules(BTreeMap<Vec<String>, Module>);

impl Modules {
    fn of(package: &Package) -> Self {
        let mut modules = Self(BTreeMap::new());
        for (index, file) in package.files.iter().enumerate() {
            modules.add(index, &file.module, &file.tree.items);
        }
        modules
    }

    fn add(&mut self, file: usize, path: &[String], items: &[syn::Item]) {
        let module = self.0.entry(path.to_vec()).or_default();
        module.file = file;
        let mut inner = Vec::new();
        for item in items {
            match item {
                syn::Item::Use(item) => {
                    for (name, path) in flat(&item.tree) {
                        if name == "*" {
                            module.globs.push(path);
                            continue;
                        }
                        if !matches!(item.vis, syn::Visibility::Inherited) {
                            module.exports.insert(name.clone());
                        }
                        module.imports.insert(name, path);
                    }
                }
                syn::Item::Mod(item) => {
                    inner.extend(item.content.iter().map(|(_, items)| (item.ident.to_string(), items)))
                }
                _ => module.items.extend(name_of(item)),
            }
        }
        for (name, items) in inner {
            self.add(file, &child(path, &name), items);
        }
    }

    /// Whether the module re-exports `name`.
    fn exports(&self, module: &[String], name: &str) -> bool {
        self.0.get(module).is_some_and(|module| module.exports.contains(name))
    }

    /// The file that defines `path`, as the module `from` sees it; `None` outside this crate.
    fn file_of(&self, from: &[String], path: &[String], depth: usize) -> Option<usize> {
        if depth > DEPTH_MAX {
            return None;
        }
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.inside(&[], rest, depth),
            "self" => self.inside(from, rest, depth),
            "super" => self.file_of(from.split_last()?.1, &prefixed("self", rest), depth),
            _ => self.inside(from, path, depth),
        }
    }

    /// The file that defines `path` in `module`.
    fn inside(&self, module: &[String], path: &[String], depth: usize) -> Option<usize> {
        let here = self.0.get(module)?;
        let Some((first, rest)) = path.split_first() else { return Some(here.file) };
        if first == "super" || first == "self" {
            return self.file_of(module, path, depth);
        }
        let below = child(module, first);
        if self.0.contains_key(&below) {
            return self.inside(&below, rest, depth);
        }
        if here.items.contains(first) {
            return Some(here.file);
        }
        if let Some(import) = here.imports.get(first) {
            // `use name;` alone would lead back to itself.
            let whole: Vec<String> = import.iter().chain(rest).cloned().collect();
            return if import.len() > 1 { self.file_of(module, &whole, depth + 1) } else { None };
        }
        here.globs.iter().find_map(|glob| {
            let whole: Vec<String> = glob.iter().chain(path).cloned().collect();
            self.file_of(module, &whole, depth + 1)
        })
    }
}

fn prefixed(first: &str, rest: &[String]) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(rest.iter().cloned()).collect()
}

/// The names that a `use` brings in, with their paths; a glob is called `*`.
fn flat(tree: &syn::UseTree) -> Vec<(String, Vec<String>)> {
    match tree {
        syn::UseTree::Path(path) => {
            let first = path.ident.to_string();
            let below = flat(&path.tree).into_iter();
            below
                .map(|(name, rest)| (if name == "self" { first.clone() } else { name }, prefixed(&first, &rest)))
                .collect()
        }
        syn::UseTree::Name(name) if name.ident == "self" => vec![("self".to_owned(), Vec::new())],
        syn::UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        syn::UseTree::Rename(rename) if rename.ident == "self" => vec![(rename.rename.to_string(), Vec::new())],
        syn::UseTree::Rename(rename) => vec![(rename.rename.to_string(), vec![rename.ident.to_string()])],
        syn::UseTree::Glob(_) => vec![("*".to_owned(), Vec::new())],
        syn::UseTree::Group(group) => group.items.iter().flat_map(flat).collect(),
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Collects the paths of a file that may lead into another one.
struct Paths {
    /// Where the visitor is.
    module: Vec<String>,
    /// Module and path.
    found: Vec<(Vec<String>, Vec<String>)>,
    /// Module and a name alone: an item of the module, one that a `use` brought in, or a variable.
    names: Vec<(Vec<String>, Vec<String>)>,
}

impl Paths {
    fn add_inline(&mut self, path: Vec<String>) {
        let paths = if path.len() > 1 { &mut self.found } else { &mut self.names };
        paths.push((self.module.clone(), path));
    }

    /// The paths in the arguments of a macro, which are not parsed.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 && !path.is_empty() {
                        self.add_inline(std::mem::take(&mut path));
                    }
                    colons = 0;
                    path.push(ident.to_string());
                }
                other => {
                    if !path.is_empty() {
                        self.add_inline(std::mem::take(&mut path));
                    }
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.scan(group.stream());
                    }
                }
            }
        }
        if !path.is_empty() {
            self.add_inline(path);
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if matches!(item.vis, syn::Visibility::Inherited) {
            let paths = flat(&item.tree).into_iter().map(|(_, path)| (self.module.clone(), path));
            self.found.extend(paths);
        }
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.leading_colon.is_none() {
            self.add_inline(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        syn::visit::visit_macro(self, call);
        self.scan(call.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'a syn::Attribute) {}

    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        files_in_circles(&Package::sample(files)).places
    }

    #[test]
    fn files_that_import_each_other_are_reported() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { super::a::A; }"),
            ("c.rs", "use crate::{a, b::B};"),
        ]);
        assert_eq!(found, ["a.rs imports b.rs\n  b.rs imports a.rs"]);
    }

    #[test]
    fn a_path_inside_a_macro_counts() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::f; pub fn g() {}"),
            ("b.rs", "pub fn f() { x!(1, crate::a::g()) }"),
        ];
        assert_eq!(circles(&files).len(), 1);
    }

    #[test]
    fn a_name_counts_for_the_file_that_defines_it() {
        // `crate::A` is a's, through a glob and a re-export, so lib.rs is in no circle.
        let found = circles(&[
            ("lib.rs", "mod a; mod b; pub use a::*;"),
            ("a/mod.rs", "mod deep; pub use deep::A;"),
            ("a/deep.rs", "pub struct A; fn f() { crate::b::f() }"),
            ("b.rs", "use crate::A; pub fn f() {}"),
        ]);
        assert_eq!(found, ["a/deep.rs imports b.rs\n  b.rs imports a/deep.rs"]);
    }

    #[test]
    fn a_parent_that_imports_its_child_and_is_imported_by_it_is_a_circle() {
        let child = ("a.rs", "use super::Parent; pub struct Child;");
        let uses = "mod a; use a::Child; pub struct Parent { child: Child }";
        assert_eq!(circles(&[("lib.rs", uses), child]).len(), 1);
        let calls = "mod a; pub struct Parent; fn f() { a::Child::new() }";
        assert_eq!(circles(&[("lib.rs", calls), child]).len(), 1);
        let calls_in_a_macro = "mod a; pub struct Parent; fn f() { x!(a::Child::new()) }";
        assert_eq!(circles(&[("lib.rs", calls_in_a_macro), child]).len(), 1);
    }

    #[test]
    fn a_re_export_counts_if_its_file_uses_the_name() {
        let child = ("a.rs", "use super::Parent; pub struct Child; pub struct Deep;");
        let exports = "mod a; pub use a::Child; pub struct Parent { size: usize }";
        assert!(circles(&[("lib.rs", exports), child]).is_empty());
        for used in ["struct Parent { child: Child }", "struct Parent; fn f() { Child::new() }"] {
            for exports in ["pub use a::Child", "pub(crate) use a::Child", "pub use a::Deep as Child"] {
                let text = format!("mod a; {exports}; pub {used}");
                assert_eq!(circles(&[("lib.rs", text.as_str()), child]).len(), 1, "{text}");
            }
        }
    }

    #[test]
    fn test_code_and_other_crates_do_not_count() {
        let found = circles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; use b::C; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("b.rs", "use other::a::A; pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
