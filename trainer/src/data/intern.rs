//! Ids as small numbers: each different text is stored once, back to back with the others.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Texts numbered by first appearance. One entry costs its bytes, 8 for its end and about 5 in the table, which
/// matters with millions of users.
#[derive(Debug, Default)]
pub(super) struct Interner {
    text: String,
    /// Where each entry ends in `text`.
    ends: Vec<usize>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Interner {
    /// The number of `id`, a new one if it was not seen before.
    pub(super) fn intern(&mut self, id: &str) -> u32 {
        let hash = self.hasher.hash_one(id);
        let (text, ends, hasher) = (&self.text, &self.ends, &self.hasher);
        let entry = self.table.entry(
            hash,
            |number| entry_text(text, ends, *number) == id,
            |number| hasher.hash_one(entry_text(text, ends, *number)),
        );
        if let hashbrown::hash_table::Entry::Occupied(found) = &entry {
            return *found.get();
        }
        // Rows are numbered with u32 lines, so there are fewer ids than that.
        let number = self.ends.len() as u32;
        entry.insert(number);
        self.text.push_str(id);
        self.ends.push(self.text.len());
        number
    }

    /// The number of `id`, if it was seen.
    pub(super) fn find(&self, id: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(id);
        self.table.find(hash, |number| self.get(*number) == id).copied()
    }

    /// The text behind `number`.
    pub(super) fn get(&self, number: u32) -> &str {
        entry_text(&self.text, &self.ends, number)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

fn entry_text<'text>(text: &'text str, ends: &[usize], number: u32) -> &'text str {
    let number = number as usize;
    let start = if number == 0 { 0 } else { ends[number - 1] };
    &text[start..ends[number]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbered_by_first_appearance() {
        let mut interner = Interner::default();
        let numbers: Vec<u32> = ["b", "a", "b", "", "a", ""]
            .into_iter()
            .map(|id| interner.intern(id))
            .collect();
        assert_eq!(numbers, [0, 1, 0, 2, 1, 2]);
        assert_eq!(interner.len(), 3);
        assert_eq!((interner.get(0), interner.get(1), interner.get(2)), ("b", "a", ""));
        assert_eq!((interner.find("a"), interner.find("c")), (Some(1), None));
    }

    #[test]
    fn many_ids_keep_their_numbers_while_the_table_grows() {
        let mut interner = Interner::default();
        for number in 0..10_000_u32 {
            assert_eq!(interner.intern(&format!("user {number}")), number);
        }
        for number in 0..10_000_u32 {
            assert_eq!(interner.find(&format!("user {number}")), Some(number));
        }
    }
}
