//! The order in which the table of users last stood: a user's page goes on in it.

use crate::address::Route;
use crate::state::RwSignal;

/// What an order belongs to: run, filter and sort.
type Key = [String; 3];

fn key(route: &Route) -> Key {
    let parameter = |name| route.parameters.get(name).unwrap_or_default().to_owned();
    [
        route.run.clone(),
        parameter(super::shown::parameter::FILTER),
        parameter(super::shown::parameter::SORT),
    ]
}

/// The users of the table, in its order, for as long as the page is open.
#[derive(Clone, Copy, Debug)]
pub struct Sequence(RwSignal<Option<(Key, Vec<u32>)>>);

impl Sequence {
    /// No table was seen yet.
    pub fn new() -> Self {
        Self(RwSignal::new(None))
    }

    /// The table of a route shows these users.
    pub fn set(self, route: &Route, users: Vec<u32>) {
        self.0.set(Some((key(route), users)));
    }

    /// The users before and after one in the table that the route belongs to; tracked. Without that table, or where it does not
    /// have the user, they are those of the numbers beside.
    pub fn beside(self, route: &Route, user: usize, count: usize) -> [Option<usize>; 2] {
        let key = key(route);
        let in_table = self.0.with(|kept| {
            let (_, users) = kept.as_ref().filter(|(of, _)| *of == key)?;
            let place = users.iter().position(|&other| other as usize == user)?;
            let at = |place: usize| users.get(place).map(|&user| user as usize);
            Some([place.checked_sub(1).and_then(at), at(place + 1)])
        });
        in_table.unwrap_or_else(|| by_number(user, count))
    }
}

impl Default for Sequence {
    fn default() -> Self {
        Self::new()
    }
}

/// The numbers beside one of `count`.
pub fn by_number(number: usize, count: usize) -> [Option<usize>; 2] {
    [number.checked_sub(1), Some(number + 1).filter(|&next| next < count)]
}

#[cfg(test)]
mod tests {
    use leptos::prelude::Owner;

    use super::*;

    #[test]
    fn the_next_user_is_the_next_of_the_table_that_one_came_from() {
        let owner = Owner::new();
        owner.set();
        let sequence = Sequence::new();
        let beside = |address: &str, user| sequence.beside(&Route::parse(address), user, 10);
        let from_table = "#/demo/users/7?filter=rank<9&sort=-rank&profile=2";
        assert_eq!(beside(from_table, 7), [Some(6), Some(8)], "no table yet");
        sequence.set(&Route::parse("#/demo/users?sort=-rank&filter=rank<9"), vec![4, 7, 2]);
        assert_eq!(beside(from_table, 7), [Some(4), Some(2)]);
        assert_eq!(
            (beside(from_table, 4), beside(from_table, 2)),
            ([None, Some(7)], [Some(7), None])
        );
        assert_eq!(
            beside(from_table, 5),
            [Some(4), Some(6)],
            "the table does not have the user"
        );
        assert_eq!(
            beside("#/demo/users/7?sort=rank", 7),
            [Some(6), Some(8)],
            "another table"
        );
        assert_eq!(
            beside("#/other/users/9?filter=rank<9&sort=-rank", 9),
            [Some(8), None],
            "another run"
        );
    }
}
