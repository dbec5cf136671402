//! Sorting that is compiled once: a sort of the standard library's is some four kilobytes for each type and each comparison.

use std::cmp::Ordering;

/// The places of `count` things in the order of `compare`, which gets two places; equal things keep their order.
pub fn places(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<u32> {
    let mut places: Vec<u32> = (0..count as u32).collect();
    places.sort_unstable_by(|&a, &b| compare(a as usize, b as usize).then(a.cmp(&b)));
    places
}

/// The things in the order of `compare`; equal things keep their order.
pub fn sorted<T: Clone>(things: &[T], compare: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    let places = places(things.len(), &|a, b| compare(&things[a], &things[b]));
    places.into_iter().map(|place| things[place as usize].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_keep_their_order() {
        let words = ["pear", "fig", "apple", "plum", "nut", "kiwi"];
        let by_length = sorted(&words, |a, b| a.len().cmp(&b.len()));
        assert_eq!(by_length, ["fig", "nut", "pear", "plum", "kiwi", "apple"]);
        let many: Vec<(u32, u32)> = (0..1000).map(|number| (number * 7919 % 13, number)).collect();
        let mut expected = many.clone();
        expected.sort_by_key(|&(key, _)| key);
        assert_eq!(sorted(&many, |a, b| a.0.cmp(&b.0)), expected);
        assert!(places(0, &|_, _| Ordering::Equal).is_empty());
    }
}
