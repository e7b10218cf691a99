//! A configuration file that is read again: applied, applied in part, or rejected.

use portcullis::DropReason;

use super::*;
use crate::run::appliance::Appliance;
use crate::run::control;

fn notes(running: &Appliance) -> String {
    control::notes(&running.reloads.state()).join("\n")
}

#[test]
fn a_refused_file_is_a_metric_and_a_note_and_health_stays_200() {
    let appliance = TestAppliance::start("");
    let running = appliance.operations().appliance();
    appliance.rewrite("table.max_sessions = 0\n");
    let error = running.reload().unwrap_err();
    assert!(
        error.contains("portcullis.toml:4: table.max_sessions: 0 is out of bounds"),
        "{error}"
    );
    assert_eq!(get(appliance.health(), "/"), (200, "healthy\n".to_owned()));
    assert!(
        appliance.packet(&syn(1, 9, 80), 0).is_forward(),
        "the old policy holds"
    );
    assert!(appliance.metric("portcullis_reload_failed") > 0.5);
    assert_eq!(
        notes(running),
        format!("the last reload was refused: {error}")
    );
    appliance.rewrite("health.stall = \"3s\"\npolicy.default = \"reject\"\n");
    running.reload().unwrap();
    assert!(appliance.metric("portcullis_reload_failed") < 0.5);
    for (outcome, wanted) in [("applied", 1.0), ("refused", 1.0)] {
        let count = appliance.metric(&format!(
            "portcullis_reloads_total{{outcome=\"{outcome}\"}}"
        ));
        assert!((count - wanted).abs() < 0.5, "{outcome}: {count}");
    }
    assert_eq!(notes(running), "");
    let reason = appliance.packet(&syn(1, 10, 22), 0).reason();
    assert_eq!(reason, Some(DropReason::PolicyReject));
    appliance.finish();
}

#[test]
fn a_refused_file_is_unhealthy_if_the_settings_say_so_and_the_answer_names_no_path() {
    let unhealthy = "health.failed_reload = \"unhealthy\"\n";
    let appliance = TestAppliance::start(unhealthy);
    let running = appliance.operations().appliance();
    appliance.rewrite("table.max_sessions = 0\n");
    running.reload().unwrap_err();
    assert_eq!(
        get(appliance.health(), "/"),
        (
            503,
            "failed_reload: the configuration file was refused\n".to_owned()
        )
    );
    assert!(
        notes(running).contains("portcullis.toml:4: "),
        "whoever may ask is told all"
    );
    appliance.rewrite(unhealthy);
    running.reload().unwrap();
    assert_eq!(get(appliance.health(), "/").0, 200);
    appliance.finish();
}

#[test]
fn what_needs_a_restart_waits_for_it_and_the_rest_is_taken_over() {
    let appliance = TestAppliance::start("");
    let running = appliance.operations().appliance();
    let sessions = appliance.shared.engine.max_sessions();
    let more = "table.max_sessions = 7\nlog.output = \"stdout\"\nrun.workers = 9\n\
                policy.default = \"reject\"\nhealth.failed_reload = \"unhealthy\"\n";
    appliance.rewrite(more);
    let waiting = "these keys wait for a restart: table.max_sessions, run.workers, log.output";
    let text = TestAppliance::text(&appliance.directory, more);
    let preview = running.preview("new.toml", &text, Instant::now()).unwrap();
    assert_eq!(
        preview.text(0),
        format!("0 of 0 sessions would end; {waiting}")
    );
    assert!(notes(running).is_empty(), "a preview changes nothing");
    let done = running.reload().unwrap();
    assert!(done.ends_with(&format!("; {waiting}")), "{done}");
    assert_eq!(appliance.shared.engine.max_sessions(), sessions);
    let reason = appliance.packet(&syn(1, 10, 22), 0).reason();
    assert_eq!(reason, Some(DropReason::PolicyReject), "the rest holds");
    assert_eq!(
        notes(running),
        "table.max_sessions waits for a restart\nrun.workers waits for a restart\n\
         log.output waits for a restart"
    );
    assert!((appliance.metric("portcullis_reload_waiting_keys") - 3.0).abs() < 0.5);
    assert_eq!(get(appliance.health(), "/").0, 200);
    // The file waits again, and the old one no longer waits.
    assert!(running.reload().unwrap().ends_with(waiting));
    appliance.rewrite("");
    assert!(!running.reload().unwrap().contains("restart"));
    assert_eq!(notes(running), "");
    appliance.finish();
}

#[test]
fn running_values_that_do_not_fit_the_file_refuse_it_as_a_whole() {
    let appliance = TestAppliance::start("");
    let running = appliance.operations().appliance();
    let more = "policy.default = \"allow\"\nzone_groups.all = [\"default\", \"blue\"]\n\
                lifetimes.override = [{ zone = \"all\", udp.unreplied = \"9s\" }]\n";
    appliance.rewrite(more);
    let error = running.reload().unwrap_err();
    assert!(
        error.contains("portcullis.toml:6: lifetimes.override[0].zone: ")
            && error
                .ends_with("running values are kept; these keys wait for a restart: zone_groups"),
        "{error}"
    );
    let text = TestAppliance::text(&appliance.directory, more);
    let path = appliance.file().display().to_string();
    let preview = running.preview(&path, &text, Instant::now());
    assert_eq!(preview.err(), Some(error), "a preview says the same");
    assert!(
        !appliance.packet(&syn(1, 10, 22), 0).is_forward(),
        "nothing has changed"
    );
    appliance.finish();
}

#[test]
fn a_preview_refuses_what_a_reload_refuses() {
    let appliance = TestAppliance::start("");
    let running = appliance.operations().appliance();
    let path = appliance.file().display().to_string();
    for more in [
        "table.max_sessions = 0\n",
        "run.sessions_file = \"DIR/missing/sessions\"\n",
        "nonsense = 1\n",
    ] {
        appliance.rewrite(more);
        let text = TestAppliance::text(&appliance.directory, more);
        let preview = running.preview(&path, &text, Instant::now());
        assert_eq!(preview.err(), running.reload().err(), "{more}");
    }
    appliance.finish();
}
