//! One conversation from the view of a router in its middle: two ends, a lossy path on either side,
//! and an attacker.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::attack;
use crate::endpoint::{End, Offer, Phase};
use crate::segment::{RST, Segment};

/// Number of earlier segments that an attacker may replay.
const MEMORY: usize = 24;

/// End that sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The end at the first TUN device.
    Left,
    /// The end at the second TUN device.
    Right,
}

impl Side {
    /// Returns the other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// Habits of a conversation: loss, reordering, attacks.
#[derive(Debug, Clone, Copy)]
struct Habits {
    loss: f64,
    reorder: f64,
    duplicate: f64,
    attack: f64,
    crash: f64,
    closing: f64,
}

/// Pair of values, one for each side.
#[derive(Debug, Clone)]
struct Both<T>([T; 2]);

impl<T> Both<T> {
    const fn of(&self, side: Side) -> &T {
        let [left, right] = &self.0;
        match side {
            Side::Left => left,
            Side::Right => right,
        }
    }

    const fn of_mut(&mut self, side: Side) -> &mut T {
        let [left, right] = &mut self.0;
        match side {
            Side::Left => left,
            Side::Right => right,
        }
    }
}

/// Conversation: connections of one pair of addresses and ports, one after the other.
#[derive(Debug)]
pub struct Conversation {
    /// Number of the conversation; each has addresses and ports of its own.
    pub number: u32,
    addresses: Both<SocketAddr>,
    ends: Both<End>,
    habits: Habits,
    /// Segments in flight to the middle.
    to_middle: VecDeque<(Side, Segment)>,
    /// Segments that passed the middle, in flight to the other end.
    to_end: VecDeque<(Side, Segment)>,
    passed: Both<Vec<Segment>>,
    left: u32,
}

impl Conversation {
    /// Creates a conversation. Its addresses are 10.1.x.y and 10.2.x.y, or in fd00:1::/32 and
    /// fd00:2::/32.
    pub fn new(number: u32, dice: &mut ChaCha8Rng) -> Self {
        let attacked = dice.random_bool(0.5);
        let rough = dice.random_bool(0.6);
        let habits = Habits {
            loss: if rough {
                dice.random_range(0.0..0.2)
            } else {
                0.0
            },
            reorder: if rough {
                dice.random_range(0.0..0.3)
            } else {
                0.0
            },
            duplicate: if rough {
                dice.random_range(0.0..0.1)
            } else {
                0.0
            },
            attack: if attacked {
                dice.random_range(0.01..0.15)
            } else {
                0.0
            },
            crash: if dice.random_bool(0.2) { 0.02 } else { 0.0 },
            closing: dice.random_range(0.01..0.2),
        };
        let mut conversation = Self {
            number,
            addresses: addresses(number, dice),
            ends: Both([End::new(offer(dice)), End::new(offer(dice))]),
            habits,
            to_middle: VecDeque::new(),
            to_end: VecDeque::new(),
            passed: Both([Vec::new(), Vec::new()]),
            left: dice.random_range(8..180),
        };
        let iss = Both([initial(dice), initial(dice)]);
        conversation.start(Side::Left, iss, dice);
        conversation
    }

    /// Returns sender and receiver of a side's segment.
    #[must_use]
    pub const fn addresses(&self, sender: Side) -> (SocketAddr, SocketAddr) {
        (
            *self.addresses.of(sender),
            *self.addresses.of(sender.other()),
        )
    }

    /// Returns whether segments are forged in the conversation.
    #[must_use]
    pub const fn is_attacked(&self) -> bool {
        self.habits.attack > 0.0
    }

    /// Returns the next segment that passes the middle, or `None` when the conversation is over.
    pub fn next(&mut self, dice: &mut ChaCha8Rng) -> Option<(Side, Segment)> {
        self.left = self.left.checked_sub(1)?;
        for _ in 0..400 {
            if dice.random_bool(self.habits.attack) {
                let side = self.any_side(dice);
                let forged = attack::forge(
                    self.ends.of(side),
                    self.ends.of(side.other()),
                    self.passed.of(side),
                    dice,
                );
                if dice.random_bool(0.7) {
                    self.to_end.push_back((side, forged.clone()));
                }
                return Some((side, forged));
            }
            if dice.random_bool(self.habits.crash) {
                self.crash(dice);
            }
            if dice.random_bool(0.5)
                && let Some((sender, segment)) = take(&mut self.to_end, self.habits.reorder, dice)
            {
                if let Some(answer) = self.ends.of_mut(sender.other()).receive(&segment, dice) {
                    self.to_middle.push_back((sender.other(), answer));
                }
                continue;
            }
            if dice.random_bool(0.6)
                && let Some((sender, segment)) =
                    take(&mut self.to_middle, self.habits.reorder, dice)
            {
                if dice.random_bool(self.habits.loss) {
                    continue;
                }
                if dice.random_bool(self.habits.duplicate) {
                    self.to_middle.push_back((sender, segment.clone()));
                }
                if !dice.random_bool(self.habits.loss) {
                    self.to_end.push_back((sender, segment.clone()));
                }
                let passed = self.passed.of_mut(sender);
                if passed.len() >= MEMORY {
                    passed.remove(0);
                }
                passed.push(segment.clone());
                return Some((sender, segment));
            }
            if !self.to_middle.is_empty() && dice.random_bool(0.7) {
                continue;
            }
            let side = self.any_side(dice);
            if let Some(segment) = self.ends.of_mut(side).act(dice, self.habits.closing) {
                self.to_middle.push_back((side, segment));
            } else if self.to_middle.is_empty()
                && self.to_end.is_empty()
                && self.ends.0.iter().all(End::is_quiet)
            {
                self.again(dice);
            }
        }
        None
    }

    fn any_side(&self, dice: &mut ChaCha8Rng) -> Side {
        if dice.random_bool(0.5) {
            Side::Left
        } else {
            Side::Right
        }
    }

    /// One end opens; the other listens, is closed, or opens at the same time.
    fn start(&mut self, opener: Side, iss: Both<u32>, dice: &mut ChaCha8Rng) {
        let syn = self.ends.of_mut(opener).connect(*iss.of(opener));
        self.to_middle.push_back((opener, syn));
        let other = opener.other();
        let end = self.ends.of_mut(other);
        match dice.random_range(0..100) {
            0..5 => end.phase = Phase::Closed,
            5..11 => {
                let syn = end.connect(*iss.of(other));
                self.to_middle.push_back((other, syn));
            }
            _ if end.phase == Phase::TimeWait && dice.random_bool(0.7) => {}
            _ => end.listen(*iss.of(other)),
        }
    }

    /// A new connection on the same ports.
    fn again(&mut self, dice: &mut ChaCha8Rng) {
        let opener = if dice.random_bool(0.8) {
            Side::Left
        } else {
            Side::Right
        };
        let next = |end: &End, dice: &mut ChaCha8Rng| {
            if dice.random_bool(0.6) {
                end.nxt.wrapping_add(dice.random_range(1..3_000_000))
            } else {
                initial(dice)
            }
        };
        let [left, right] = &self.ends.0;
        let iss = Both([next(left, dice), next(right, dice)]);
        self.start(opener, iss, dice);
    }

    /// An end loses its state, and possibly opens a new connection while the other still has the
    /// old one.
    fn crash(&mut self, dice: &mut ChaCha8Rng) {
        let side = self.any_side(dice);
        let end = self.ends.of_mut(side);
        if dice.random_bool(0.5) {
            let iss = initial(dice);
            let syn = end.connect(iss);
            self.to_middle.push_back((side, syn));
        } else {
            end.phase = Phase::Closed;
            if dice.random_bool(0.5) {
                // Some ends notify the other one.
                let reset = end.segment(RST, end.nxt, 0);
                self.to_middle.push_back((side, reset));
            }
        }
    }
}

/// Takes one segment from the path: the oldest, or any of the first few.
fn take(
    way: &mut VecDeque<(Side, Segment)>,
    reorder: f64,
    dice: &mut ChaCha8Rng,
) -> Option<(Side, Segment)> {
    if way.len() > 1 && dice.random_bool(reorder) {
        let at = dice.random_range(0..way.len().min(6));
        return way.remove(at);
    }
    way.pop_front()
}

fn addresses(number: u32, dice: &mut ChaCha8Rng) -> Both<SocketAddr> {
    let [_, high, middle, low] = number.to_be_bytes();
    let host = u16::from_be_bytes([middle, low]);
    let ip = |net: u8, v6: bool| {
        if v6 {
            IpAddr::V6(Ipv6Addr::new(
                0xfd00,
                net.into(),
                0,
                0,
                0,
                0,
                high.into(),
                host,
            ))
        } else {
            IpAddr::V4(Ipv4Addr::new(10, net, middle, low))
        }
    };
    let v6 = dice.random_bool(0.4);
    // The host part alone repeats after 2^16 conversations; the ports then distinguish them.
    let port = 1024 + u16::from(high);
    Both([
        SocketAddr::new(ip(1, v6), 10_000 + dice.random_range(0..50_000)),
        SocketAddr::new(ip(2, v6), port),
    ])
}

/// Initial sequence numbers, often near the end of 32 or 31 bits.
fn initial(dice: &mut ChaCha8Rng) -> u32 {
    let short = dice.random_range(0..4000);
    match dice.random_range(0..8) {
        0 => 0u32.wrapping_sub(short),
        1 => (1 << 31) - short,
        2 => short,
        _ => dice.random(),
    }
}

fn offer(dice: &mut ChaCha8Rng) -> Offer {
    let buffer = match dice.random_range(0..8) {
        0 => dice.random_range(1..2000),
        1 => dice.random_range(100_000..4_000_000),
        2 => dice.random_range(4_000_000..1_000_000_000),
        _ => dice.random_range(2000..200_000),
    };
    Offer {
        mss: if dice.random_bool(0.1) {
            0
        } else {
            dice.random_range(500..1460)
        },
        window_scale: dice.random_bool(0.75).then(|| {
            if dice.random_bool(0.5) {
                7
            } else {
                dice.random_range(0..=15)
            }
        }),
        sack: dice.random_bool(0.75),
        timestamps: dice.random_bool(0.5),
        unknown: dice.random_bool(0.1),
        buffer,
        shrinks: dice.random_bool(0.1),
        largest: if dice.random_bool(0.1) {
            dice.random_range(1460..60_000)
        } else {
            1400
        },
    }
}
