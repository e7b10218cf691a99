//! The terminal: keys, answers and redraws, and its restoration at the end.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event};
use ratatui::DefaultTerminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::super::client::Client;
use super::super::error::SessionsError;
use super::super::table::now;
use super::args::TopArgs;
use super::asker::{Answer, Asker, Question};
use super::input::Key;
use super::state::App;
use super::theme::Theme;
use super::update::{Effect, Input, update};
use super::view::draw;

/// Longest time until an answer or a signal is noticed.
const TICK: Duration = Duration::from_millis(50);
/// Most questions that wait. Further ones are dropped, with a message.
const MAX_WAITING: usize = 8;

/// Terminal in raw mode; restored when the value is dropped, and by a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn new() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // An error cannot be reported here: the terminal may be gone.
        let _ = ratatui::try_restore();
    }
}

/// Shows the view until the user quits, a signal comes or the number of looks is reached.
///
/// # Errors
/// Returns an error if the first look is refused, or the terminal cannot be used.
pub(super) fn show(client: Client, path: &Path, args: &TopArgs) -> Result<(), SessionsError> {
    let is_ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&is_ended))
            .map_err(SessionsError::Output)?;
    }
    let asker = Asker::start(client, path.to_owned()).map_err(SessionsError::Output)?;
    let mut view = View {
        app: App::new(&args.request(), args.filter.line()),
        asker,
        waiting: VecDeque::new(),
        asked: None,
        theme: Theme::of_environment(),
        interval: Duration::from_secs(args.interval),
        is_changed: true,
    };
    let mut screen = Screen::new().map_err(SessionsError::Output)?;
    while !is_ended.load(Ordering::Relaxed) {
        let is_over = args.count.is_some_and(|count| view.app.looks >= count);
        if view.turn(&mut screen.0)? || is_over {
            break;
        }
    }
    Ok(())
}

/// View with its questions.
struct View {
    app: App,
    asker: Asker,
    /// Questions about sessions, which precede looks.
    waiting: VecDeque<Question>,
    /// Time of the last question for a look.
    asked: Option<Instant>,
    theme: Theme,
    interval: Duration,
    /// Whether the screen must be drawn again.
    is_changed: bool,
}

impl View {
    /// Takes an answer, asks, draws, and waits for keys. Returns whether the user quits.
    fn turn(&mut self, terminal: &mut DefaultTerminal) -> Result<bool, SessionsError> {
        while let Some(answer) = self.asker.answer().map_err(SessionsError::Output)? {
            let input = match answer {
                Answer::Look(look) => Input::Look(look),
                Answer::Explained { id, lines } => Input::Explained { id, lines },
                Answer::Ended { id, count } => Input::Ended { id, count },
                Answer::Failed(error) if self.app.looks == 0 => return Err(error),
                Answer::Failed(error) => Input::Failed(error.to_string()),
            };
            self.take(input);
        }
        self.ask();
        if self.is_changed {
            self.is_changed = false;
            let (app, theme) = (&self.app, self.theme);
            terminal
                .draw(|frame| draw(frame, app, theme, now()))
                .map_err(SessionsError::Output)?;
        }
        let mut pause = TICK;
        while event::poll(pause).map_err(SessionsError::Output)? {
            pause = Duration::ZERO;
            match event::read().map_err(SessionsError::Output)? {
                Event::Key(key) => {
                    if let Some(key) = Key::of(key)
                        && self.take(Input::Key(key))
                    {
                        return Ok(true);
                    }
                }
                Event::Resize(..) => self.is_changed = true,
                _ => {}
            }
        }
        Ok(false)
    }

    /// Changes the view. Returns whether the user quits.
    fn take(&mut self, input: Input) -> bool {
        self.is_changed = true;
        let question = match update(&mut self.app, input) {
            Effect::None => return false,
            Effect::Quit => return true,
            Effect::Explain(id) => Question::Explain(id),
            Effect::End(id) => Question::End(id),
        };
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(question);
        } else {
            self.app
                .fail("the appliance has not answered: try again later");
        }
        false
    }

    /// Asks the next question, if one is due.
    fn ask(&mut self) {
        if self.asker.is_busy() {
            return;
        }
        if let Some(question) = self.waiting.pop_front() {
            self.asker.ask(question);
            return;
        }
        let since = self.asked.map(|asked| asked.elapsed());
        let pause = self.app.pause(self.interval);
        let is_due = pause.is_some_and(|pause| since.is_none_or(|since| since >= pause));
        if is_due {
            self.app.is_due = false;
            self.asked = Some(Instant::now());
            self.asker.ask(Question::Look(Box::new(self.app.request())));
        }
    }
}
