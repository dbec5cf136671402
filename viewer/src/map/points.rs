//! What lies on the map, and what is known of it.

use eval_core::report::{Manifest, ResultChunk};

use super::cells::Cells;
use super::colours::{Palette, share_of, share_of_rank};
use super::draw::Shape;
use crate::address::Page;
use crate::items::known::Known;
use crate::order::{places, sorted};
use crate::table::best_rank;

/// A kind of point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An item.
    Item,
    /// A generated profile.
    Profile,
    /// A reference profile.
    Reference,
}

impl Kind {
    /// Every kind; those behind come first.
    pub const ALL: [Self; 3] = [Self::Item, Self::Reference, Self::Profile];

    /// The name in addresses, and what all of them are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Item => "items",
            Self::Profile => "profiles",
            Self::Reference => "references",
        }
    }

    /// How it is drawn.
    pub fn shape(self) -> Shape {
        match self {
            Self::Item => Shape::Disc,
            Self::Profile => Shape::Diamond,
            Self::Reference => Shape::Ring,
        }
    }

    /// What it is coloured with.
    pub fn palette(self) -> Palette {
        match self {
            Self::Item => Palette::Item,
            Self::Profile => Palette::Profile,
            Self::Reference => Palette::Reference,
        }
    }
}

/// A point of the map: its kind, and its number among them.
pub type Place = (Kind, usize);

/// Points and what they are coloured by.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// `[x, y]` of each.
    pub points: Vec<[f32; 2]>,
    cells: Cells,
    /// From 0 to 1 how deep the colour is; empty where nothing is known yet.
    pub shares: Vec<f32>,
    /// The numbers of the points in the order in which they are drawn; empty for their own.
    pub order: Vec<u32>,
}

/// Everything on the map.
#[derive(Clone, Debug, Default)]
pub struct Points {
    layers: [Layer; 3],
    profiles_per_user: usize,
    /// The rank of the best-ranked target with each profile; empty where nothing is known yet.
    ranks: Vec<Option<u32>>,
    /// The largest popularity and the largest rank.
    pub largest: [f64; 2],
}

impl Points {
    /// Nothing is there yet.
    pub fn new(profiles_per_user: usize) -> Self {
        Self {
            profiles_per_user: profiles_per_user.max(1),
            ..Self::default()
        }
    }

    /// The points of a kind.
    pub fn layer(&self, kind: Kind) -> &Layer {
        &self.layers[kind as usize]
    }

    /// Takes where the points of a kind lie.
    pub fn take(&mut self, kind: Kind, points: Vec<[f32; 2]>) {
        let layer = &mut self.layers[kind as usize];
        layer.cells = Cells::new(&points);
        layer.points = points;
    }

    /// Colours the items by what is known of their popularity; the popular lie on top.
    pub fn colour_items(&mut self, known: &Known) {
        let layer = &mut self.layers[Kind::Item as usize];
        let counts: Vec<u64> = (0..layer.points.len())
            .map(|item| known.interactions(item as u32).unwrap_or(0))
            .collect();
        let largest = counts.iter().copied().max().unwrap_or(0);
        self.largest[0] = largest as f64;
        layer.shares = counts
            .iter()
            .map(|&count| share_of(count as f64, largest as f64))
            .collect();
        layer.order = by_share(&layer.shares);
    }

    /// Takes the ranks of a file of results.
    pub fn take_results(&mut self, chunk: &ResultChunk) {
        let profiles = self.layer(Kind::Profile).points.len();
        self.ranks.resize(profiles.max(self.ranks.len()), None);
        for (user, result) in (chunk.first..).zip(&chunk.results) {
            for (number, found) in result.generated.iter().enumerate() {
                let place = user * self.profiles_per_user + number;
                if place >= self.ranks.len() {
                    self.ranks.resize(place + 1, None);
                }
                self.ranks[place] = best_rank(found);
            }
        }
    }

    /// Colours the profiles by the ranks that are known; the best lie on top.
    pub fn colour_profiles(&mut self) {
        let largest = self.ranks.iter().flatten().copied().max().unwrap_or(1);
        self.largest[1] = f64::from(largest);
        let share = |rank: &Option<u32>| rank.map_or(0.0, |rank| share_of_rank(f64::from(rank), f64::from(largest)));
        let layer = &mut self.layers[Kind::Profile as usize];
        layer.shares = self.ranks.iter().map(share).collect();
        layer.shares.resize(layer.points.len(), 0.0);
        layer.order = by_share(&layer.shares);
    }

    /// The point with that place.
    pub fn get(&self, (kind, number): Place) -> Option<[f64; 2]> {
        let point = self.layer(kind).points.get(number)?;
        Some(point.map(f64::from))
    }

    /// The places of a user's profiles.
    pub fn of_user(&self, user: usize) -> Vec<Place> {
        let first = user * self.profiles_per_user;
        let profiles = (first..first + self.profiles_per_user).map(|number| (Kind::Profile, number));
        profiles
            .chain([(Kind::Reference, user)])
            .filter(|&place| self.get(place).is_some())
            .collect()
    }

    /// All points of these kinds that are wanted, those that lie on top last.
    pub fn all(&self, kinds: &[Kind], is_wanted: &dyn Fn([f64; 2]) -> bool) -> Vec<Place> {
        let kinds = Kind::ALL.into_iter().filter(|kind| kinds.contains(kind));
        let of = |kind: Kind| {
            let points = self.layer(kind).points.iter().enumerate();
            let wanted = points.filter(|(_, point)| is_wanted(point.map(f64::from)));
            wanted.map(move |(number, _)| (kind, number))
        };
        kinds.flat_map(of).collect()
    }

    /// The points nearest to one, the nearest first, none farther than `farthest`.
    pub fn nearest(&self, kinds: &[Kind], to: [f64; 2], farthest: f64, count: usize) -> Vec<Place> {
        let mut found: Vec<(f64, Place)> = Vec::new();
        let mut limit = farthest * farthest;
        for kind in Kind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
            let layer = self.layer(kind);
            layer.cells.around(to, limit.sqrt(), &mut |number| {
                let point = layer.points[number as usize];
                let distance: f64 = (0..2).map(|axis| (f64::from(point[axis]) - to[axis]).powi(2)).sum();
                if distance <= limit {
                    found.push((distance, (kind, number as usize)));
                    if found.len() >= 2 * count.max(8) {
                        keep_nearest(&mut found, count);
                        limit = found.last().map_or(limit, |(distance, _)| *distance);
                    }
                }
                limit.sqrt()
            });
        }
        keep_nearest(&mut found, count);
        found.into_iter().map(|(_, place)| place).collect()
    }

    /// What a point is, in words.
    pub fn name(&self, (kind, number): Place, known: &Known) -> String {
        match kind {
            Kind::Item => {
                let popularity = known.interactions(number as u32);
                let popularity = popularity.map_or_else(String::new, |count| format!(", {count} interactions"));
                format!("{}{popularity}", known.name(number as u32))
            }
            Kind::Reference => format!("User {number}, reference profile"),
            Kind::Profile => {
                let (user, profile) = (number / self.profiles_per_user, number % self.profiles_per_user + 1);
                let rank = self
                    .rank(number)
                    .map_or_else(String::new, |rank| format!(", rank {rank}"));
                format!("User {user}, profile {profile}{rank}")
            }
        }
    }

    /// The rank of the best-ranked target with a profile.
    pub fn rank(&self, profile: usize) -> Option<u32> {
        self.ranks.get(profile).copied().flatten()
    }

    /// The page of a point, and the profile that is shown there.
    pub fn page(&self, (kind, number): Place) -> (Page, Option<String>) {
        match kind {
            Kind::Item => (Page::Item(number), None),
            Kind::Reference => (Page::User(number), Some("reference".to_owned())),
            Kind::Profile => {
                let profile = number % self.profiles_per_user + 1;
                (Page::User(number / self.profiles_per_user), Some(profile.to_string()))
            }
        }
    }
}

fn keep_nearest(found: &mut Vec<(f64, Place)>, count: usize) {
    // Of equal distances the one on top comes first.
    *found = sorted(found, |a, b| {
        a.0.total_cmp(&b.0).then(b.1.0.cmp(&a.1.0)).then(a.1.1.cmp(&b.1.1))
    });
    found.truncate(count);
}

fn by_share(shares: &[f32]) -> Vec<u32> {
    places(shares.len(), &|a, b| shares[a].total_cmp(&shares[b]))
}

/// The checkpoints that have a map: numbers in the manifest.
pub fn with_map(manifest: &Manifest) -> Vec<usize> {
    let checkpoints = manifest.checkpoints.iter().enumerate();
    checkpoints
        .filter(|(_, checkpoint)| checkpoint.map.is_some())
        .map(|(number, _)| number)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eval_core::report::{Catalogue, Chunks, Found, UserResult};
    use eval_core::scores::RankedTarget;

    use super::*;

    /// Three items, two users with two profiles each and a reference profile.
    fn points() -> (Points, Known) {
        let mut points = Points::new(2);
        points.take(Kind::Item, vec![[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]);
        points.take(Kind::Profile, vec![[0.0, 0.0], [5.0, 5.0], [2.0, 0.0], [9.0, 9.0]]);
        points.take(Kind::Reference, vec![[0.5, 0.0], [7.0, 0.0]]);
        let mut known = Known::new(&Manifest {
            items: Chunks::in_files("items", 3, 3),
            ..Manifest::default()
        });
        known.take_catalogue(Arc::new(Catalogue {
            titles: ["a", "b", "c"].map(str::to_owned).into(),
            train_interactions: vec![9, 0, 3],
        }));
        let found = |rank: u32| Found {
            targets: vec![RankedTarget::from_counts(1, rank - 1, 0, 0)],
            ..Found::default()
        };
        let result = UserResult {
            generated: vec![found(1), found(40)],
            reference: None,
        };
        points.take_results(&ResultChunk {
            first: 1,
            results: vec![result],
        });
        points.colour_profiles();
        points.colour_items(&known);
        (points, known)
    }

    #[test]
    fn colours_follow_popularity_and_rank_and_the_deepest_lie_on_top() {
        let (points, _) = points();
        let items = points.layer(Kind::Item);
        assert_eq!((items.shares[0], items.shares[1]), (1.0, 0.0));
        assert_eq!(items.order, [1, 2, 0]);
        let profiles = points.layer(Kind::Profile);
        assert_eq!(
            profiles.shares,
            [0.0, 0.0, 1.0, 0.0],
            "rank 1 is the deepest, an unknown one the palest"
        );
        assert_eq!(points.largest, [9.0, 40.0]);
    }

    #[test]
    fn the_nearest_of_the_shown_kinds_come_first_and_on_top_of_equal_ones() {
        let (points, _) = points();
        let near = |kinds: &[Kind], farthest, count| points.nearest(kinds, [0.1, 0.0], farthest, count);
        assert_eq!(
            near(&Kind::ALL, 0.2, 1),
            [(Kind::Profile, 0)],
            "a profile lies on top of the item"
        );
        let expected = [(Kind::Item, 0), (Kind::Item, 1), (Kind::Item, 2)];
        assert_eq!(near(&[Kind::Item], f64::INFINITY, 7), expected);
        assert_eq!(near(&[Kind::Reference], 0.1, 7), []);
        assert_eq!(near(&[], f64::INFINITY, 7), []);
    }

    #[test]
    fn the_nearest_of_many_are_those_of_a_sort() {
        let mut points = Points::new(1);
        let many: Vec<[f32; 2]> = (0..5000)
            .map(|i| [(i * 37 % 101) as f32, (i * 53 % 97) as f32])
            .collect();
        points.take(Kind::Item, many.clone());
        let distance = |item: usize| f64::from(many[item][0] - 50.5).powi(2) + f64::from(many[item][1] - 40.25).powi(2);
        let mut all: Vec<usize> = (0..5000).collect();
        all.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
        let found = points.nearest(&Kind::ALL, [50.5, 40.25], f64::INFINITY, 20);
        assert_eq!(found.into_iter().map(|(_, item)| item).collect::<Vec<_>>(), all[..20]);
    }

    #[test]
    fn points_have_names_and_pages() {
        let (points, known) = points();
        assert_eq!(points.name((Kind::Item, 2), &known), "c, 3 interactions");
        assert_eq!(points.name((Kind::Profile, 3), &known), "User 1, profile 2, rank 40");
        assert_eq!(points.name((Kind::Profile, 0), &known), "User 0, profile 1");
        assert_eq!(points.page((Kind::Profile, 3)), (Page::User(1), Some("2".to_owned())));
        assert_eq!(points.page((Kind::Item, 2)), (Page::Item(2), None));
        assert_eq!(
            points.of_user(1),
            [(Kind::Profile, 2), (Kind::Profile, 3), (Kind::Reference, 1)]
        );
        assert_eq!(points.of_user(2), []);
        let right = points.all(&[Kind::Item, Kind::Reference], &|point| point[0] > 0.6);
        assert_eq!(right, [(Kind::Item, 1), (Kind::Reference, 1)]);
    }
}
