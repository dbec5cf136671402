//! The words of a world: titles, the catalogue's prose, reviews, and the profiles that the language model is taught on.

use super::aspects::Aspect;
use super::random::Random;
use super::world::{DECISIVE, Film};

const FIRST_WORDS: [&str; 40] = [
    "Amber",
    "Broken",
    "Copper",
    "Crimson",
    "Distant",
    "Early",
    "Empty",
    "Eternal",
    "Fallen",
    "Fearless",
    "Final",
    "Forgotten",
    "Frozen",
    "Golden",
    "Hidden",
    "Hollow",
    "Iron",
    "Last",
    "Little",
    "Lonely",
    "Lost",
    "Lucky",
    "Midnight",
    "Missing",
    "Northern",
    "Paper",
    "Patient",
    "Perfect",
    "Quiet",
    "Restless",
    "Second",
    "Secret",
    "Silver",
    "Sleeping",
    "Southern",
    "Stolen",
    "Strange",
    "Velvet",
    "Wild",
    "Winter",
];
const SECOND_WORDS: [&str; 40] = [
    "Anchor",
    "Arrow",
    "Bell",
    "Bridge",
    "Candle",
    "Compass",
    "Crown",
    "Door",
    "Feather",
    "Garden",
    "Ghost",
    "Hour",
    "House",
    "Island",
    "Key",
    "Ladder",
    "Lake",
    "Map",
    "Mirror",
    "Moon",
    "Mountain",
    "Night",
    "Orchard",
    "Promise",
    "River",
    "Road",
    "Rose",
    "Sea",
    "Shadow",
    "Sister",
    "Sky",
    "Snow",
    "Star",
    "Stranger",
    "Tower",
    "Traveller",
    "Tree",
    "Voyage",
    "Window",
    "Wolf",
];

/// How many different titles there are.
pub const TITLES: usize = FIRST_WORDS.len() * SECOND_WORDS.len();

/// All titles, shuffled.
pub fn titles(random: &mut Random) -> Vec<String> {
    let mut titles: Vec<String> = FIRST_WORDS
        .iter()
        .flat_map(|first| SECOND_WORDS.iter().map(move |second| format!("The {first} {second}")))
        .collect();
    random.shuffle(&mut titles);
    titles
}

/// The prose of the catalogue: it names every aspect, in one of three orders.
pub fn description(values: &[u8; 8], random: &mut Random) -> String {
    let [genre, mood, theme, place, era, telling, music, studio] =
        Aspect::ALL.map(|aspect| aspect.word(values[aspect as usize]));
    match random.below(3) {
        0 => format!(
            "A {mood} {genre} about {theme}, set in a {place} in the {era}. Told in {telling}, with {music} music. By {studio}."
        ),
        1 => format!(
            "From {studio}: {music} music and a {mood} {genre}, told in {telling}, about {theme} in a {place} of the {era}."
        ),
        _ => format!(
            "Set in the {era} in a {place}, this {mood} {genre} by {studio} is about {theme}, with {music} music, told in {telling}."
        ),
    }
}

/// What a person writes: how they liked it, and one or two aspects of the film. They speak mostly of what they care for:
/// of what matched in a film they liked, of what did not in one they did not.
pub fn review(
    film: &Film,
    decisive: [Aspect; DECISIVE],
    matches: [bool; DECISIVE],
    rating: u8,
    random: &mut Random,
) -> String {
    let liked = rating >= 4;
    let openings = match rating {
        4.. => ["Loved it", "Just right for me", "Would watch again", "A fine evening"],
        3 => ["It was fine", "Not bad", "Good enough", "Fair"],
        _ => ["Not for me", "Fell asleep", "Hard to finish", "A letdown"],
    };
    let opening = random.choose(&openings);
    let telling: Vec<Aspect> = decisive
        .into_iter()
        .zip(matches)
        .filter(|&(_, matched)| matched == liked)
        .map(|(aspect, _)| aspect)
        .collect();
    let mut named = Vec::new();
    for _ in 0..1 + random.below(2) {
        let cares = !telling.is_empty() && random.chance(0.6);
        let aspect = *if cares {
            random.choose(&telling)
        } else {
            random.choose(&Aspect::ALL)
        };
        if !named.contains(&aspect) {
            named.push(aspect);
        }
    }
    let phrases: Vec<String> = named.iter().map(|&aspect| aspect.phrase(film.value(aspect))).collect();
    format!("{opening}: {}.", phrases.join(" and "))
}

/// A profile in plain words with random emphasis: two to four of the eight aspects, whichever, each with the value that
/// recurs in the films of `history` (with their ratings) that were liked. One statement in eight is of any one film.
///
/// This is what the language model is taught before the demo. It knows nothing of the world's decisive aspects: which of
/// them to speak of is what is left to be learned.
pub fn profile(history: &[(&Film, u8)], random: &mut Random) -> String {
    let mut aspects = Aspect::ALL;
    random.shuffle(&mut aspects);
    let count = 2 + random.below(3);
    let phrases: Vec<String> = aspects[..count]
        .iter()
        .map(|&aspect| {
            let value = if random.chance(0.125) {
                random.choose(history).0.value(aspect)
            } else {
                recurring(history, aspect, random)
            };
            aspect.phrase(value)
        })
        .collect();
    let opening = random.choose(&["They enjoy", "This viewer likes", "Fond of"]);
    format!("{opening} {}.", listed(&phrases))
}

/// `a, b and c`.
fn listed(phrases: &[String]) -> String {
    match phrases.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// The value of `aspect` that weighs most: films count by how far they were rated above 2, and a little even below. Ties
/// are drawn.
fn recurring(history: &[(&Film, u8)], aspect: Aspect, random: &mut Random) -> u8 {
    let mut weights = [0.0; super::aspects::VALUES];
    for (film, rating) in history {
        weights[usize::from(film.value(aspect))] += (f64::from(*rating) - 2.0).max(0.2);
    }
    let most = weights.iter().copied().fold(0.0, f64::max);
    let best: Vec<u8> = (0..)
        .zip(weights)
        .filter(|&(_, weight)| weight == most)
        .map(|(value, _)| value)
        .collect();
    *random.choose(&best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{World, WorldSize};

    #[test]
    fn a_description_names_every_aspect_once() {
        let world = World::generate(11, WorldSize { films: 50, people: 0 });
        for film in &world.films {
            let words: Vec<&str> = film
                .description
                .split(|letter: char| !letter.is_alphanumeric())
                .collect();
            for aspect in Aspect::ALL {
                let word = aspect.word(film.value(aspect));
                let count = words.iter().filter(|found| **found == word).count();
                assert_eq!(count, 1, "{word}: {}", film.description);
            }
        }
    }

    #[test]
    fn no_word_stands_for_two_values() {
        let mut words: Vec<&str> = Aspect::ALL.iter().flat_map(|aspect| aspect.words()).collect();
        words.sort_unstable();
        let all = words.len();
        words.dedup();
        assert_eq!(words.len(), all);
    }

    #[test]
    fn a_profile_states_what_recurs_in_liked_films_and_emphasises_at_random() {
        let world = World::generate(12, WorldSize { films: 50, people: 0 });
        let mut loved = world.films[0].clone();
        loved.values = [1; 8];
        let mut other = world.films[1].clone();
        other.values = [2; 8];
        let history = [(&loved, 5), (&other, 1), (&loved, 4), (&other, 2)];
        let mut random = Random::new(1, 0);
        let mut named = [0; 8];
        let (mut right, mut all) = (0, 0);
        for _ in 0..800 {
            let text = profile(&history, &mut random);
            for aspect in Aspect::ALL {
                let [liked, not] = [1, 2].map(|value| usize::from(text.contains(&aspect.phrase(value))));
                named[aspect as usize] += liked + not;
                right += liked;
                all += liked + not;
            }
        }
        // 800 · 3/8 = 300 of each aspect, give or take 14.
        assert!(named.iter().all(|count| (240..360).contains(count)), "{named:?}");
        // One in eight is of any film, of which half are the loved ones.
        let share = f64::from(right as u32) / f64::from(all as u32);
        assert!((share - 0.9375).abs() < 0.03, "{share}");
    }
}
