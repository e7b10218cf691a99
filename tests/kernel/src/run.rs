//! The differential run: every packet to the kernel and to the engine.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portcullis::explain::Step;
use portcullis::lifetime::LifetimeClass;
use portcullis::track::tcp::Step as TcpStep;
use portcullis::{Class as OurClass, Config, Direction, DropReason, Engine, Packet, Verdict};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::conversation::{Conversation, Side};
use crate::deviations::{Deviations, Kind};
use crate::kernel::{Class, Kernel, Tracked, Tuple};
use crate::namespace::Interrupt;
use crate::segment::{FIN, RST, SYN, Segment};

/// Conversations that go on at the same time.
const LIVE: usize = 64;

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Packets in all.
    pub packets: u64,
    /// What the packets are made of.
    pub seed: u64,
    /// Packets between two comparisons of all states.
    pub states_every: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Packets that were compared.
    pub packets: u64,
    /// States of connections that were compared.
    pub states: u64,
    /// Conversations.
    pub conversations: u64,
    /// Where the two did not agree; the conversation ends there.
    pub deviations: Deviations,
    /// Packets by what Linux said of them.
    pub classes: HashMap<Class, u64>,
}

/// A conversation with its record.
struct Live {
    conversation: Conversation,
    story: String,
    /// The last packet, for a difference of states.
    last: (String, String),
    /// The kind of an earlier segment after which Linux may know something else.
    mark: Option<&'static str>,
    /// Both ends sent a SYN.
    simultaneous: bool,
}

impl Live {
    /// Notes after what kind of segment Linux may know something else than the engine. The reasons stand in
    /// `deviations.toml`.
    fn note(&mut self, verdict: &Verdict, segment: &Segment, steps: &[Step]) {
        let outside = steps
            .iter()
            .any(|step| matches!(step, Step::Tcp(TcpStep::Bound(check)) if !check.holds));
        let below = verdict.reason() == Some(DropReason::TcpRstBelowWindow);
        let (state, _) = found(steps);
        let opening = matches!(state, "SYN_SENT" | "SYN_SENT2" | "SYN_RECV");
        if verdict.tracked().class == OurClass::New && state != "SYN_SENT" {
            // A new connection on the same ports.
            self.mark = None;
            self.simultaneous = false;
            return;
        }
        self.simultaneous |= state == "SYN_SENT2";
        let mark = if opening && segment.has(RST) {
            Some("after RST in handshake")
        } else if self.simultaneous && state == "SYN_RECV" && segment.has(SYN) {
            Some("after SYN in simultaneous open")
        } else if (outside || below)
            && (opening || state == "CLOSE" || segment.flags & (SYN | FIN | RST) != 0)
        {
            Some("after a bad one")
        } else {
            None
        };
        self.mark = self.mark.or(mark);
    }
}

struct Run {
    kernel: Kernel,
    engine: Engine,
    start: Instant,
    elapsed: Duration,
    outcome: Outcome,
}

/// An engine with the default configuration, but lifetimes that do not end during a run.
fn engine() -> Result<Engine> {
    let mut config = Config::default();
    config.table.max_sessions = 1 << 17;
    for class in LifetimeClass::ALL {
        config.lifetimes.set = config.lifetimes.set.with(class, Duration::from_secs(86_400));
    }
    config.gwlb.enabled = false;
    Ok(Engine::with_seed(&config, [1, 2, 3, 4])?)
}

/// Runs the comparison in the namespace of a kernel.
///
/// # Errors
/// The kernel cannot be asked, or the process was asked to end.
pub fn run(kernel: Kernel, settings: &Settings, interrupt: &Interrupt) -> Result<Outcome> {
    let mut dice = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut run = Run {
        kernel,
        engine: engine()?,
        start: Instant::now(),
        elapsed: Duration::ZERO,
        outcome: Outcome::default(),
    };
    let mut live: Vec<Live> = Vec::new();
    let mut ended: Vec<Live> = Vec::new();
    while run.outcome.packets < settings.packets {
        interrupt.check()?;
        while live.len() < LIVE {
            live.push(run.begin(&mut dice));
        }
        let at = dice.random_range(0..live.len());
        let Some(one) = live.get_mut(at) else { continue };
        let agreed = match one.conversation.next(&mut dice) {
            Some((sender, segment)) => {
                run.elapsed += Duration::from_micros(dice.random_range(0..2000));
                run.outcome.packets += 1;
                run.compare(one, sender, &segment)?
            }
            None => {
                ended.push(live.swap_remove(at));
                continue;
            }
        };
        if !agreed {
            live.swap_remove(at);
        }
        if run.outcome.packets.is_multiple_of(settings.states_every) {
            run.compare_states(&mut live, &mut ended)?;
        }
    }
    run.compare_states(&mut live, &mut ended)?;
    Ok(run.outcome)
}

impl Run {
    fn begin(&mut self, dice: &mut ChaCha8Rng) -> Live {
        self.outcome.conversations += 1;
        let number = u32::try_from(self.outcome.conversations).unwrap_or(u32::MAX);
        let conversation = Conversation::new(number, dice);
        let (left, right) = conversation.addresses(Side::Left);
        Live {
            story: format!("    conversation {number}: {left} (>), {right} (<)\n"),
            conversation,
            last: ("-".to_owned(), "-".to_owned()),
            mark: None,
            simultaneous: false,
        }
    }

    /// One packet; `false` where the two do not agree.
    fn compare(&mut self, one: &mut Live, sender: Side, segment: &Segment) -> Result<bool> {
        let (from, to) = one.conversation.addresses(sender);
        let packet = segment.packet(from, to)?;
        let linux = self.kernel.classify(sender, &packet)?;
        *self.outcome.classes.entry(linux).or_default() += 1;
        let now = self.start + self.elapsed;
        let (verdict, steps) = self.engine.explain(Packet::new(&packet, now), &mut ());
        let (state, direction) = found(&steps);
        let ours = describe(&verdict);
        let arrow = match sender {
            Side::Left => '>',
            Side::Right => '<',
        };
        writeln!(
            one.story,
            "      {arrow} {segment}: Linux {linux}, ours {ours} (was {state})"
        )?;
        let mut what = format!("{direction}{}", segment.kind());
        if segment.has(RST) && segment.ack == 0 {
            what.push_str(" ack 0");
        }
        let agreed = agree(linux, &verdict);
        if agreed {
            one.note(&verdict, segment, &steps);
        }
        if let Some(mark) = one.mark {
            what.push(' ');
            what.push_str(mark);
        }
        one.last = (state.to_owned(), what);
        if agreed {
            return Ok(true);
        }
        let (state, segment) = one.last.clone();
        let kind = Kind {
            linux: linux.to_string(),
            ours,
            state,
            segment,
        };
        let story = &one.story;
        self.outcome.deviations.add(kind, || {
            let steps: Vec<_> = steps.iter().map(|step| format!("        | {step}\n")).collect();
            format!("{story}{}", steps.concat())
        });
        Ok(false)
    }

    /// The states of all conversations that go on or have ended since the last time.
    fn compare_states(&mut self, live: &mut Vec<Live>, ended: &mut Vec<Live>) -> Result<()> {
        let linux = self.kernel.connections()?;
        let mut ours: HashMap<Tuple, Tracked> = HashMap::new();
        self.engine.for_each_session(|session| {
            let tuple = (
                (session.src, session.src_port).into(),
                (session.dst, session.dst_port).into(),
            );
            let tracked = Tracked {
                state: session.state.to_owned(),
                replied: session.reply.packets > 0,
                assured: session.assured,
            };
            ours.insert(tuple, tracked);
        });
        ensure!(!linux.is_empty(), "the kernel tracks nothing");
        let mut agree = |one: &Live| {
            self.outcome.states += 1;
            let (left, right) = one.conversation.addresses(Side::Left);
            let of = |table: &HashMap<Tuple, Tracked>| {
                let forward = table
                    .get(&(left, right))
                    .map(|tracked| format!("state {tracked}"));
                let backward = || {
                    table
                        .get(&(right, left))
                        .map(|tracked| format!("state {tracked}, from the right"))
                };
                forward
                    .or_else(backward)
                    .unwrap_or_else(|| "state none".to_owned())
            };
            let (linux, ours) = (of(&linux), of(&ours));
            if linux == ours {
                return true;
            }
            let (state, segment) = one.last.clone();
            let kind = Kind {
                linux: linux.clone(),
                ours: ours.clone(),
                state,
                segment,
            };
            self.outcome.deviations.add(kind, || {
                format!("{}      in the end: Linux {linux}, ours {ours}\n", one.story)
            });
            false
        };
        live.retain(&mut agree);
        for one in ended.drain(..) {
            agree(&one);
        }
        Ok(())
    }
}

/// State of the session that a packet met, and an arrow for the packet's direction in it.
fn found(steps: &[Step]) -> (&'static str, &'static str) {
    steps
        .iter()
        .find_map(|step| match step {
            Step::Found {
                session, direction, ..
            } => Some((
                session.state,
                match direction {
                    Direction::Original => ">",
                    Direction::Reply => "<",
                },
            )),
            _ => None,
        })
        .unwrap_or(("-", ""))
}

fn describe(verdict: &Verdict) -> String {
    let tracked = verdict.tracked();
    let detail = match (verdict.reason(), tracked.direction) {
        (Some(reason), _) => reason.name(),
        (None, Some(Direction::Original)) => "original",
        (None, Some(Direction::Reply)) => "reply",
        (None, None) => "-",
    };
    format!("{} {detail}", tracked.class.name())
}

/// Whether class and direction are the same.
fn agree(linux: Class, verdict: &Verdict) -> bool {
    let tracked = verdict.tracked();
    match linux {
        Class::Invalid => tracked.class == OurClass::Invalid,
        Class::New => tracked.class == OurClass::New,
        Class::EstablishedOriginal => {
            (tracked.class, tracked.direction) == (OurClass::Established, Some(Direction::Original))
        }
        Class::EstablishedReply => {
            (tracked.class, tracked.direction) == (OurClass::Established, Some(Direction::Reply))
        }
        Class::Related => tracked.class == OurClass::Related,
        Class::Untracked => tracked.class == OurClass::Untracked,
        Class::Lost => false,
    }
}
