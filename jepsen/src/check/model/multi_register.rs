//! Several registers that transactions read and write atomically.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::limits::Limits;
use super::super::search::{Call, Model};
use super::compiled::{Compiled, unfit};
use super::name::ModelName;
use crate::history::{Action, Operation, Outcome};

/// One step of a transaction; registers and values are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Micro {
    /// None: any value.
    Read(usize, Option<u32>),
    Write(usize, u32),
}

pub(crate) struct MultiRegister {
    registers: Vec<String>,
    values: Vec<Value>,
}

/// Returns the number of an item, assigning the next one to a new item.
fn number<T: Clone + Eq + std::hash::Hash>(known: &mut Vec<T>, numbers: &mut FxHashMap<T, usize>, item: T) -> usize {
    *numbers.entry(item).or_insert_with_key(|item| {
        known.push(item.clone());
        known.len() - 1
    })
}

impl MultiRegister {
    pub(crate) fn compile(operations: &[Operation], part: &[usize], limits: &Limits) -> Compiled<MultiRegister> {
        let (mut registers, mut values) = (Vec::new(), Vec::new());
        let (mut register_numbers, mut value_numbers) = (FxHashMap::default(), FxHashMap::default());
        let mut value_of = |value: &Value| {
            let number = number(&mut values, &mut value_numbers, value.clone());
            u32::try_from(number).expect("a history has fewer than 2^32 values")
        };
        value_of(&limits.initial);
        let mut calls = Vec::with_capacity(part.len());
        for origin in part.iter().copied() {
            let operation = &operations[origin];
            let mut micros = || {
                if operation.action != Action::Txn || operation.outcome == Outcome::Refused {
                    return None;
                }
                // The result, if present, holds the values read; null means an absent register.
                let is_read = operation.outcome == Outcome::Done;
                let steps = operation.result.as_ref().unwrap_or(&operation.argument).as_array()?;
                let micros = steps.iter().map(|step| {
                    let [action, register, value] = step.as_array()?.as_slice() else { return None };
                    let name = register.as_str().map_or_else(|| register.to_string(), str::to_owned);
                    let register = number(&mut registers, &mut register_numbers, name);
                    match action.as_str()? {
                        "read" | "r" => {
                            let seen = is_read.then(|| value_of(value));
                            Some(Micro::Read(register, seen))
                        }
                        "write" | "w" => Some(Micro::Write(register, value_of(value))),
                        _ => None,
                    }
                });
                micros.collect()
            };
            let step = micros().ok_or_else(|| unfit(ModelName::MultiRegister, operation))?;
            calls.push(Call { invoked: operation.invoked, returned: operation.returned, step, origin });
        }
        Ok((MultiRegister { registers, values }, calls))
    }
}

impl Model for MultiRegister {
    type Step = Vec<Micro>;
    type State = Vec<u32>;

    fn initial(&self) -> Vec<u32> {
        vec![0; self.registers.len()]
    }

    fn apply(&self, state: &Vec<u32>, step: &Vec<Micro>) -> Option<Vec<u32>> {
        let mut state = state.clone();
        for micro in step {
            match *micro {
                Micro::Read(register, seen) if seen.is_some_and(|seen| seen != state[register]) => return None,
                Micro::Read(..) => {}
                Micro::Write(register, value) => state[register] = value,
            }
        }
        Some(state)
    }

    fn is_read(&self, step: &Vec<Micro>) -> bool {
        step.iter().all(|micro| matches!(micro, Micro::Read(..)))
    }

    fn describe(&self, state: &Vec<u32>) -> String {
        let registers = self.registers.iter().zip(state);
        let held: Vec<_> =
            registers.map(|(name, value)| format!("{name} = {}", self.values[*value as usize])).collect();
        held.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Verdict, check};
    use super::*;
    use crate::history::{edn, jsonl};

    /// In our own format, null is an absent register. Only Knossos's nil is an unknown value.
    #[test]
    fn null_is_an_absent_register_and_nil_an_unknown_value() {
        let ours = |read: &str| {
            let lines = [
                (1, "invoke", r#"[["write","x",1]]"#),
                (1, "ok", r#"[["write","x",1]]"#),
                (2, "invoke", r#"[["read","x",null]]"#),
                (2, "ok", read),
            ];
            let line = |(index, (process, kind, value)): (usize, &(u64, &str, &str))| {
                format!(r#"{{"index":{index},"time":0,"process":{process},"type":"{kind}","f":"txn","value":{value}}}"#)
                    + "\n"
            };
            let text: String = lines.iter().enumerate().map(line).collect();
            check(ModelName::MultiRegister, &jsonl::read(text.as_bytes()).unwrap(), &Limits::default())
        };
        assert!(matches!(ours(r#"[["read","x",null]]"#), Verdict::Invalid(_)), "stale");
        assert_eq!(ours(r#"[["read","x",1]]"#), Verdict::Valid);
        assert_eq!(ours(r#"[["read","x",1],["read","y",null]]"#), Verdict::Valid, "y was never written");
        let text = "{:process 1 :type :invoke :f :txn :value [[:write :x 1]]}\
                    {:process 1 :type :ok :f :txn :value [[:write :x 1]]}\
                    {:process 1 :type :invoke :f :txn :value [[:read :x nil]]}\
                    {:process 1 :type :ok :f :txn :value [[:read :x nil]]}";
        assert_eq!(check(ModelName::MultiRegister, &edn::history(text).unwrap(), &Limits::default()), Verdict::Valid);
    }
}
