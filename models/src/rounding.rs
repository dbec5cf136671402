//! Trained parameters that are kept in bf16. A step of training is far smaller than a step of bf16: rounded to nearest it would leave
//! most values where they are, so it is rounded at random, and is there on average.

use half::bf16;

use crate::random::{philox, seed_key};

/// The last word of a counter, which tells these bits from those of other uses of a seed.
const USE: u32 = u32::from_le_bytes(*b"bf16");

/// What rounds one parameter (stochastic rounding; Gupta et al., 2015, arXiv 1502.02551). Its random bits depend on the seed, the
/// parameter, its step and the value's place, so that they are the same wherever and in whatever parts they are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rounding {
    /// Of the run.
    pub(crate) seed: u64,
    /// The parameter's number among those that are trained.
    pub(crate) parameter: u32,
}

impl Rounding {
    /// Rounds what step `step` of the parameter, counted from 1, has made of its values from number `start` on.
    pub(crate) fn round(self, step: u32, start: usize, values: &mut [f32]) {
        let mut words = [0; 4];
        for (place, value) in (start..).zip(values) {
            // One counter for each four places of the whole parameter.
            if place == start || place.is_multiple_of(4) {
                words = self.words(step, place / 4);
            }
            *value = round_at_random(*value, words[place % 4] >> 16);
        }
    }

    fn words(self, step: u32, four: usize) -> [u32; 4] {
        philox([four as u32, self.parameter, step, USE], seed_key(self.seed))
    }
}

/// The neighbour of `value` in bf16 that `random`, of 16 bits, chooses: the one that is larger in size as often as the bits that bf16 has
/// no room for say. The bf16 numbers, infinities and what is no number stay.
fn round_at_random(value: f32, random: u32) -> f32 {
    match value.is_finite() {
        true => f32::from_bits((value.to_bits() + random) & 0xffff_0000),
        false => value,
    }
}

/// The nearest bf16 numbers, of two the even one.
pub(crate) fn to_nearest(values: &mut [f32]) {
    for value in values {
        *value = bf16::from_f32(*value).to_f32();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use burn::tensor::Device;

    use super::*;
    use crate::tuned::Tuned;
    use crate::weights::{ParameterSpec, Weights, matrix};
    use crate::{AdamConfig, Gradient, Trainable};

    const ROUNDING: Rounding = Rounding { seed: 5, parameter: 2 };

    fn is_bf16(value: f32) -> bool {
        value.to_bits() & 0xffff == 0
    }

    #[test]
    fn a_value_becomes_a_neighbour_and_its_mean_stays() {
        // 3/16 of the way from one bf16 number to the next in size.
        let (low, high) = (1.0_f32, 1.0078125_f32);
        for sign in [1.0_f32, -1.0] {
            let value = sign * (low + (high - low) * 0.1875);
            let mut rounded = vec![value; 1 << 16];
            ROUNDING.round(1, 0, &mut rounded);
            assert!(rounded.iter().all(|&found| found == sign * low || found == sign * high));
            let up = rounded.iter().filter(|&&found| found == sign * high).count();
            // The standard deviation of their share is 0.0015.
            let share = up as f64 / rounded.len() as f64;
            assert!((share - 0.1875).abs() < 0.006, "{share}");
        }
    }

    #[test]
    fn every_random_word_rounds_as_often_as_the_lost_bits_say() {
        let value = f32::from_bits(0x3f80_0003);
        let up = (0..1 << 16).filter(|&random| round_at_random(value, random) > value);
        assert_eq!(up.collect::<Vec<_>>(), [0xfffd, 0xfffe, 0xffff]);
    }

    #[test]
    fn bf16_numbers_and_what_is_not_finite_stay() {
        for value in [0.0, -0.0, 1.0, -3.5, 1e-40_f32, f32::INFINITY, f32::NEG_INFINITY] {
            let value = bf16::from_f32(value).to_f32();
            assert_eq!(round_at_random(value, 0xffff).to_bits(), value.to_bits());
        }
        // As bits alone it would become −0.
        assert!(round_at_random(f32::from_bits(0x7fff_ffff), 0xffff).is_nan());
        let mut values = [1.001, f32::NAN];
        to_nearest(&mut values);
        assert!(values[0] == 1.0 && values[1].is_nan());
    }

    #[test]
    fn bits_depend_on_seed_parameter_step_and_place_and_not_on_where_a_part_begins() {
        let given = vec![1.003_f32; 61];
        let drawn = |rounding: Rounding, step, start, count| {
            let mut values = given[..count].to_vec();
            rounding.round(step, start, &mut values);
            values
        };
        let whole = drawn(ROUNDING, 3, 0, 61);
        for start in [0, 1, 3, 4, 30, 61] {
            assert_eq!(drawn(ROUNDING, 3, start, 61 - start), whole[start..], "{start}");
        }
        let others = [
            drawn(Rounding { seed: 6, ..ROUNDING }, 3, 0, 61),
            drawn(
                Rounding {
                    parameter: 3,
                    ..ROUNDING
                },
                3,
                0,
                61,
            ),
            drawn(ROUNDING, 4, 0, 61),
            drawn(ROUNDING, 3, 61, 61),
        ];
        assert!(others.iter().all(|other| *other != whole));
    }

    const ADAM: AdamConfig = AdamConfig {
        lr: 1e-3,
        betas: (0.9, 0.999),
        eps: 1e-6,
        weight_decay: 0.01,
        decoupled: true,
    };

    /// Two parameters, of 3 · 5 and of `width` values.
    fn tuned(width: usize) -> Tuned {
        let mut weights = Weights::default();
        let mut ids = Vec::new();
        for (name, shape) in [("table", vec![3, 5]), ("row", vec![width])] {
            let spec = ParameterSpec {
                name: name.to_owned(),
                shape,
            };
            let [rows, columns] = spec.dims();
            let values = (0..rows * columns).map(|at| (0.7 * at as f32 + 0.3).sin());
            let values = matrix(values.collect(), rows, columns, &Device::flex());
            ids.push(weights.push(spec, values));
        }
        Tuned::new(weights, ids)
    }

    fn gradient(index: usize, step: usize, count: usize) -> Vec<f32> {
        let phase = (7 * index + 3 * step) as f32;
        (0..count).map(|at| (1.3 * at as f32 + phase).cos()).collect()
    }

    fn step(tuned: &mut Tuned, number: usize) {
        for index in 0..2 {
            let value = gradient(index, number, tuned.trained()[index].scalars());
            tuned.set_gradient(index, Some(Gradient { value, rest: None })).unwrap();
        }
        tuned.step(&ADAM, 0.5).unwrap();
    }

    fn all(tuned: &Tuned) -> Vec<Vec<f32>> {
        (0..2).map(|index| tuned.values(index).unwrap()).collect()
    }

    #[test]
    fn values_are_bf16_numbers_from_the_start_and_after_each_step() {
        let mut tuned = tuned(8);
        assert!(!all(&tuned).concat().into_iter().all(is_bf16));
        let mut nearest = all(&tuned).concat();
        to_nearest(&mut nearest);
        tuned.keep_bf16(1).unwrap();
        assert_eq!(all(&tuned).concat(), nearest);
        for number in 0..5 {
            let before = all(&tuned);
            step(&mut tuned, number);
            assert_ne!(all(&tuned), before);
            assert!(all(&tuned).concat().into_iter().all(is_bf16));
        }
        tuned.set_values(0, vec![1.001; 15]).unwrap();
        assert_eq!(tuned.values(0).unwrap(), [1.0; 15]);
    }

    #[test]
    fn steps_far_below_a_bf16_step_are_there_on_average() {
        const COUNT: usize = 1 << 14;
        const STEPS: usize = 20;
        let adam = AdamConfig {
            lr: 1e-5,
            weight_decay: 0.0,
            ..ADAM
        };
        let mut tuned = tuned(COUNT);
        tuned.keep_bf16(9).unwrap();
        tuned.set_values(1, vec![1.0; COUNT]).unwrap();
        for _ in 0..STEPS {
            let value = vec![-1.0; COUNT];
            tuned.set_gradient(1, Some(Gradient { value, rest: None })).unwrap();
            tuned.step(&adam, 1.0).unwrap();
        }
        // Equal gradients move a value by the rate in each step; a bf16 step above 1 is 780 times as much.
        let values = tuned.values(1).unwrap();
        let mean = values.iter().map(|&value| f64::from(value) - 1.0).sum::<f64>() / COUNT as f64;
        // Its standard deviation is √(STEPS · rate · 2⁻⁷ / COUNT) = 1e-5.
        assert!((mean - STEPS as f64 * adam.lr).abs() < 4e-5, "{mean}");
    }

    #[test]
    fn parts_move_as_the_whole_and_what_is_restored_goes_on_as_it_would_have() {
        let mut whole = tuned(23);
        whole.keep_bf16(4).unwrap();
        step(&mut whole, 0);
        let state: Vec<_> = (0..2).map(|index| whole.moments(index).unwrap()).collect();
        let values = all(&whole);
        step(&mut whole, 1);
        step(&mut whole, 2);
        let restored = || {
            let mut restored = tuned(23);
            restored.keep_bf16(4).unwrap();
            for index in 0..2 {
                restored.set_values(index, values[index].clone()).unwrap();
                restored.set_moments(index, state[index].clone()).unwrap();
            }
            restored
        };
        let mut later = restored();
        step(&mut later, 1);
        step(&mut later, 2);
        assert_eq!(all(&later), all(&whole));
        for parts in [[0..6, 0..23], [6..15, 23..23]] {
            let mut sharer = restored();
            sharer.keep_parts(&parts).unwrap();
            for number in [1, 2] {
                for (index, part) in parts.iter().enumerate() {
                    let count = sharer.trained()[index].scalars();
                    let gradient = gradient(index, number, count)[part.clone()].to_vec();
                    sharer.step_part(index, gradient, &ADAM, 0.5).unwrap();
                }
            }
            for (index, part) in parts.iter().enumerate() {
                assert_eq!(all(&sharer)[index][part.clone()], all(&whole)[index][part.clone()]);
            }
        }
        // Another seed is another run.
        let mut other = restored();
        other.keep_bf16(5).unwrap();
        step(&mut other, 1);
        step(&mut other, 2);
        assert_ne!(all(&other), all(&whole));
    }
}
