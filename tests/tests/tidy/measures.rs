//! The measures of a package, each with a limit: below the limit nothing is asked, above it the
//! number may only fall.

use crate::source::{Group, Package, Text};
use crate::{asserts, circles, documents, errors, imports, lines, maxima, source, width, words};

/// The result of a measure.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    pub count: usize,
    /// Where, for a reader.
    pub places: Vec<String>,
}

impl Finding {
    /// Adds `count` at `place`, or nothing if that is 0.
    pub(crate) fn add(&mut self, count: usize, place: String) {
        if count > 0 {
            self.count += count;
            self.places.push(place);
        }
    }
}

/// A number for each package.
pub(crate) struct Measure {
    /// The column in the table of maxima.
    pub name: &'static str,
    /// The number that is good enough.
    pub limit: fn(Group) -> usize,
    /// `None` where the measure does not apply.
    pub of: fn(&Package) -> Option<Finding>,
}

/// All measures of one package, in the order of their columns.
pub(crate) const MEASURES: &[Measure] = &[
    Measure { name: "what", limit: |_| 0, of: |package| Some(words::flagged(&package.texts, words::WHAT)) },
    Measure { name: "who", limit: |_| 0, of: |package| Some(words::flagged(&package.texts, words::WHO)) },
    Measure { name: "calques", limit: |_| 0, of: |package| Some(words::flagged(&package.texts, words::CALQUES)) },
    Measure { name: "long_lines", limit: |_| 0, of: |package| Some(lines::long_lines(package)) },
    Measure { name: "open_docs", limit: |_| 0, of: |package| Some(lines::open_docs(package)) },
    Measure { name: "circle_files", limit: |_| 0, of: |package| Some(circles::files_in_circles(package)) },
    Measure { name: "string_errors", limit: |_| 0, of: |package| Some(errors::string_errors(package)) },
    Measure { name: "missing_asserts", limit: |_| 0, of: asserts::missing },
    Measure { name: "fields", limit: fields_max, of: |package| Some(width::fields(package)) },
    Measure { name: "methods", limit: methods_max, of: |package| Some(width::methods(package)) },
];

/// The package of the documents, as far as the table goes.
const DOCUMENTS: &str = "(documents)";

/// The package of the shell scripts, as far as the table goes.
const SCRIPTS: &str = "(scripts)";

/// The flagged words of documents and scripts, which belong to no package.
const WORDS: [(&str, &[&str]); 3] = [("what", words::WHAT), ("who", words::WHO), ("calques", words::CALQUES)];

/// The one measure that is of all packages of a group together.
pub(crate) const IMPORTS_P90: &str = "imports_p90";

fn fields_max(group: Group) -> usize {
    match group {
        Group::Crates => 9,
        Group::Jepsen => 12,
    }
}

fn methods_max(group: Group) -> usize {
    match group {
        Group::Crates => 35,
        Group::Jepsen => 30,
    }
}

const IMPORTS_P90_MAX: usize = 20;

/// A number that was measured: whose, which, and how it compares with the limit.
pub(crate) struct Measured {
    /// A package, or a group of them.
    pub of: String,
    pub name: &'static str,
    pub limit: usize,
    pub finding: Finding,
}

/// Measures all packages, the documents and the shell scripts.
fn measure(packages: &[Package], documents: &[Text], scripts: &[Text]) -> Vec<Measured> {
    let mut all = Vec::new();
    for (of, texts) in [(DOCUMENTS, documents), (SCRIPTS, scripts)] {
        for (name, phrases) in WORDS {
            let finding = words::flagged(texts, phrases);
            all.push(Measured { of: of.to_owned(), name, limit: 0, finding });
        }
        let finding = lines::long_prose(texts);
        all.push(Measured { of: of.to_owned(), name: "long_lines", limit: 0, finding });
    }
    for (group, of) in [(Group::Crates, "(crates)"), (Group::Jepsen, "(jepsen)")] {
        let members: Vec<&Package> = packages.iter().filter(|package| package.group == group).collect();
        let finding = imports::p90(&members);
        all.push(Measured { of: of.to_owned(), name: IMPORTS_P90, limit: IMPORTS_P90_MAX, finding });
    }
    for package in packages {
        for measure in MEASURES {
            if let Some(finding) = (measure.of)(package) {
                let limit = (measure.limit)(package.group);
                all.push(Measured { of: package.name.clone(), name: measure.name, limit, finding });
            }
        }
    }
    all
}

/// No number of the table is exceeded, and the table is lowered with the code.
#[test]
fn numbers_only_fall() -> anyhow::Result<()> {
    let root = crate::root();
    let mut documents = vec![root.join("Cargo.toml")];
    documents::documents(&root, &mut documents)?;
    let scripts = source::scripts(&root)?;
    anyhow::ensure!(scripts.contains(&root.join("tests/run")), "the shell scripts were not found: {scripts:?}");
    let [documents, scripts] = [source::read(&root, documents)?, source::read(&root, scripts)?];
    let measured = measure(&Package::all(&root)?, &documents, &scripts);
    if std::env::var_os("QUORATE_TIDY_WRITE").is_some_and(|value| value == "1") {
        return maxima::write(&measured);
    }
    let complaints = maxima::complaints(&maxima::read()?, &measured);
    anyhow::ensure!(complaints.is_empty(), "{}\n\n{}", complaints.join("\n\n"), maxima::HOW_TO_WRITE);
    Ok(())
}
