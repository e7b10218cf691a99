//! The command line: completions, manual pages, colors, the version, and tables of a width.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.args(args);
    // The environment of the test must not decide.
    for name in ["COLUMNS", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command
}

fn stdout(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Commands that a user sees.
fn commands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let names = list.lines().filter(|line| !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names.map(str::to_owned).collect();
    assert!(names.len() > 8, "{names:?}");
    names
}

#[test]
fn the_completions_of_every_shell_name_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = stdout(&["completions", shell]);
        for name in commands() {
            assert!(text.contains(&name), "{shell}: {name}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let page = stdout(&["man"]);
    assert!(page.contains(".TH portcullis 1"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    stdout(&["man", "--out", out.to_str().unwrap()]);
    for name in commands().iter().filter(|name| *name != "help") {
        let page = fs::read_to_string(out.join(format!("portcullis-{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(out.join("portcullis-sessions-top.1").exists());
    let refused = command(&["man", "--out", "/dev/null/man"])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("/dev/null/man: "));
}

#[test]
fn color_is_what_was_asked_for_and_otherwise_that_of_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portcullis.toml");
    fs::write(&file, "[run]\nworkers = \"many\"\n").unwrap();
    let file = file.to_str().unwrap();
    let errors = |args: &[&str], environment: &[(&str, &str)]| {
        let mut command = command(args);
        let output = command.envs(environment.iter().copied()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let is_colored = |text: &str| text.contains("\u{1b}[");
    assert!(!is_colored(&errors(&["check", file], &[])), "a pipe");
    let always = ["check", file, "--color", "always"];
    assert!(is_colored(&errors(&always, &[])));
    assert!(
        is_colored(&errors(&always, &[("NO_COLOR", "1")])),
        "the option counts"
    );
    let force = [("CLICOLOR_FORCE", "1")];
    assert!(is_colored(&errors(&["check", file], &force)));
    assert!(!is_colored(&errors(
        &["--color=never", "check", file],
        &force
    )));
    // Errors of the command line itself.
    assert!(is_colored(&errors(&["--color=always", "nonsense"], &[])));
    assert!(!is_colored(&errors(&["--color=never", "nonsense"], &force)));
}

#[test]
fn the_version_says_what_was_built() {
    let version = stdout(&["--version"]);
    let rest = version
        .strip_prefix(concat!("portcullis ", env!("CARGO_PKG_VERSION")))
        .unwrap();
    if cfg!(debug_assertions) {
        assert_eq!(rest, " (debug build)\n");
    } else {
        // Sources without a repository have no commit.
        assert!(rest == "\n" || rest.starts_with(" ("), "{version}");
    }
}

#[test]
fn the_summary_of_a_replay_fits_the_width_and_wraps_no_cell() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/demo.pcap");
    let demo = demo.to_str().unwrap();
    let lines = |width: Option<&str>| -> Vec<String> {
        let mut command = command(&["replay", demo]);
        command.envs(width.map(|width| ("COLUMNS", width)));
        let output = command.output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let widest = |lines: &[String]| {
        let widths = lines.iter().map(|line| line.trim_end().chars().count());
        widths.max().unwrap()
    };
    for width in ["60", "80", "120", "200"] {
        let lines = lines(Some(width));
        assert!(
            widest(&lines) <= width.parse().unwrap(),
            "{width}: {lines:#?}"
        );
        // A row of a table begins with a cell: the first one has no wrapped lines.
        let talkers = lines
            .iter()
            .skip_while(|line| !line.contains("top talkers"));
        let talkers = talkers.skip(2).take_while(|line| !line.starts_with('─'));
        for line in talkers {
            assert!(line.contains("->"), "{width}: {line}");
        }
    }
    assert_eq!(lines(None), lines(Some("80")), "without a terminal");
    let all = lines(Some("400"));
    assert!(all.iter().any(|line| line.contains("which means")));
    assert!(!all.iter().any(|line| line.contains("not shown")));
}
