//! The colours of points: one sequence of lightness for each kind, which people with any colour vision can order, of hues that
//! they can tell apart (blue and orange); the kinds also differ in shape.

/// What is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// Items, by popularity.
    Item,
    /// Generated profiles, by rank.
    Profile,
    /// Reference profiles, all alike.
    Reference,
}

impl Palette {
    /// The palest and the deepest colour, each with a contrast of 3 or more to the page.
    pub fn ends(self, is_dark: bool) -> [[u8; 3]; 2] {
        match (self, is_dark) {
            (Self::Item, false) => [[0x6a, 0x94, 0xc4], [0x08, 0x30, 0x6b]],
            (Self::Item, true) => [[0x4f, 0x7f, 0xb5], [0xd6, 0xe8, 0xff]],
            (Self::Profile, false) => [[0xd0, 0x7a, 0x22], [0x5c, 0x1a, 0x00]],
            (Self::Profile, true) => [[0xb8, 0x65, 0x1b], [0xff, 0xe3, 0xc2]],
            (Self::Reference, false) => [[0x6b, 0x4f, 0xb3]; 2],
            (Self::Reference, true) => [[0xb3, 0x9d, 0xf0]; 2],
        }
    }

    /// The colour at a share of the way from the palest to the deepest.
    pub fn colour(self, share: f32, is_dark: bool) -> [u8; 4] {
        let [from, to] = self.ends(is_dark);
        let mix = |at: usize| {
            let (from, to) = (f32::from(from[at]), f32::from(to[at]));
            (from + (to - from) * share.clamp(0.0, 1.0)).round() as u8
        };
        [mix(0), mix(1), mix(2), 255]
    }

    /// The colours in order, for a style sheet.
    pub fn gradient(self, is_dark: bool) -> String {
        let [from, to] = self
            .ends(is_dark)
            .map(|[red, green, blue]| format!("rgb({red},{green},{blue})"));
        format!("linear-gradient(to right,{from},{to})")
    }
}

/// How deep the colour of a count is: by its logarithm, since a few items have most interactions.
pub fn share_of(count: f64, largest: f64) -> f32 {
    match largest > 0.0 {
        true => (count.ln_1p() / largest.ln_1p()) as f32,
        false => 0.0,
    }
}

/// How deep the colour of a rank is: rank 1 the deepest, by the rank's logarithm.
pub fn share_of_rank(rank: f64, largest: f64) -> f32 {
    match largest > 1.0 {
        true => (1.0 - rank.ln() / largest.ln()) as f32,
        false => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance after WCAG 2.
    fn luminance(colour: [u8; 3]) -> f64 {
        let linear = |value: u8| match f64::from(value) / 255.0 {
            value if value <= 0.04045 => value / 12.92,
            value => ((value + 0.055) / 1.055).powf(2.4),
        };
        0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
    }

    #[test]
    fn every_colour_stands_out_from_the_page_and_deeper_ones_more() {
        for (is_dark, ground) in [(false, [0xff; 3]), (true, [0x1e, 0x21, 0x27])] {
            for palette in [Palette::Item, Palette::Profile, Palette::Reference] {
                let contrast = |share| {
                    let [red, green, blue, _] = palette.colour(share, is_dark);
                    let (a, b) = (luminance([red, green, blue]) + 0.05, luminance(ground) + 0.05);
                    f64::max(a / b, b / a)
                };
                assert!(contrast(0.0) >= 3.0, "{palette:?} {is_dark} {}", contrast(0.0));
                assert!(contrast(1.0) >= contrast(0.5) && contrast(0.5) >= contrast(0.0));
            }
        }
    }

    #[test]
    fn shares_are_logarithmic_from_0_to_1() {
        assert_eq!(
            (share_of(0.0, 99.0), share_of(99.0, 99.0), share_of(9.0, 99.0)),
            (0.0, 1.0, 0.5)
        );
        assert_eq!(
            (
                share_of_rank(1.0, 100.0),
                share_of_rank(100.0, 100.0),
                share_of_rank(10.0, 100.0)
            ),
            (1.0, 0.0, 0.5)
        );
        assert_eq!((share_of(0.0, 0.0), share_of_rank(1.0, 1.0)), (0.0, 1.0));
    }
}
