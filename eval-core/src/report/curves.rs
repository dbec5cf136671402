//! What a run logged while it trained, as the report keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::{expect, inconsistent};
use crate::Error;

/// `curves.json`: values by update, such as rewards and losses; those of evaluations are with the checkpoints.
///
/// ```
/// use eval_core::report::Curves;
///
/// let logged = [("loss", 1, 0.5), ("kl", 1, 0.0), ("loss", 2, 0.25), ("kl", 2, f64::NAN)];
/// let curves = Curves::of(logged);
/// assert_eq!(curves.get("loss").map(|curve| &curve.values[..]), Some(&[0.5, 0.25][..]));
/// assert_eq!(curves.get("kl").map(|curve| &curve.steps[..]), Some(&[1][..])); // no point where there is no number
/// curves.check()?;
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// The curves, by ascending name.
    pub curves: Vec<Curve>,
}

/// One value over the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The value's name in the run's logs, such as `objective/rewards`.
    pub name: String,
    /// Global updates, ascending; they count on through all phases.
    pub steps: Vec<u64>,
    /// The value at each of `steps`.
    pub values: Vec<f64>,
}

impl Curves {
    /// Sorts values, each with its name and update. Of values with the same name and update the last counts; one that is not
    /// finite gives no point.
    pub fn of<'a>(logged: impl IntoIterator<Item = (&'a str, u64, f64)>) -> Self {
        let mut curves: BTreeMap<&str, BTreeMap<u64, f64>> = BTreeMap::new();
        for (name, step, value) in logged {
            let points = curves.entry(name).or_default();
            match value.is_finite() {
                true => points.insert(step, value),
                false => points.remove(&step),
            };
        }
        let curve = |(name, points): (&str, BTreeMap<u64, f64>)| Curve {
            name: name.to_owned(),
            steps: points.keys().copied().collect(),
            values: points.values().copied().collect(),
        };
        Self {
            curves: curves.into_iter().map(curve).collect(),
        }
    }

    /// The curve of that name.
    pub fn get(&self, name: &str) -> Option<&Curve> {
        let place = self.curves.binary_search_by(|curve| curve.name.as_str().cmp(name));
        place.ok().and_then(|place| self.curves.get(place))
    }

    /// Whether names and updates ascend, and every update has its value.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`](crate::ErrorKind::Inconsistent) with the curve.
    pub fn check(&self) -> Result<(), Error> {
        for (place, curve) in self.curves.iter().enumerate() {
            let field = |name: &str| format!("curves[{place}].{name}");
            let before = place.checked_sub(1).and_then(|before| self.curves.get(before));
            if let Some(before) = before.filter(|before| before.name >= curve.name) {
                let (expected, found) = (format!("a name after {:?}", before.name), format!("{:?}", curve.name));
                return inconsistent(field("name"), &expected, &found);
            }
            expect(field("number of values"), &curve.steps.len(), &curve.values.len())?;
            if let Some(pair) = curve.steps.windows(2).find(|pair| pair[0] >= pair[1]) {
                return inconsistent(field("steps"), &format_args!("an update after {}", pair[0]), &pair[1]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{read_chunk, write_json};
    use super::*;

    fn curves() -> Curves {
        Curves::of([("b", 2, 0.5), ("a/x", 7, -1.0), ("b", 1, 3.0)])
    }

    #[test]
    fn curves_are_sorted_by_name_and_update() {
        let mut file = Vec::new();
        write_json(&mut file, &curves()).unwrap();
        assert_eq!(
            String::from_utf8(file.clone()).unwrap(),
            r#"{"curves":[{"name":"a/x","steps":[7],"values":[-1.0]},{"name":"b","steps":[1,2],"values":[3.0,0.5]}]}"#
        );
        let read: Curves = read_chunk(&file[..]).unwrap();
        read.check().unwrap();
        assert_eq!(read, curves());
        assert_eq!(read.get("c"), None);
    }

    #[test]
    fn the_last_value_of_an_update_counts() {
        let curves = Curves::of([("a", 1, 1.0), ("a", 1, 2.0), ("b", 1, 1.0), ("b", 1, f64::INFINITY)]);
        assert_eq!(curves.get("a").unwrap().values, [2.0]);
        assert!(curves.get("b").unwrap().steps.is_empty());
    }

    #[test]
    fn contradictions_name_their_curve() {
        let message = |break_it: fn(&mut Curves)| {
            let mut broken = curves();
            break_it(&mut broken);
            broken.check().unwrap_err().to_string()
        };
        assert_eq!(
            message(|curves| curves.curves.reverse()),
            "curves[1].name: expected a name after \"b\", found \"a/x\""
        );
        assert_eq!(
            message(|curves| curves.curves[1].values.truncate(1)),
            "curves[1].number of values: expected 2, found 1"
        );
        assert_eq!(
            message(|curves| curves.curves[1].steps[1] = 1),
            "curves[1].steps: expected an update after 1, found 1"
        );
    }
}
