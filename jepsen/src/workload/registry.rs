//! The list of workloads.

use std::sync::Arc;

use super::append::Append;
use super::contract::{Setting, Workload};
use super::counter::Counter;
use super::register::Register;
use super::set::Set;
use super::shortener::Shortener;

/// The constructor of a workload.
type Make = fn(&Setting) -> anyhow::Result<Arc<dyn Workload>>;

/// All workloads by name, in the order of help and documentation. A new workload is a new line
/// here.
pub const ALL: &[(&str, Make)] = &[
    ("register", |setting| Ok(Arc::new(Register::new(setting)))),
    ("append", |setting| Ok(Arc::new(Append::new(setting)))),
    ("counter", |setting| Ok(Arc::new(Counter::new(setting)))),
    ("set", |setting| Ok(Arc::new(Set::new(setting)))),
    ("shortener", |setting| Ok(Arc::new(Shortener::new(setting)?))),
];

/// Creates the workload with a name.
///
/// # Errors
///
/// The name is unknown (the message lists the known names), or the file of URLs cannot be read.
pub fn by_name(name: &str, setting: &Setting<'_>) -> anyhow::Result<Arc<dyn Workload>> {
    let known = || ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = ALL.iter().find(|(known, _)| *known == name);
    let (_, make) = found.ok_or_else(|| anyhow::anyhow!("unknown workload '{name}'; workloads: {}", known()))?;
    make(setting)
}

#[cfg(test)]
mod tests {
    use super::super::contract::rng;
    use super::super::op::Op;
    use super::*;
    use crate::history::Action;

    fn setting() -> Setting<'static> {
        Setting { seed: 7, keys: 10, prefix: "", urls: None }
    }

    /// A seed determines the operations, in any order of planning; another seed plans other
    /// operations.
    #[test]
    fn plan_is_a_function_of_the_seed() {
        for (name, make) in ALL {
            let plan = |seed, order: &mut dyn Iterator<Item = u64>| {
                let workload = make(&setting()).unwrap();
                let mut planned: Vec<(u64, Op)> =
                    order.map(|n| (n, workload.plan(n, &mut rng(seed, name, n)))).collect();
                planned.sort_by_key(|(n, _)| *n);
                planned
            };
            assert_eq!(plan(1, &mut (0..300)), plan(1, &mut (0..300).rev()), "{name}");
            assert_ne!(plan(1, &mut (0..300)), plan(2, &mut (0..300)), "{name}");
        }
    }

    /// Final reads cover every used key, no value is written twice to a key, and keys begin with
    /// the workload's name.
    #[test]
    fn final_reads_cover_all_keys_and_values_are_unique() {
        for (name, make) in ALL.iter().filter(|(name, _)| *name != "shortener") {
            let workload = make(&setting()).unwrap();
            let finals: std::collections::HashSet<String> =
                workload.finals(5_000).into_iter().map(|read| read.key).collect();
            let mut written = std::collections::HashSet::new();
            for n in 0..5_000 {
                let op = workload.plan(n, &mut rng(3, name, n));
                assert!(op.key.starts_with(&format!("{name}/")), "{op:?}");
                assert!(finals.contains(&op.key), "{op:?}");
                let unique = matches!(op.f, Action::Write | Action::Append);
                assert!(!unique || written.insert((op.key.clone(), op.value.to_string())), "{op:?} twice");
            }
        }
    }

    #[test]
    fn unknown_workload_is_refused_with_the_known_names() {
        let error = by_name("bank", &setting()).map(drop).unwrap_err().to_string();
        assert!(error.contains("bank") && error.contains("register") && error.contains("shortener"), "{error}");
    }
}
