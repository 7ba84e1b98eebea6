//! Grows a cluster from 3 to 100 nodes, one node at a time. Shows the moves for each new node
//! against the ideal share, and the balance of the load after them: a table on stdout, and a plot
//! as an SVG file.
//!
//! ```text
//! cargo run -p quorate-ring --example rebalance_plot [-- FILE.svg]
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use quorate_ring::{ArcTable, Candidate, PlacementRequest, equal_arcs, place, rebalance};
use quorate_types::{NodeId, ShardId};

const NODES_FIRST: u64 = 3;
const NODES_LAST: u64 = 100;
/// Every node has more than twenty replicas at the end too: with fewer, one replica is a large part
/// of a share.
const SHARDS: u32 = 2_048;
const REPLICAS: u32 = 3;
/// The allowed moves of a rebalancing, and the allowed load of a node, relative to the ideal.
const MOVED_MAX: f64 = 1.2;
const LOAD_MAX: f64 = 1.1;
/// The rows of the table; the plot has all.
const ROWS: [u64; 11] = [4, 5, 6, 8, 10, 16, 25, 40, 60, 80, 100];

/// The effect of one more node.
struct Growth {
    nodes: u64,
    moved: usize,
    ideal: f64,
    /// The most and the least loaded node, relative to the mean.
    load_most: f64,
    load_least: f64,
}

impl Growth {
    fn ratio(&self) -> f64 {
        self.moved as f64 / self.ideal
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "rebalance.svg".to_owned());
    let growths = grow()?;
    println!("{SHARDS} shards × {REPLICAS} replicas, one node more at a time\n");
    println!("nodes  moved  ideal (1/N)  moved/ideal  most/mean  least/mean");
    for growth in growths.iter().filter(|growth| ROWS.contains(&growth.nodes)) {
        let Growth { nodes, moved, ideal, load_most, load_least } = growth;
        let ratio = growth.ratio();
        println!("{nodes:>5}  {moved:>5}  {ideal:>11.1}  {ratio:>11.3}  {load_most:>9.3}  {load_least:>10.3}");
    }
    let worst = growths.iter().map(Growth::ratio).fold(0.0, f64::max);
    let most = growths.iter().map(|growth| growth.load_most).fold(0.0, f64::max);
    println!(
        "\nof all {} steps: at most {worst:.3} × the ideal moved, at most {most:.3} × the mean load",
        growths.len()
    );
    std::fs::write(&file, plot(&growths))?;
    println!("plot: {file}");
    Ok(())
}

/// Adds node after node to the current map, and makes every planned move.
fn grow() -> Result<Vec<Growth>, Box<dyn Error>> {
    let shards = ArcTable::new((1..).map(ShardId).zip(equal_arcs(SHARDS)))?;
    let nodes = |count| -> Vec<Candidate> {
        (1..=count).map(|id| Candidate { id: NodeId(id), zone: String::new(), weight: 100 }).collect()
    };
    let hash_key = &[7; 16];
    let initial_replicas = nodes(NODES_FIRST);
    let mut map = place(&PlacementRequest { hash_key, nodes: &initial_replicas, shards: &shards, replicas: REPLICAS })?;
    let mut growths = Vec::new();
    for count in NODES_FIRST + 1..=NODES_LAST {
        let nodes = nodes(count);
        let moves =
            rebalance(&PlacementRequest { hash_key, nodes: &nodes, shards: &shards, replicas: REPLICAS }, &map)?;
        let mut of_shard: BTreeMap<ShardId, &mut Vec<NodeId>> =
            map.iter_mut().map(|(shard, nodes)| (*shard, nodes)).collect();
        for step in &moves {
            let replicas = of_shard.get_mut(&step.shard).ok_or("a move of no shard")?;
            let from = replicas.iter_mut().find(|node| **node == step.from).ok_or("a move of no replica")?;
            *from = step.to;
        }
        let mut loads: BTreeMap<NodeId, u32> = nodes.iter().map(|node| (node.id, 0)).collect();
        for node in map.iter().flat_map(|(_, nodes)| nodes) {
            *loads.get_mut(node).ok_or("a replica on no node")? += 1;
        }
        let mean = f64::from(SHARDS * REPLICAS) / count as f64;
        let part = |load: Option<&u32>| load.map_or(0.0, |&load| f64::from(load) / mean);
        growths.push(Growth {
            nodes: count,
            moved: moves.len(),
            ideal: mean,
            load_most: part(loads.values().max()),
            load_least: part(loads.values().min()),
        });
    }
    Ok(growths)
}

/// A panel of the plot: its position and its axes. Both panels have the same size and the same
/// nodes.
struct Panel {
    top: f64,
    title: &'static str,
    value_max: f64,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 60.0;

impl Panel {
    fn x(nodes: u64) -> f64 {
        LEFT + WIDTH * (nodes - NODES_FIRST) as f64 / (NODES_LAST - NODES_FIRST) as f64
    }

    fn y(&self, value: f64) -> f64 {
        self.top + HEIGHT * (1.0 - value / self.value_max)
    }

    fn axes(&self, svg: &mut String) -> std::fmt::Result {
        let Panel { top, title, value_max } = self;
        let (right, bottom) = (LEFT + WIDTH, top + HEIGHT);
        writeln!(svg, r#"<text x="{LEFT}" y="{}" font-weight="bold">{title}</text>"#, top - 10.0)?;
        writeln!(svg, r##"<path d="M{LEFT} {top}V{bottom}H{right}" fill="none" stroke="#333"/>"##)?;
        for tick in 0..=(value_max / 0.2) as u32 {
            let value = f64::from(tick) * 0.2;
            let y = self.y(value);
            writeln!(svg, r#"<text x="{}" y="{}" text-anchor="end">{value:.1}</text>"#, LEFT - 6.0, y + 4.0)?;
        }
        for nodes in (0..=NODES_LAST).step_by(10).skip(1) {
            writeln!(svg, r#"<text x="{}" y="{}" text-anchor="middle">{nodes}</text>"#, Self::x(nodes), bottom + 16.0)?;
        }
        Ok(())
    }

    /// A bound, named at its right end.
    fn bound(&self, svg: &mut String, value: f64, name: &str) -> std::fmt::Result {
        let (y, right) = (self.y(value), LEFT + WIDTH);
        writeln!(svg, r##"<path d="M{LEFT} {y}H{right}" stroke="#999" stroke-dasharray="4 3"/>"##)?;
        writeln!(svg, r##"<text x="{}" y="{}" fill="#666">{name}</text>"##, right + 6.0, y + 4.0)
    }

    fn line(
        &self,
        svg: &mut String,
        growths: &[Growth],
        colour: &str,
        value: impl Fn(&Growth) -> f64,
    ) -> std::fmt::Result {
        let point = |growth: &Growth| format!("{:.1},{:.1}", Self::x(growth.nodes), self.y(value(growth)));
        let points: Vec<String> = growths.iter().map(point).collect();
        writeln!(svg, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#, points.join(" "))
    }
}

fn plot(growths: &[Growth]) -> String {
    let mut svg = String::new();
    draw(&mut svg, growths).expect("a string takes every text");
    svg
}

fn draw(svg: &mut String, growths: &[Growth]) -> std::fmt::Result {
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="780" height="560" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(svg, r#"<rect width="780" height="560" fill="white"/>"#)?;
    let moved = Panel { top: 40.0, title: "replicas moved by one more node, of the ideal 1/N", value_max: 1.4 };
    moved.axes(svg)?;
    moved.bound(svg, 1.0, "ideal")?;
    moved.bound(svg, MOVED_MAX, "bound")?;
    moved.line(svg, growths, "#06c", Growth::ratio)?;
    let load = Panel { top: 310.0, title: "load of the most and the least loaded node, of the mean", value_max: 1.4 };
    load.axes(svg)?;
    load.bound(svg, 1.0, "mean")?;
    load.bound(svg, LOAD_MAX, "bound")?;
    load.line(svg, growths, "#c30", |growth| growth.load_most)?;
    load.line(svg, growths, "#093", |growth| growth.load_least)?;
    writeln!(svg, r#"<text x="{}" y="548" text-anchor="middle">nodes</text>"#, LEFT + WIDTH / 2.0)?;
    writeln!(svg, "</svg>")
}
