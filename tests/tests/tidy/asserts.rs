//! Invariants that the code asserts, in release builds too: toyDB has 6.7 asserts in 1,000 lines,
//! and we want 4 where a broken invariant loses data.

use syn::visit::Visit;

use crate::measures::Finding;
use crate::source::Package;

/// The crates that hold data or decide where it goes.
const COUNTED: &[&str] = &["machine", "raft", "topology", "control", "rocks"];

const ASSERTS_PER_1000_LINES: usize = 4;

/// How many asserts a crate lacks, or `None` where nothing is asked for. `debug_assert!` does not
/// count.
pub(crate) fn missing(package: &Package) -> Option<Finding> {
    if !COUNTED.contains(&package.name.as_str()) {
        return None;
    }
    let lines: usize = package.files.iter().map(|file| file.text.lines().count()).sum();
    let wanted = (ASSERTS_PER_1000_LINES * lines).div_ceil(1000);
    let asserts = count(package);
    Some(Finding {
        count: wanted.saturating_sub(asserts),
        places: vec![format!("{asserts} asserts in {lines} lines; {wanted} are wanted")],
    })
}

fn count(package: &Package) -> usize {
    let mut asserts = Asserts::default();
    for file in &package.files {
        asserts.visit_file(&file.tree);
    }
    asserts.count
}

#[derive(Default)]
struct Asserts {
    count: usize,
}

impl<'a> Visit<'a> for Asserts {
    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.count += usize::from(["assert", "assert_eq", "assert_ne"].iter().any(|name| call.path.is_ident(name)));
    }
}

#[test]
fn missing_asserts_are_counted() {
    let text = format!("fn f() {{\n    assert!(a);\n    debug_assert!(b);\n{}}}\n", "\n".repeat(1000));
    let mut package = Package::sample(&[("lib.rs", text.as_str())]);
    assert!(missing(&package).is_none());
    package.name = "raft".to_owned();
    assert_eq!(missing(&package).map(|finding| finding.count), Some(4));
}
