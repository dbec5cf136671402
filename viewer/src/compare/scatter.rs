//! Ranks at one checkpoint against ranks at another, a dot a user; both axes are logarithmic.

use std::fmt::Write;

use super::pairs::Paired;
use crate::chart::{BOTTOM, Drawing, LEFT, Mark, RIGHT, Reading, Scale, Size, TOP};
use crate::order::sorted;

/// The dots, ready to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    /// What is under the horizontal axis and beside the vertical one: the checkpoints' names.
    pub names: [String; 2],
    /// The users, by ascending rank at the first checkpoint.
    users: Vec<Paired>,
    /// The largest rank, at least 2.
    largest: f64,
}

impl Scatter {
    /// A dot for each of `users`.
    pub fn new(names: [String; 2], users: &[Paired]) -> Self {
        let users = sorted(users, |a, b| a.before.total_cmp(&b.before).then(a.user.cmp(&b.user)));
        let ranks = users.iter().flat_map(|user| [user.before, user.after]);
        Self {
            names,
            largest: ranks.fold(2.0, f64::max),
            users,
        }
    }

    /// The user at a place.
    pub fn user(&self, place: usize) -> Option<&Paired> {
        self.users.get(place)
    }

    /// From the logarithm of a rank to its place, along both axes.
    fn scales(&self, size: Size) -> [Scale; 2] {
        let range = [0.0, self.largest.log2()];
        [
            Scale::new(range, [LEFT, size.width - RIGHT]),
            Scale::new(range, [size.height - BOTTOM, TOP]),
        ]
    }

    fn place_of(user: &Paired, [x, y]: [Scale; 2]) -> [f64; 2] {
        [x.place(user.before.log2()), y.place(user.after.log2())]
    }

    /// 1, 2, 5, 10, 20, … up to the largest rank.
    fn ticks(&self) -> Vec<f64> {
        let powers = (0..9).map(|power| 10f64.powi(power));
        let ticks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|factor| factor * power));
        ticks.take_while(|&tick| tick <= self.largest).collect()
    }
}

impl Drawing for Scatter {
    fn places(&self) -> usize {
        self.users.len()
    }

    fn nearest(&self, [x, y]: [f64; 2], size: Size) -> usize {
        let scales = self.scales(size);
        let away = |user: &Paired| {
            let [user_x, user_y] = Self::place_of(user, scales);
            (user_x - x).powi(2) + (user_y - y).powi(2)
        };
        let mut nearest = (0, f64::INFINITY);
        for (place, user) in self.users.iter().enumerate() {
            let away = away(user);
            if away < nearest.1 {
                nearest = (place, away);
            }
        }
        nearest.0
    }

    fn marks(&self, size: Size) -> Vec<Mark> {
        let [x, y] = self.scales(size);
        let (right, bottom) = (size.width - RIGHT, size.height - BOTTOM);
        let mut marks = Vec::new();
        for tick in self.ticks() {
            let place = tick.log2();
            marks.push(Mark::line([LEFT, y.place(place)], [right, y.place(place)], "grid"));
            marks.push(Mark::text(
                [LEFT - 6.0, y.place(place) + 4.0],
                tick.to_string(),
                "label end",
            ));
            marks.push(Mark::line([x.place(place), TOP], [x.place(place), bottom], "grid"));
            marks.push(Mark::text(
                [x.place(place), bottom + 15.0],
                tick.to_string(),
                "label middle",
            ));
        }
        marks.push(Mark::line([LEFT, bottom], [right, TOP], "diagonal"));
        let middle = (LEFT + right) / 2.0;
        marks.push(Mark::text(
            [middle, size.height - 4.0],
            format!("rank at {}", self.names[0]),
            "label middle axis-name",
        ));
        marks.push(Mark::text(
            [LEFT + 6.0, TOP + 12.0],
            format!("rank at {}", self.names[1]),
            "label axis-name",
        ));
        // One path for all dots of a colour: tens of thousands of elements would be slow.
        for (class, is_meant) in [
            ("dots better", (|gain| gain > 0.0) as fn(f64) -> bool),
            ("dots", |gain| gain == 0.0),
            ("dots worse", |gain| gain < 0.0),
        ] {
            let mut d = String::new();
            for user in self.users.iter().filter(|user| is_meant(user.gain())) {
                let [x, y] = Self::place_of(user, [x, y]);
                // Writing to a string cannot fail.
                _ = write!(d, "M{x:.1} {y:.1}h0.01");
            }
            marks.push(Mark::Path {
                d,
                class: class.to_owned(),
            });
        }
        marks
    }

    fn pointer(&self, size: Size, place: usize) -> Vec<Mark> {
        let user = self.users.get(place);
        let scales = self.scales(size);
        user.map(|user| Mark::dot(Self::place_of(user, scales), "dot large"))
            .into_iter()
            .collect()
    }

    fn name_of(&self, place: usize) -> String {
        self.users
            .get(place)
            .map_or_else(String::new, |user| format!("user {}", user.user))
    }

    fn readings(&self, place: usize) -> Vec<Reading> {
        let Some(user) = self.users.get(place) else {
            return Vec::new();
        };
        let reading = |name: &String, rank: f64| Reading {
            series: 0,
            class: "unseen",
            name: format!("rank at {name}"),
            value: rank.to_string(),
        };
        vec![
            reading(&self.names[0], user.before),
            reading(&self.names[1], user.after),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 462.0,
        height: 444.0,
    };

    fn scatter() -> Scatter {
        let user = |user, before, after| Paired {
            user,
            other: user,
            before,
            after,
        };
        Scatter::new(
            ["a".into(), "b".into()],
            &[user(0, 16.0, 1.0), user(1, 1.0, 1.0), user(2, 4.0, 16.0)],
        )
    }

    #[test]
    fn the_nearest_dot_is_found_in_both_directions() {
        let scatter = scatter();
        let user = |at| scatter.user(scatter.nearest(at, SIZE)).map(|user| user.user);
        // Four doublings of the rank share 400 pixels, from (50, 410) to (450, 10).
        assert_eq!(user([55.0, 400.0]), Some(1));
        assert_eq!(user([440.0, 300.0]), Some(0));
        assert_eq!(user([255.0, 20.0]), Some(2));
    }

    #[test]
    fn better_equal_and_worse_ranks_are_apart() {
        let marks = scatter().marks(SIZE);
        let dots = |wanted: &str| {
            marks.iter().find_map(|mark| match mark {
                Mark::Path { d, class } if class == wanted => Some(d.clone()),
                _ => None,
            })
        };
        assert_eq!(dots("dots better").as_deref(), Some("M450.0 410.0h0.01"));
        assert_eq!(dots("dots").as_deref(), Some("M50.0 410.0h0.01"));
        assert_eq!(dots("dots worse").as_deref(), Some("M250.0 10.0h0.01"));
    }

    #[test]
    fn readings_are_the_ranks() {
        let scatter = scatter();
        assert_eq!(scatter.name_of(1), "user 2");
        let values: Vec<_> = scatter.readings(1).into_iter().map(|reading| reading.value).collect();
        assert_eq!(values, ["4", "16"]);
        assert!(scatter.readings(9).is_empty());
    }
}
