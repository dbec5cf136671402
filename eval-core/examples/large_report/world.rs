//! Items in groups, and people who like one of them.

use eval_core::report::{Interaction, Item, User};

use crate::words::text;

/// Dimensions in which vectors differ.
pub const LIVE: usize = 32;
/// Items of a history.
pub const HISTORY: usize = 12;
/// Groups of items.
const GROUPS: usize = 200;

/// The part of a vector that is not zero.
pub type Vector = [f32; LIVE];

/// How much of everything there is.
pub struct World {
    pub users: usize,
    pub items: usize,
    pub checkpoints: usize,
    pub dims: usize,
}

impl World {
    pub fn item(&self, item: usize) -> Item {
        let title = self.title(item);
        Item {
            id: format!("B{item:09}"),
            text: format!("Title: {title}\nDescription: {}", text([1, item as u64], 60)),
            title,
            train_interactions: self.popularity(item),
        }
    }

    pub fn title(&self, item: usize) -> String {
        format!("{} {item}", text([0, item as u64], 3))
    }

    /// Falls as one over a place that has nothing to do with the item's number.
    pub fn popularity(&self, item: usize) -> u64 {
        (20.0 / unit([2, item as u64, 0]).max(1e-4)) as u64
    }

    pub fn user(&self, user: usize) -> User {
        let interaction = |(place, item): (usize, u32)| Interaction {
            item,
            rating: Some((1 + below([3, user as u64, place as u64], 5)) as f64),
            review: Some(text([4, (user * HISTORY + place) as u64], 40)),
        };
        let history: Vec<_> = self.history(user).into_iter().enumerate().map(interaction).collect();
        let read = history.iter().map(|read| {
            let review = read.review.as_deref().unwrap_or_default();
            format!("{}: {review}\n", self.title(read.item as usize))
        });
        User {
            id: format!("person-{user}"),
            targets: vec![self.target(user)],
            prompt: Some(format!(
                "Describe what this person likes.\n{}",
                read.collect::<String>()
            )),
            reference_profile: Some(self.item(self.last_item(user)).text),
            history,
        }
    }

    /// Different items, half of them from the user's group.
    pub fn history(&self, user: usize) -> Vec<u32> {
        let mut items = Vec::with_capacity(HISTORY);
        let mut draw = 0;
        while items.len() < HISTORY {
            let item = match draw % 2 {
                0 => self.in_group(self.taste(user), [6, user as u64, draw]),
                _ => below([7, user as u64, draw], self.items) as u32,
            };
            if item != self.target(user) && !items.contains(&item) {
                items.push(item);
            }
            draw += 1;
        }
        items
    }

    pub fn last_item(&self, user: usize) -> usize {
        self.history(user).last().map_or(0, |&item| item as usize)
    }

    pub fn target(&self, user: usize) -> u32 {
        self.in_group(self.taste(user), [8, user as u64, 0])
    }

    /// What is written after training on `number` checkpoints.
    pub fn profile(&self, user: usize, number: usize) -> String {
        text([9 + number as u64 / 3, user as u64], 90)
    }

    /// Near the group's centre.
    pub fn item_vector(&self, item: usize) -> Vector {
        let group = centre(item % self.groups());
        std::array::from_fn(|dim| group[dim] + 0.8 * spread([50, item as u64, dim as u64]))
    }

    /// Between noise and the target, nearer to it from checkpoint to checkpoint.
    pub fn profile_vector(&self, user: usize, number: usize) -> Vector {
        let target = self.item_vector(self.target(user) as usize);
        let group = centre(self.taste(user));
        let learnt = (number + 1) as f32 / self.checkpoints as f32;
        let noise = |dim: usize| (1.6 - 0.7 * learnt) * spread([60 + number as u64, user as u64, dim as u64]);
        std::array::from_fn(|dim| group[dim] + 0.3 * learnt * target[dim] + noise(dim))
    }

    fn groups(&self) -> usize {
        GROUPS.min(self.items / HISTORY).max(1)
    }

    fn taste(&self, user: usize) -> usize {
        below([10_000, user as u64, 0], self.groups())
    }

    fn in_group(&self, group: usize, key: [u64; 3]) -> u32 {
        let members = (self.items - group).div_ceil(self.groups());
        (group + below(key, members) * self.groups()) as u32
    }
}

fn centre(group: usize) -> Vector {
    std::array::from_fn(|dim| spread([40, group as u64, dim as u64]))
}

/// In −0.5..0.5.
fn spread(key: [u64; 3]) -> f32 {
    unit(key) as f32 - 0.5
}

fn below(key: [u64; 3], bound: usize) -> usize {
    (unit(key) * bound as f64) as usize
}

/// In 0..1: a draw for each key.
pub fn unit(key: [u64; 3]) -> f64 {
    let bits = key.iter().fold(0, |state: u64, &part| {
        mix(state.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15))
    });
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The output function of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
