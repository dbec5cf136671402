//! Random numbers for resampling: SplitMix64 (Steele, Lea & Flood, 2014) used as a counter-based generator, so that draw
//! `i` of stream `s` is the same on every platform and for every number of threads.

/// A stream of draws, addressed by position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream(u64);

/// 2^64 divided by the golden ratio, rounded to odd: SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Stream {
    /// Stream `number` of `seed`.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self(mix(
            mix(seed.wrapping_add(STEP)).wrapping_add(number.wrapping_add(1).wrapping_mul(STEP))
        ))
    }

    /// 64 random bits: the draw at `position`.
    pub(crate) fn bits(self, position: u64) -> u64 {
        mix(self.0.wrapping_add(position.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// A number in `0..bound`. The bias of the multiplication is below bound / 2^64.
    pub(crate) fn below(self, position: u64, bound: usize) -> usize {
        ((u128::from(self.bits(position)) * bound as u128) >> 64) as usize
    }
}

/// SplitMix64's output function.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outputs_of_splitmix64_with_seed_0_are_the_published_ones() {
        let outputs: Vec<u64> = (0..3).map(|i| Stream(0).bits(i)).collect();
        assert_eq!(
            outputs,
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]
        );
    }

    #[test]
    fn draws_below_a_bound_are_spread_evenly() {
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|i| counts[Stream::new(1, 2).below(i, 7)] += 1);
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 500), "{counts:?}");
    }
}
