//! The base-2 logarithm of a whole number, with the same bits on every platform.
//!
//! `f64::log2` asks the platform's mathematics library, and those differ in the last bit: a browser would not reproduce
//! the recorded metrics. Only additions, products and quotients are used here, which IEEE 754 fixes.

/// 2 / ln 2, and what is lost of it in rounding to f64.
const TWO_OVER_LN2: f64 = 2.0 * std::f64::consts::LOG2_E;
const TWO_OVER_LN2_REST: f64 = 2.0 * 2.035_527_374_093_103_3e-17;

/// log2 of `n` for `1 <= n <= 2^32 + 1`; within one unit in the last place, exact for powers of two.
///
/// With n = 2^e · m, √½ < m ≤ √2 and s = (m − 1)/(m + 1): ln m = 2·(s + s³/3 + s⁵/5 + …), |s| < 0.172.
pub(crate) fn log2(n: u64) -> f64 {
    debug_assert!((1..=(1 << 32) + 1).contains(&n));
    let exponent = 63 - n.leading_zeros();
    let mut mantissa = n as f64 / (1u64 << exponent) as f64;
    let mut whole = f64::from(exponent);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        whole += 1.0;
    }
    // Both are exact: the mantissa has at most 34 bits.
    let (above, below) = (mantissa - 1.0, mantissa + 1.0);
    let s = above / below;
    let (product, product_rest) = exact_product(s, below);
    let s_rest = ((above - product) - product_rest) / below;

    let square = s * s;
    let series = (1..=12)
        .rev()
        .fold(0.0, |sum, k| square * (sum + 1.0 / f64::from(2 * k + 1)));

    let (log, log_rest) = exact_product(TWO_OVER_LN2, s);
    let rest = log_rest + TWO_OVER_LN2 * (s_rest + s * series) + TWO_OVER_LN2_REST * s;
    let sum = whole + log;
    // `whole` is 0 or the larger of the two, so this difference is what `sum` has lost.
    let sum_rest = log - (sum - whole);
    sum + (sum_rest + rest)
}

/// `a · b` as a rounded product and its exact rounding error (Dekker, 1971; without a fused multiply-add, which wasm lacks).
fn exact_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
    (
        product,
        ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low,
    )
}

/// `a` as two numbers of half its bits each.
fn halves(a: f64) -> (f64, f64) {
    let scaled = a * 134_217_729.0; // 2^27 + 1
    let high = scaled - (scaled - a);
    (high, a - high)
}

#[cfg(test)]
mod tests {
    use super::log2;

    #[test]
    fn powers_of_two_are_exact() {
        for exponent in 0..=32 {
            assert_eq!(log2(1 << exponent), f64::from(exponent));
        }
    }

    #[test]
    fn agrees_with_the_platform_to_the_last_bit_or_the_one_before() {
        for n in (2..100_000u64).chain([123_456_789, (1 << 32) - 1, (1 << 32) + 1]) {
            let (ours, platform) = (log2(n), (n as f64).log2());
            assert!(
                ours.to_bits().abs_diff(platform.to_bits()) <= 1,
                "{n}: {ours} and {platform}"
            );
        }
    }
}
