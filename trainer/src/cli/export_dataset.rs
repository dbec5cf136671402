//! `langptune export-dataset`.

use std::path::PathBuf;

use clap::Args;

use crate::data::{Export, ExportedFile};

/// Write a dataset in the layout of the published sets.
///
/// Makes two sets that Python's `datasets` reads and that can be put on the hub as they are: OUTPUT/sessions, with the splits
/// train, val and test, and OUTPUT/items. Token ids are padded as the published scripts expect it, and histories and targets
/// are written as dense rows too.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct ExportDatasetArgs {
    /// Folder that `langptune prepare` wrote.
    #[arg(long, value_name = "DIR")]
    dataset: PathBuf,
    /// Folder to write; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace an earlier export in --output.
    #[arg(long)]
    overwrite: bool,
    /// Token id that pads prompts [default: the first after the vocabulary, the id of the pad that the published scripts add].
    #[arg(long, value_name = "ID")]
    lm_pad_id: Option<u32>,
    /// Token id that pads item texts [default: 0, BERT's].
    #[arg(long, value_name = "ID")]
    embedder_pad_id: Option<u32>,
}

const EXAMPLE: &str = "\
Example:
  langptune export-dataset --dataset dataset --output published
  langptune train --preset gemma --task.query_dataset published/sessions --task.item_dataset published/items";

/// Writes the files and prints their names and rows.
pub fn run(args: ExportDatasetArgs) -> anyhow::Result<()> {
    let export = Export {
        dataset: args.dataset,
        output: args.output,
        overwrite: args.overwrite,
        lm_pad: args.lm_pad_id,
        embedder_pad: args.embedder_pad_id,
    };
    let files = export.run()?;
    let line = |ExportedFile { name, rows }: &ExportedFile| format!("{name:<52}{rows:>8} rows\n");
    super::print(&files.iter().map(line).collect::<String>())?;
    eprintln!("wrote {}", export.output.display());
    Ok(())
}
