//! Items and users as Parquet: plain columns, lists of numbers without padding, zstd.

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, ListArray, RecordBatch, StringArray, UInt32Array,
    builder::{ListBuilder, StringBuilder},
    types::{ArrowPrimitiveType, Float32Type, UInt32Type},
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{DataError, Item, User};

/// Rows that are turned into columns at a time.
const BATCH_ROWS: usize = 4096;

pub(super) fn write_items(path: &Path, items: &[Item]) -> Result<(), DataError> {
    write(path, items, |items| {
        RecordBatch::try_from_iter([
            ("item_id", texts(items.iter().map(|item| &item.id))),
            ("title", texts(items.iter().map(|item| &item.title))),
            ("text", texts(items.iter().map(|item| &item.text))),
            ("categories", text_lists(items.iter().map(|item| &item.categories))),
            ("tokens", lists::<UInt32Type>(items.iter().map(|item| &item.tokens))),
            ("train_count", numbers(items.iter().map(|item| item.train_count))),
        ])
    })
}

pub(super) fn write_users(path: &Path, users: &[User]) -> Result<(), DataError> {
    write(path, users, |users| {
        let tied: BooleanArray = users.iter().map(|user| Some(user.tied_target_time)).collect();
        RecordBatch::try_from_iter([
            ("user_id", texts(users.iter().map(|user| &user.id))),
            ("history", lists::<UInt32Type>(users.iter().map(|user| &user.history))),
            ("targets", lists::<UInt32Type>(users.iter().map(|user| &user.targets))),
            ("later", lists::<UInt32Type>(users.iter().map(|user| &user.later))),
            ("ratings", lists::<Float32Type>(users.iter().map(|user| &user.ratings))),
            ("reviews", text_lists(users.iter().map(|user| &user.reviews))),
            (
                "prompt_tokens",
                lists::<UInt32Type>(users.iter().map(|user| &user.prompt_tokens)),
            ),
            ("tied_target_time", Arc::new(tied) as ArrayRef),
        ])
    })
}

pub(super) fn read_items(path: &Path) -> Result<Vec<Item>, DataError> {
    let mut items = Vec::new();
    for batch in batches(path)? {
        let columns = Columns { path, batch: batch? };
        let (ids, titles) = (columns.texts("item_id")?, columns.texts("title")?);
        let (texts, categories) = (columns.texts("text")?, columns.text_lists("categories")?);
        let tokens = columns.lists::<UInt32Type>("tokens")?;
        let counts = columns.get::<UInt32Array>("train_count")?.values().to_vec();
        let rest = tokens.into_iter().zip(counts);
        for ((((id, title), text), categories), (tokens, train_count)) in
            ids.into_iter().zip(titles).zip(texts).zip(categories).zip(rest)
        {
            items.push(Item {
                id,
                title,
                text,
                categories,
                tokens,
                train_count,
            });
        }
    }
    Ok(items)
}

/// The users without their prompts, which follow from the items.
pub(super) fn read_users(path: &Path) -> Result<Vec<User>, DataError> {
    let mut users = Vec::new();
    for batch in batches(path)? {
        let columns = Columns { path, batch: batch? };
        let mut ids = columns.texts("user_id")?.into_iter();
        let mut history = columns.lists::<UInt32Type>("history")?.into_iter();
        let mut targets = columns.lists::<UInt32Type>("targets")?.into_iter();
        let mut later = columns.lists::<UInt32Type>("later")?.into_iter();
        let mut ratings = columns.lists::<Float32Type>("ratings")?.into_iter();
        let mut reviews = columns.text_lists("reviews")?.into_iter();
        let mut prompt_tokens = columns.lists::<UInt32Type>("prompt_tokens")?.into_iter();
        let tied = columns.get::<BooleanArray>("tied_target_time")?;
        for row in 0..tied.len() {
            users.push(User {
                id: ids.next().unwrap_or_default(),
                history: history.next().unwrap_or_default(),
                targets: targets.next().unwrap_or_default(),
                later: later.next().unwrap_or_default(),
                ratings: ratings.next().unwrap_or_default(),
                reviews: reviews.next().unwrap_or_default(),
                prompt: String::new(),
                prompt_tokens: prompt_tokens.next().unwrap_or_default(),
                tied_target_time: tied.value(row),
            });
        }
    }
    Ok(users)
}

fn write<T>(
    path: &Path,
    rows: &[T],
    columns: impl Fn(&[T]) -> Result<RecordBatch, arrow_schema::ArrowError>,
) -> Result<(), DataError> {
    let failed = |message: String| DataError::Parquet {
        path: path.to_owned(),
        message,
    };
    let file = File::create(path).map_err(|source| DataError::Write {
        path: path.to_owned(),
        source,
    })?;
    let schema = columns(&[]).map_err(|error| failed(error.to_string()))?.schema();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let write = || -> parquet::errors::Result<()> {
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties))?;
        for rows in rows.chunks(BATCH_ROWS) {
            writer.write(&columns(rows)?)?;
        }
        writer.close()?;
        Ok(())
    };
    write().map_err(|error| failed(error.to_string()))
}

fn texts<'text>(values: impl Iterator<Item = &'text String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn numbers(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(UInt32Array::from_iter_values(values))
}

fn lists<'list, T: ArrowPrimitiveType>(values: impl Iterator<Item = &'list Vec<T::Native>>) -> ArrayRef
where
    T::Native: 'list,
{
    let lists = values.map(|values| Some(values.iter().map(|value| Some(*value))));
    Arc::new(ListArray::from_iter_primitive::<T, _, _>(lists))
}

fn text_lists<'list>(values: impl Iterator<Item = &'list Vec<String>>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for texts in values {
        lists.append_value(texts.iter().map(Some));
    }
    Arc::new(lists.finish())
}

type Batches<'path> = Box<dyn Iterator<Item = Result<RecordBatch, DataError>> + 'path>;

fn batches(path: &Path) -> Result<Batches<'_>, DataError> {
    let failed = |message: String| DataError::Parquet {
        path: path.to_owned(),
        message,
    };
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        line: 0,
        source,
    })?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
        .map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(
        reader.map(move |batch| batch.map_err(|error| failed(error.to_string()))),
    ))
}

/// The columns of a batch by name, with errors that name file and column.
struct Columns<'path> {
    path: &'path Path,
    batch: RecordBatch,
}

impl Columns<'_> {
    fn get<A: Array + 'static>(&self, name: &str) -> Result<&A, DataError> {
        let column = self
            .batch
            .column_by_name(name)
            .ok_or_else(|| self.wrong(name, "is missing"))?;
        if column.null_count() > 0 {
            return Err(self.wrong(name, "has nulls"));
        }
        column
            .as_any()
            .downcast_ref()
            .ok_or_else(|| self.wrong(name, &format!("has type {}", column.data_type())))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, DataError> {
        let column = self.get::<StringArray>(name)?;
        Ok(column.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
    }

    fn lists<T: ArrowPrimitiveType>(&self, name: &str) -> Result<Vec<Vec<T::Native>>, DataError> {
        let lists = self.get::<ListArray>(name)?;
        let list = |values: ArrayRef| {
            let values = values
                .as_any()
                .downcast_ref::<arrow_array::PrimitiveArray<T>>()
                .cloned();
            let values = values.filter(|values| values.null_count() == 0);
            values.map(|values| values.values().to_vec())
        };
        let read = lists
            .iter()
            .flatten()
            .map(|values| list(values).ok_or_else(|| self.wrong(name, "has nulls or another type in its lists")));
        read.collect()
    }

    fn text_lists(&self, name: &str) -> Result<Vec<Vec<String>>, DataError> {
        let lists = self.get::<ListArray>(name)?;
        let list = |values: ArrayRef| -> Option<Vec<String>> {
            let texts = values.as_any().downcast_ref::<StringArray>()?;
            texts.iter().map(|text| text.map(str::to_owned)).collect()
        };
        let read = lists
            .iter()
            .flatten()
            .map(|values| list(values).ok_or_else(|| self.wrong(name, "has nulls or another type in its lists")));
        read.collect()
    }

    fn wrong(&self, column: &str, problem: &str) -> DataError {
        DataError::Parquet {
            path: self.path.to_owned(),
            message: format!("column `{column}` {problem}"),
        }
    }
}
