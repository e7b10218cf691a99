//! The differential run: every packet to the kernel and to the engine.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use portcullis::config::LifetimeClass;
use portcullis::explain::Step;
use portcullis::{Class as OurClass, Config, Direction, Discard, Engine, Packet, Verdict};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::conntrack::Tracked;
use crate::conversation::{Conversation, Side};
use crate::deviations::{Deviations, Kind};
use crate::kernel::{Class, Kernel};
use crate::namespace::Interrupt;
use crate::segment::{RST, Segment};
use crate::wake::Wake;

/// Number of concurrent conversations.
const LIVE: usize = 64;

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of packets.
    pub packets: u64,
    /// Seed of the packets.
    pub seed: u64,
}

/// Results of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Packets that were compared, and the connection's state after each.
    pub packets: u64,
    /// Conversations.
    pub conversations: u64,
    /// Deviations; a conversation ends at its first one.
    pub deviations: Deviations,
    /// Packets by their class in Linux.
    pub classes: HashMap<Class, u64>,
}

/// A conversation with its record.
struct Live {
    conversation: Conversation,
    /// Engine of this conversation alone, whose packets no other conversation can change.
    engine: Engine,
    story: String,
    wake: Wake,
}

struct Run {
    kernel: Kernel,
    start: Instant,
    elapsed: Duration,
    outcome: Outcome,
}

/// Returns an engine for one conversation: the default configuration, with lifetimes that do not
/// end during a run.
fn engine() -> Result<Engine> {
    let mut config = Config::allow_all();
    config.table.max_sessions = 16;
    for class in LifetimeClass::ALL {
        config.lifetimes.set = config
            .lifetimes
            .set
            .with(class, Duration::from_secs(86_400));
    }
    config.gwlb.enabled = false;
    Ok(Engine::with_seed(&config, [1, 2, 3, 4])?)
}

/// Runs the comparison in the namespace of a kernel.
///
/// # Errors
/// Returns an error if the kernel cannot be queried, or the process was requested to end.
pub fn run(kernel: Kernel, settings: &Settings, interrupt: &Interrupt) -> Result<Outcome> {
    let mut dice = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut run = Run {
        kernel,
        start: Instant::now(),
        elapsed: Duration::ZERO,
        outcome: Outcome::default(),
    };
    let mut live: Vec<Live> = Vec::new();
    while run.outcome.packets < settings.packets {
        interrupt.check()?;
        while live.len() < LIVE {
            live.push(run.begin(&mut dice)?);
        }
        let at = dice.random_range(0..live.len());
        let Some(one) = live.get_mut(at) else {
            continue;
        };
        let agreed = match one.conversation.next(&mut dice) {
            Some((sender, segment)) => {
                run.elapsed += Duration::from_micros(dice.random_range(0..2000));
                run.outcome.packets += 1;
                run.compare(one, sender, &segment)?
            }
            None => false,
        };
        if !agreed {
            live.swap_remove(at);
        }
    }
    Ok(run.outcome)
}

impl Run {
    fn begin(&mut self, dice: &mut ChaCha8Rng) -> Result<Live> {
        self.outcome.conversations += 1;
        let number = u32::try_from(self.outcome.conversations).unwrap_or(u32::MAX);
        let conversation = Conversation::new(number, dice);
        let (left, right) = conversation.addresses(Side::Left);
        Ok(Live {
            story: format!("    conversation {number}: {left} (>), {right} (<)\n"),
            conversation,
            engine: engine()?,
            wake: Wake::default(),
        })
    }

    /// Compares one packet, and the connection after it; returns `false` for a deviation.
    fn compare(&mut self, one: &mut Live, sender: Side, segment: &Segment) -> Result<bool> {
        let (from, to) = one.conversation.addresses(sender);
        let packet = segment.packet(from, to)?;
        let linux = self.kernel.classify(sender, &packet)?;
        *self.outcome.classes.entry(linux).or_default() += 1;
        let now = self.start + self.elapsed;
        let (verdict, steps) = one.engine.explain(Packet::new(&packet, now), &mut Discard);
        let (before, direction) = found(&steps);
        let said = describe(&verdict);
        let arrow = match sender {
            Side::Left => '>',
            Side::Right => '<',
        };
        let (left, right) = one.conversation.addresses(Side::Left);
        let theirs = self.kernel.connection(left, right)?;
        let ours = session(&one.engine, left);
        writeln!(
            one.story,
            "      {arrow} {segment}: Linux {linux}, {}; ours {said}, {}",
            state(theirs.as_ref()),
            state(ours.as_ref()),
        )?;
        let (linux, said) = if !agree(linux, &verdict) {
            (linux.to_string(), said)
        } else if theirs != ours {
            (
                format!("state {}", state(theirs.as_ref())),
                format!("state {}", state(ours.as_ref())),
            )
        } else {
            one.wake.note(&verdict, segment, &steps, before);
            return Ok(true);
        };
        let mut what = format!("{direction}{}", segment.kind());
        if segment.has(RST) && segment.ack == 0 {
            what.push_str(" ack 0");
        }
        let kind = Kind {
            linux,
            ours: said,
            state: before.to_owned(),
            segment: what,
            after: one.wake.to_string(),
            attacked: one.conversation.is_attacked(),
        };
        let story = &one.story;
        self.outcome.deviations.add(kind, || {
            let steps: Vec<_> = steps
                .iter()
                .map(|step| format!("        | {step}\n"))
                .collect();
            format!("{story}{}", steps.concat())
        });
        Ok(false)
    }
}

/// Returns the session of a conversation in its engine.
fn session(engine: &Engine, left: SocketAddr) -> Option<Tracked> {
    let mut tracked = None;
    engine.for_each_session(|session| {
        tracked = Some(Tracked {
            state: session.state.to_owned(),
            replied: session.reply.packets > 0,
            assured: session.assured,
            turned: (session.src, session.src_port) != (left.ip(), left.port()),
        });
    });
    tracked
}

fn state(tracked: Option<&Tracked>) -> String {
    tracked.map_or_else(|| "none".to_owned(), Tracked::to_string)
}

/// Returns the state of the packet's session, and an arrow for the packet's direction.
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

/// Returns whether class and direction are equal.
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
