//! Which two checkpoints the page is about, each with its report.

use super::settings::Named;
use crate::follow::Reports;
use crate::load::Source;
use crate::runs;
use crate::users::shown::{chosen_checkpoint, with_results};

/// The two checkpoints, each with its report.
#[derive(Clone, Debug, PartialEq)]
pub struct Both {
    /// The one that is compared with.
    pub first: (Source, usize),
    /// The one that is compared.
    pub second: (Source, usize),
}

impl Both {
    /// Whether both are of one report.
    pub fn is_one_run(&self) -> bool {
        self.first.0 == self.second.0
    }

    /// What they are called, first and second; with the second's run where it is another one.
    pub fn names(&self) -> [String; 2] {
        let name = |(source, checkpoint): &(Source, usize)| source.manifest().checkpoints[*checkpoint].name.clone();
        match self.is_one_run() {
            true => [name(&self.first), name(&self.second)],
            false => [
                format!("{}, {}", self.first.0.manifest().run, name(&self.first)),
                format!("{}, {}", self.second.0.manifest().run, name(&self.second)),
            ],
        }
    }
}

/// Opens what the address names. Without names it is the best checkpoint against the first with results.
pub async fn both(source: Source, first: Option<&str>, second: Named, reports: Reports) -> Result<Both, String> {
    let other = match &second.run {
        None => source.clone(),
        Some(run) => {
            let place = reports.runs.with_untracked(|runs| match runs {
                Some(Ok(runs)) => runs::chosen(runs, run).cloned(),
                _ => None,
            });
            let place = place.ok_or_else(|| format!("There is no run “{run}” here."))?;
            Source::open(&place.path).await.map_err(|error| error.to_string())?
        }
    };
    let second = chosen_checkpoint(second.checkpoint.as_deref(), other.manifest())?;
    let first = match first {
        Some(name) => chosen_checkpoint(Some(name), source.manifest())?,
        None => {
            let with_results = with_results(source.manifest());
            let is_other = |number: &&usize| source != other || **number != second;
            let first = with_results.iter().find(is_other).copied();
            first.map_or_else(|| chosen_checkpoint(None, source.manifest()), Ok)?
        }
    };
    Ok(Both {
        first: (source, first),
        second: (other, second),
    })
}
