//! Which rank does what of a list: by length where the work grows with it, so that no rank waits long for another.

use crate::TrainError;

/// Items of a list, each given to one rank. Every rank makes the same deal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deal {
    /// The rank of each item.
    ranks: Vec<usize>,
    world: usize,
}

impl Deal {
    /// Item i to rank i mod `world`.
    pub fn in_turn(items: usize, world: usize) -> Self {
        let ranks = (0..items).map(|item| item % world.max(1)).collect();
        Self { ranks, world }
    }

    /// The longest first, forth and back over the ranks: none gets more than one item more than another, and the lengths of two
    /// ranks together differ by no more than the longest item.
    pub fn by_length(lengths: &[usize], world: usize) -> Self {
        let world = world.max(1);
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&item| (std::cmp::Reverse(lengths[item]), item));
        let mut ranks = vec![0; lengths.len()];
        for (place, &item) in order.iter().enumerate() {
            let (round, turn) = (place / world, place % world);
            ranks[item] = if round % 2 == 0 { turn } else { world - 1 - turn };
        }
        Self { ranks, world }
    }

    /// What `rank` does, in the list's order.
    pub fn own<T: Copy>(&self, all: &[T], rank: usize) -> Vec<T> {
        let items = all.iter().zip(&self.ranks);
        items.filter(|&(_, &of)| of == rank).map(|(item, _)| *item).collect()
    }

    /// Puts the parts of all ranks, each as [`Deal::own`] gave it, together again.
    ///
    /// # Errors
    /// When a part has another length.
    pub fn whole<T>(&self, parts: Vec<Vec<T>>) -> Result<Vec<T>, TrainError> {
        let found: Vec<usize> = parts.iter().map(Vec::len).collect();
        let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
        let mut all = Vec::with_capacity(self.ranks.len());
        for &rank in &self.ranks {
            all.extend(parts.get_mut(rank).and_then(Iterator::next));
        }
        if parts.len() == self.world
            && all.len() == self.ranks.len()
            && parts.iter_mut().all(|part| part.next().is_none())
        {
            return Ok(all);
        }
        Err(TrainError::Mismatch(format!(
            "{} pieces of work were dealt out to {} ranks, but {found:?} came back; start the same program with the same settings everywhere",
            self.ranks.len(),
            self.world
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn parts_of_a_list_make_it_whole_again() {
        let all: Vec<u32> = (0..11).collect();
        let lengths: Vec<usize> = all.iter().map(|&item| (item as usize * 7) % 5).collect();
        for world in 1..5 {
            for deal in [Deal::in_turn(11, world), Deal::by_length(&lengths, world)] {
                let parts: Vec<Vec<u32>> = (0..world).map(|rank| deal.own(&all, rank)).collect();
                assert!(
                    parts
                        .iter()
                        .all(|part| (11 / world..=11usize.div_ceil(world)).contains(&part.len()))
                );
                assert_eq!(deal.whole(parts).unwrap(), all);
            }
        }
    }

    #[test]
    fn the_longest_go_forth_and_back() {
        // 9 8 | 7 6 | 5 4: rank 0 gets 9, 6 and 5, rank 1 gets 8, 7 and 4.
        let deal = Deal::by_length(&[4, 9, 6, 5, 8, 7], 2);
        assert_eq!(deal.own(&[4, 9, 6, 5, 8, 7], 0), [9, 6, 5]);
        assert_eq!(deal.own(&[4, 9, 6, 5, 8, 7], 1), [4, 8, 7]);
    }

    #[test]
    fn no_two_ranks_differ_by_more_than_the_longest_item() {
        for seed in 0..200 {
            let words = |at| models::philox([at, seed, 0, 0], [5, 6])[0] as usize;
            let lengths: Vec<usize> = (0..3 + words(99) % 60).map(|at| 1 + words(at as u32) % 512).collect();
            for world in 2..6 {
                let deal = Deal::by_length(&lengths, world);
                let sums: Vec<usize> = (0..world).map(|rank| deal.own(&lengths, rank).iter().sum()).collect();
                let (least, most) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
                assert!(most - least <= *lengths.iter().max().unwrap(), "{sums:?}");
            }
        }
    }

    #[test]
    fn a_part_of_another_length_is_refused() {
        let deal = Deal::in_turn(3, 2);
        for parts in [
            vec![vec![1], vec![2]],
            vec![vec![1, 3], vec![2, 4]],
            vec![vec![1, 2, 3]],
        ] {
            let error = deal.whole(parts).unwrap_err().to_string();
            assert!(error.contains("3 pieces of work were dealt out to 2 ranks"), "{error}");
        }
    }
}
