//! In which order users are trained on: shuffled anew every epoch, shared out over devices, repeatable from any point.

use models::philox;

/// Batches of an epoch-wise shuffle; each batch is within one epoch, and what is left of an epoch is dropped.
#[derive(Debug, Clone)]
pub struct EpochOrder {
    users: usize,
    batch: usize,
    seed: u64,
    /// Tells the orders of one seed apart.
    stream: u32,
    rank: usize,
    world: usize,
    /// Batches taken so far on this device.
    taken: u64,
    epoch: Option<(u64, Vec<u32>)>,
}

impl EpochOrder {
    /// The order for device `rank` of `world`, in batches of `batch` users (fewer where there are fewer users).
    pub fn new(users: usize, batch: usize, seed: u64, stream: u32, [rank, world]: [usize; 2]) -> Self {
        let own = users / world;
        Self {
            users,
            batch: batch.clamp(1, own.max(1)),
            seed,
            stream,
            rank,
            world,
            taken: 0,
            epoch: None,
        }
    }

    /// Batches taken so far on this device.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Goes to where `taken` batches have been taken.
    pub fn go_to(&mut self, taken: u64) {
        self.taken = taken;
    }

    /// The next batch of user indices: of the batches of all devices together, user r + k·W for device r of W.
    pub fn next_batch(&mut self) -> Vec<u32> {
        let all = self.next_global_batch();
        all.into_iter().skip(self.rank).step_by(self.world).collect()
    }

    /// The next batches of all devices together.
    pub fn next_global_batch(&mut self) -> Vec<u32> {
        let per_epoch = (self.users / self.world / self.batch).max(1) as u64;
        let (epoch, place) = (self.taken / per_epoch, (self.taken % per_epoch) as usize);
        self.taken += 1;
        let order = match self.epoch.take() {
            Some((at, order)) if at == epoch => order,
            _ => shuffled(self.users, self.seed, self.stream, epoch),
        };
        let together = self.batch * self.world;
        let batch = order.iter().skip(place * together).take(together).copied().collect();
        self.epoch = Some((epoch, order));
        batch
    }
}

/// 0..`len` in an order that depends on seed, stream and epoch alone (Fisher & Yates, 1938).
pub fn shuffled(len: usize, seed: u64, stream: u32, epoch: u64) -> Vec<u32> {
    let key = [seed as u32, (seed >> 32) as u32];
    let mut order: Vec<u32> = (0..len as u32).collect();
    for last in (1..len).rev() {
        let words = philox([last as u32, stream, epoch as u32, u32::from_le_bytes(*b"shuf")], key);
        let random = u64::from(words[0]) | u64::from(words[1]) << 32;
        // The upper bits of random · (last + 1): uniform up to 2⁻⁶⁴.
        let chosen = ((u128::from(random) * (last as u128 + 1)) >> 64) as usize;
        order.swap(last, chosen);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_epoch_has_every_user_once_and_epochs_differ() {
        let mut order = EpochOrder::new(10, 3, 1, 0, [0, 1]);
        let first: Vec<u32> = (0..3).flat_map(|_| order.next_batch()).collect();
        let second: Vec<u32> = (0..3).flat_map(|_| order.next_batch()).collect();
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 9);
        assert_eq!(second.iter().collect::<BTreeSet<_>>().len(), 9);
        assert_ne!(first, second);
    }

    #[test]
    fn devices_share_an_epoch_out() {
        let batches: Vec<u32> = (0..3)
            .flat_map(|rank| EpochOrder::new(12, 4, 9, 2, [rank, 3]).next_batch())
            .collect();
        assert_eq!(batches.iter().collect::<BTreeSet<_>>().len(), 12);
    }

    #[test]
    fn an_order_goes_on_from_any_place() {
        let mut order = EpochOrder::new(10, 3, 1, 0, [0, 1]);
        let batches: Vec<_> = (0..8).map(|_| order.next_batch()).collect();
        for taken in [5, 0, 7] {
            let mut other = EpochOrder::new(10, 3, 1, 0, [0, 1]);
            other.go_to(taken);
            assert_eq!(other.next_batch(), batches[taken as usize]);
            order.go_to(taken);
            assert_eq!(
                (order.next_batch(), order.taken()),
                (batches[taken as usize].clone(), taken + 1)
            );
        }
    }

    #[test]
    fn a_batch_larger_than_the_users_is_all_of_them() {
        assert_eq!(EpochOrder::new(2, 32, 1, 0, [0, 1]).next_batch().len(), 2);
    }

    /// Each of the 24 orders of four is about as frequent: χ² with 23 degrees of freedom, one in ten thousand above 58.6.
    #[test]
    fn all_orders_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..24_000 {
            *counts.entry(shuffled(4, 5, 1, epoch)).or_insert(0.0) += 1.0;
        }
        let chi: f64 = counts
            .values()
            .map(|count: &f64| (count - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(counts.len() == 24 && chi < 58.6, "{} orders, χ² {chi}", counts.len());
    }
}
