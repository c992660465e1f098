//! The planner's fuzz target (`fuzz/src/plan.rs`) on stable Rust: networks made of arbitrary bytes are planned or refused.

#[path = "../../../fuzz/src/plan.rs"]
mod bodies;

use cryptodl_network::Network;
use cryptodl_plan::{PlanOptions, plan};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn networks_are_planned_or_refused(data in prop::collection::vec(any::<u8>(), 16..200)) {
        bodies::plan_network(&data);
    }
}

#[test]
fn bytes_describe_networks_that_are_planned() {
    // A convolution, an activation, and what every network ends with.
    let data = [0, 3, 3, 6, 0, 1, 1, 0, 0, 6, 0, 2, 2, 5, 0, 6, 0, 3, 6];
    let (toml, weights) = bodies::describe(&data);
    let network = Network::parse("fuzz", &toml, &weights, None).unwrap_or_else(|error| panic!("{error}\n{toml}"));
    plan(&network, &PlanOptions::default()).unwrap_or_else(|error| panic!("{error}\n{toml}"));
}
