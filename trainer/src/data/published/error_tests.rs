//! Sets with something wrong in them: each message names the file, and the row and column where there is one.
#![allow(clippy::unwrap_used)]

use std::{fs, fs::File, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    types::{Float64Type, Int64Type},
};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use crate::data::DatasetSource;

type Column = (&'static str, ArrayRef);

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn lists(values: &[&[i64]]) -> ArrayRef {
    let lists = values.iter().map(|list| Some(list.iter().map(|value| Some(*value))));
    Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
}

fn dense(values: &[&[f64]]) -> ArrayRef {
    let lists = values.iter().map(|list| Some(list.iter().map(|value| Some(*value))));
    Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists))
}

/// Items 0, 1 and 2 with the texts "Title: 0" and so on.
fn items() -> Vec<Column> {
    vec![
        ("index", numbers(&[0, 1, 2])),
        ("item_descriptions", texts(&["Title: 0", "Title: 1", "Title: 2"])),
        ("item_description_tokens", lists(&[&[5, 0], &[6, 0], &[7, 0]])),
    ]
}

/// Two users with the history 0, 1 and the target 2.
fn sessions() -> Vec<Column> {
    let prompt = "<start_of_turn>user\nSay.\n\nTitle: 0\nReview from the user: (rating: 4.0) a\n\nTitle: 1\nReview from the user: \
        (rating: 5.0) b<end_of_turn>\n<start_of_turn>model";
    vec![
        ("index", numbers(&[0, 1])),
        ("in_sess_item_idxs", lists(&[&[0, 1], &[0, 1]])),
        ("out_sess_item_idxs", lists(&[&[2], &[2]])),
        ("dense_in_sesses", dense(&[&[1., 1., 0.], &[1., 1., 0.]])),
        ("sess_descriptions", texts(&[prompt, prompt])),
        ("sess_description_gemma", lists(&[&[9, 1], &[9, 1]])),
        ("ref_responses", texts(&["Title: 1", "Title: 1"])),
    ]
}

fn with(mut columns: Vec<Column>, name: &'static str, values: ArrayRef) -> Vec<Column> {
    let column = columns.iter_mut().find(|(column, _)| *column == name).unwrap();
    column.1 = values;
    columns
}

fn without(mut columns: Vec<Column>, name: &str) -> Vec<Column> {
    columns.retain(|(column, _)| *column != name);
    columns
}

fn write(path: &Path, columns: Vec<Column>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// A folder with these files; train, val, test and items are whole where they are not given.
fn set(given: &[(&str, Vec<Column>)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for split in ["train", "val", "test"] {
        write(&folder.path().join(format!("data/{split}.parquet")), sessions());
    }
    write(&folder.path().join("items.parquet"), items());
    for (name, columns) in given {
        write(&folder.path().join(name), columns.clone());
    }
    folder
}

fn message_of(folder: &Path) -> String {
    let source = DatasetSource {
        dataset: folder.to_owned(),
        items: None,
        lm: None,
        embedder: None,
        template: None,
    };
    let message = source.open().unwrap_err().to_string();
    message.replace(folder.to_str().unwrap(), "SET")
}

fn message(given: &[(&str, Vec<Column>)]) -> String {
    message_of(set(given).path())
}

fn train(name: &'static str, values: ArrayRef) -> String {
    message(&[("data/train.parquet", with(sessions(), name, values))])
}

fn item(name: &'static str, values: ArrayRef) -> String {
    message(&[("items.parquet", with(items(), name, values))])
}

#[test]
fn the_set_that_the_others_are_made_from_is_right() {
    let folder = set(&[]);
    let source = DatasetSource {
        dataset: folder.path().to_owned(),
        items: None,
        lm: None,
        embedder: None,
        template: None,
    };
    let dataset = source.open().unwrap();
    assert_eq!((dataset.train.len(), dataset.items.len()), (2, 3));
    assert_eq!(dataset.train[1].ratings, [4.0, 5.0]);
    assert_eq!(dataset.manifest.rules.instruction, "Say.");
}

#[test]
fn a_missing_column_is_named_with_its_file() {
    assert_eq!(
        message(&[("data/val.parquet", without(sessions(), "out_sess_item_idxs"))]),
        "SET/data/val.parquet: column `out_sess_item_idxs` is missing; found index, in_sess_item_idxs, dense_in_sesses, \
         sess_descriptions, sess_description_gemma, ref_responses"
    );
    assert_eq!(
        message(&[("data/val.parquet", without(sessions(), "sess_description_gemma"))]),
        "SET/data/val.parquet: column `sess_description_gemma` or `sess_description_llama` is missing; found index, \
         in_sess_item_idxs, out_sess_item_idxs, dense_in_sesses, sess_descriptions, ref_responses"
    );
    assert_eq!(
        message(&[("items.parquet", without(items(), "index"))]),
        "SET/items.parquet: column `index` is missing; found item_descriptions, item_description_tokens"
    );
}

#[test]
fn a_column_of_another_type_is_named_with_both_types() {
    assert!(train("in_sess_item_idxs", texts(&["0 1", "0 1"])).starts_with(
        "SET/data/train.parquet: column `in_sess_item_idxs`: expected lists of whole numbers, found Utf8"
    ));
    assert!(train("in_sess_item_idxs", dense(&[&[0., 1.], &[0., 1.]])).starts_with(
        "SET/data/train.parquet: column `in_sess_item_idxs`: expected lists of whole numbers, found List"
    ));
    assert_eq!(
        item("item_descriptions", numbers(&[0, 1, 2])),
        "SET/items.parquet: column `item_descriptions`: expected text, found Int64"
    );
    assert_eq!(
        item("index", Arc::new(Float64Array::from(vec![0., 1., 2.]))),
        "SET/items.parquet: column `index`: expected whole numbers, found Float64"
    );
}

#[test]
fn an_index_out_of_range_is_named_with_row_and_column() {
    assert_eq!(
        train("out_sess_item_idxs", lists(&[&[2], &[3]])),
        "SET/data/train.parquet, row 1, column `out_sess_item_idxs`: item 3 is not among the 3 items, of index 0 to 2; give the \
         items that belong to these sessions"
    );
    assert!(
        train("in_sess_item_idxs", lists(&[&[0, 1], &[0, -1]]))
            .starts_with("SET/data/train.parquet, row 1, column `in_sess_item_idxs`: item -1 is not among the 3 items")
    );
    assert_eq!(
        item("index", numbers(&[0, -1, 2])),
        "SET/items.parquet, row 1, column `index`: is -1, expected 0 or more"
    );
    assert_eq!(
        item("index", numbers(&[0, 1, 1])),
        "SET/items.parquet, row 2, column `index`: is 1, as in another row; each item has its own"
    );
    assert_eq!(
        train("index", numbers(&[7, 7])),
        "SET/data/train.parquet, row 1, column `index`: is 7, as in another row of train"
    );
}

#[test]
fn values_that_cannot_be_are_named_with_row_and_column() {
    let row = |message: String, column: &str, problem: &str| {
        let start = format!("SET/data/train.parquet, row 1, column `{column}`: {problem}");
        assert!(message.starts_with(&start), "{message}");
    };
    row(
        train("out_sess_item_idxs", lists(&[&[2], &[]])),
        "out_sess_item_idxs",
        "is empty",
    );
    row(
        train("out_sess_item_idxs", lists(&[&[2], &[1]])),
        "out_sess_item_idxs",
        "has item 1, which is in in_sess_item_idxs",
    );
    row(
        train(
            "ref_responses",
            Arc::new(StringArray::from(vec![Some("Title: 1"), None])),
        ),
        "ref_responses",
        "is null",
    );
    row(
        train("ref_responses", texts(&["Title: 1", "Title: 2"])),
        "ref_responses",
        "is not the text of the history's last item",
    );
    row(
        train("sess_description_gemma", lists(&[&[9, 1], &[9, -1]])),
        "sess_description_gemma",
        "has -1, which is no token id",
    );
    let good = "<start_of_turn>user\nSay.\n\nTitle: 0\nReview from the user: (rating: 4.0) a\n\nTitle: 1\nReview from the \
        user: (rating: 5.0) b<end_of_turn>\n<start_of_turn>model";
    let prompts = [
        ("Say.".to_owned(), "begins and ends neither as Gemma's turns do"),
        (
            good.replace("Title: 1", "Title: 7"),
            "has no text of item 1 with a rating and a review",
        ),
        (
            good.replace("4.0", "four"),
            "has no text of item 0 with a rating and a review",
        ),
        (
            good.replace("Say.", "Tell."),
            "asks \"Tell.\", the first session asks \"Say.\"",
        ),
    ];
    for (prompt, problem) in prompts {
        row(
            train("sess_descriptions", texts(&[good, &prompt])),
            "sess_descriptions",
            problem,
        );
    }
}

#[test]
fn items_of_another_size_than_the_dense_rows_are_refused() {
    assert_eq!(
        train("dense_in_sesses", dense(&[&[1., 1.], &[1., 1.]])),
        "SET/data/train.parquet, row 0, column `dense_in_sesses`: has 2 entries for 3 items; give the items that belong to these \
         sessions"
    );
}

#[test]
fn a_split_that_is_missing_or_empty_is_named() {
    let folder = set(&[]);
    fs::remove_file(folder.path().join("data/val.parquet")).unwrap();
    assert_eq!(
        message_of(folder.path()),
        "SET: no Parquet file of the split val; found data/test.parquet, data/train.parquet: name files as \
         val-00000-of-00001.parquet, or put them into a folder val"
    );
    let empty = |columns: Vec<Column>| {
        columns
            .into_iter()
            .map(|(name, values)| (name, values.slice(0, 0)))
            .collect()
    };
    assert_eq!(
        message(&[("data/test.parquet", empty(sessions()))]),
        "SET: there are no test users; download or write the set again"
    );
    assert_eq!(
        message(&[("items.parquet", empty(items()))]),
        "SET: there are no items; download or write the set again"
    );
}

#[test]
fn files_that_are_no_set_are_told_from_one_that_lacks_a_half() {
    let folder = TempDir::new().unwrap();
    assert!(
        message_of(folder.path()).starts_with("SET: expected manifest.json of `langptune prepare`, or Parquet files")
    );
    fs::write(folder.path().join("dataset_dict.json"), "{}").unwrap();
    assert!(message_of(folder.path()).contains("Arrow files of `save_to_disk`"));
    write(&folder.path().join("other.parquet"), vec![("a", numbers(&[1]))]);
    assert!(
        message_of(folder.path()).ends_with("found a"),
        "{}",
        message_of(folder.path())
    );
    let folder = set(&[]);
    fs::remove_file(folder.path().join("items.parquet")).unwrap();
    let message = message_of(folder.path());
    assert!(
        message.contains("found sessions alone") && message.contains("--task.item-dataset"),
        "{message}"
    );
    fs::write(folder.path().join("items.parquet"), "not Parquet").unwrap();
    assert!(message_of(folder.path()).starts_with("SET/items.parquet: "));
}

#[test]
fn sessions_for_two_language_models_in_one_folder_are_refused() {
    let mut llama = sessions();
    llama[5].0 = "sess_description_llama";
    let message = message(&[("other/train.parquet", llama)]);
    assert!(message.contains("prompts of two language models"), "{message}");
}
