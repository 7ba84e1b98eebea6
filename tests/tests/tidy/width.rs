//! How wide types are: a type with many fields or methods is usually two types.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;

use crate::measures::Finding;
use crate::source::Package;

/// Derives of documents: command lines and JSON, whose width is given from outside.
const DOCUMENTS: &[&str] = &["Parser", "Args", "Subcommand", "Serialize", "Deserialize"];

/// Fields and methods of the types of one package.
#[derive(Default)]
struct Types {
    /// Fields of each struct that is no document, named or not.
    fields: BTreeMap<String, usize>,
    /// Methods of all `impl` blocks of a name, traits included.
    methods: BTreeMap<String, usize>,
    with_impl: BTreeSet<String>,
}

/// The most fields of a struct that has an `impl` block.
pub(crate) fn fields(package: &Package) -> Finding {
    let types = Types::of(package);
    widest(types.fields.iter().filter(|(name, _)| types.with_impl.contains(*name)), "fields")
}

/// The most methods of one type.
pub(crate) fn methods(package: &Package) -> Finding {
    widest(Types::of(package).methods.iter(), "methods")
}

fn widest<'a>(types: impl Iterator<Item = (&'a String, &'a usize)>, unit: &str) -> Finding {
    let mut all: Vec<_> = types.collect();
    all.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    Finding {
        count: all.first().map_or(0, |(_, count)| **count),
        places: all.iter().take(5).map(|(name, count)| format!("{name}: {count} {unit}")).collect(),
    }
}

impl Types {
    fn of(package: &Package) -> Self {
        let mut types = Self::default();
        for file in &package.files {
            types.visit_file(&file.tree);
        }
        types
    }
}

impl<'a> Visit<'a> for Types {
    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        if !is_document(&item.attrs) {
            let widest = self.fields.entry(item.ident.to_string()).or_default();
            *widest = item.fields.len().max(*widest);
        }
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        if let syn::Type::Path(path) = &*item.self_ty
            && let Some(last) = path.path.segments.last()
        {
            let name = last.ident.to_string();
            let methods = item.items.iter().filter(|item| matches!(item, syn::ImplItem::Fn(_))).count();
            *self.methods.entry(name.clone()).or_default() += methods;
            self.with_impl.insert(name);
        }
        syn::visit::visit_item_impl(self, item);
    }
}

fn is_document(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("derive")).any(|attribute| {
        let paths =
            attribute.parse_args_with(syn::punctuated::Punctuated::<syn::Path, syn::Token![,]>::parse_terminated);
        paths.is_ok_and(|paths| {
            paths.iter().filter_map(|path| path.segments.last()).any(|last| DOCUMENTS.iter().any(|d| last.ident == d))
        })
    })
}

#[test]
fn wide_types_are_found() {
    let package = Package::sample(&[
        ("lib.rs", "struct Plain { a: u8, b: u8, c: u8 }\nstruct Wide { a: u8, b: u8 }\nimpl Wide { fn a() {} }\n"),
        ("more.rs", "impl<T> Clone for Wide<T> { fn b() {} fn c() {} }\n"),
        ("args.rs", "#[derive(Debug, clap::Args)]\nstruct Args { a: u8, b: u8, c: u8 }\nimpl Args {}\n"),
    ]);
    assert_eq!(fields(&package).places, ["Wide: 2 fields"]);
    assert_eq!(methods(&package).count, 3);
}

#[test]
fn fields_without_names_count() {
    let package =
        Package::sample(&[("lib.rs", "struct Unit;\nstruct Tuple(u8, u8, u8);\nimpl Unit {}\nimpl Tuple {}\n")]);
    assert_eq!(fields(&package).places, ["Tuple: 3 fields", "Unit: 0 fields"]);
}
