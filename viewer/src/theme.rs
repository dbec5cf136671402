//! Light, dark, or as the system is. `start.js` applies what was kept before the module is there.

/// Where the browser keeps the choice.
const KEPT_AS: &str = "langptune-theme";

/// The colours of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// As the system, or the browser, is set.
    #[default]
    System,
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    /// Every theme, in the order of the choice.
    pub const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    /// The theme's name on the page's root, and in the browser's store.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// What the reader calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Light => "Light",
            Self::Dark => "Dark",
        }
    }

    /// The theme of that name; the system's for any other.
    pub fn named(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|theme| theme.name() == name);
        found.unwrap_or_default()
    }

    /// The theme that was chosen last. A browser that keeps nothing, as one may from a file, has the system's.
    pub fn kept() -> Self {
        let kept = web_sys::window()
            .and_then(|window| window.local_storage().ok().flatten())
            .and_then(|store| store.get_item(KEPT_AS).ok().flatten());
        kept.as_deref().map_or_else(Self::default, Self::named)
    }

    /// Gives the page these colours, and keeps the choice where the browser allows it.
    pub fn apply(self) {
        let Some(window) = web_sys::window() else {
            return;
        };
        if let Some(root) = window.document().and_then(|document| document.document_element()) {
            // Neither can be refused for this name; a page in the wrong colours would still be readable.
            _ = root.set_attribute("data-theme", self.name());
        }
        if let Some(store) = window.local_storage().ok().flatten() {
            _ = store.set_item(KEPT_AS, self.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_reads_back_and_nonsense_is_the_systems() {
        for theme in Theme::ALL {
            assert_eq!(Theme::named(theme.name()), theme);
        }
        assert_eq!(Theme::named("purple"), Theme::System);
    }
}
