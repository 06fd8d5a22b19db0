//! The functions that templates may call. Each is pure: of equal arguments it makes an equal value.

use super::call::Function;

mod lists;
mod logic;
mod maps;
mod numbers;
mod output;
mod text;

const TABLES: [&[Function]; 6] =
    [logic::FUNCTIONS, output::FUNCTIONS, text::FUNCTIONS, numbers::FUNCTIONS, lists::FUNCTIONS, maps::FUNCTIONS];

/// All functions, by topic.
pub fn all() -> impl Iterator<Item = &'static Function> {
    TABLES.into_iter().flatten()
}

/// The function of a name.
pub fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name == name)
}
