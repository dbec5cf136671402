//! Texts of made-up words, common ones more often.

use crate::world::unit;

/// Different words.
const WORDS: f64 = 20_000.0;

/// `count` words of the text `key`, with a full stop now and then.
pub fn text(key: [u64; 2], count: usize) -> String {
    let mut text = String::new();
    for place in 0..count as u64 {
        if place > 0 {
            text.push_str(if place % 13 == 0 { ". " } else { " " });
        }
        // A word's share falls about as one over its place, as in real texts (Zipf's law).
        let word = WORDS.powf(unit([key[0], key[1], place])) - 1.0;
        text.push_str(&spelt(word as u64));
    }
    text
}

/// A word for each number, longer for larger ones.
fn spelt(mut number: u64) -> String {
    const SYLLABLES: [&str; 20] = [
        "ba", "de", "fi", "go", "lu", "ma", "ne", "ri", "so", "tu", "van", "kel", "min", "tor", "pas", "wen", "lis",
        "dor", "han", "cue",
    ];
    let mut word = String::new();
    loop {
        word.push_str(SYLLABLES[(number % 20) as usize]);
        number /= 20;
        if number == 0 {
            return word;
        }
        number -= 1;
    }
}
