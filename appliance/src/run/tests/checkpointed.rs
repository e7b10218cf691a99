//! Checkpoints of the sessions, and a start after a crash. A crash is a copy of the directory while
//! the appliance runs, without the effects of an orderly end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

const EVERY_SECOND: &str = "run.sessions_file = \"DIR/sessions\"\nrun.checkpoint = \"1s\"\n";
const WRITTEN: &str = "portcullis_checkpoints_total{outcome=\"written\"}";

impl TestAppliance {
    /// Waits until a checkpoint has begun and ended after now.
    fn wait_for_checkpoint(&self) {
        let before = self.metric(WRITTEN);
        // The next one may have begun before.
        wait_for("two checkpoints", || self.metric(WRITTEN) >= before + 2.0);
    }

    /// Returns a directory in the state after a crash now.
    fn crash(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in ["sessions", "sessions.checkpoint", "sessions.restored"] {
            let from = self.directory.path().join(file);
            if from.exists() {
                fs::copy(from, copy.path().join(file)).unwrap();
            }
        }
        copy
    }
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = names
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("sessions"))
        .collect();
    names.sort();
    names
}

/// A segment of the initiator of a connection to port 80, far above its first window.
fn later_segment(host: u8, from: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, host], [192, 0, 2, 1], 64)
        .tcp(from, 80, 9_001_001, 8_192)
        .ack(7_005_001)
        .write(&mut packet, b"more")
        .unwrap();
    packet
}

#[test]
fn connections_go_on_after_a_crash_from_the_last_checkpoint() {
    let appliance = TestAppliance::start(EVERY_SECOND);
    appliance.connection(1, 1_000);
    appliance.wait_for_checkpoint();
    let checkpoint = appliance.directory.path().join("sessions.checkpoint");
    assert_eq!(
        fs::metadata(&checkpoint).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(appliance.metric("portcullis_checkpoint_age_seconds") >= 0.0);
    // Sessions that open after the checkpoint are lost with the crash.
    let crashed = appliance.crash();
    appliance.finish();
    assert_eq!(names(crashed.path()), ["sessions.checkpoint"]);

    let appliance = TestAppliance::start_in(crashed, EVERY_SECOND);
    assert_eq!(appliance.shared.engine.sessions(), 1);
    assert!(appliance.packet(&later_segment(1, 1_000), 0).is_forward());
    assert!(!appliance.packet(&later_segment(2, 1_000), 0).is_forward());
    // A second crash, soon after the start, loses nothing either.
    let again = appliance.crash();
    appliance.finish();
    let appliance = TestAppliance::start_in(again, EVERY_SECOND);
    assert_eq!(appliance.shared.engine.sessions(), 1);
    appliance.finish();
}

#[test]
fn an_orderly_end_takes_the_place_of_the_checkpoint() {
    let appliance = TestAppliance::start(EVERY_SECOND);
    appliance.connection(1, 1_000);
    appliance.wait_for_checkpoint();
    let stale = fs::read(appliance.directory.path().join("sessions.checkpoint")).unwrap();
    appliance.connection(2, 2_000);
    let directory = appliance.finish();
    assert_eq!(names(directory.path()), ["sessions"]);
    // An existing checkpoint does not bring back older sessions either.
    fs::write(directory.path().join("sessions.checkpoint"), stale).unwrap();
    let appliance = TestAppliance::start_in(directory, EVERY_SECOND);
    assert_eq!(appliance.shared.engine.sessions(), 2);
    appliance.finish();
}

#[test]
fn a_checkpoint_is_not_used_where_there_are_none_or_where_it_is_too_old() {
    let appliance = TestAppliance::start(EVERY_SECOND);
    appliance.connection(1, 1_000);
    appliance.wait_for_checkpoint();
    let (off, old, torn) = (appliance.crash(), appliance.crash(), appliance.crash());
    appliance.finish();
    let without = TestAppliance::start_in(off, "run.sessions_file = \"DIR/sessions\"\n");
    assert_eq!(without.shared.engine.sessions(), 0);
    without.finish();
    thread::sleep(Duration::from_millis(1_100));
    let late = TestAppliance::start_in(old, &format!("{EVERY_SECOND}run.max_saved_age = \"1s\"\n"));
    assert_eq!(late.shared.engine.sessions(), 0);
    late.finish();
    let file = torn.path().join("sessions.checkpoint");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let torn = TestAppliance::start_in(torn, EVERY_SECOND);
    assert_eq!(torn.shared.engine.sessions(), 0);
    torn.finish();
}

#[test]
fn checkpoints_that_fail_are_counted_and_tried_again() {
    let appliance = TestAppliance::start(EVERY_SECOND);
    let directory = appliance.directory.path();
    let in_the_way = directory.join("sessions.checkpoint");
    wait_for("a checkpoint", || appliance.metric(WRITTEN) >= 1.0);
    // No file is renamed over a directory.
    fs::remove_file(&in_the_way).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    wait_for("a failure", || {
        appliance.metric("portcullis_checkpoints_total{outcome=\"failed\"}") >= 1.0
    });
    assert_eq!(
        names(directory),
        ["sessions.checkpoint"],
        "nothing else is left behind"
    );
    fs::remove_dir(&in_the_way).unwrap();
    appliance.wait_for_checkpoint();
    appliance.finish();
}

#[test]
fn a_reload_turns_checkpoints_on_and_off() {
    let appliance = TestAppliance::start("run.sessions_file = \"DIR/sessions\"\n");
    let running = appliance.operations().appliance();
    appliance.rewrite(EVERY_SECOND);
    running.reload().unwrap();
    wait_for("a checkpoint", || appliance.metric(WRITTEN) >= 1.0);
    appliance.rewrite("run.checkpoint = \"1s\"\n");
    let error = running.reload().unwrap_err();
    assert!(
        error.contains("run.checkpoint: checkpoints are saved beside"),
        "{error}"
    );
    appliance.finish();
}

#[test]
fn a_start_that_fails_brings_back_no_sessions_of_an_earlier_restart() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("sessions.restored"),
        "of an earlier restart",
    )
    .unwrap();
    let appliance = TestAppliance::start_in(directory, "run.sessions_file = \"DIR/sessions\"\n");
    appliance.operations().put_back();
    assert_eq!(names(appliance.directory.path()), ["sessions.restored"]);
    appliance.finish();
}
