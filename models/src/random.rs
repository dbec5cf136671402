//! Random numbers that depend on what they are for, not on when or where they are drawn.

/// Philox4x32-10 (Salmon et al., 2011): four random words for a counter under a key.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [
            (second >> 32) as u32 ^ c[1] ^ k[0],
            second as u32,
            (first >> 32) as u32 ^ c[3] ^ k[1],
            first as u32,
        ];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// The two halves of a seed.
pub(crate) fn seed_key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// `count` values, uniform within ±`bound`, of stream `stream` under `seed`.
pub(crate) fn uniform_values(seed: u64, stream: u32, count: usize, bound: f32) -> Vec<f32> {
    units(seed, stream)
        .take(count)
        .map(|unit| ((2.0 * unit - 1.0) * f64::from(bound)) as f32)
        .collect()
}

/// `count` values, normal with mean 0 and this standard deviation (Box & Muller, 1958).
pub(crate) fn normal_values(seed: u64, stream: u32, count: usize, deviation: f32) -> Vec<f32> {
    let mut units = units(seed, stream);
    let mut next = || units.next().unwrap_or(0.5);
    (0..count)
        .map(|_| {
            let (radius, angle) = (next(), next());
            let normal = (-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos();
            (normal * f64::from(deviation)) as f32
        })
        .collect()
}

/// Uniform between 0 and 1, both excluded, without end.
fn units(seed: u64, stream: u32) -> impl Iterator<Item = f64> {
    (0_u64..)
        .flat_map(move |block| {
            let counter = [block as u32, (block >> 32) as u32, stream, u32::from_le_bytes(*b"init")];
            philox(counter, seed_key(seed))
        })
        .map(|word| (f64::from(word) + 0.5) / 4_294_967_296.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors of Random123 1.14 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
