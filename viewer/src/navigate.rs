//! Where the viewer is: the route in the page's fragment, as a signal.

use leptos::ev;
use leptos::prelude::*;
use wasm_bindgen::JsValue;

use crate::address::{Page, Route};
use crate::state::{Memo, RwSignal};

/// The parameter that goes along from page to page.
const GOES_ALONG: &str = "checkpoint";

/// What the table of users is set to: it goes along to a user's page, and back.
const OF_USERS: [&str; 4] = ["filter", "sort", "against", "columns"];

/// Reads and changes the route; every component gets it with `expect_context`.
#[derive(Clone, Copy, Debug)]
pub struct Navigator {
    route: RwSignal<Route>,
}

impl Navigator {
    /// Reads the page's address, and follows it from now on.
    pub fn new() -> Self {
        let route = RwSignal::new(Route::parse(&location_hash().unwrap_or_default()));
        let follow = move |_| route.set(Route::parse(&location_hash().unwrap_or_default()));
        let listener = window_event_listener(ev::hashchange, follow);
        on_cleanup(move || listener.remove());
        Self { route }
    }

    /// The route, tracked.
    pub fn route(self) -> Route {
        self.route.get()
    }

    /// A parameter of the route.
    pub fn parameter(self, name: &'static str) -> Memo<Option<String>> {
        Memo::new(move |_| self.route.with(|route| route.parameters.get(name).map(str::to_owned)))
    }

    /// Another page of the same run; tracked.
    pub fn to(self, page: Page) -> Route {
        self.route.with(|route| kept_along(route, page))
    }

    /// The address of another page of the same run, for a link; tracked.
    pub fn link(self, page: Page) -> String {
        self.to(page).to_string()
    }

    /// Goes to a route; the browser's way back leads here.
    pub fn go(self, route: &Route) {
        // The fragment's event brings the signal after it. An address that is too long is the only thing refused.
        _ = location().set_hash(&route.to_string());
    }

    /// Sets or removes a parameter where the page is, without a step in the browser's history.
    pub fn set(self, name: &str, value: Option<&str>) {
        let route = self.route.get_untracked().with(name, value);
        if let Ok(history) = window().history() {
            // Browsers refuse too many changes in a short time: the page follows, and the address with the next change.
            _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&route.to_string()));
        }
        self.route.set(route);
    }
}

impl Default for Navigator {
    fn default() -> Self {
        Self::new()
    }
}

/// Another page of the same run, with the parameters that go along.
fn kept_along(route: &Route, page: Page) -> Route {
    let is_of_users = |page: &Page| matches!(page, Page::Users | Page::User(_));
    let of_users = is_of_users(&route.page) && is_of_users(&page);
    let names = OF_USERS.iter().filter(|_| of_users);
    let names = std::iter::once(&GOES_ALONG).chain(names);
    names.fold(Route::new(&route.run, page), |to, name| {
        to.with(name, route.parameters.get(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_and_sort_go_to_a_user_and_back_but_to_no_other_page() {
        let table = Route::parse("#/demo/users?checkpoint=end&filter=rank<9&sort=-rank");
        let user = kept_along(&table, Page::User(7));
        assert_eq!(
            user,
            Route {
                page: Page::User(7),
                ..table.clone()
            }
        );
        assert_eq!(kept_along(&user, Page::Users), table);
        assert_eq!(
            kept_along(&user, Page::Overview),
            Route::parse("#/demo/overview?checkpoint=end")
        );
    }
}
