//! The page's address: which report its query names, and in its fragment the run, the page and the page's state, so that
//! every view has a link of its own. `#/demo/users/17?checkpoint=end` is user 17 of the run `demo`.

use std::fmt::{self, Display, Write};

/// The folder that is opened when nothing names one: a report published beside the viewer.
pub const BESIDE_THE_VIEWER: &str = "report/";

/// A place in the viewer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The run's name in the list of runs; empty means the first run.
    pub run: String,
    /// The page.
    pub page: Page,
    /// What the page is set to.
    pub parameters: Parameters,
}

/// A page of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// What was run and how good it is.
    #[default]
    Overview,
    /// All users.
    Users,
    /// One user, by number.
    User(usize),
    /// All items.
    Items,
    /// One item, by number.
    Item(usize),
    /// Items and profiles in a plane.
    Map,
    /// Two checkpoints, user by user.
    Compare,
    /// A user's ranking, made anew.
    Check(usize),
    /// A page that this viewer does not have: its address behind the run.
    Unknown(String),
}

/// Names and values, in the order of the address; a name comes once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl Route {
    /// A page of a run, set to nothing.
    pub fn new(run: &str, page: Page) -> Self {
        Self {
            run: run.to_owned(),
            page,
            parameters: Parameters::default(),
        }
    }

    /// Reads a fragment, with or without its `#`. An empty one is the overview of the first run.
    pub fn parse(fragment: &str) -> Self {
        let fragment = fragment.trim_start_matches('#');
        let (path, query) = fragment.split_once('?').unwrap_or((fragment, ""));
        let path = path.strip_prefix('/').unwrap_or(path);
        let (run, page) = path.split_once('/').unwrap_or((path, ""));
        Self {
            run: decoded(run),
            page: Page::parse(page.trim_end_matches('/')),
            parameters: Parameters::parse(query),
        }
    }

    /// The same place with one parameter set, or without it.
    pub fn with(mut self, name: &str, value: Option<&str>) -> Self {
        self.parameters.set(name, value);
        self
    }
}

impl Display for Route {
    /// The fragment with its `#`, as a link has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#/{}/{}", encoded(&self.run), self.page)?;
        for (place, (name, value)) in self.parameters.0.iter().enumerate() {
            let sign = if place == 0 { '?' } else { '&' };
            write!(f, "{sign}{}={}", encoded(name), encoded(value))?;
        }
        Ok(())
    }
}

impl Page {
    fn parse(path: &str) -> Self {
        let number = |folder: &str| path.strip_prefix(folder).and_then(|number| number.parse().ok());
        match (path, number("users/"), number("items/")) {
            ("" | "overview", ..) => Self::Overview,
            ("users", ..) => Self::Users,
            ("items", ..) => Self::Items,
            ("map", ..) => Self::Map,
            (_, Some(user), _) => Self::User(user),
            (_, _, Some(item)) => Self::Item(item),
            _ if number("check/").is_some() => Self::Check(number("check/").unwrap_or_default()),
            ("compare", ..) => Self::Compare,
            _ => Self::Unknown(decoded(path)),
        }
    }

    /// What the page is called in a title.
    pub fn title(&self) -> String {
        match self {
            Self::Overview => "Overview".to_owned(),
            Self::Users => "Users".to_owned(),
            Self::User(user) => format!("User {user}"),
            Self::Items => "Items".to_owned(),
            Self::Item(item) => format!("Item {item}"),
            Self::Map => "Map".to_owned(),
            Self::Compare => "Compare".to_owned(),
            Self::Check(user) => format!("Live check of user {user}"),
            Self::Unknown(_) => "No such page".to_owned(),
        }
    }
}

impl Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overview => f.write_str("overview"),
            Self::Users => f.write_str("users"),
            Self::User(user) => write!(f, "users/{user}"),
            Self::Items => f.write_str("items"),
            Self::Item(item) => write!(f, "items/{item}"),
            Self::Map => f.write_str("map"),
            Self::Compare => f.write_str("compare"),
            Self::Check(user) => write!(f, "check/{user}"),
            // Slashes stay, so that the address reads back as it was.
            Self::Unknown(path) => {
                let parts: Vec<_> = path.split('/').map(encoded).collect();
                f.write_str(&parts.join("/"))
            }
        }
    }
}

impl Parameters {
    /// Reads `name=value&…`. A part without `=` has an empty value; of equal names the last counts.
    pub fn parse(query: &str) -> Self {
        let mut parameters = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            parameters.set(&decoded(name), Some(&decoded(value)));
        }
        parameters
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Sets `name` in its place, or behind the others when it is new; `None` removes it.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let place = self.0.iter().position(|(known, _)| known == name);
        match (place, value) {
            (Some(place), Some(value)) => value.clone_into(&mut self.0[place].1),
            (Some(place), None) => drop(self.0.remove(place)),
            (None, Some(value)) => self.0.push((name.to_owned(), value.to_owned())),
            (None, None) => {}
        }
    }
}

/// The folder, with a slash at the end, of the report that the page's query names (`?report=…`), if it names one.
pub fn report_folder(query: &str) -> Option<String> {
    let parameters = query.trim_start_matches('?').split('&');
    let mut named = parameters.filter_map(|parameter| parameter.split_once('='));
    let (_, value) = named.find(|(name, _)| *name == "report")?;
    let address = decoded(value);
    let address = address.trim().trim_end_matches("manifest.json").trim_end_matches('/');
    (!address.is_empty()).then(|| format!("{address}/"))
}

/// What a part of an address may have as it is; the rest becomes `%XX` of its UTF-8.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~@:,<>()!*".contains(&byte)
}

fn encoded(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut encoded, byte| {
            match is_plain(byte) {
                true => encoded.push(char::from(byte)),
                // Writing to a string cannot fail.
                false => _ = write!(encoded, "%{byte:02X}"),
            }
            encoded
        })
}

/// Text without its percent signs; what is no valid escape stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let digits = (bytes[place] == b'%').then(|| text.get(place + 1..place + 3)).flatten();
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                place += 3;
            }
            None => {
                plain.push(bytes[place]);
                place += 1;
            }
        }
    }
    String::from_utf8(plain).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_query_names_a_report() {
        assert_eq!(report_folder(""), None);
        assert_eq!(report_folder("?theme=dark"), None);
        assert_eq!(report_folder("?report="), None);
        assert_eq!(report_folder("?report=runs/a"), Some("runs/a/".to_owned()));
    }

    #[test]
    fn escapes_are_decoded_and_the_manifest_may_be_named() {
        let query = "?x=1&report=https%3A%2F%2Fexample.org%2Fr%C3%A9port%2Fmanifest.json";
        assert_eq!(report_folder(query).as_deref(), Some("https://example.org/réport/"));
        assert_eq!(report_folder("?report=100%").as_deref(), Some("100%/"));
        assert_eq!(
            report_folder("?report=a%+1b").as_deref(),
            Some("a%+1b/"),
            "a sign is no hexadecimal digit"
        );
    }

    #[test]
    fn an_empty_fragment_is_the_overview_of_the_first_run() {
        for fragment in ["", "#", "#/", "#//overview"] {
            assert_eq!(Route::parse(fragment), Route::default(), "{fragment}");
        }
        assert_eq!(Route::parse("#/demo"), Route::new("demo", Page::Overview));
    }

    #[test]
    fn a_fragment_names_run_page_and_parameters() {
        let route = Route::parse("#/demo/users/17?checkpoint=update-1&compare");
        assert_eq!((route.run.as_str(), &route.page), ("demo", &Page::User(17)));
        assert_eq!(route.parameters.get("checkpoint"), Some("update-1"));
        assert_eq!(route.parameters.get("compare"), Some(""));
        assert_eq!(route.parameters.get("sort"), None);
    }

    #[test]
    fn every_route_reads_back_from_its_fragment() {
        let pages = [
            Page::Overview,
            Page::Users,
            Page::User(0),
            Page::User(19_999),
            Page::Items,
            Page::Item(99_999),
            Page::Map,
            Page::Check(3),
            Page::Compare,
            Page::Unknown("users/x y/é".into()),
            Page::Unknown("maps".into()),
        ];
        for page in pages {
            for run in ["demo", "a run/with ? & # %20 =", "größe 🎬"] {
                let route = Route::new(run, page.clone())
                    .with("filter", Some("rank<=20 and delta<0 and \"horror\" + 100% #1 & so=on"))
                    .with("empty", Some(""));
                assert_eq!(Route::parse(&route.to_string()), route);
            }
        }
    }

    #[test]
    fn a_fragment_has_no_sign_that_ends_it() {
        let route = Route::new("a/b", Page::Users).with("q", Some("a&b=c d"));
        assert_eq!(route.to_string(), "#/a%2Fb/users?q=a%26b%3Dc%20d");
    }

    #[test]
    fn pages_that_do_not_exist_are_told_by_their_address() {
        for (fragment, page) in [
            ("#/demo/atlas", "atlas"),
            ("#/demo/items/x", "items/x"),
            ("#/demo/users/-1", "users/-1"),
            ("#/demo/users/1/2", "users/1/2"),
            ("#/demo/check", "check"),
        ] {
            assert_eq!(Route::parse(fragment).page, Page::Unknown(page.into()));
        }
    }

    #[test]
    fn parameters_are_replaced_in_place_and_removed() {
        let mut parameters = Parameters::parse("a=1&b=2&a=3");
        assert_eq!(parameters.get("a"), Some("3"));
        parameters.set("a", None);
        parameters.set("c", None);
        assert_eq!(parameters, Parameters::parse("b=2"));
    }
}
