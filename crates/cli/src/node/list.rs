//! `node list`, `node show`.

use clap::Args;

use crate::connect::Ask;
use crate::failure::{Exit, Failure};
use crate::node_row::NodeRow;
use crate::output::{self, Format, Kinds};
use crate::survey::Survey;

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only nodes of this zone.
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The node's id.
    id: u64,
    #[command(flatten)]
    ask: Ask,
}

const KINDS: Kinds = Kinds { list: "NodeList", item: "Node" };

/// Lists the nodes.
pub(super) async fn list(args: ListArgs) -> Result<(), Failure> {
    let survey = Survey::take(&args.ask.connect).await?;
    let rows = of_zone(&survey, args.zone.as_deref())?;
    output::show_all(args.ask.format(), KINDS, rows, |rows| NodeRow::table(rows, args.ask.format() == Format::Wide))
}

/// Shows one node.
pub(super) async fn show(args: ShowArgs) -> Result<(), Failure> {
    let survey = Survey::take(&args.ask.connect).await?;
    survey.check_node(args.id)?;
    let row = NodeRow::of(&survey, args.id);
    let format = args.ask.format();
    output::show(format, KINDS.item, &row, || NodeRow::table(std::slice::from_ref(&row), format == Format::Wide))
}

/// The nodes of a zone, or all nodes. A zone without nodes is refused as a typing mistake.
fn of_zone(survey: &Survey, zone: Option<&str>) -> Result<Vec<NodeRow>, Failure> {
    let zones = survey.zones();
    if let Some(unknown) = zone.filter(|zone| !zones.contains(zone)) {
        let known: Vec<&str> = zones.into_iter().collect();
        return Err(Failure::new(Exit::Usage, format!("no node is in zone '{}'", unknown.escape_debug())).hint(
            match known.is_empty() {
                true => "no node has a zone; to set one: quorate node start --zone NAME".to_owned(),
                false => format!("the zones are {}", known.join(", ")),
            },
        ));
    }
    let of_zone = survey.nodes.iter().filter(|(node, _)| zone.is_none_or(|zone| node.zone == zone));
    Ok(of_zone.map(|(node, _)| NodeRow::of(survey, node.id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    #[test]
    fn an_unknown_zone_is_refused_with_the_known_ones() {
        let mut survey = survey(&[]);
        let refused = |survey: &Survey, zone| of_zone(survey, Some(zone)).unwrap_err().to_string();
        assert!(refused(&survey, "east").contains("no node has a zone"));
        survey.nodes[0].0.zone = "west".into();
        survey.nodes[1].0.zone = "north".into();
        assert_eq!(refused(&survey, "east"), "error: no node is in zone 'east'\n  hint:  the zones are north, west\n");
        assert_eq!(of_zone(&survey, Some("west")).unwrap().len(), 1);
        assert_eq!(of_zone(&survey, None).unwrap().len(), 3);
    }
}
