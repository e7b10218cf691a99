//! Schemas of the objects of JSON, a file each in `docs/schema`.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

/// Returns the schema of an object as it is written.
fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}

/// Checks that the file of an object's schema is up to date. With `UPDATE=1`, writes it.
#[track_caller]
pub(crate) fn check<T: JsonSchema>(name: &str) {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schema");
    let text = serde_json::to_string_pretty(&of::<T>()).unwrap() + "\n";
    let path = format!("{directory}/{name}.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap();
    assert!(
        there == text,
        "{path} is stale: UPDATE=1 cargo test -p {} page",
        env!("CARGO_PKG_NAME")
    );
}
