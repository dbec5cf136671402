//! The rankings in which an item stands: as a target, or among the best items.

use eval_core::report::{Found, ResultChunk};

use crate::chart::{BarChart, Bars};
use crate::export::{Cell, Sheet};
use crate::order::sorted;
use crate::overview::GENERATED;
use crate::user::Profile;

/// An item's place in a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mention {
    /// The user.
    pub user: usize,
    /// The profile that ranks.
    pub profile: Profile,
    /// The item's rank, counted from 1.
    pub rank: u32,
    /// Whether the user is to find it.
    pub is_target: bool,
    /// Whether it stands among the best items that the report keeps.
    pub is_listed: bool,
}

/// All rankings of a checkpoint that have an item, as far as the results are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    item: u32,
    all: Vec<Mention>,
    /// The longest list of best items so far.
    longest: usize,
}

impl Mentions {
    /// Nothing is read yet.
    pub fn new(item: u32) -> Self {
        Self {
            item,
            ..Self::default()
        }
    }

    /// Adds a file of results.
    pub fn add(&mut self, chunk: &ResultChunk) {
        for (user, result) in (chunk.first..).zip(&chunk.results) {
            let generated = result.generated.iter().enumerate();
            let generated = generated.map(|(number, found)| (Profile::Generated(number), found));
            let reference = result.reference.iter().map(|found| (Profile::Reference, found));
            for (profile, found) in generated.chain(reference) {
                self.longest = self.longest.max(found.top_items.len());
                self.all.extend(mention(self.item, user, profile, found));
            }
        }
    }

    /// The rankings of which the item is a target, the best first.
    pub fn as_target(&self) -> Vec<Mention> {
        by_rank(self.all.iter().filter(|mention| mention.is_target))
    }

    /// The rankings that have the item among the best, the best first.
    pub fn as_listed(&self) -> Vec<Mention> {
        by_rank(self.all.iter().filter(|mention| mention.is_listed))
    }

    /// At which ranks generated profiles recommend the item, as shares of all their lists that have it.
    pub fn chart(&self) -> BarChart {
        let mut counts = vec![0u32; self.longest];
        let generated = |mention: &&Mention| mention.is_listed && matches!(mention.profile, Profile::Generated(_));
        for mention in self.all.iter().filter(generated) {
            if let Some(count) = counts.get_mut(mention.rank as usize - 1) {
                *count += 1;
            }
        }
        let total: u32 = counts.iter().sum();
        let height = |&count: &u32| {
            (
                f64::from(count) / f64::from(total.max(1)),
                format!("{count} of {total} lists"),
            )
        };
        BarChart {
            x_name: "rank".to_owned(),
            groups: (1..=self.longest).map(|rank| rank.to_string()).collect(),
            series: vec![Bars {
                name: "generated profiles".to_owned(),
                series: GENERATED,
                heights: counts.iter().map(height).collect(),
            }],
        }
    }

    /// All of them, to be written to a file.
    pub fn sheet(&self) -> Sheet {
        let yes = |is_so: bool| Cell::Number(f64::from(u8::from(is_so)));
        let row = |mention: Mention| {
            vec![
                Cell::Number(mention.user as f64),
                Cell::Text(mention.profile.to_string()),
                Cell::Number(f64::from(mention.rank)),
                yes(mention.is_target),
                yes(mention.is_listed),
            ]
        };
        let names = ["user", "profile", "rank", "is_target", "is_recommended"];
        Sheet {
            columns: names.map(str::to_owned).into(),
            rows: by_rank(self.all.iter()).into_iter().map(row).collect(),
        }
    }
}

fn mention(item: u32, user: usize, profile: Profile, found: &Found) -> Option<Mention> {
    let target = found.targets.iter().find(|target| target.item == item);
    let place = found.top_items.iter().position(|&listed| listed == item);
    let rank = place
        .map(|place| place as u32 + 1)
        .or(target.map(|target| target.rank))?;
    Some(Mention {
        user,
        profile,
        rank,
        is_target: target.is_some(),
        is_listed: place.is_some(),
    })
}

fn by_rank<'a>(mentions: impl Iterator<Item = &'a Mention>) -> Vec<Mention> {
    let mentions: Vec<Mention> = mentions.copied().collect();
    sorted(&mentions, |a, b| (a.rank, a.user).cmp(&(b.rank, b.user)))
}

#[cfg(test)]
mod tests {
    use eval_core::report::UserResult;
    use eval_core::scores::RankedTarget;

    use super::*;
    use crate::export::Format;

    fn found(top_items: &[u32], target: (u32, u32)) -> Found {
        Found {
            targets: vec![RankedTarget::from_counts(target.0, target.1 - 1, 0, 0)],
            top_items: top_items.to_vec(),
            top_scores: vec![0.5; top_items.len()],
            profile: None,
        }
    }

    fn mentions() -> Mentions {
        let mut mentions = Mentions::new(7);
        let results = vec![
            UserResult {
                generated: vec![found(&[1, 7], (3, 9)), found(&[7, 1], (3, 9))],
                reference: Some(found(&[7, 2], (3, 4))),
            },
            UserResult {
                generated: vec![found(&[2, 1], (7, 5)), found(&[2, 7], (7, 2))],
                reference: None,
            },
        ];
        mentions.add(&ResultChunk { first: 4, results });
        mentions
    }

    #[test]
    fn rankings_are_listed_by_rank_as_targets_and_as_recommendations() {
        let short = |mentions: Vec<Mention>| -> Vec<(usize, String, u32)> {
            let short = |mention: Mention| (mention.user, mention.profile.to_string(), mention.rank);
            mentions.into_iter().map(short).collect()
        };
        let named = |user, profile: &str, rank| (user, profile.to_owned(), rank);
        assert_eq!(short(mentions().as_target()), [named(5, "2", 2), named(5, "1", 5)]);
        let listed = [
            named(4, "2", 1),
            named(4, "reference", 1),
            named(4, "1", 2),
            named(5, "2", 2),
        ];
        assert_eq!(short(mentions().as_listed()), listed);
        let csv = mentions().sheet().written(Format::Csv);
        assert!(
            csv.starts_with("user,profile,rank,is_target,is_recommended\r\n4,2,1,0,1\r\n"),
            "{csv}"
        );
        assert!(csv.ends_with("5,1,5,1,0\r\n"), "{csv}");
    }

    #[test]
    fn ranks_are_counted_over_generated_profiles() {
        let chart = mentions().chart();
        assert_eq!(chart.groups, ["1", "2"]);
        let expected = [
            (1.0 / 3.0, "1 of 3 lists".to_owned()),
            (2.0 / 3.0, "2 of 3 lists".to_owned()),
        ];
        assert_eq!(chart.series[0].heights, expected);
    }
}
