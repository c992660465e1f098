//! Random graphs against loops that follow the definitions, and as files and back.

use cryptodl_network::measure;
use proptest::prelude::*;

use crate::common::oracle::assert_layers_agree;
use crate::common::random::random_network;
use crate::common::{calibration, contents, images, reread};
use crate::measuring::assert_measured;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_agree_with_the_definitions(bytes in prop::collection::vec(any::<u8>(), 0..160), seed in any::<u64>()) {
        let net = random_network(&bytes, seed);
        assert_layers_agree(&net, &images(&net, 3, seed ^ 1));
        // Every value but the last is released once, by its last reader.
        let mut released: Vec<usize> = Vec::new();
        for (index, sources) in net.released().iter().enumerate() {
            for source in sources {
                prop_assert!(net.layers[index].inputs.contains(source));
                prop_assert!(net.layers[index + 1..].iter().all(|layer| !layer.inputs.contains(source)));
                released.push(source.value());
            }
        }
        released.sort_unstable();
        prop_assert_eq!(released, (0..net.layers.len()).collect::<Vec<_>>());
    }

    #[test]
    fn random_graphs_are_written_and_read_again(bytes in prop::collection::vec(any::<u8>(), 0..160), seed in any::<u64>()) {
        let mut net = random_network(&bytes, seed);
        prop_assert_eq!(contents(&net), contents(&reread(&net)));
        let fingerprint = net.fingerprint();
        let images = images(&net, 40, seed ^ 2);
        measure::measure(&mut net, images.view());
        net.calibration = Some(calibration());
        let again = reread(&net);
        prop_assert_eq!(contents(&net), contents(&again));
        prop_assert_eq!(again.fingerprint(), fingerprint);
        assert_measured(&again, &images);
    }
}
