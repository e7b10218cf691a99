//! docs/REASONS.md lists every drop reason and refusal, with the descriptions of the code.

use portcullis::DropReason;
use portcullis::geneve::front::Refusal;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/REASONS.md");

fn page() -> String {
    let mut page = String::from(
        "\
# Drop reasons

Every packet that is not forwarded has one of these reasons: in the verdict, in a counter, in
`replay --verdicts` and in the summary.

A test generates this page: `UPDATE=1 cargo test --test it reference`.

| reason | meaning |
|---|---|
",
    );
    for reason in DropReason::all() {
        page.push_str(&format!(
            "| `{}` | {} |\n",
            reason.name(),
            reason.describe().trim()
        ));
    }
    page.push_str(
        "
## Refusals

Every datagram that the GENEVE front end refuses, before or after the engine sees a packet, has one
of these.

| refusal | meaning |
|---|---|
",
    );
    for refusal in Refusal::all() {
        page.push_str(&format!(
            "| `{}` | {} |\n",
            refusal.name(),
            refusal.describe()
        ));
    }
    page
}

#[test]
fn the_reference_page_has_every_reason() {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, page()).expect("the page is written");
    }
    let there = std::fs::read_to_string(PAGE).expect("the page is there");
    assert!(
        there == page(),
        "docs/REASONS.md is stale: UPDATE=1 cargo test --test it reference"
    );
}
