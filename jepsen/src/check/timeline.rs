//! An HTML page that shows violations: one row per process, one bar per operation from its
//! invocation to its return.
//!
//! The page is a single file without external resources, so it can be archived and sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::verdict::Violation;
use crate::history::{Operation, Outcome};

/// A violation and its origin.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The source: a file name or a workload.
    pub title: &'a str,
    /// The history.
    pub operations: &'a [Operation],
    /// The violation found in it.
    pub violation: &'a Violation,
}

/// Maximum number of operations drawn; if there are more, the last ones are drawn.
const DRAWN_MAX: usize = 400;
/// Pixels between two events.
const STEP_PX: usize = 46;
/// Height of a row in pixels.
const ROW_PX: usize = 34;
/// Pixels before the first event.
const LEFT_PX: usize = 90;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2em;color:#1c2430;background:#fff}\
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}\
pre{background:#f4f5f7;padding:1em;overflow-x:auto}\
.chart{overflow-x:auto;border:1px solid #d5d9e0}\
text{font:11px system-ui,sans-serif;fill:#1c2430}\
.placed{fill:#b9e3c0;stroke:#2e7d3c}.failed{fill:#f5a8a2;stroke:#b3261e;stroke-width:2}\
.unknown{fill:#e4e6ea;stroke:#8a919e;stroke-dasharray:4 3}.open{fill:#f9e0a8;stroke:#a87b10}\
.row{stroke:#eceef2}.key span{display:inline-block;padding:0 .6em;margin-right:.8em;border:1px solid}";

/// Renders the page for these violations.
pub fn page(sections: &[Section<'_>]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Violations</title><style>{STYLE}</style></head>\
         <body><h1>{} found</h1>\n",
        if sections.len() == 1 { "1 violation".to_owned() } else { format!("{} violations", sections.len()) }
    );
    html.push_str(
        "<p class=\"key\"><span style=\"background:#b9e3c0\">placed, with its number in the order</span>\
         <span style=\"background:#f5a8a2\">cannot be placed</span><span style=\"background:#f9e0a8\">not placed</span>\
         <span style=\"background:#e4e6ea\">unknown outcome</span></p>\n",
    );
    for section in sections {
        draw(&mut html, section);
    }
    html.push_str("</body></html>\n");
    html
}

fn draw(html: &mut String, section: &Section<'_>) {
    let Section { title, operations, violation } = *section;
    let heading = violation.key.as_deref().map_or(title.to_owned(), |key| format!("{title}, key {key}"));
    let explained = violation.explain(operations).to_string();
    push(html, format_args!("<h2>{}</h2>\n<pre>{}</pre>\n", escape(&heading), escape(&explained)));
    let drawn = drawn(operations, violation);
    let mut positions: Vec<u64> = drawn
        .iter()
        .flat_map(|place| [Some(operations[*place].invoked), operations[*place].returned])
        .flatten()
        .collect();
    positions.sort_unstable();
    positions.dedup();
    let mut rows: BTreeMap<u64, usize> = drawn.iter().map(|place| (operations[*place].process, 0)).collect();
    for (row, number) in rows.values_mut().zip(0..) {
        *row = number;
    }
    let width = LEFT_PX + (positions.len() + 2) * STEP_PX;
    let height = rows.len() * ROW_PX + 10;
    push(html, format_args!("<div class=\"chart\"><svg width=\"{width}\" height=\"{height}\">\n"));
    for (process, row) in &rows {
        let y = row * ROW_PX + ROW_PX;
        push(html, format_args!("<line class=\"row\" x1=\"0\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\"/>"));
        push(html, format_args!("<text x=\"6\" y=\"{}\">process {process}</text>\n", y - 12));
    }
    let x = |position: u64| LEFT_PX + positions.partition_point(|known| *known < position) * STEP_PX;
    for place in drawn {
        let operation = &operations[place];
        let number = violation.placed.iter().position(|placed| *placed == place);
        let class = match (Some(place) == violation.operation, number, operation.outcome) {
            (true, ..) => "failed",
            (_, Some(_), _) => "placed",
            (_, None, Outcome::Unknown) => "unknown",
            (_, None, _) => "open",
        };
        let (left, top) = (x(operation.invoked), rows[&operation.process] * ROW_PX + 6);
        let right = operation.returned.map_or(width - STEP_PX / 2, x);
        let label = number.map(|number| format!("{}: ", number + 1)).unwrap_or_default() + &short(operation);
        push(
            html,
            format_args!(
                "<g><title>{}</title><rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"22\" rx=\"3\"/>\
                 <text x=\"{}\" y=\"{}\">{}</text></g>\n",
                escape(&operation.describe()),
                (right - left).max(8),
                left + 4,
                top + 15,
                escape(&label)
            ),
        );
    }
    html.push_str("</svg></div>\n");
}

/// The operations to draw: the window, and all operations on the same object at that time.
fn drawn(operations: &[Operation], violation: &Violation) -> Vec<usize> {
    let key = violation.operation.and_then(|place| operations[place].key.as_deref());
    let start = violation.window.iter().map(|place| operations[*place].invoked).min().unwrap_or(0);
    let end = violation.operation.and_then(|place| operations[place].returned).unwrap_or(u64::MAX);
    let meanwhile = |operation: &Operation| {
        operation.key.as_deref() == key
            && operation.invoked <= end
            && operation.returned.is_none_or(|returned| returned >= start)
    };
    let mut drawn: Vec<usize> = (0..operations.len()).filter(|place| meanwhile(&operations[*place])).collect();
    drawn.extend(&violation.window);
    drawn.sort_unstable();
    drawn.dedup();
    drawn.split_off(drawn.len().saturating_sub(DRAWN_MAX))
}

/// Longest label of a bar; the tooltip shows the rest.
const LABEL_CHARS_MAX: usize = 28;

fn short(operation: &Operation) -> String {
    let text = operation.describe();
    let text = text.split(" by process").next().unwrap_or_default();
    if text.chars().count() <= LABEL_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(LABEL_CHARS_MAX).chain(['…']).collect()
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    html.write_fmt(text).expect("writing to a String does not fail");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{self, Limits, ModelName, Verdict};
    use crate::history::edn;

    /// The page marks the operation that cannot be placed, numbers the others, escapes all text,
    /// and has no external resources.
    #[test]
    fn page_marks_the_violation_and_is_self_contained() {
        let text = "{:process 1 :type :invoke :f :write :value \"<b>\"} {:process 1 :type :ok :f :write :value \"<b>\"}
                    {:process 2 :type :invoke :f :read :value nil} {:process 2 :type :ok :f :read :value 7}";
        let operations = edn::history(text).unwrap();
        let Verdict::Invalid(violation) = check::check(ModelName::CasRegister, &operations, &Limits::default()) else {
            panic!("7 was never written");
        };
        let page = page(&[Section { title: "a & b", operations: &operations, violation: &violation }]);
        assert_eq!(page.matches("class=\"failed\"").count(), 1);
        assert!(page.contains("a &amp; b") && !page.contains("<b>"), "{page}");
        assert!(!page.contains("http"), "{page}");
    }
}
