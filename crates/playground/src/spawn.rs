//! Starts the process of one node.

use std::ffi::OsString;

use crate::children::Children;
use crate::error::Error;
use crate::layout::{Layout, NodePlan};
use crate::links::Links;

/// A node's name among the children, by its place in the layout.
pub(crate) fn node_name(place: usize) -> String {
    format!("node-{}", place + 1)
}

/// Starts the process of a node and registers it with the proxies. Call it on the main thread.
pub(crate) fn start_node(
    place: usize,
    layout: &Layout,
    children: &mut Children,
    links: Option<&Links>,
) -> Result<(), Error> {
    let args = node_args(layout, &layout.nodes[place]);
    let process = children.start(&node_name(place), &args, &layout.logs)?;
    if let Some(links) = links {
        links.set_process(place, Some(process));
    }
    Ok(())
}

fn node_args(layout: &Layout, node: &NodePlan) -> Vec<OsString> {
    let others: Vec<&str> =
        layout.nodes.iter().filter(|other| *other != node).map(|other| other.client.as_str()).collect();
    let mut args: Vec<OsString> = ["node", "start", "--data-dir"].map(OsString::from).to_vec();
    args.push(node.data_dir.clone().into());
    for (flag, address) in
        [("--client-listen", &node.client), ("--peer-listen", &node.peer_listen), ("--ops-listen", &node.ops)]
    {
        args.extend([flag.into(), address.into()]);
    }
    if node.peer_listen != node.peer {
        args.extend(["--advertise-peer".into(), node.peer.clone().into()]);
    }
    if !others.is_empty() {
        args.extend(["--join".into(), others.join(",").into()]);
    }
    args.extend(["--log-format".into(), "text".into()]);
    args
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::layout::Shape;

    /// The command line of the binary parses this very line in its own test.
    #[test]
    fn a_node_is_started_with_the_arguments_a_user_would_type() {
        let shape = Shape { nodes: 3, shards: 16, port_base: 7100, added: 0 };
        let layout = Layout::new(Path::new("/p"), shape, Some(8080), true).unwrap();
        let args = node_args(&layout, &layout.nodes[1]);
        let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(
            words.join(" "),
            "node start --data-dir /p/node-2 --client-listen 127.0.0.1:7110 --peer-listen 127.0.0.1:7113 \
             --ops-listen 127.0.0.1:7112 --advertise-peer 127.0.0.1:7111 --join 127.0.0.1:7100,127.0.0.1:7120 \
             --log-format text"
        );
    }
}
