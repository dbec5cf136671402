//! What can be said of a film: eight aspects of twelve values each.

/// One way in which films differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Drama, western …
    Genre,
    /// Tender, bleak …
    Mood,
    /// What it is about.
    Theme,
    /// Where it is set.
    Place,
    /// When it is set.
    Era,
    /// How it is told.
    Telling,
    /// What plays.
    Music,
    /// Who made it.
    Studio,
}

/// Values of an aspect.
pub const VALUES: usize = 12;

impl Aspect {
    /// All of them, in the order of [`Film::values`](super::Film::values).
    pub const ALL: [Self; 8] = [
        Self::Genre,
        Self::Mood,
        Self::Theme,
        Self::Place,
        Self::Era,
        Self::Telling,
        Self::Music,
        Self::Studio,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Genre => "genre",
            Self::Mood => "mood",
            Self::Theme => "theme",
            Self::Place => "place",
            Self::Era => "era",
            Self::Telling => "telling",
            Self::Music => "music",
            Self::Studio => "studio",
        }
    }

    /// The words for its values.
    pub const fn words(self) -> [&'static str; VALUES] {
        match self {
            Self::Genre => [
                "drama",
                "comedy",
                "thriller",
                "western",
                "romance",
                "mystery",
                "fantasy",
                "musical",
                "tragedy",
                "satire",
                "epic",
                "melodrama",
            ],
            Self::Mood => [
                "tender", "bleak", "playful", "tense", "dreamy", "bitter", "hopeful", "gloomy", "raucous", "wistful",
                "stern", "sunny",
            ],
            Self::Theme => [
                "revenge",
                "forgiveness",
                "ambition",
                "exile",
                "friendship",
                "betrayal",
                "grief",
                "justice",
                "family",
                "faith",
                "greed",
                "memory",
            ],
            Self::Place => [
                "harbour",
                "desert",
                "monastery",
                "palace",
                "prison",
                "village",
                "circus",
                "hospital",
                "jungle",
                "railway",
                "suburb",
                "lighthouse",
            ],
            Self::Era => [
                "1890s", "1900s", "1910s", "1920s", "1930s", "1940s", "1950s", "1960s", "1970s", "1980s", "1990s",
                "2000s",
            ],
            Self::Telling => [
                "letters",
                "flashbacks",
                "chapters",
                "songs",
                "dreams",
                "diaries",
                "riddles",
                "interviews",
                "silence",
                "rumours",
                "verse",
                "whispers",
            ],
            Self::Music => [
                "piano",
                "jazz",
                "choir",
                "guitar",
                "organ",
                "violin",
                "drum",
                "accordion",
                "flute",
                "opera",
                "brass",
                "harp",
            ],
            Self::Studio => [
                "Aldergate",
                "Bluefin",
                "Corvid",
                "Dunmore",
                "Emberly",
                "Foxglove",
                "Greyhaven",
                "Halcyon",
                "Ironbridge",
                "Juniper",
                "Kestrel",
                "Lantern",
            ],
        }
    }

    /// The word for `value`, below [`VALUES`].
    pub fn word(self, value: u8) -> &'static str {
        self.words()[usize::from(value)]
    }

    /// What one may like of `value`, as it stands in reviews and profiles.
    pub fn phrase(self, value: u8) -> String {
        let word = self.word(value);
        match self {
            Self::Genre => format!("any good {word}"),
            Self::Mood => format!("a {word} mood"),
            Self::Theme => format!("stories about {word}"),
            Self::Place => format!("scenes in a {word}"),
            Self::Era => format!("life in the {word}"),
            Self::Telling => format!("films told in {word}"),
            Self::Music => format!("plenty of {word}"),
            Self::Studio => format!("the work of {word}"),
        }
    }
}
