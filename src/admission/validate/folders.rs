//! A set of folders, and the lookup of the folder that contains a path.
//!
//! Sorted by their components, so that the content of a folder follows it directly: the folder of a path is found by
//! binary search.

use std::cmp::Ordering;

use crate::plan::run::hosts::{is_within, parts};

/// Folders, each with a value.
pub struct Folders<T> {
    sorted: Vec<Folder<T>>,
}

struct Folder<T> {
    path: String,
    value: T,
    /// The innermost parent folder in the set.
    around: Option<usize>,
}

/// Order of paths in which the content of a folder follows it directly.
pub fn order(a: &str, b: &str) -> Ordering {
    parts(a).cmp(parts(b))
}

impl<T> Folders<T> {
    /// These folders.
    pub fn new(folders: impl IntoIterator<Item = (String, T)>) -> Self {
        let mut sorted: Vec<_> =
            folders.into_iter().map(|(path, value)| Folder { path, value, around: None }).collect();
        sorted.sort_by(|a, b| order(&a.path, &b.path));
        let mut open: Vec<usize> = Vec::new();
        for i in 0..sorted.len() {
            while open.last().is_some_and(|last| !is_within(&sorted[i].path, &sorted[*last].path)) {
                open.pop();
            }
            sorted[i].around = open.last().copied();
            open.push(i);
        }
        Self { sorted }
    }

    /// The innermost folder that contains a path.
    pub fn around(&self, path: &str) -> Option<(&str, &T)> {
        let behind = self.sorted.partition_point(|f| order(&f.path, path) != Ordering::Greater);
        let mut at = behind.checked_sub(1);
        while let Some(folder) = at.and_then(|i| self.sorted.get(i)) {
            if is_within(path, &folder.path) {
                return Some((&folder.path, &folder.value));
            }
            at = folder.around;
        }
        None
    }

    /// Their paths, sorted.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &str> {
        self.sorted.iter().map(|f| f.path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_innermost_folder_is_that_of_trying_all(
            folders in prop::collection::vec("(/[ab.]{0,2}){0,4}/?", 0..8), path in "(/[ab.]{0,2}){0,5}",
        ) {
            let sorted = Folders::new(folders.iter().map(|f| (f.clone(), ())));
            let tried = folders.iter().filter(|f| is_within(&path, f)).map(|f| parts(f).count()).max();
            prop_assert_eq!(sorted.around(&path).map(|(f, ())| parts(f).count()), tried);
        }
    }
}
