//! A profile, and its difference from another.

use eval_core::report::{User, UserResult};
use leptos::prelude::*;

use super::Profile;
use crate::words::{Change, Span, difference};

/// What stands in a profile's place.
#[derive(Clone, Debug, PartialEq)]
pub enum Text {
    /// The report leaves profiles out.
    LeftOut,
    /// The profile alone.
    Plain(String),
    /// The profile with what differs from another.
    Compared(Vec<Span>),
}

impl Text {
    /// The profile of a user, compared with another text where there is one.
    pub fn new(user: &User, result: &UserResult, profile: Profile, other: Option<&str>) -> Self {
        match (profile.text(user, result), other) {
            (None, _) => Self::LeftOut,
            (Some(text), None) => Self::Plain(text.to_owned()),
            (Some(text), Some(other)) => Self::Compared(difference(other, text)),
        }
    }
}

/// A profile's text. It is a model's, so it is only ever text, and shows whatever direction it has.
#[component]
pub fn ProfileText(
    /// The text.
    text: Text,
) -> impl IntoView {
    match text {
        Text::LeftOut => view! { <p class="faint">"The report leaves profiles out."</p> }.into_any(),
        Text::Plain(text) if text.trim().is_empty() => {
            view! { <p class="faint">"The profile is empty."</p> }.into_any()
        }
        Text::Plain(text) => view! { <p class="profile" dir="auto">{text}</p> }.into_any(),
        Text::Compared(spans) => {
            let is_same = spans.iter().all(|span| span.change == Change::Same);
            let note = if is_same {
                "Both have the same words."
            } else {
                "Struck out: only in the other. Underlined: only in this one."
            };
            view! {
                <p class="faint">{note}</p>
                <p class="profile" dir="auto">{spans.into_iter().map(span_view).collect_view()}</p>
            }
            .into_any()
        }
    }
}

fn span_view(span: Span) -> AnyView {
    let Span { change, text } = span;
    match change {
        Change::Same => view! { <span>{text}</span> }.into_any(),
        Change::Removed => view! { <del>{text}</del> }.into_any(),
        Change::Added => view! { <ins>{text}</ins> }.into_any(),
    }
}

#[cfg(test)]
mod tests {
    use eval_core::report::Found;

    use super::*;

    #[test]
    fn a_profile_is_compared_only_where_both_texts_are_there() {
        let found = Found {
            profile: Some("new words".into()),
            ..Found::default()
        };
        let result = UserResult {
            generated: vec![found],
            reference: Some(Found::default()),
        };
        let text = |profile, other| Text::new(&User::default(), &result, profile, other);
        assert_eq!(text(Profile::Generated(0), None), Text::Plain("new words".into()));
        let Text::Compared(spans) = text(Profile::Generated(0), Some("old words")) else {
            panic!("not compared");
        };
        let changes: Vec<_> = spans.iter().map(|span| (span.change, span.text.as_str())).collect();
        let expected = [
            (Change::Removed, "old "),
            (Change::Added, "new "),
            (Change::Same, "words"),
        ];
        assert_eq!(changes, expected);
        assert_eq!(text(Profile::Reference, Some("x")), Text::LeftOut);
    }
}
