#![allow(clippy::unwrap_used)]

use super::*;
use crate::random::Stream;

fn split(text: &str) -> Vec<String> {
    words(text).collect()
}

fn bytes(file: &IndexFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.write(&mut bytes).unwrap();
    bytes
}

fn message(bytes: &[u8], users: usize) -> String {
    IndexFile::parse(bytes, users).unwrap_err().to_string()
}

#[test]
fn words_are_runs_of_letters_and_digits_in_lower_case() {
    assert_eq!(split("  Blue-green, 2nd ÉTÉ…"), ["blue", "green", "2nd", "été"]);
    assert_eq!(split("sailor's sailor’s"), ["sailor", "s", "sailor", "s"]);
    assert_eq!(split("中文 日本語"), ["中文", "日本語"]);
    assert_eq!(split("?!"), [""; 0]);
    // Another letter where it is last in lower case, and two where there was one.
    assert_eq!(split("ΟΔΟΣ οδος"), ["οδοσ", "οδοσ"]);
    assert_eq!(split("İstanbul"), ["istanbul"]);
}

#[test]
fn the_words_of_every_letter_are_words() {
    for letter in (0..=char::MAX as u32).filter_map(char::from_u32) {
        for word in words(&letter.to_string()) {
            assert_eq!(split(&word), [word.as_str()], "{letter:?}");
        }
    }
}

/// `LTX1`, 2 words; "ab" of users 1, 2 and 300; "é" of user 0. From 2 to 300 there are 297 left out: 0x129, 0b10_0101001.
const BY_HAND: [u8; 21] = [
    b'L', b'T', b'X', b'1', 2, 0, 0, 0, 2, b'a', b'b', 3, 1, 0, 0xa9, 0x02, 2, 0xc3, 0xa9, 1, 0,
];

#[test]
fn a_file_is_laid_out_as_documented() {
    let mut builder = IndexBuilder::default();
    builder.add(300, "AB ab");
    builder.add(1, "ab");
    builder.add(0, "é");
    builder.add(2, "(ab)");
    builder.add(1, "ab");
    let files = builder.into_files();
    assert_eq!(files.len(), 1);
    assert_eq!(bytes(&files[0]), BY_HAND);
    let parsed = IndexFile::parse(&BY_HAND, 301).unwrap();
    assert_eq!(parsed, files[0]);
    assert_eq!(parsed.lookup("ab"), [1, 2, 300]);
    assert_eq!(parsed.lookup("a"), [0; 0]);
    assert_eq!(parsed.with_prefix("a"), [1, 2, 300]);
    assert_eq!(parsed.with_prefix("abc"), [0; 0]);
    assert_eq!(parsed.with_prefix(""), [0, 1, 2, 300]);
}

#[test]
fn broken_files_are_refused_at_the_byte_that_is_wrong() {
    let with = |place: usize, byte: u8| {
        let mut bytes = BY_HAND.to_vec();
        bytes[place] = byte;
        bytes
    };
    let cases = [
        (with(0, b'<'), "byte 0: expected the bytes LTX1, found others"),
        (with(4, 3), "byte 21: expected the length of a word, found the end"),
        (with(4, 1), "byte 16: expected the end, found 5 bytes more"),
        (with(9, 0xff), "byte 9: expected a word in UTF-8, found [255, 98]"),
        (with(11, 0), "byte 11: expected from 1 to 9 users of \"ab\", found 0"),
        (with(11, 99), "byte 11: expected from 1 to 9 users of \"ab\", found 99"),
        (
            with(15, 0),
            "byte 14: expected a user, found a number in more bytes than it needs",
        ),
        (
            with(20, 0x80),
            "byte 21: expected a user, found the end after 0 of 1 bytes",
        ),
        (with(17, b'a'), "byte 17: expected a word in UTF-8"),
        (BY_HAND.repeat(2), "byte 21: expected the end, found 21 bytes more"),
    ];
    for (bytes, expected) in cases {
        let found = message(&bytes, 301);
        assert!(found.contains(expected), "{found}\nexpected {expected}");
    }
    assert!(message(&BY_HAND, 300).contains("byte 14: expected a user below 300, found 300"));
    // The second word as the first once more, and an empty one.
    let file = |words: &[u8]| [&b"LTX1\x02\0\0\0\x01b\x01\0"[..], words].concat();
    for word in [&b"\x01b\x01\0"[..], b"\x01a\x01\0", b"\0\x01\0"] {
        let found = message(&file(word), 1);
        assert!(found.contains("byte 12: expected a word after \"b\""), "{found}");
    }
    // Numbers of six bytes, and of five that are beyond 32 bits.
    for number in [&[0xff; 6][..], &[0xff, 0xff, 0xff, 0xff, 0x1f]] {
        assert!(message(&file(number), 1).contains("beyond 32 bits"));
    }
    // Users whose sum is beyond 32 bits.
    let far = [&b"\x01c\x02"[..], &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]].concat();
    assert!(message(&file(&far), usize::MAX).contains("found 4294967296"));
}

#[test]
fn nothing_that_is_cut_or_changed_makes_reading_panic() {
    let whole = BY_HAND;
    for length in 0..whole.len() {
        assert!(IndexFile::parse(&whole[..length], 301).is_err(), "{length} bytes");
    }
    for place in 0..whole.len() {
        for byte in 0..=u8::MAX {
            let mut changed = whole;
            changed[place] = byte;
            // What still can be read is in order, and is what it was written as.
            if let Ok(file) = IndexFile::parse(&changed, 301) {
                assert_eq!(bytes(&file), changed);
            }
        }
    }
    for trial in 0..2000 {
        let draws = Stream::new(3, trial);
        let noise = (0..draws.below(0, 60) as u64).map(|place| draws.bits(place + 1) as u8);
        let noise: Vec<u8> = b"LTX1\x05\0\0\0".iter().copied().chain(noise).collect();
        let _ = IndexFile::parse(&noise, 100);
    }
}

/// Texts of random words over a few letters, one of two bytes, so that words share prefixes.
fn random_texts(trial: u64) -> Vec<String> {
    let draws = Stream::new(7, trial);
    let mut place = 0;
    let mut below = |bound| {
        place += 1;
        draws.below(place, bound)
    };
    let mut text = |_| {
        let letters = (0..below(60)).map(|_| ["a", "b", "É", "z", " ", ", "][below(6)]);
        letters.collect::<String>()
    };
    (0..50).map(&mut text).collect()
}

#[test]
fn searching_files_of_any_size_finds_what_searching_all_texts_finds() {
    for (trial, most) in (0..40).zip([0, 20, 64, 300, usize::MAX].into_iter().cycle()) {
        let texts = random_texts(trial);
        let mut builder = IndexBuilder::default();
        // In another order, and each text in two parts.
        for (user, text) in texts.iter().enumerate().rev() {
            let (first, second) = text.split_at(text.find(' ').unwrap_or(0));
            [first, second].iter().for_each(|part| builder.add(user as u32, part));
        }
        let files = builder.into_files_of(most);
        let index = TextIndex::of_files("words", &files);
        let read: Vec<IndexFile> = files
            .iter()
            .map(|file| IndexFile::parse(&bytes(file), 50).unwrap())
            .collect();
        for (place, file) in read.iter().enumerate() {
            file.check(&index, place).unwrap();
            assert!(file.words.len() == 1 || bytes(file).len() <= most);
        }
        let of_word = |word: &str| users_in_any(read[index.files_for_word(word)].iter().map(|file| file.lookup(word)));
        let of_prefix = |prefix: &str| {
            let found: Vec<Vec<u32>> = read[index.files_for_prefix(prefix)]
                .iter()
                .map(|file| file.with_prefix(prefix))
                .collect();
            users_in_any(found.iter().map(Vec::as_slice))
        };
        let users_with = |has: &dyn Fn(&str) -> bool| -> Vec<u32> {
            let having = (0..).zip(&texts).filter(|(_, text)| words(text).any(|word| has(&word)));
            having.map(|(user, _)| user).collect()
        };
        let absent = ["", "0", "zzzzzzz", "bq", "é", "éz", "ζ"].map(str::to_owned);
        for query in texts.iter().flat_map(|text| words(text)).chain(absent) {
            assert_eq!(of_word(&query), users_with(&|word| word == query), "{query:?}");
            for (length, _) in query.char_indices() {
                let prefix = &query[..length];
                assert_eq!(
                    of_prefix(prefix),
                    users_with(&|word| word.starts_with(prefix)),
                    "{prefix:?}"
                );
            }
        }
        let both = users_in_all([&of_word("a")[..], &of_prefix("b")]);
        let naive = texts.iter().map(|text| split(text));
        let naive = (0..).zip(naive).filter(|(_, words)| {
            words.iter().any(|word| word == "a") && words.iter().any(|word| word.starts_with('b'))
        });
        assert_eq!(both, naive.map(|(user, _)| user).collect::<Vec<u32>>());
    }
}

#[test]
fn a_file_in_the_place_of_another_is_an_error() {
    let mut builder = IndexBuilder::default();
    builder.add(0, "a b");
    let files = builder.into_files_of(0);
    let mut index = TextIndex::of_files("words", &files);
    assert_eq!(index.files[1].file, "words-1.bin");
    let error = files[1].check(&index, 0).unwrap_err().to_string();
    assert_eq!(
        error,
        "first word of text index file 0: expected Some(\"a\"), found Some(\"b\")"
    );
    index.files[1].first = "a".to_owned();
    let error = files[0].check(&index, 0).unwrap_err().to_string();
    assert_eq!(
        error,
        "last word of text index file 0: expected a word before \"a\", found Some(\"a\")"
    );
}

#[test]
fn no_words_make_no_files_and_no_lists_no_users() {
    assert_eq!(IndexBuilder::default().into_files(), []);
    assert_eq!(TextIndex::default().files_for_word("a"), 0..0);
    assert_eq!(TextIndex::default().files_for_prefix("a"), 0..0);
    assert_eq!(users_in_all([]), [0; 0]);
}
