//! `report.html`: a single self-contained page.

use std::fmt::Write as _;

use super::availability::Availability;
use super::faults::Window;
use super::results::{Outcome, Results};
use super::series::{Bin, Series};
use super::svg::{Plot, Scale, escape, shade};
use super::{summary, timeline};
use crate::workload::Done;

/// Shortest gap drawn, in milliseconds. Operations always have small gaps between them.
const GAP_MS_MIN: u64 = 250;
/// Maximum number of violations with a timeline.
const TIMELINES_MAX: usize = 3;

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:24px;max-width:1150px;color:#222}\
pre{background:#f6f6f6;padding:12px;overflow-x:auto}svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#555}\
svg .title{font-weight:600;fill:#222}.grid{stroke:#e6e6e6}.key span{display:inline-block;padding:1px 8px;margin:2px;border-radius:3px}\
.pass{color:#197a2f}.violation{color:#b00020}.unknown,.harness-failure{color:#8a6100}";

/// Renders the page.
pub(super) fn page(results: &Results, operations: &[Done<'_>], faults: &[Window], end: u64) -> String {
    let kinds: Vec<String> = results.faults.keys().cloned().collect();
    let mut html = String::new();
    // Writing to a String cannot fail.
    _ = write(&mut html, results, operations, faults, &kinds, end);
    html
}

fn write(
    html: &mut String,
    results: &Results,
    operations: &[Done<'_>],
    faults: &[Window],
    kinds: &[String],
    end: u64,
) -> std::fmt::Result {
    let headline = results.outcome.headline();
    let class = headline.to_lowercase().replace(' ', "-");
    writeln!(
        html,
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'/><title>{headline}</title><style>{STYLE}</style></head><body>"
    )?;
    writeln!(html, "<h1 class='{class}'>{headline}</h1>\n<pre>{}</pre>", escape(&summary::text(results)))?;
    html.push_str("<p class='key'>");
    for kind in kinds {
        let colour = shade(kinds, kind);
        writeln!(html, "<span style='background:{colour}33;border:1px solid {colour}'>{}</span>", escape(kind))?;
    }
    html.push_str("</p>\n");
    let series = Series::of(operations, end);
    html.push_str(&latency(&series, faults, kinds, end));
    html.push_str(&rate(&series, faults, kinds, end));
    html.push_str(&availability(operations, results, faults, kinds, end));
    let violations =
        results.checks.iter().filter(|check| check.outcome == Outcome::Violation && !check.events.is_empty());
    for check in violations.take(TIMELINES_MAX) {
        writeln!(html, "<h2>{}</h2>\n<p>{}</p>", escape(&check.name), escape(&check.detail))?;
        html.push_str(&timeline::draw(operations, &check.events));
    }
    html.push_str("</body></html>\n");
    Ok(())
}

/// The values of all bins, each at the middle of its bin.
fn points<'a, T>(series: &'a Series, value: impl Fn(&Bin) -> T + 'a) -> impl Iterator<Item = (f64, T)> + 'a {
    let middle = move |place: usize| (place as f64 + 0.5) * series.bin_ns as f64;
    series.bins.iter().enumerate().map(move |(place, bin)| (middle(place), value(bin)))
}

fn latency(series: &Series, faults: &[Window], kinds: &[String], end: u64) -> String {
    let longest = series.bins.iter().filter_map(|bin| bin.latency_ms).map(|[_, _, max]| max).fold(10.0, f64::max);
    let plot = Plot::new(
        "latency of successful operations, ms: median, 99th percentile, longest",
        end,
        220.0,
        Scale::Log(longest),
    );
    let of = |place: usize| points(series, move |bin| bin.latency_ms.map(|latency| latency[place]));
    plot.faults(faults, kinds)
        .line(of(2), "#bbbbbb", "longest")
        .line(of(1), "#ff7f0e", "99th percentile")
        .line(of(0), "#1f77b4", "median")
        .finish()
}

fn rate(series: &Series, faults: &[Window], kinds: &[String], end: u64) -> String {
    let highest = series.bins.iter().map(|bin| bin.ok.max(bin.fail).max(bin.info)).fold(1.0, f64::max);
    let plot =
        Plot::new("operations a second: ok (green), fail (red), unknown (orange)", end, 160.0, Scale::Linear(highest));
    plot.faults(faults, kinds)
        .line(points(series, |bin| Some(bin.ok)), "#2ca02c", "ok")
        .line(points(series, |bin| Some(bin.fail)), "#d62728", "fail")
        .line(points(series, |bin| Some(bin.info)), "#ff7f0e", "info")
        .finish()
}

/// Plots one lane per shard; bars are the periods without a successful operation.
fn availability(operations: &[Done<'_>], results: &Results, faults: &[Window], kinds: &[String], end: u64) -> String {
    let availability = Availability::of(operations, results.load);
    let shards = availability.shards();
    let title = format!("shards without a successful strong operation for {GAP_MS_MIN} ms or more");
    let height = 16.0 * shards.len().max(1) as f64;
    let mut plot = Plot::new(&title, end, height, Scale::Lanes(shards.len())).faults(faults, kinds);
    for (lane, shard) in shards.iter().enumerate() {
        plot = plot.label(lane, &format!("shard {shard}"));
    }
    for gap in availability.gaps(GAP_MS_MIN) {
        let Some(lane) = shards.iter().position(|shard| *shard == gap.shard) else { continue };
        let said = format!("shard {}: {} ms from {:.3} s on", gap.shard, gap.ms(), gap.from as f64 / 1e9);
        plot = plot.bar(lane, gap.from, gap.until, "#444444", &said);
    }
    plot.finish()
}
