//! Spread of keys that a sender chooses without access to the seed of the hash.
//!
//! The cost of a packet depends on its key's neighbors in the table. Structured addresses and ports
//! must therefore spread over shards, and over the positions within a shard, like random ones.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::id::ShardId;
use super::index::Index;
use super::testing::{key_of, table};
use super::{KeyPlace, Table};
use crate::flow::{FlowKey, Zone};
use crate::reserve::Purpose;

/// Number of keys of each kind.
const KEYS: u32 = 100_000;
const SHARDS: usize = 64;
/// Cells of the positions of each shard, with four keys each on average.
const CELLS: usize = KEYS as usize / SHARDS / 4;

/// A conversation by its number.
type Conversation = fn(u32) -> FlowKey;

fn of_v4(src: u32, src_port: u16, dst: u32, dst_port: u16) -> FlowKey {
    let src = SocketAddr::from((Ipv4Addr::from_bits(src), src_port));
    let dst = SocketAddr::from((Ipv4Addr::from_bits(dst), dst_port));
    key_of(Zone::DEFAULT, src, dst)
}

fn of_v6(src: u128, src_port: u16, dst: u128, dst_port: u16) -> FlowKey {
    let src = SocketAddr::from((Ipv6Addr::from_bits(src), src_port));
    let dst = SocketAddr::from((Ipv6Addr::from_bits(dst), dst_port));
    key_of(Zone::DEFAULT, src, dst)
}

/// Keys in the patterns of tools and attackers.
const STRUCTURED: [(&str, Conversation); 10] = [
    ("ports of two hosts in turn", |n| {
        of_v4(0x0a00_0001 + (n >> 16), n as u16, 0xc000_0201, 80)
    }),
    ("addresses in turn", |n| {
        of_v4(0x0a00_0000 + n, 4000, 0xc000_0201, 80)
    }),
    ("a bit in the middle of the address", |n| {
        of_v4(n.rotate_left(13), 4000, 0xc000_0201, 80)
    }),
    ("steps of 256 addresses", |n| {
        of_v4(n << 8, 4000, 0xc000_0201, 80)
    }),
    ("a scan of networks and ports", |n| {
        of_v4(0x0a00_0001, 4000, 0xc0a8_0000 + n / 100, (n % 100) as u16)
    }),
    ("both ends move together", |n| {
        of_v4(0x0a00_0000 + n, n as u16, 0x0b00_0000 + n, n as u16)
    }),
    ("both ends move against each other", |n| {
        of_v4(0x0a00_0000 + n, n as u16, 0x0bff_ffff - n, !n as u16)
    }),
    ("the port undoes the address", |n| {
        of_v4(
            0x0a00_0000 ^ n,
            (n as u16) ^ 0x5555,
            0xc000_0201,
            (n >> 16) as u16,
        )
    }),
    ("interface identifiers in turn", |n| {
        of_v6(
            0x2001_0db8 << 96 | u128::from(n),
            4000,
            0x2001_0db8 << 96 | 1 << 64,
            80,
        )
    }),
    ("both halves of the address are equal", |n| {
        let half = 0x2001_0db8_0000_0000 | u128::from(n);
        of_v6(half << 64 | half, 4000, (0x2001_0db9 << 96) | 1, 80)
    }),
];

/// Maximum number of keys in a shard, in a cell of a shard's positions, and at one position.
#[derive(Debug)]
struct Greatest {
    shard: usize,
    cell: usize,
    place: usize,
}

fn greatest(table: &Table<()>, conversation: Conversation) -> Greatest {
    let mut shards = vec![0; SHARDS];
    let mut cells = vec![0; SHARDS * CELLS];
    let mut places = Vec::new();
    for n in 0..KEYS {
        let KeyPlace {
            shard: ShardId(shard),
            hash,
        } = table.place(&conversation(n));
        shards[shard] += 1;
        let cell = (u64::from(hash) * CELLS as u64) >> 32;
        cells[shard * CELLS + cell as usize] += 1;
        places.push((shard, hash));
    }
    places.sort_unstable();
    let equal = places.chunk_by(|one, other| one == other).map(<[_]>::len);
    Greatest {
        shard: shards.into_iter().max().unwrap(),
        cell: cells.into_iter().max().unwrap(),
        place: equal.max().unwrap(),
    }
}

#[test]
fn structured_keys_spread_as_random_ones_do() {
    for seed in 0..3u64 {
        let table = table(KEYS as usize, SHARDS, [seed, !seed, seed << 32, 7]);
        for (name, conversation) in STRUCTURED {
            let greatest = greatest(&table, conversation);
            // Of 1,562.5 keys on average, with six standard deviations of a random spread, for
            // which a shard has slots.
            assert!(greatest.shard <= 1_563 + 6 * 40, "{name}: {greatest:?}");
            // Of four on average: one of ten billion random cells has more than 22.
            assert!(greatest.cell <= 22, "{name}: {greatest:?}");
            // Random keys share 38 bits with no more than one other.
            assert!(greatest.place <= 2, "{name}: {greatest:?}");
        }
    }
}

/// Each shard's index is exactly full: the worst that a table can come to.
#[test]
fn structured_keys_are_found_as_fast_as_random_ones() {
    for seed in 0..3u64 {
        let table = table(KEYS as usize, SHARDS, [seed, !seed, seed << 32, 7]);
        for (name, conversation) in STRUCTURED {
            let mut shards = vec![Vec::new(); SHARDS];
            for n in 0..KEYS {
                let place = table.place(&conversation(n));
                shards[place.shard.0].push(place.hash);
            }
            let (mut outside, mut farthest) = (0, 0);
            for hashes in shards {
                let mut index = Index::new(Purpose::Sessions, hashes.len()).unwrap();
                for (slot, hash) in (0..).zip(&hashes) {
                    index.insert(*hash, slot);
                }
                let slots = (0..).zip(&hashes);
                let distances = slots.map(|(slot, hash)| index.distance(*hash, slot).unwrap());
                for distance in distances {
                    outside += usize::from(distance > 0);
                    farthest = farthest.max(distance);
                }
            }
            // Random hashes: 33 of 1,000 are outside their home bucket.
            let share = outside * 1_000 / KEYS as usize;
            assert!(share <= 45 && farthest <= 16, "{name}: {share} {farthest}");
        }
    }
}

/// The measure distinguishes a bad spread from a good one.
#[test]
fn keys_of_one_conversation_do_not_spread() {
    let table = table(KEYS as usize, SHARDS, [1, 2, 3, 4]);
    let greatest = greatest(&table, |_| of_v4(1, 2, 3, 4));
    let all = KEYS as usize;
    assert_eq!([greatest.shard, greatest.cell, greatest.place], [all; 3]);
}
