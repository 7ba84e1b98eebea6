//! Functions whose error is a `String`: a caller cannot decide by it.

use syn::visit::Visit;

use crate::measures::Finding;
use crate::source::Package;

/// Every function whose signature has a `Result<_, String>`.
pub(crate) fn string_errors(package: &Package) -> Finding {
    let mut finding = Finding::default();
    for file in &package.files {
        let mut signatures = Signatures::default();
        signatures.visit_file(&file.tree);
        for (name, line) in signatures.found {
            finding.add(1, format!("{}:{line}: fn {name}", file.path.display()));
        }
    }
    finding
}

#[derive(Default)]
struct Signatures {
    found: Vec<(String, usize)>,
}

impl<'a> Visit<'a> for Signatures {
    fn visit_signature(&mut self, signature: &'a syn::Signature) {
        let mut results = Results::default();
        results.visit_signature(signature);
        if results.found {
            self.found.push((signature.ident.to_string(), signature.ident.span().start().line));
        }
    }
}

#[derive(Default)]
struct Results {
    found: bool,
}

impl<'a> Visit<'a> for Results {
    fn visit_path_segment(&mut self, segment: &'a syn::PathSegment) {
        if segment.ident == "Result"
            && let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments
            && let Some(syn::GenericArgument::Type(syn::Type::Path(error))) = arguments.args.iter().nth(1)
        {
            self.found |= error.path.segments.last().is_some_and(|last| last.ident == "String");
        }
        syn::visit::visit_path_segment(self, segment);
    }
}

#[test]
fn string_errors_are_found() {
    let package = Package::sample(&[(
        "lib.rs",
        "fn a() -> Result<String, Error> { x() }\nfn b() -> Vec<Result<(), String>> { x() }\ntrait T {\n    \
         fn c(&self) -> Result<u8, String>;\n}\n",
    )]);
    assert_eq!(string_errors(&package).places, ["lib.rs:2: fn b", "lib.rs:4: fn c"]);
}
