//! Columns of a Parquet file by name, whatever width their writer chose for numbers, lists and texts.

use std::{fs::File, path::Path};

use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, LargeListArray, LargeStringArray, ListArray, PrimitiveArray, RecordBatch,
    StringArray, StringViewArray,
    types::{
        ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::PublishedError;

/// Rows in memory at a time: their padded tokens are some megabytes.
const BATCH_ROWS: usize = 1024;

/// Some rows of a file.
pub(super) struct Rows<'path> {
    path: &'path Path,
    /// The row of the file that comes first, from 0.
    first: usize,
    batch: RecordBatch,
}

/// A Parquet file of which some columns are read.
pub(super) struct Table<'path> {
    path: &'path Path,
    builder: ParquetRecordBatchReaderBuilder<File>,
}

impl<'path> Table<'path> {
    pub(super) fn open(path: &'path Path) -> Result<Self, PublishedError> {
        let file = File::open(path).map_err(|source| PublishedError::Read {
            path: path.to_owned(),
            source,
        })?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| damaged(path, &error))?;
        Ok(Self { path, builder })
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.builder.schema().column_with_name(column).is_some()
    }

    /// A missing column, with those that are there.
    pub(super) fn missing(&self, column: &str) -> PublishedError {
        let fields = self.builder.schema().fields().iter();
        PublishedError::MissingColumn {
            path: self.path.to_owned(),
            column: column.to_owned(),
            present: fields.map(|field| field.name().clone()).collect(),
        }
    }

    /// All rows, some at a time, with these columns alone.
    pub(super) fn rows(
        self,
        columns: &[&str],
    ) -> Result<impl Iterator<Item = Result<Rows<'path>, PublishedError>>, PublishedError> {
        self.read(columns, None)
    }

    /// The first row, with these columns alone.
    pub(super) fn first_row(self, columns: &[&str]) -> Result<Option<Rows<'path>>, PublishedError> {
        self.read(columns, Some(1))?.next().transpose()
    }

    fn read(
        self,
        columns: &[&str],
        most: Option<usize>,
    ) -> Result<impl Iterator<Item = Result<Rows<'path>, PublishedError>> + use<'path>, PublishedError> {
        let mut roots = Vec::with_capacity(columns.len());
        for column in columns {
            let found = self.builder.schema().column_with_name(column);
            roots.push(found.ok_or_else(|| self.missing(column))?.0);
        }
        let path = self.path;
        let mask = ProjectionMask::roots(self.builder.parquet_schema(), roots);
        let mut builder = self.builder.with_projection(mask);
        builder = match most {
            Some(rows) => builder.with_limit(rows).with_batch_size(rows),
            None => builder.with_batch_size(BATCH_ROWS),
        };
        let reader = builder.build().map_err(|error| damaged(path, &error))?;
        let mut first = 0;
        Ok(reader.map(move |batch| {
            let batch = batch.map_err(|error| damaged(path, &error))?;
            let rows = Rows { path, first, batch };
            first += rows.batch.num_rows();
            Ok(rows)
        }))
    }
}

fn damaged(path: &Path, error: &impl ToString) -> PublishedError {
    PublishedError::Damaged {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

impl Rows<'_> {
    /// An error about a row, counted from the first of these.
    pub(super) fn wrong(&self, row: usize, column: &'static str, problem: impl Into<String>) -> PublishedError {
        PublishedError::Row {
            path: self.path.to_owned(),
            row: self.first + row,
            column,
            problem: problem.into(),
        }
    }

    fn column(&self, name: &'static str) -> Result<&ArrayRef, PublishedError> {
        let column = self.batch.column_by_name(name);
        let column = column.ok_or_else(|| PublishedError::MissingColumn {
            path: self.path.to_owned(),
            column: name.to_owned(),
            present: Vec::new(),
        })?;
        match (0..column.len()).find(|row| column.is_null(*row)) {
            Some(row) => Err(self.wrong(row, name, "is null")),
            None => Ok(column),
        }
    }

    fn other_type(&self, name: &str, expected: &'static str, found: &ArrayRef) -> PublishedError {
        PublishedError::WrongType {
            path: self.path.to_owned(),
            column: name.to_owned(),
            expected,
            found: found.data_type().to_string(),
        }
    }

    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<String>, PublishedError> {
        let column = self.column(name)?;
        let any = column.as_any();
        let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
        if let Some(texts) = any.downcast_ref::<StringArray>() {
            Ok(texts.iter().map(owned).collect())
        } else if let Some(texts) = any.downcast_ref::<LargeStringArray>() {
            Ok(texts.iter().map(owned).collect())
        } else if let Some(texts) = any.downcast_ref::<StringViewArray>() {
            Ok(texts.iter().map(owned).collect())
        } else {
            Err(self.other_type(name, "text", column))
        }
    }

    pub(super) fn integers(&self, name: &'static str) -> Result<Vec<i64>, PublishedError> {
        let column = self.column(name)?;
        integers(column).ok_or_else(|| self.other_type(name, "whole numbers", column))
    }

    pub(super) fn integer_lists(&self, name: &'static str) -> Result<Vec<Vec<i64>>, PublishedError> {
        let column = self.column(name)?;
        let wrong = || self.other_type(name, "lists of whole numbers", column);
        let mut lists = Vec::with_capacity(column.len());
        for row in 0..column.len() {
            let list = list(column, row).ok_or_else(wrong)?;
            if list.null_count() > 0 {
                return Err(self.wrong(row, name, "has a null in its list"));
            }
            lists.push(integers(&list).ok_or_else(wrong)?);
        }
        Ok(lists)
    }

    /// Lists of token ids.
    pub(super) fn token_lists(&self, name: &'static str) -> Result<Vec<Vec<u32>>, PublishedError> {
        let lists = self.integer_lists(name)?;
        let token = |row, token| {
            u32::try_from(token).map_err(|_| self.wrong(row, name, format!("has {token}, which is no token id")))
        };
        let lists = lists.into_iter().enumerate();
        lists
            .map(|(row, list)| list.into_iter().map(|number| token(row, number)).collect())
            .collect()
    }

    /// How long the first row's list is, whatever is in it.
    pub(super) fn first_length(&self, name: &'static str) -> Result<usize, PublishedError> {
        let column = self.column(name)?;
        let list = list(column, 0).ok_or_else(|| self.other_type(name, "lists of numbers", column))?;
        Ok(list.len())
    }
}

fn list(column: &ArrayRef, row: usize) -> Option<ArrayRef> {
    let any = column.as_any();
    let short = any.downcast_ref::<ListArray>().map(|lists| lists.value(row));
    let large = || any.downcast_ref::<LargeListArray>().map(|lists| lists.value(row));
    let fixed = || any.downcast_ref::<FixedSizeListArray>().map(|lists| lists.value(row));
    short.or_else(large).or_else(fixed)
}

/// Whole numbers of any width; `None` where they are none, or too large.
fn integers(array: &ArrayRef) -> Option<Vec<i64>> {
    of_type::<Int64Type>(array)
        .or_else(|| of_type::<Int32Type>(array))
        .or_else(|| of_type::<UInt32Type>(array))
        .or_else(|| of_type::<Int16Type>(array))
        .or_else(|| of_type::<UInt16Type>(array))
        .or_else(|| of_type::<Int8Type>(array))
        .or_else(|| of_type::<UInt8Type>(array))
        .or_else(|| of_type::<UInt64Type>(array))
}

fn of_type<T: ArrowPrimitiveType<Native: TryInto<i64>>>(array: &ArrayRef) -> Option<Vec<i64>> {
    let numbers = array.as_any().downcast_ref::<PrimitiveArray<T>>()?;
    numbers
        .values()
        .iter()
        .map(|number| (*number).try_into().ok())
        .collect()
}
