//! Types of results whose error is a `String`: a caller cannot decide by it.

use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::measures::Finding;
use crate::source::Package;

/// Every type `Result<_, String>`: of functions, fields, aliases and variables.
pub(crate) fn string_errors(package: &Package) -> Finding {
    let mut finding = Finding::default();
    for file in &package.files {
        let mut results = Results::default();
        results.visit_file(&file.tree);
        for line in results.lines {
            let text = file.text.lines().nth(line - 1).unwrap_or_default().trim();
            finding.add(1, format!("{}:{line}: {text}", file.path.display()));
        }
    }
    finding
}

#[derive(Default)]
struct Results {
    lines: Vec<usize>,
}

impl<'a> Visit<'a> for Results {
    fn visit_path_segment(&mut self, segment: &'a syn::PathSegment) {
        if segment.ident == "Result"
            && let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments
            && let Some(syn::GenericArgument::Type(syn::Type::Path(error))) = arguments.args.iter().nth(1)
            && error.path.segments.last().is_some_and(|last| last.ident == "String")
        {
            self.lines.push(segment.span().start().line);
        }
        syn::visit::visit_path_segment(self, segment);
    }
}

#[test]
fn string_errors_are_found() {
    let package = Package::sample(&[(
        "lib.rs",
        "fn a() -> Result<String, Error> { x() }\nfn b() -> Vec<Result<(), String>> { x() }\ntrait T {\n    \
         fn c(&self) -> Result<u8, String>;\n}\nstruct S {\n    d: Result<(), String>,\n}\n\
         type R<T> = std::result::Result<T, std::string::String>;\nfn f() {\n    x.collect::<Result<E, String>>()\n}\n",
    )]);
    let expected = [
        "lib.rs:2: fn b() -> Vec<Result<(), String>> { x() }",
        "lib.rs:4: fn c(&self) -> Result<u8, String>;",
        "lib.rs:7: d: Result<(), String>,",
        "lib.rs:9: type R<T> = std::result::Result<T, std::string::String>;",
        "lib.rs:11: x.collect::<Result<E, String>>()",
    ];
    assert_eq!(string_errors(&package).places, expected);
}
