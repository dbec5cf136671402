//! The words of histories and profiles, for whoever searches a report.

use eval_core::report::{IndexBuilder, TextIndex};
use models::write_atomically;

use super::{Evaluated, ReportWriter};
use crate::TrainError;
use crate::data::Dataset;

impl ReportWriter {
    /// Writes an index of the val users' histories: titles of items and reviews.
    pub(super) fn write_history_index(&self, dataset: &Dataset) -> Result<TextIndex, TrainError> {
        let mut builder = IndexBuilder::default();
        for (number, user) in (0..).zip(&dataset.val) {
            let titles = user
                .history
                .iter()
                .map(|&item| dataset.items[item as usize].title.as_str());
            let texts = titles.chain(user.reviews.iter().map(String::as_str));
            texts.for_each(|text| builder.add(number, text));
        }
        self.write_index("history-words", builder)
    }

    /// Writes an index of the generated profiles into the checkpoint's folder `stem`.
    pub(super) fn write_profile_index(&self, stem: &str, evaluated: &Evaluated<'_>) -> Result<TextIndex, TrainError> {
        let mut builder = IndexBuilder::default();
        let samples = evaluated.generated.0.samples.max(1);
        for (number, profiles) in (0..).zip(evaluated.profiles.chunks(samples)) {
            profiles.iter().for_each(|profile| builder.add(number, &profile.text));
        }
        self.write_index(&format!("{stem}/profile-words"), builder)
    }

    fn write_index(&self, stem: &str, builder: IndexBuilder) -> Result<TextIndex, TrainError> {
        let files = builder.into_files();
        let index = TextIndex::of_files(stem, &files);
        for (listed, file) in index.files.iter().zip(&files) {
            write_atomically(&self.folder.join(&listed.file), |out| {
                file.write(out).map_err(std::io::Error::other)
            })?;
        }
        Ok(index)
    }
}
