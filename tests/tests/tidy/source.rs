//! The sources of a package, parsed, without test code.
//!
//! Test code is an item under `#[cfg(test)]`, or a file that such an item declares (`#[cfg(test)]
//! mod tests;`).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Context;
use syn::spanned::Spanned;

/// The limits that hold for a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The product, and the whole-cluster tests.
    Crates,
    /// The partition-testing harness and the simulation.
    Jepsen,
}

/// A package of the workspace.
pub(crate) struct Package {
    pub name: String,
    pub group: Group,
    pub files: Vec<Source>,
    /// Everything of the package that has prose, test code too: its Rust files, its `.proto` files
    /// and its `Cargo.toml`.
    pub texts: Vec<Text>,
}

/// A file that is read as text.
pub(crate) struct Text {
    /// From the root of the workspace.
    pub path: PathBuf,
    pub text: String,
}

/// A source file.
pub(crate) struct Source {
    /// From the root of the workspace.
    pub path: PathBuf,
    /// The module that the file holds: `raft/src/log/mod.rs` is `["log"]`.
    pub module: Vec<String>,
    pub text: String,
    /// Without the test code.
    pub tree: syn::File,
    /// Lines of test code, counted from 1.
    pub test_lines: Vec<RangeInclusive<usize>>,
}

impl Package {
    /// All packages of the workspace at `root`.
    pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<Self>> {
        let mut dirs = Vec::new();
        for entry in std::fs::read_dir(root.join("crates"))? {
            let path = entry?.path();
            let name = path.file_name().context("a crate has a name")?.to_string_lossy().into_owned();
            dirs.push((name, Group::Crates, path));
        }
        dirs.push(("jepsen".to_owned(), Group::Jepsen, root.join("jepsen")));
        dirs.push(("sim".to_owned(), Group::Jepsen, root.join("jepsen/sim")));
        dirs.push(("tests".to_owned(), Group::Crates, root.join("tests")));
        dirs.retain(|(_, _, dir)| dir.join("Cargo.toml").is_file());
        dirs.sort_by(|a, b| a.0.cmp(&b.0));
        dirs.into_iter().map(|(name, group, dir)| Self::read(root, name, group, &dir)).collect()
    }

    fn read(root: &Path, name: String, group: Group, dir: &Path) -> anyhow::Result<Self> {
        let src = dir.join("src");
        let mut paths = Vec::new();
        files_below(&src, "rs", &mut paths)?;
        if name == "tests" {
            // Its tests are its product.
            files_below(&dir.join("tests"), "rs", &mut paths)?;
        }
        let mut files = Vec::new();
        for path in paths {
            let text = std::fs::read_to_string(&path)?;
            let module = module_of(path.strip_prefix(&src).or(path.strip_prefix(dir))?);
            files.push((path.strip_prefix(root)?.to_owned(), module, text));
        }
        let texts = texts(root, dir)?;
        Ok(Self { texts, ..Self::of(name, group, files)? })
    }

    /// A package of these files: path, module and text.
    pub(crate) fn of(name: String, group: Group, files: Vec<(PathBuf, Vec<String>, String)>) -> anyhow::Result<Self> {
        let mut test_modules = BTreeSet::new();
        let mut sources = Vec::new();
        for (path, module, text) in files {
            let mut tree = syn::parse_file(&text).with_context(|| path.display().to_string())?;
            let mut test_lines = Vec::new();
            strip_tests(&mut tree.items, &module, &mut test_lines, &mut test_modules);
            sources.push(Source { path, module, text, tree, test_lines });
        }
        sources.retain(|source| !(1..=source.module.len()).any(|n| test_modules.contains(&source.module[..n])));
        Ok(Self { name, group, files: sources, texts: Vec::new() })
    }

    /// A small package for the tests of a rule: file names below `src`, and texts.
    #[cfg(test)]
    pub(crate) fn sample(files: &[(&str, &str)]) -> Self {
        let texts = files.iter().map(|(path, text)| Text { path: path.into(), text: (*text).to_owned() }).collect();
        let sources = files.iter().filter(|(path, _)| path.ends_with(".rs"));
        let files =
            sources.map(|(path, text)| (PathBuf::from(path), module_of(Path::new(path)), (*text).to_owned())).collect();
        let sample = Self::of("sample".to_owned(), Group::Crates, files).expect("the sample parses");
        Self { texts, ..sample }
    }
}

impl Source {
    /// Whether a line, counted from 1, is test code.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.test_lines.iter().any(|lines| lines.contains(&line))
    }
}

/// The texts of the package in `dir`.
fn texts(root: &Path, dir: &Path) -> anyhow::Result<Vec<Text>> {
    let mut paths = vec![dir.join("Cargo.toml")];
    paths.extend(Some(dir.join("build.rs")).filter(|path| path.is_file()));
    for folder in ["src", "tests", "examples"].map(|name| dir.join(name)).iter().filter(|folder| folder.is_dir()) {
        files_below(folder, "rs", &mut paths)?;
    }
    // The crate `proto` compiles the workspace's own.
    let proto = if dir.ends_with("crates/proto") { root.join("proto") } else { dir.join("proto") };
    if proto.is_dir() {
        files_below(&proto, "proto", &mut paths)?;
    }
    read(root, paths)
}

/// Reads files below `root`.
pub(crate) fn read(root: &Path, paths: Vec<PathBuf>) -> anyhow::Result<Vec<Text>> {
    let text = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Text { path: path.strip_prefix(root)?.to_owned(), text })
    };
    paths.into_iter().map(text).collect()
}

/// The folders of the shell scripts.
const SCRIPT_FOLDERS: [&str; 3] = [".ci", "cluster", "tests"];

/// The shell scripts of the workspace at `root`: `*.sh`, and files without an extension that begin
/// with `#!`.
pub(crate) fn scripts(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for folder in SCRIPT_FOLDERS.map(|name| root.join(name)) {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let is_script = match path.extension() {
                Some(extension) => extension == "sh",
                None => path.is_file() && std::fs::read(&path)?.starts_with(b"#!"),
            };
            if is_script {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// All files below `dir` with this extension, in order of their paths.
pub(crate) fn files_below(dir: &Path, extension: &str, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    let mut entries = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, extension, paths)?;
        } else if path.extension().is_some_and(|its| its == extension) {
            paths.push(path);
        }
    }
    Ok(())
}

fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") || matches!(module.as_slice(), [only] if is_crate_root(only)) {
        module.pop();
    }
    module
}

fn is_crate_root(name: &str) -> bool {
    name == "lib" || name == "main"
}

/// Removes the items under `#[cfg(test)]` and notes their lines and the modules that they declare.
fn strip_tests(
    items: &mut Vec<syn::Item>,
    module: &[String],
    lines: &mut Vec<RangeInclusive<usize>>,
    test_modules: &mut BTreeSet<Vec<String>>,
) {
    items.retain_mut(|item| {
        if is_test(attributes(item)) {
            lines.push(lines_of(item));
            if let syn::Item::Mod(declared) = item
                && declared.content.is_none()
            {
                test_modules.insert(child(module, &declared.ident.to_string()));
            }
            return false;
        }
        match item {
            syn::Item::Mod(inner) => {
                let path = child(module, &inner.ident.to_string());
                if let Some((_, content)) = &mut inner.content {
                    strip_tests(content, &path, lines, test_modules);
                }
            }
            syn::Item::Impl(block) => block.items.retain(|item| match item {
                syn::ImplItem::Fn(function) if is_test(&function.attrs) => {
                    lines.push(lines_of(function));
                    false
                }
                _ => true,
            }),
            _ => {}
        }
        true
    });
}

/// The module `name` inside `module`.
pub(crate) fn child(module: &[String], name: &str) -> Vec<String> {
    let mut path = module.to_vec();
    path.push(name.to_owned());
    path
}

fn lines_of(item: &impl Spanned) -> RangeInclusive<usize> {
    item.span().start().line..=item.span().end().line
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                let condition = list.tokens.to_string().replace(' ', "");
                ["test", "all(test", "any(test"].iter().any(|start| condition.starts_with(start))
            })
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[test]
fn test_code_is_left_out() {
    let package = Package::sample(&[
        ("lib.rs", "mod a;\n#[cfg(test)]\nmod fake;\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n"),
        ("a.rs", "impl A {\n    #[cfg(test)]\n    fn only_in_tests() {}\n}\n"),
        ("fake.rs", "fn f() {}\n"),
        ("fake/deeper.rs", "fn f() {}\n"),
    ]);
    let paths: Vec<_> = package.files.iter().map(|file| file.path.to_str().expect("a path")).collect();
    assert_eq!(paths, ["lib.rs", "a.rs"]);
    assert_eq!(package.files[0].test_lines, [2..=3, 4..=7]);
    assert!(package.files[1].is_test_line(3));
    assert!(!package.files[1].is_test_line(4));
}
