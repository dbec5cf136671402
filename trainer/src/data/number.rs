//! Numbers as Python prints them, because the published prompts were made by Python.

/// `repr(value)` of a Python float: the shortest digits that give the same number, with `.0` for whole numbers and
/// an exponent below 1e-4 and from 1e16 on.
pub(super) fn python_float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) && value.is_finite() {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

/// As [`python_float`], for a number that was stored in single precision: 3.3 stays `3.3`.
pub(super) fn python_float_of_single(value: f32) -> String {
    // The shortest digits of the single-precision number are what the file had, up to six of them.
    format!("{value:?}")
        .parse()
        .map_or_else(|_| format!("{value:?}"), python_float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // Each pair is `repr(value)` of CPython 3.11.
        let pairs = [
            (5.0, "5.0"),
            (4.6, "4.6"),
            (0.0, "0.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e100, "1.25e+100"),
            (-2.5, "-2.5"),
        ];
        for (value, text) in pairs {
            assert_eq!(python_float(value), text);
        }
        assert_eq!(python_float_of_single(3.3), "3.3");
        assert_eq!(python_float_of_single(5.0), "5.0");
    }
}
