//! Films, people and what people think of films, made from a seed.
//!
//! A world decides by its seed which three of the eight [`Aspect`]s its people care for. Everyone has a favourite value of
//! each of these and weighs them in their own way; what else a film is does not matter to anyone. People mostly see films
//! that match their tastes, or that are popular, and rate higher what matches better.

use super::aspects::{Aspect, VALUES};
use super::random::Random;
use super::text;

/// How many of the aspects decide what people see and how they rate it.
pub const DECISIVE: usize = 3;

/// How large a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorldSize {
    /// Films of the catalogue; at most [`text::TITLES`].
    pub films: usize,
    /// People who rate and review.
    pub people: usize,
}

impl Default for WorldSize {
    fn default() -> Self {
        Self {
            films: 800,
            people: 2000,
        }
    }
}

/// A film.
#[derive(Debug, Clone, PartialEq)]
pub struct Film {
    /// Its `parent_asin`.
    pub id: String,
    /// Its title, which says nothing of its aspects.
    pub title: String,
    /// Its value of each of [`Aspect::ALL`].
    pub values: [u8; 8],
    /// The prose of the catalogue.
    pub description: String,
    /// In dollars.
    pub price: f64,
    /// The mean of its ratings, to one decimal; `None` for a film that nobody has seen.
    pub average_rating: Option<f64>,
    /// How much better it is than others, apart from tastes; standard normal.
    quality: f64,
    /// What popularity adds to everybody's utility.
    renown: f64,
}

impl Film {
    /// Its value of `aspect`.
    pub fn value(&self, aspect: Aspect) -> u8 {
        self.values[aspect as usize]
    }
}

/// A person.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    /// Their `user_id`.
    pub id: String,
    /// Their favourite value of each of [`World::decisive`].
    pub favourites: [u8; DECISIVE],
    /// What a match in each adds to the utility of a film.
    pub weights: [f64; DECISIVE],
    /// How much higher than others they rate.
    bias: f64,
}

/// A film seen, rated and reviewed.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// Whose, as an index of [`World::people`].
    pub person: usize,
    /// Of what, as an index of [`World::films`].
    pub film: usize,
    /// 1 to 5.
    pub rating: u8,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// What they wrote.
    pub text: String,
}

/// All of a world.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// What it was made from.
    pub seed: u64,
    /// The aspects that people care for, in ascending order.
    pub decisive: [Aspect; DECISIVE],
    /// The catalogue.
    pub films: Vec<Film>,
    /// The people.
    pub people: Vec<Person>,
    /// Person by person, each in the order of time.
    pub reviews: Vec<Review>,
}

/// Streams of a seed.
mod streams {
    pub(super) const DECISIVE: u32 = 0;
    pub(super) const FILMS: u32 = 1;
    pub(super) const PEOPLE: u32 = 2;
    pub(super) const REVIEWS: u32 = 3;
}

/// A match in an aspect adds this to the utility, on average: e^5 = 150 times as likely to be seen.
const TASTE: f64 = 5.0;
/// Renown falls with the logarithm of the rank, by this factor.
const FAME: f64 = 0.6;
/// Everybody reviews at least so many films.
const FEWEST_REVIEWS: usize = 6;
/// And at most so many.
const MOST_REVIEWS: usize = 14;
/// The year 2010, and a day, in milliseconds.
const EPOCH: i64 = 1_262_304_000_000;
const DAY: f64 = 86_400_000.0;

impl World {
    /// Makes the world of `seed`: the same one every time.
    pub fn generate(seed: u64, size: WorldSize) -> Self {
        let decisive = decisive_aspects(&mut Random::new(seed, streams::DECISIVE));
        let mut random = Random::new(seed, streams::FILMS);
        let films = films(&mut random, size.films);
        let mut random = Random::new(seed, streams::PEOPLE);
        let people = (0..size.people).map(|index| person(&mut random, index)).collect();
        let mut world = Self {
            seed,
            decisive,
            films,
            people,
            reviews: Vec::new(),
        };
        let mut random = Random::new(seed, streams::REVIEWS);
        for person in 0..world.people.len() {
            let reviews = world.reviews_of(person, &mut random);
            world.reviews.extend(reviews);
        }
        world.average_ratings();
        world
    }

    /// In which of the decisive aspects `film` is what `person` likes.
    pub fn matches(&self, person: &Person, film: &Film) -> [bool; DECISIVE] {
        std::array::from_fn(|index| film.value(self.decisive[index]) == person.favourites[index])
    }

    /// What a film promises a person: what it matches, and its renown.
    fn utility(&self, person: &Person, film: &Film) -> f64 {
        let matched = self.matches(person, film).into_iter().zip(person.weights);
        matched
            .filter(|(matched, _)| *matched)
            .map(|(_, weight)| weight)
            .sum::<f64>()
            + film.renown
    }

    fn reviews_of(&self, index: usize, random: &mut Random) -> Vec<Review> {
        let person = &self.people[index];
        let count = (FEWEST_REVIEWS + (1.5 * random.exponential()) as usize).min(MOST_REVIEWS);
        let mut timestamp = EPOCH + (random.unit() * 3650.0 * DAY) as i64;
        let seen = self.choices(person, count, random);
        seen.into_iter()
            .map(|film| {
                timestamp += ((0.01 + 10.0 * random.exponential()) * DAY) as i64;
                let matches = self.matches(person, &self.films[film]);
                let rating = self.rating(person, film, random);
                let text = text::review(&self.films[film], self.decisive, matches, rating, random);
                Review {
                    person: index,
                    film,
                    rating,
                    timestamp,
                    text,
                }
            })
            .collect()
    }

    /// `count` different films drawn by the softmax of utilities, in random order.
    fn choices(&self, person: &Person, count: usize, random: &mut Random) -> Vec<usize> {
        let mut noisy: Vec<(f64, usize)> = self
            .films
            .iter()
            .enumerate()
            .map(|(index, film)| (self.utility(person, film) + random.gumbel(), index))
            .collect();
        noisy.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut chosen: Vec<usize> = noisy.into_iter().take(count).map(|(_, index)| index).collect();
        random.shuffle(&mut chosen);
        chosen
    }

    fn rating(&self, person: &Person, film: usize, random: &mut Random) -> u8 {
        let film = &self.films[film];
        let matched = self
            .matches(person, film)
            .into_iter()
            .filter(|matched| *matched)
            .count();
        let liking = 2.0 + matched as f64 + 0.4 * film.quality + person.bias + 0.5 * random.normal();
        liking.round().clamp(1.0, 5.0) as u8
    }

    fn average_ratings(&mut self) {
        let mut sums = vec![(0.0, 0.0); self.films.len()];
        for review in &self.reviews {
            let (sum, count) = &mut sums[review.film];
            *sum += f64::from(review.rating);
            *count += 1.0;
        }
        for (film, (sum, count)) in self.films.iter_mut().zip(sums) {
            film.average_rating = (count > 0.0).then(|| (10.0_f64 * sum / count).round() / 10.0);
        }
    }
}

fn decisive_aspects(random: &mut Random) -> [Aspect; DECISIVE] {
    let mut aspects = Aspect::ALL;
    random.shuffle(&mut aspects);
    let mut decisive: [Aspect; DECISIVE] = std::array::from_fn(|index| aspects[index]);
    decisive.sort();
    decisive
}

fn films(random: &mut Random, count: usize) -> Vec<Film> {
    let titles = text::titles(random);
    let mut ranks: Vec<usize> = (0..count).collect();
    random.shuffle(&mut ranks);
    titles
        .into_iter()
        .zip(ranks)
        .enumerate()
        .map(|(index, (title, rank))| {
            let values = std::array::from_fn(|_| random.below(VALUES) as u8);
            Film {
                id: format!("DEMO{index:06}"),
                title,
                values,
                description: text::description(&values, random),
                price: random.below(8) as f64 * 2.0 + 4.99,
                average_rating: None,
                quality: random.normal(),
                renown: -FAME * ((1 + rank) as f64).ln(),
            }
        })
        .collect()
}

fn person(random: &mut Random, index: usize) -> Person {
    Person {
        id: format!("person-{index:05}"),
        favourites: std::array::from_fn(|_| random.below(VALUES) as u8),
        weights: std::array::from_fn(|_| TASTE * (0.7 + 0.6 * random.unit())),
        bias: 0.3 * random.normal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        World::generate(7, WorldSize::default())
    }

    fn matched(world: &World, review: &Review) -> usize {
        let matches = world.matches(&world.people[review.person], &world.films[review.film]);
        matches.into_iter().filter(|matched| *matched).count()
    }

    #[test]
    fn the_same_seed_gives_the_same_world_and_another_seed_another() {
        let size = WorldSize { films: 60, people: 40 };
        assert_eq!(World::generate(3, size), World::generate(3, size));
        assert_ne!(World::generate(3, size), World::generate(4, size));
    }

    #[test]
    fn people_see_what_they_like() {
        let world = world();
        let mean = |values: &[usize]| values.iter().sum::<usize>() as f64 / values.len() as f64;
        let seen: Vec<usize> = world.reviews.iter().map(|review| matched(&world, review)).collect();
        // Blind choice matches each of the three aspects once in twelve: 0.25 on average.
        assert!(mean(&seen) > 1.2, "{}", mean(&seen));
        let unseen = world.reviews.iter().map(|review| {
            let other = (review.film + 1) % world.films.len();
            matched(
                &world,
                &Review {
                    film: other,
                    ..review.clone()
                },
            )
        });
        let unseen: Vec<usize> = unseen.collect();
        assert!((mean(&unseen) - 0.25).abs() < 0.06, "{}", mean(&unseen));
    }

    #[test]
    fn ratings_rise_with_what_matches() {
        let world = world();
        let means = [0, 1, 2, 3].map(|count| {
            let ratings: Vec<f64> = world
                .reviews
                .iter()
                .filter(|review| matched(&world, review) == count)
                .map(|review| f64::from(review.rating))
                .collect();
            ratings.iter().sum::<f64>() / ratings.len() as f64
        });
        assert!(means.windows(2).all(|pair| pair[1] > pair[0] + 0.4), "{means:?}");
    }

    #[test]
    fn aspects_that_nobody_cares_for_do_not_repeat_more_often_than_by_chance() {
        let world = world();
        let mut pairs = [(0.0, 0.0); 8];
        for own in world.reviews.chunk_by(|a, b| a.person == b.person) {
            for pair in own.windows(2) {
                let [one, other] = [&world.films[pair[0].film], &world.films[pair[1].film]];
                for aspect in Aspect::ALL {
                    let (same, all) = &mut pairs[aspect as usize];
                    *same += f64::from(u8::from(one.value(aspect) == other.value(aspect)));
                    *all += 1.0;
                }
            }
        }
        for aspect in Aspect::ALL {
            let (same, all) = pairs[aspect as usize];
            let share = same / all;
            if world.decisive.contains(&aspect) {
                assert!(share > 0.2, "{aspect:?}: {share}");
            } else {
                // Popular films recur, so that it is a little above 1/12 in some worlds.
                assert!(share < 0.13, "{aspect:?}: {share}");
            }
        }
    }

    #[test]
    fn popularity_has_a_long_tail() {
        let world = world();
        let mut counts = vec![0; world.films.len()];
        world.reviews.iter().for_each(|review| counts[review.film] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let all: usize = counts.iter().sum();
        let top: usize = counts[..counts.len() / 10].iter().sum();
        assert!(top * 5 > all, "{top} of {all} reviews are of the top tenth");
        assert!(
            counts[counts.len() / 2] >= 5,
            "the median film has {}",
            counts[counts.len() / 2]
        );
    }

    #[test]
    fn everyone_reviews_enough_films_once_each_in_the_order_of_time() {
        let world = world();
        let mut people = 0;
        for own in world.reviews.chunk_by(|a, b| a.person == b.person) {
            people += 1;
            assert!((FEWEST_REVIEWS..=MOST_REVIEWS).contains(&own.len()));
            assert!(own.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp));
            let mut films: Vec<usize> = own.iter().map(|review| review.film).collect();
            films.sort_unstable();
            films.dedup();
            assert_eq!(films.len(), own.len());
        }
        assert_eq!(people, world.people.len());
    }
}
