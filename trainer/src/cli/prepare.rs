//! `langptune prepare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::UsageError;
use crate::data::{DataError, FILM_INSTRUCTION, Preparation, Rules, TemplateForm};

/// Make a dataset from raw reviews.
///
/// Reads Amazon Reviews 2023 files (JSON lines, plain or gzip), keeps the users and items that have enough reviews and
/// short enough texts, splits users by time, and writes items and prompts, tokenized, as Parquet.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub struct PrepareArgs {
    /// Reviews, one JSON object a line: user_id, parent_asin, rating, timestamp (ms), text.
    #[arg(long, value_name = "FILE")]
    reviews: PathBuf,
    /// Items, one JSON object a line: parent_asin, title, description, categories, average_rating, price.
    #[arg(long, value_name = "FILE")]
    metadata: PathBuf,
    /// Folder of the language model; only its tokenizer files are read.
    #[arg(long, value_name = "DIR")]
    lm: PathBuf,
    /// Folder of the embedder; only its tokenizer files are read.
    #[arg(long, value_name = "DIR")]
    embedder: PathBuf,
    /// Folder to write; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace an earlier dataset in --output.
    #[arg(long)]
    overwrite: bool,
    /// Count lines that cannot be read and leave them out, instead of stopping at the first.
    #[arg(long)]
    skip_bad_lines: bool,
    /// The form of prompts of a published run: gemma is --template gemma, llama is --template chat.
    #[arg(long, value_enum, default_value = "gemma")]
    preset: Preset,
    /// How a prompt is put to the language model [default: the preset's].
    #[arg(long, value_enum)]
    template: Option<Template>,
    /// What the language model is asked before the history; the default speaks of films.
    #[arg(long, value_name = "TEXT", default_value = FILM_INSTRUCTION, hide_default_value = true)]
    instruction: String,
    /// How many items of a user the prompt shows.
    #[arg(long, value_name = "N", default_value_t = Rules::default().history)]
    history: usize,
    /// Drop users and items with fewer reviews, again and again.
    #[arg(long, value_name = "N", default_value_t = Rules::default().k)]
    k: u32,
    /// Drop users that reviewed an item of more embedder tokens.
    #[arg(long, value_name = "N", default_value_t = Rules::default().max_item_tokens)]
    max_item_tokens: usize,
    /// Drop users whose prompt has more tokens.
    #[arg(long, value_name = "N", default_value_t = Rules::default().max_prompt_tokens)]
    max_prompt_tokens: usize,
    /// The share of users, the last to arrive, kept for validation and test.
    #[arg(long, value_name = "SHARE", default_value_t = Rules::default().test_share)]
    test_share: f64,
    /// Draws which of them are for validation.
    #[arg(long, value_name = "N", default_value_t = Rules::default().seed)]
    seed: u64,
    /// Drop users whose history ends at the very time of their target, where file order alone decides.
    #[arg(long)]
    drop_tied_targets: bool,
    /// Print the counts as JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  langptune prepare --reviews Movies_and_TV.jsonl.gz --metadata meta_Movies_and_TV.jsonl.gz \\
      --lm models/gemma-2b-it --embedder models/mxbai-embed-large-v1 --output dataset";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// gemma-2b-it: Gemma's turn markers.
    Gemma,
    /// Meta-Llama-3-8B-Instruct: the model's chat template.
    Llama,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Template {
    /// Gemma's turn markers as the published run writes them.
    Gemma,
    /// The chat template in the language model's folder.
    Chat,
}

impl PrepareArgs {
    fn template(&self) -> TemplateForm {
        match (self.template, self.preset) {
            (Some(Template::Gemma), _) | (None, Preset::Gemma) => TemplateForm::Gemma,
            (Some(Template::Chat), _) | (None, Preset::Llama) => TemplateForm::Chat,
        }
    }
}

/// Prepares the dataset and prints what each step left.
pub fn run(args: PrepareArgs) -> anyhow::Result<()> {
    let template = args.template();
    let preparation = Preparation {
        reviews: args.reviews,
        metadata: args.metadata,
        lm: args.lm,
        embedder: args.embedder,
        output: args.output,
        overwrite: args.overwrite,
        skip_bad_lines: args.skip_bad_lines,
        rules: Rules {
            instruction: args.instruction,
            history: args.history,
            k: args.k,
            max_item_tokens: args.max_item_tokens,
            max_prompt_tokens: args.max_prompt_tokens,
            test_share: args.test_share,
            seed: args.seed,
            template,
            drop_tied_targets: args.drop_tied_targets,
        },
    };
    let manifest = preparation.run().map_err(|error| match error {
        DataError::Option { .. } => UsageError::new(error.to_string()).into(),
        error => anyhow::Error::from(error),
    })?;
    if args.json {
        super::print(&format!("{}\n", serde_json::to_string_pretty(&manifest.stats)?))?;
    } else {
        super::print(&manifest.stats.to_string())?;
    }
    eprintln!("wrote {}", preparation.output.display());
    Ok(())
}
