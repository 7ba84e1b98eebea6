//! Plots as inline SVG: a frame with axes, shaded faults, lines and bars.

use std::fmt::Write as _;

use super::faults::Window;

const WIDTH: f64 = 1_100.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 28.0;
/// Maximum number of ticks on the time axis.
const TICKS: u32 = 12;
/// Colours for the kinds of faults, used in turn.
const SHADES: [&str; 8] = ["#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf"];

/// Scale of the vertical axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From 0 to this value.
    Linear(f64),
    /// Logarithmic from 0.1 to this value.
    Log(f64),
    /// This many lanes, one below the other.
    Lanes(usize),
}

/// A plot over the time of a run.
pub(super) struct Plot {
    body: String,
    height: f64,
    end: f64,
    scale: Scale,
}

/// Escapes text for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The colour of a kind of fault.
pub(super) fn shade(kinds: &[String], kind: &str) -> &'static str {
    let place = kinds.iter().position(|known| known == kind).unwrap_or(0);
    SHADES[place % SHADES.len()]
}

impl Plot {
    /// Creates an empty plot of the nanoseconds 0 to `end`, `height` pixels high.
    pub(super) fn new(title: &str, end: u64, height: f64, scale: Scale) -> Self {
        let end = end.max(1) as f64;
        let mut plot = Plot { body: String::new(), height, end, scale };
        let seconds = end / 1e9;
        let step = (seconds / f64::from(TICKS)).ceil().max(1.0);
        let mut at = 0.0;
        while at <= seconds {
            let (x, bottom) = (plot.x(at * 1e9), TOP + height);
            plot.add(format_args!("<line x1='{x:.1}' y1='{TOP}' x2='{x:.1}' y2='{bottom}' class='grid'/>"));
            plot.add(format_args!("<text x='{x:.1}' y='{:.1}' text-anchor='middle'>{at:.0} s</text>", bottom + 16.0));
            at += step;
        }
        for (value, label) in plot.marks() {
            let y = plot.y(value);
            plot.add(format_args!(
                "<line x1='{LEFT}' y1='{y:.1}' x2='{:.1}' y2='{y:.1}' class='grid'/>",
                WIDTH - RIGHT
            ));
            plot.add(format_args!("<text x='{:.1}' y='{:.1}' text-anchor='end'>{label}</text>", LEFT - 6.0, y + 4.0));
        }
        plot.add(format_args!("<text x='{LEFT}' y='14' class='title'>{}</text>", escape(title)));
        plot
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        self.body.write_fmt(element).expect("a String takes everything");
        self.body.push('\n');
    }

    fn marks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear(max) => [0.0, 0.5, 1.0].map(|part| (part * max, format!("{:.0}", part * max))).to_vec(),
            Scale::Log(max) => {
                let decades = (max.log10().ceil() as i32 + 1).max(1);
                (0..=decades)
                    .map(|n| 10_f64.powi(n - 1))
                    .filter(|value| *value <= max)
                    .map(|value| (value, format!("{value}")))
                    .collect()
            }
            Scale::Lanes(_) => vec![],
        }
    }

    fn x(&self, time: f64) -> f64 {
        LEFT + (time / self.end).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear(max) => value / max.max(f64::MIN_POSITIVE),
            Scale::Log(max) => (value.max(0.1).log10() + 1.0) / (max.log10() + 1.0).max(f64::MIN_POSITIVE),
            Scale::Lanes(lanes) => 1.0 - (value + 0.5) / lanes.max(1) as f64,
        };
        TOP + self.height * (1.0 - part.clamp(0.0, 1.0))
    }

    /// Shades the periods of the faults.
    pub(super) fn faults(mut self, faults: &[Window], kinds: &[String]) -> Self {
        for fault in faults {
            let from = self.x(fault.from as f64);
            let width = (self.x(fault.until.map_or(self.end, |until| until as f64)) - from).max(1.5);
            let (colour, height) = (shade(kinds, &fault.fault), self.height);
            let said = escape(&format!("{} on {:?} {}", fault.fault, fault.targets, fault.detail));
            self.add(format_args!(
                "<rect x='{from:.1}' y='{TOP}' width='{width:.1}' height='{height}' fill='{colour}' fill-opacity='0.13'><title>{said}</title></rect>"
            ));
        }
        self
    }

    /// Draws a line through points of time and value, with a gap at every missing value.
    pub(super) fn line(mut self, points: impl Iterator<Item = (f64, Option<f64>)>, colour: &str, name: &str) -> Self {
        let mut path = String::new();
        let mut pen_down = false;
        for (time, value) in points {
            let Some(value) = value else {
                pen_down = false;
                continue;
            };
            let verb = if pen_down { 'L' } else { 'M' };
            write!(path, "{verb}{:.1} {:.1} ", self.x(time), self.y(value)).expect("a String takes everything");
            if !pen_down {
                // A lone point would be a line of length zero.
                path.push_str("h1 ");
            }
            pen_down = true;
        }
        self.add(format_args!(
            "<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.4'><title>{}</title></path>",
            escape(name)
        ));
        self
    }

    /// Draws a bar in a lane.
    pub(super) fn bar(mut self, lane: usize, from: u64, until: u64, colour: &str, said: &str) -> Self {
        let lanes = if let Scale::Lanes(lanes) = self.scale { lanes.max(1) } else { 1 };
        let thickness = (self.height / lanes as f64 * 0.7).max(1.0);
        let (x, y) = (self.x(from as f64), self.y(lane as f64) - thickness / 2.0);
        let width = (self.x(until as f64) - x).max(1.0);
        self.add(format_args!(
            "<rect x='{x:.1}' y='{y:.1}' width='{width:.1}' height='{thickness:.1}' fill='{colour}'><title>{}</title></rect>",
            escape(said)
        ));
        self
    }

    /// Writes the name of a lane beside it.
    pub(super) fn label(mut self, lane: usize, text: &str) -> Self {
        let y = self.y(lane as f64) + 4.0;
        self.add(format_args!("<text x='{:.1}' y='{y:.1}' text-anchor='end'>{}</text>", LEFT - 6.0, escape(text)));
        self
    }

    /// Renders the plot.
    pub(super) fn finish(self) -> String {
        let height = self.height + TOP + BOTTOM;
        format!("<svg viewBox='0 0 {WIDTH} {height}' xmlns='http://www.w3.org/2000/svg'>\n{}</svg>\n", self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On every scale, larger values are drawn higher, and nothing leaves the frame.
    #[test]
    fn larger_values_are_drawn_higher_within_the_frame() {
        for scale in [Scale::Linear(100.0), Scale::Log(100.0)] {
            let plot = Plot::new("t", 10, 200.0, scale);
            assert!(plot.y(100.0) < plot.y(10.0) && plot.y(10.0) < plot.y(1.0), "{scale:?}");
            assert!((plot.y(1e9) - TOP).abs() < 0.01 && plot.y(0.0) <= TOP + 200.0);
        }
        let lanes = Plot::new("t", 10, 200.0, Scale::Lanes(4));
        assert!(lanes.y(0.0) < lanes.y(3.0));
        assert!(lanes.x(0.0) >= LEFT && lanes.x(99.0) <= WIDTH - RIGHT);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href=\"&\">"), "&lt;a href=&quot;&amp;&quot;&gt;");
    }
}
