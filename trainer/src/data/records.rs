//! One line of a raw file: what is taken from it, and what is wrong with it.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{LineProblem, number::python_float};

/// What the first pass takes from a review. The text must be there, but is read in a later pass, for the few reviews
/// that go into a prompt.
#[derive(Debug, Deserialize)]
pub(super) struct ReviewLine<'line> {
    #[serde(borrow)]
    pub(super) user_id: Cow<'line, str>,
    #[serde(borrow)]
    pub(super) parent_asin: Cow<'line, str>,
    pub(super) rating: f64,
    /// Milliseconds.
    pub(super) timestamp: i64,
    #[serde(rename = "text")]
    _text: IgnoredAny,
}

#[derive(Deserialize)]
struct ReviewTextLine<'line> {
    #[serde(borrow)]
    text: Option<Cow<'line, str>>,
}

/// An item as the metadata describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ItemRecord {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) categories: Vec<String>,
    /// The text that stands for the item in prompts and before the embedder.
    pub(super) text: String,
}

#[derive(Deserialize)]
struct MetadataLine {
    parent_asin: String,
    #[serde(deserialize_with = "Option::deserialize")]
    title: Option<String>,
    #[serde(default)]
    description: Option<Vec<String>>,
    #[serde(deserialize_with = "Option::deserialize")]
    categories: Option<Vec<String>>,
    #[serde(deserialize_with = "Option::deserialize")]
    average_rating: Option<f64>,
    price: Price,
}

/// A price: a text, a number or nothing.
#[derive(Deserialize)]
#[serde(untagged)]
enum Price {
    Text(String),
    Number(serde_json::Number),
    None(()),
}

impl Price {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) if number.is_f64() => {
                number.as_f64().map_or_else(|| number.to_string(), python_float).into()
            }
            Self::Number(number) => number.to_string().into(),
            Self::None(()) => "None".into(),
        }
    }
}

/// What a null becomes in a text.
const NONE: &str = "None";

/// A line of the reviews file.
pub(super) fn review(line: &[u8]) -> Result<ReviewLine<'_>, LineProblem> {
    serde_json::from_slice(line).map_err(|error| problem(line, &REVIEW_FIELDS, &error))
}

/// The text of a review.
pub(super) fn review_text(line: &[u8]) -> Result<Cow<'_, str>, LineProblem> {
    let parsed: ReviewTextLine<'_> =
        serde_json::from_slice(line).map_err(|error| problem(line, &REVIEW_FIELDS, &error))?;
    Ok(parsed.text.unwrap_or(NONE.into()))
}

/// A line of the metadata file; `None` for an item without a title.
pub(super) fn item(line: &[u8]) -> Result<Option<ItemRecord>, LineProblem> {
    let parsed: MetadataLine = serde_json::from_slice(line).map_err(|error| problem(line, &METADATA_FIELDS, &error))?;
    let Some(title) = parsed.title else {
        return Ok(None);
    };
    let description = parsed.description.map_or(NONE.to_owned(), |parts| parts.join(" "));
    let categories = parsed
        .categories
        .as_ref()
        .map_or(NONE.to_owned(), |names| names.join(", "));
    let average_rating = parsed.average_rating.map_or(NONE.to_owned(), python_float);
    let price = parsed.price.text();
    let text = format!(
        "Title: {title}\nDescription: (average rating: {average_rating}) {description}\nCategory: {categories}\nPrice: {price}"
    );
    Ok(Some(ItemRecord {
        id: parsed.parent_asin,
        title,
        categories: parsed.categories.unwrap_or_default(),
        text,
    }))
}

/// A field of a raw file, for the diagnosis of a bad line.
struct Field {
    name: &'static str,
    required: bool,
    expected: &'static str,
    fits: fn(&Value) -> bool,
}

const REVIEW_FIELDS: [Field; 5] = [
    Field {
        name: "user_id",
        required: true,
        expected: "a text",
        fits: Value::is_string,
    },
    Field {
        name: "parent_asin",
        required: true,
        expected: "a text",
        fits: Value::is_string,
    },
    Field {
        name: "rating",
        required: true,
        expected: "a number",
        fits: Value::is_number,
    },
    Field {
        name: "timestamp",
        required: true,
        expected: "whole milliseconds",
        fits: Value::is_i64,
    },
    Field {
        name: "text",
        required: true,
        expected: "a text or null",
        fits: |value| value.is_string() || value.is_null(),
    },
];

const METADATA_FIELDS: [Field; 6] = [
    Field {
        name: "parent_asin",
        required: true,
        expected: "a text",
        fits: Value::is_string,
    },
    Field {
        name: "title",
        required: true,
        expected: "a text or null",
        fits: |value| value.is_string() || value.is_null(),
    },
    Field {
        name: "description",
        required: false,
        expected: "a list of texts or null",
        fits: texts_or_null,
    },
    Field {
        name: "categories",
        required: true,
        expected: "a list of texts or null",
        fits: texts_or_null,
    },
    Field {
        name: "average_rating",
        required: true,
        expected: "a number or null",
        fits: |value| value.is_number() || value.is_null(),
    },
    Field {
        name: "price",
        required: true,
        expected: "a number, a text or null",
        fits: |value| value.is_number() || value.is_string() || value.is_null(),
    },
];

fn texts_or_null(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(|parts| parts.iter().all(Value::is_string))
}

/// Why a line could not be parsed. Only the rare bad line pays for this second look.
fn problem(line: &[u8], fields: &[Field], error: &serde_json::Error) -> LineProblem {
    let not_json = |message: String| LineProblem::NotJson {
        message,
        start: shown(&String::from_utf8_lossy(line)),
    };
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return not_json(format!("column {}: {}", error.column(), bare(&error))),
    };
    let Some(object) = value.as_object() else {
        return LineProblem::NotAnObject {
            found: shown(&value.to_string()),
        };
    };
    for field in fields {
        match object.get(field.name) {
            None if field.required => {
                let mut present: Vec<String> = object.keys().cloned().collect();
                present.sort();
                return LineProblem::MissingField {
                    field: field.name,
                    present,
                };
            }
            Some(value) if !(field.fits)(value) => {
                return LineProblem::WrongType {
                    field: field.name,
                    expected: field.expected,
                    found: shown(&value.to_string()),
                };
            }
            _ => {}
        }
    }
    // For example a field that is written twice.
    not_json(bare(error))
}

/// The parser's message without its own position: the file's line is named already.
fn bare(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.split(" at line ").next().unwrap_or(&message).to_owned()
}

fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(60).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const REVIEW: &str = r#"{"user_id": "u", "parent_asin": "i", "rating": 4.0, "timestamp": 17, "text": "good"}"#;

    fn missing(line: &str, field: &str) -> String {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove(field);
        value.to_string()
    }

    #[test]
    fn a_review_is_read() {
        let review = review(REVIEW.as_bytes()).unwrap();
        assert_eq!(review.user_id, "u");
        assert_eq!(review.parent_asin, "i");
        assert_eq!((review.rating, review.timestamp), (4.0, 17));
        assert_eq!(review_text(REVIEW.as_bytes()).unwrap(), "good");
        assert_eq!(review_text(br#"{"text": null}"#).unwrap(), "None");
    }

    #[test]
    fn every_missing_field_of_a_review_is_named() {
        for field in ["user_id", "parent_asin", "rating", "timestamp", "text"] {
            let line = missing(REVIEW, field);
            let found = review(line.as_bytes()).unwrap_err();
            assert!(
                matches!(&found, LineProblem::MissingField { field: named, .. } if *named == field),
                "{found}"
            );
        }
    }

    #[test]
    fn a_wrong_type_is_named_with_what_was_found() {
        let line = REVIEW.replace("17", "\"yesterday\"");
        let found = review(line.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            found,
            "field `timestamp`: expected whole milliseconds, found \"yesterday\""
        );
    }

    #[test]
    fn broken_json_is_shown() {
        let found = review(br#"{"user_id": "u", "#).unwrap_err().to_string();
        assert!(found.contains("broken JSON"), "{found}");
        assert!(found.contains("user_id"), "{found}");
        let found = review(b"[1]").unwrap_err();
        assert_eq!(
            found,
            LineProblem::NotAnObject {
                found: "[1]".to_owned()
            }
        );
    }

    const ITEM: &str = r#"{"parent_asin": "i", "title": "T", "description": ["a", "b"], "categories": ["x", "y"],
        "average_rating": 4, "price": 19.5}"#;

    #[test]
    fn an_items_text_follows_the_published_form() {
        let item = item(ITEM.as_bytes()).unwrap().unwrap();
        assert_eq!(
            item.text,
            "Title: T\nDescription: (average rating: 4.0) a b\nCategory: x, y\nPrice: 19.5"
        );
        assert_eq!((item.id.as_str(), item.title.as_str()), ("i", "T"));
        assert_eq!(item.categories, ["x", "y"]);
    }

    #[test]
    fn nulls_are_written_out_and_an_empty_description_is_empty() {
        let line = r#"{"parent_asin": "i", "title": "", "description": null, "categories": null, "average_rating": null,
            "price": null}"#;
        let nulls = item(line.as_bytes()).unwrap().unwrap();
        assert_eq!(
            nulls.text,
            "Title: \nDescription: (average rating: None) None\nCategory: None\nPrice: None"
        );
        let absent = item(missing(line, "description").as_bytes()).unwrap().unwrap();
        assert_eq!(absent.text, nulls.text);
        let empty = ITEM.replace(r#"["a", "b"]"#, "[]").replace("19.5", "\"from 3.99\"");
        let empty = item(empty.as_bytes()).unwrap().unwrap();
        assert_eq!(
            empty.text,
            "Title: T\nDescription: (average rating: 4.0) \nCategory: x, y\nPrice: from 3.99"
        );
    }

    #[test]
    fn an_item_without_a_title_is_left_out_but_the_field_must_be_there() {
        assert_eq!(item(ITEM.replace("\"T\"", "null").as_bytes()).unwrap(), None);
        for field in ["parent_asin", "title", "categories", "average_rating", "price"] {
            let found = item(missing(ITEM, field).as_bytes()).unwrap_err();
            assert!(
                matches!(&found, LineProblem::MissingField { field: named, .. } if *named == field),
                "{found}"
            );
        }
    }
}
