//! Ownership of frames under any order of steps and any descriptors of the kernel.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/script.rs"]
mod script;

use std::fs;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use proptest::prelude::*;

use self::script::{Ring, Step, run};
use portcullis_xdp::{Batch, Desc, Ledger, MAX_PIECES, Packet};

fn honest() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u8>().prop_map(Step::Lend),
        (any::<u8>(), any::<u16>(), any::<u16>(), any::<bool>()).prop_map(
            |(frame, offset, len, continues)| Step::Receive {
                frame,
                offset,
                len,
                continues
            }
        ),
        any::<u16>().prop_map(|room| Step::Take { room }),
        (0..8_u8, 0..9_000_u16).prop_map(|(packet, len)| Step::SendBack { packet, len }),
        (0..8_u8, 0..9_000_u16).prop_map(|(packet, len)| Step::SendInstead { packet, len }),
        Just(Step::Release),
        any::<u8>().prop_map(|frame| Step::Complete { frame }),
    ]
}

fn hostile() -> impl Strategy<Value = Step> {
    let addr = prop_oneof![0..200_000_u64, any::<u64>()];
    let len = prop_oneof![0..5_000_u32, any::<u32>()];
    prop_oneof![
        3 => honest(),
        1 => (addr, len, 0..4_u32).prop_map(|(addr, len, options)| Step::Forge {
            addr,
            len,
            options
        }),
        1 => (0..200_000_u64).prop_map(|addr| Step::ForgeCompletion { addr }),
    ]
}

proptest! {
    #[test]
    fn an_honest_kernel_finds_every_frame_with_one_owner(
        steps in prop::collection::vec(honest(), 0..200)
    ) {
        run(&steps);
    }

    #[test]
    fn a_kernel_that_forges_descriptors_changes_no_owner_and_reaches_no_other_byte(
        steps in prop::collection::vec(hostile(), 0..200)
    ) {
        run(&steps);
    }
}

#[test]
fn a_packet_whose_last_piece_is_missing_stays_in_the_ring() {
    let piece = |continues| Step::Receive {
        frame: 0,
        offset: 256,
        len: 100,
        continues,
    };
    run(&[
        Step::Lend(32),
        piece(true),
        Step::Take { room: 9_000 },
        piece(false),
        Step::Take { room: 9_000 },
        Step::SendBack {
            packet: 0,
            len: 150,
        },
        Step::Complete { frame: 0 },
        Step::Complete { frame: 0 },
    ]);
}

#[test]
fn the_tail_of_a_packet_with_too_many_pieces_is_no_packet() {
    for tail in [1, 2, MAX_PIECES, 2 * MAX_PIECES] {
        let (mut ledger, mut batch) = (Ledger::new(128, 12), Batch::default());
        let mut ring = Ring::default();
        let mut put = |len, continues| {
            ring.0.push(Desc {
                addr: ledger.lend().unwrap(),
                len,
                options: u32::from(continues),
            });
        };
        for _ in 1..MAX_PIECES + tail {
            put(10, true);
        }
        put(10, false);
        put(77, false);
        let mut lens = Vec::new();
        for _ in 0..3 {
            batch.receive(&mut ring, &mut ledger, 1 << 16);
            lens.extend(batch.packets().iter().map(Packet::len));
        }
        assert_eq!((lens, batch.malformed()), (vec![77], 1), "{tail}");
        assert_eq!(ledger.counts().total(), ledger.counts().free);
    }
}

/// The inputs of the fuzz target `descriptors`, those included that once crashed it.
#[test]
fn the_inputs_of_the_fuzz_target_pass() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut count = 0;
    for kind in ["seeds", "crashes"] {
        let Ok(files) = fs::read_dir(fuzz.join(kind).join("descriptors")) else {
            continue;
        };
        for file in files {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            run(&Vec::<Step>::arbitrary_take_rest(Unstructured::new(&bytes)).unwrap());
            count += 1;
        }
    }
    assert!(count > 0, "there are seeds");
}
