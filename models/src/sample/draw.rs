//! Drawing a token: Gumbel-max over counter-based noise, so that a draw depends on what it is for and on nothing else.

use crate::host::{ln, log_sum_exp, vectorised};
use crate::random::{philox, seed_key};

/// Which draw of which sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct DrawKey {
    pub(super) seed: u64,
    pub(super) update: u32,
    pub(super) user: u32,
    pub(super) sample: u32,
    /// Index of the new token in its response.
    pub(super) position: u32,
}

/// Draws from softmax(`logits` / `temperature`): the token and its log-probability.
///
/// Adding independent Gumbel noise to logits and taking the largest draws from their softmax (Gumbel, 1954). The noise
/// is −ln E with E = −ln(1 − w) exponential, w uniform in steps of 2⁻³² (finest where the noise is largest).
pub(super) fn draw(logits: &mut [f32], temperature: f32, key: DrawKey) -> (u32, f32) {
    let inverse = 1.0 / temperature;
    vectorised(|| {
        if inverse != 1.0 {
            for logit in logits.iter_mut() {
                *logit *= inverse;
            }
        }
    });
    let token = largest_with_noise(logits, key);
    (token, logits[token as usize] - log_sum_exp(logits))
}

/// The index of the largest logit plus noise; the first of equals.
fn largest_with_noise(logits: &[f32], key: DrawKey) -> u32 {
    const BLOCK: usize = 64;
    let (mut best, mut best_value) = (0, f32::NEG_INFINITY);
    let mut words = [0u32; BLOCK];
    let mut values = [0f32; BLOCK];
    for (block, logits) in logits.chunks(BLOCK).enumerate() {
        noise_words(key, block * BLOCK, &mut words);
        vectorised(|| {
            for ((value, &word), &logit) in values.iter_mut().zip(&words).zip(logits) {
                *value = logit - ln(exponential(word));
            }
        });
        for (index, &value) in values[..logits.len()].iter().enumerate() {
            if value > best_value {
                (best, best_value) = (block * BLOCK + index, value);
            }
        }
    }
    best as u32
}

/// Random words for tokens `first..first + words.len()`, a multiple of four.
fn noise_words(key: DrawKey, first: usize, words: &mut [u32; 64]) {
    let seed = seed_key(key.seed);
    vectorised(|| {
        for (index, four) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let quad = (first / 4 + index) as u32;
            // 2²⁴ quads of tokens and 256 samples; position, user and update have a word each.
            *four = philox([quad | key.sample << 24, key.position, key.user, key.update], seed);
        }
    });
}

/// −ln(1 − w) of a uniform w in (0, 1), exact for small w where 1 − w would lose it.
#[inline(always)]
fn exponential(word: u32) -> f32 {
    let w = (word as f32 + 0.5) * (1.0 / 4_294_967_296.0);
    let rest = (1.0 - w).max(1.0 / 16_777_216.0);
    let lost = (1.0 - rest) - w;
    // ln(1 − w) = ln(rest) + ln(1 + lost / rest), the second term to first order.
    let value = -(ln(rest) + lost / rest);
    if w < 1e-4 { w + 0.5 * w * w } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(position: u32) -> DrawKey {
        DrawKey {
            seed: 555_134,
            update: 3,
            user: 7,
            sample: 1,
            position,
        }
    }

    /// χ² with 9 degrees of freedom stays below 33.7 except once in ten thousand.
    #[test]
    fn draws_follow_the_softmax() {
        let logits: Vec<f32> = (0..10).map(|i| (i as f32 * 0.7).sin() * 2.0).collect();
        for temperature in [1.0, 0.5, 2.0] {
            let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            let draws = 40_000;
            let mut counts = [0.0; 10];
            for position in 0..draws {
                let (token, logprob) = draw(&mut logits.clone(), temperature as f32, key(position));
                counts[token as usize] += 1.0;
                assert!((f64::from(logprob) - (weights[token as usize] / total).ln()).abs() < 1e-5);
            }
            let chi: f64 = weights
                .iter()
                .zip(counts)
                .map(|(w, seen)| {
                    let expected = w / total * f64::from(draws);
                    (seen - expected).powi(2) / expected
                })
                .sum();
            assert!(chi < 33.7, "χ² {chi} at temperature {temperature}");
        }
    }

    #[test]
    fn the_exponential_is_fine_at_both_ends() {
        for word in [0, 1, 100, 1 << 16, 1 << 20, 1 << 28, 1 << 31, u32::MAX - 256, u32::MAX] {
            let w = (f64::from(word) + 0.5) / 4_294_967_296.0;
            let exact = -(-w).ln_1p();
            let found = f64::from(exponential(word));
            let coarse = word > u32::MAX - 512; // f32 cannot hold 1 − w finer than 2⁻²⁴
            let tolerance = if coarse { 1.0 } else { 1e-4 * exact };
            assert!(
                found.is_finite() && (found - exact).abs() < tolerance.max(1e-12) || coarse,
                "{word}: {found} {exact}"
            );
        }
    }

    #[test]
    fn a_draw_depends_on_every_part_of_its_key() {
        let logits = vec![0.0; 1000];
        let base = key(0);
        let keys = [
            base,
            DrawKey { seed: 1, ..base },
            DrawKey { update: 4, ..base },
            DrawKey { user: 8, ..base },
            DrawKey { sample: 0, ..base },
            DrawKey { position: 1, ..base },
        ];
        let drawn: std::collections::BTreeSet<u32> =
            keys.iter().map(|&k| draw(&mut logits.clone(), 1.0, k).0).collect();
        assert!(drawn.len() >= 5, "{drawn:?}");
        assert_eq!(
            draw(&mut logits.clone(), 1.0, base),
            draw(&mut logits.clone(), 1.0, base)
        );
    }

    /// A seed means these draws: they stay.
    #[test]
    fn known_draws_stay_what_they_are() {
        let logits: Vec<f32> = (0..256_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as f32 / 4096.0)
            .collect();
        for (seed, update, user, sample, position, temperature, token) in [
            (555_134, 3, 7, 1, 0, 1.0, 132_313),
            (555_134, 3, 7, 0, 41, 1.0, 230_010),
            (1, 0, u32::MAX, 255, 511, 0.7, 238_435),
            (0x1234_5678_9abc_def0, 77, 12_345, 3, 5, 1.5, 217_376),
        ] {
            let key = DrawKey {
                seed,
                update,
                user,
                sample,
                position,
            };
            assert_eq!(draw(&mut logits.clone(), temperature, key).0, token);
        }
    }
}
