//! Packets of established sessions get the same verdicts, and have the same effects, by the short
//! way as by the full one.

use crate::support::short_way::short_way;
use proptest::prelude::*;

proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 128,
        ..crate::support::proptest_config()
    })]

    #[test]
    fn both_ways_agree_in_every_verdict_counter_slot_and_wheel(
        data in prop::collection::vec(any::<u8>(), 0..3_000),
    ) {
        short_way(&data);
    }
}
