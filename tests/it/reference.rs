//! The reference page of drop reasons is made from the code, and stays true to it.

use portcullis::DropReason;
use portcullis::geneve::front::Refusal;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/REASONS.md");

fn page() -> String {
    let mut page = String::from(
        "# Drop reasons\n\nEvery packet that is not forwarded has one of these reasons: in the verdict, as a counter, in \
         `replay --verdicts`\nand in the summary. This page is made by `UPDATE=1 cargo test --test it reference`.\n\n\
         | reason | meaning |\n|---|---|\n",
    );
    for reason in DropReason::all() {
        page.push_str(&format!(
            "| `{}` | {} |\n",
            reason.name(),
            reason.describe().trim()
        ));
    }
    page.push_str(
        "\n# Refusals\n\nEvery datagram that the GENEVE front end refuses before the engine sees a packet, or after, has one of \
         these.\n\n| refusal | meaning |\n|---|---|\n",
    );
    for refusal in Refusal::all() {
        page.push_str(&format!("| `{}` | {} |\n", refusal.name(), refusal.describe()));
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
