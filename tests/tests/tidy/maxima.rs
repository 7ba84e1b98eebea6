//! The table of maxima: one line for each package, one column for each measure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::measures::{IMPORTS_P90, MEASURES, Measured};

pub(crate) const HOW_TO_WRITE: &str = "To write the present numbers into tests/tidy/maxima.txt:\n  \
     QUORATE_TIDY_WRITE=1 cargo nextest run -p quorate-tests -E 'binary(tidy)'";

const HEAD: &str = "# The most that each crate may have of each measure: tests/tests/tidy. A number may only fall.\n\
     # QUORATE_TIDY_WRITE=1 cargo nextest run -p quorate-tests -E 'binary(tidy)' writes the present ones,\n\
     # and refuses to raise one: edit it by hand, and give the reason in the commit.\n";

/// More places than these tell a reader nothing.
const PLACES_MAX: usize = 30;

/// The stored numbers, by package and measure.
pub(crate) type Maxima = BTreeMap<(String, String), usize>;

fn path() -> PathBuf {
    crate::root().join("tests/tidy/maxima.txt")
}

fn columns() -> Vec<&'static str> {
    MEASURES.iter().map(|measure| measure.name).chain([IMPORTS_P90]).collect()
}

/// The stored table.
pub(crate) fn read() -> anyhow::Result<Maxima> {
    let text = std::fs::read_to_string(path()).with_context(|| path().display().to_string())?;
    parse(&text)
}

fn parse(text: &str) -> anyhow::Result<Maxima> {
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let names: Vec<&str> = lines.next().context("the table has a line of names")?.split_whitespace().skip(1).collect();
    let mut maxima = Maxima::new();
    for line in lines {
        let mut cells = line.split_whitespace();
        let of = cells.next().context("a line begins with the name of a package")?;
        let cells: Vec<&str> = cells.collect();
        ensure!(cells.len() == names.len(), "{of}: {} numbers for {} measures", cells.len(), names.len());
        for (name, cell) in names.iter().zip(cells).filter(|(_, cell)| *cell != "-") {
            let number = cell.parse().with_context(|| format!("{of}, {name}: '{cell}'"))?;
            maxima.insert((of.to_owned(), (*name).to_owned()), number);
        }
    }
    Ok(maxima)
}

fn print(maxima: &Maxima) -> String {
    let columns = columns();
    let mut packages: Vec<&str> = maxima.keys().map(|(of, _)| of.as_str()).collect();
    packages.dedup();
    let mut text = format!("{HEAD}\n{:<12}", "crate");
    for name in &columns {
        text += &format!("  {name}");
    }
    text.push('\n');
    for of in packages {
        text += &format!("{of:<12}");
        for name in &columns {
            let number = maxima.get(&(of.to_owned(), (*name).to_owned()));
            let cell = number.map_or_else(|| "-".to_owned(), usize::to_string);
            text += &format!("  {cell:>width$}", width = name.len());
        }
        text.push('\n');
    }
    text
}

/// Stores the present numbers, unless one of them is above its maximum.
pub(crate) fn write(measured: &[Measured]) -> anyhow::Result<()> {
    let numbers = lowered(&read()?, measured)?;
    std::fs::write(path(), print(&numbers))?;
    Ok(())
}

/// The present numbers. A number above its maximum is an error: only a hand may raise a maximum.
fn lowered(maxima: &Maxima, measured: &[Measured]) -> anyhow::Result<Maxima> {
    let mut numbers = Maxima::new();
    let mut rises = Vec::new();
    for Measured { of, name, limit, finding } in measured {
        let key = (of.clone(), (*name).to_owned());
        let old = maxima.get(&key).copied().unwrap_or(*limit);
        let new = finding.count.max(*limit);
        if new > old {
            rises.push(format!("{of}: {name} would rise from {old} to {new}"));
        }
        numbers.insert(key, new);
    }
    ensure!(
        rises.is_empty(),
        "tests/tidy/maxima.txt was not written; raise a maximum by hand:\n  {}",
        rises.join("\n  ")
    );
    Ok(numbers)
}

/// Where the code exceeds the table, and where the table was not lowered with the code.
pub(crate) fn complaints(maxima: &Maxima, measured: &[Measured]) -> Vec<String> {
    let mut complaints = Vec::new();
    for Measured { of, name, limit, finding } in measured {
        let count = finding.count;
        let stored = maxima.get(&(of.clone(), (*name).to_owned())).copied().unwrap_or(*limit);
        if count > stored {
            let places: Vec<&str> = finding.places.iter().take(PLACES_MAX).map(String::as_str).collect();
            complaints.push(format!("{of}: {name} is {count}, and may be {stored}:\n  {}", places.join("\n  ")));
        } else if count.max(*limit) < stored {
            let number = count.max(*limit);
            complaints
                .push(format!("{of}: {name} fell to {count}: write {number} for {stored} in tests/tidy/maxima.txt"));
        }
    }
    let known = |of: &str, name: &str| measured.iter().any(|measured| measured.of == of && measured.name == name);
    for (of, name) in maxima.keys().filter(|(of, name)| !known(of, name)) {
        complaints.push(format!("{of}: {name} is in tests/tidy/maxima.txt, but is not measured: remove it"));
    }
    complaints
}

#[cfg(test)]
fn sample(count: usize) -> [Measured; 1] {
    let finding = crate::measures::Finding { count, places: vec!["lib.rs:1: wide".to_owned()] };
    [Measured { of: "raft".to_owned(), name: "fields", limit: 2, finding }]
}

#[test]
fn a_number_above_its_maximum_and_a_stale_maximum_are_reported() -> anyhow::Result<()> {
    let maxima = parse("crate fields\nraft 5\n")?;
    assert_eq!(complaints(&maxima, &sample(5)), Vec::<String>::new());
    assert_eq!(complaints(&maxima, &sample(6)), ["raft: fields is 6, and may be 5:\n  lib.rs:1: wide"]);
    assert_eq!(complaints(&maxima, &sample(1)), ["raft: fields fell to 1: write 2 for 5 in tests/tidy/maxima.txt"]);
    // A package that the table does not know starts at the limit.
    assert_eq!(complaints(&Maxima::new(), &sample(3)).len(), 1);
    assert_eq!(complaints(&parse("crate fields\nstorage 1\n")?, &sample(0)).len(), 1);
    Ok(())
}

#[test]
fn the_writer_lowers_maxima_and_refuses_to_raise_one() -> anyhow::Result<()> {
    let maxima = parse("crate fields\nraft 5\n")?;
    assert_eq!(lowered(&maxima, &sample(3))?.into_values().collect::<Vec<_>>(), [3]);
    assert_eq!(lowered(&maxima, &sample(0))?.into_values().collect::<Vec<_>>(), [2]);
    let refusal = lowered(&maxima, &sample(6)).expect_err("6 is more than 5").to_string();
    assert!(refusal.ends_with("\n  raft: fields would rise from 5 to 6"), "{refusal}");
    // A package that the table does not know starts at the limit.
    assert!(lowered(&Maxima::new(), &sample(3)).is_err());
    Ok(())
}

#[test]
fn the_table_round_trips() -> anyhow::Result<()> {
    let maxima =
        Maxima::from([(("raft".to_owned(), "fields".to_owned()), 12), (("ring".to_owned(), "methods".to_owned()), 35)]);
    assert_eq!(parse(&print(&maxima))?, maxima);
    Ok(())
}
