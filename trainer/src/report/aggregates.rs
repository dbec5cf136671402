//! What is worked out once for whoever reads a report: titles of all items in one file, how often each item is shown, and maps.

use eval_core::Cutoff;
use eval_core::projection::PrincipalAxes;
use eval_core::report::{Catalogue, Exposure, Found, MapFiles, Points, UserResult};
use eval_core::retrieval::EmbeddingStore;
use models::write_atomically;

use super::{ReportWriter, describe};
use crate::TrainError;
use crate::data::Dataset;

impl ReportWriter {
    /// The file of titles and popularity.
    const CATALOGUE: &'static str = "catalogue.json";

    /// Writes titles and popularity of all items.
    pub(super) fn write_catalogue(&mut self, dataset: &Dataset) -> Result<(), TrainError> {
        let mut catalogue = Catalogue::default();
        dataset
            .items
            .iter()
            .for_each(|item| catalogue.push(&describe::item(item)));
        self.write(Self::CATALOGUE, &catalogue)?;
        self.manifest.catalogue = Some(Self::CATALOGUE.to_owned());
        Ok(())
    }

    /// Counts in how many of the top lists each item stands, in the folder `stem`; gives the file's name.
    pub(super) fn write_exposure(
        &self,
        stem: &str,
        cutoffs: &[Cutoff],
        results: &[UserResult],
    ) -> Result<String, TrainError> {
        let items = self.manifest.items.count;
        let lists = |found: fn(&UserResult) -> &[Found]| -> Vec<&[u32]> {
            let found = results.iter().flat_map(found);
            found.map(|found| found.top_items.as_slice()).collect()
        };
        let generated = lists(|result| &result.generated);
        let reference = lists(|result| result.reference.as_slice());
        let reference = (!reference.is_empty()).then_some(&reference[..]);
        let file = format!("{stem}/exposure.json");
        self.write(&file, &Exposure::of(items, cutoffs, &generated, reference)?)?;
        Ok(file)
    }

    /// Puts items, generated profiles and reference profiles on a map, in the folder `stem`.
    pub(super) fn write_map(&self, stem: &str, stores: [&EmbeddingStore; 3]) -> Result<MapFiles, TrainError> {
        let [items, profiles, references] = stores;
        let axes = PrincipalAxes::fit(items, self.manifest.similarity)?;
        let write = |name: &str, vectors: &EmbeddingStore| -> Result<String, TrainError> {
            let file = format!("{stem}/map-{name}.xy");
            let points = Points {
                points: axes.project(vectors)?,
            };
            write_atomically(&self.folder.join(&file), |out| {
                points.write(out).map_err(std::io::Error::other)
            })?;
            Ok(file)
        };
        Ok(MapFiles {
            items: write("items", items)?,
            profiles: write("profiles", profiles)?,
            references: Some(write("references", references)?),
            explained: axes.explained(),
        })
    }
}
