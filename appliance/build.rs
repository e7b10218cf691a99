//! Sets `PORTCULLIS_VERSION`: the package's version, with the commit of the sources and its date.
//!
//! `PORTCULLIS_COMMIT` in the environment has precedence, for builds from sources without their
//! repository. Without either, the version stands alone. The script runs again when `HEAD` moves,
//! and at no other change. Debug builds do not name the commit, so that no commit rebuilds them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Variable that names the commit.
const COMMIT: &str = "PORTCULLIS_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let commit = env::var(COMMIT).ok().filter(|commit| !commit.is_empty());
    let commit = match env::var("PROFILE").as_deref() {
        Ok("release") => commit.or_else(of_repository),
        _ => commit.or(Some("debug build".to_owned())),
    };
    let version = env!("CARGO_PKG_VERSION");
    let version = commit.map_or_else(
        || version.to_owned(),
        |commit| format!("{version} ({commit})"),
    );
    println!("cargo::rustc-env=PORTCULLIS_VERSION={version}");
}

/// Returns the commit of the repository of these sources and its date. Sources that only lie in a
/// folder of another repository have none.
fn of_repository() -> Option<String> {
    let prefix = git(&["rev-parse", "--show-prefix"])?;
    if prefix != "appliance/" {
        return None;
    }
    watch("HEAD");
    // A commit changes the branch that `HEAD` names, and the log of `HEAD`. Where no log is kept,
    // the file of the branch is watched: a new one, or one among all packed ones.
    if !watch("logs/HEAD") {
        let branch = git(&["symbolic-ref", "-q", "HEAD"]);
        let _ = branch.is_some_and(|branch| watch(&branch)) || watch("packed-refs");
    }
    git(&["log", "-1", "--format=%h %cs", "--abbrev=12"])
}

/// Runs the script again when a file of the repository changes. Returns whether the file exists: a
/// missing one would count as changed each time.
fn watch(name: &str) -> bool {
    let path = git(&["rev-parse", "--git-path", name]).map(PathBuf::from);
    let path = path.map(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    let Some(path) = path.filter(|path| fs::metadata(path).is_ok()) else {
        return false;
    };
    println!("cargo::rerun-if-changed={}", path.display());
    true
}

/// Returns what git prints, if it succeeds.
fn git(args: &[&str]) -> Option<String> {
    let git = Command::new("git")
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(git.stdout).ok()?;
    git.status.success().then(|| text.trim().to_owned())
}
