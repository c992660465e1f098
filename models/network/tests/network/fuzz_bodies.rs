//! The fuzz target's body (`fuzz/src/network.rs`) on stable Rust: mutated valid files and plain noise never panic.

#[path = "../../../../fuzz/src/network.rs"]
mod bodies;
#[path = "../../../../fuzz/src/smoke.rs"]
mod smoke;

use cryptodl_network::Network;
use smoke::smoke;

#[test]
fn networks() {
    smoke(bodies::network, include_bytes!("../../../zoo/trained/mnist-1-square.toml"), 30);
    smoke(bodies::network, include_bytes!("../../../zoo/trained/mnist-1-square.safetensors"), 30);
    let (graph, weights) = bodies::graph();
    Network::parse("graph.toml", graph, &weights, None).expect("a valid graph");
    smoke(bodies::network, graph.as_bytes(), 300);
    smoke(bodies::network, &weights, 30);
}
