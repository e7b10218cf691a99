//! Schemas of the objects that the simulator prints.

use crate::control::Answer;
use crate::flood::Flooded;
use crate::report::Report;
use crate::schema::check;

#[test]
fn the_schemas_on_the_page_are_up_to_date() {
    check::<Report>("simulate");
    check::<Answer>("simulate_answer");
    check::<Flooded>("simulate_flood");
}
