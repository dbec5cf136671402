//! From raw reviews to a dataset: the steps, in order, and what each of them leaves.

use std::path::PathBuf;

use models::text::{PromptTemplate, SpecialTokens, TextError, Tokenizer};
use rayon::prelude::*;

use super::{
    Counts, DataError, Dataset, Item, Manifest, Rules, User,
    catalogue::{Catalogue, Descriptions},
    manifest::{FORMAT, FORMAT_VERSION, MANIFEST_FILE, Source, Stats, TokenizerSource},
    output::UnfinishedFolder,
    prompt::{self, Rated},
    reviews::{ReviewTexts, Reviews},
    sessions::{self, Row, Session},
    split::{self, Numbering},
};
use crate::progress::Progress;

/// Prompts that are tokenized at a time: enough for all cores, few enough for their texts not to matter.
const PROMPTS_AT_ONCE: usize = 2048;

/// What to prepare, and where to.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// Amazon Reviews 2023 reviews, JSON lines, plain or gzip.
    pub reviews: PathBuf,
    /// Amazon Reviews 2023 metadata, JSON lines, plain or gzip.
    pub metadata: PathBuf,
    /// Folder of the language model; only its tokenizer files are read.
    pub lm: PathBuf,
    /// Folder of the embedder; only its tokenizer files are read.
    pub embedder: PathBuf,
    /// The folder to write.
    pub output: PathBuf,
    /// Whether an earlier dataset in its place is replaced.
    pub overwrite: bool,
    /// Whether lines that cannot be read are counted and left out.
    pub skip_bad_lines: bool,
    /// How to filter, split and write prompts.
    pub rules: Rules,
}

impl Preparation {
    /// Does it all, and returns the manifest that was written. Nothing is left behind where it fails.
    ///
    /// # Errors
    /// Names the file and line, the filter that left nothing, or the folder that cannot be written.
    pub fn run(&self) -> Result<Manifest, DataError> {
        self.rules.check()?;
        let folder = UnfinishedFolder::begin(&self.output, self.overwrite, MANIFEST_FILE)?;
        let work = Work::open(self)?;
        let mut dataset = work.dataset(work.users_and_items()?)?;
        dataset.write(folder.path())?;
        folder.publish()?;
        Ok(dataset.manifest)
    }
}

/// Everything but the draw between validation and test.
pub(super) struct UsersAndItems {
    pub(super) items: Vec<Item>,
    pub(super) train: Vec<User>,
    pub(super) held_out: Vec<User>,
    pub(super) stats: Stats,
}

/// The preparation with its tokenizers.
pub(super) struct Work<'a> {
    preparation: &'a Preparation,
    lm: Tokenizer,
    embedder: Tokenizer,
    template: PromptTemplate,
}

/// The texts that prompts are made of.
struct Texts {
    descriptions: Descriptions,
    reviews: ReviewTexts,
}

impl<'a> Work<'a> {
    pub(super) fn open(preparation: &'a Preparation) -> Result<Self, DataError> {
        Ok(Self {
            preparation,
            lm: Tokenizer::open(&preparation.lm)?,
            embedder: Tokenizer::open(&preparation.embedder)?,
            template: preparation.rules.template.open(&preparation.lm)?,
        })
    }

    fn rules(&self) -> &Rules {
        &self.preparation.rules
    }

    pub(super) fn users_and_items(&self) -> Result<UsersAndItems, DataError> {
        let mut stats = Stats::default();
        let catalogue = self.read_metadata(&mut stats)?;
        let mut reviews = self.read_reviews(&catalogue, &mut stats)?;
        let rows = self.first_core(std::mem::take(&mut reviews.rows), &mut stats)?;
        let sessions = self.drop_long_items(sessions::sessions(rows), &catalogue, &mut stats)?;
        let mut texts = self.texts_of(&sessions, &catalogue)?;
        let sessions = self.drop_long_prompts(sessions, &texts, &mut stats)?;
        let sessions = self.second_core(sessions, &mut stats)?;
        let (train, test) = self.split(sessions, &mut stats)?;
        let numbering = Numbering::of(&train);
        stats.train_items = numbering.items.len();

        // Dropped items can have moved histories, so texts may be needed that were not before.
        texts.reviews.keep(self.history_lines(train.iter().chain(&test)))?;
        let mut train = self.users(train, &texts, &reviews, &numbering, &mut stats)?;
        let mut held_out = self.users(test, &texts, &reviews, &numbering, &mut stats)?;
        (stats.train_users_with_target, stats.test_users_with_target) = (train.len(), held_out.len());
        self.drop_tied_targets(&mut train, &mut held_out, &mut stats)?;
        let items = self.items(&numbering, &texts.descriptions, &train)?;
        Ok(UsersAndItems {
            items,
            train,
            held_out,
            stats,
        })
    }

    fn dataset(&self, found: UsersAndItems) -> Result<Dataset, DataError> {
        let UsersAndItems {
            items,
            train,
            held_out,
            mut stats,
        } = found;
        let (val, test) = split::halve(held_out, self.rules().seed);
        (stats.val_users, stats.test_users) = (val.len(), test.len());
        Ok(Dataset {
            manifest: self.manifest(stats)?,
            items,
            train,
            val,
            test,
        })
    }

    fn read_metadata(&self, stats: &mut Stats) -> Result<Catalogue, DataError> {
        let Preparation {
            metadata,
            skip_bad_lines,
            rules,
            ..
        } = self.preparation;
        let catalogue = Catalogue::read(metadata, &self.embedder, rules.max_item_tokens, *skip_bad_lines)?;
        stats.items_read = catalogue.lines_read - catalogue.bad_lines;
        stats.bad_metadata_lines = catalogue.bad_lines;
        stats.items_without_title = catalogue.without_title;
        stats.items_too_long = catalogue.long_items();
        Ok(catalogue)
    }

    fn read_reviews(&self, catalogue: &Catalogue, stats: &mut Stats) -> Result<Reviews, DataError> {
        let reviews = Reviews::read(&self.preparation.reviews, catalogue, self.preparation.skip_bad_lines)?;
        stats.reviews_read = reviews.lines_read - reviews.bad_lines;
        stats.bad_review_lines = reviews.bad_lines;
        stats.reviews_with_metadata = reviews.rows.len();
        if reviews.rows.is_empty() {
            // The users of reviews that are not kept are not counted.
            return Err(DataError::NothingLeft {
                filter: "reviews of items that the metadata describes".to_owned(),
                before: Counts {
                    reviews: stats.reviews_read,
                    users: reviews.users.len(),
                    items: stats.items_read - stats.items_without_title,
                },
                advice: "check that both files are of one category and share their `parent_asin`",
            });
        }
        Ok(reviews)
    }

    fn first_core(&self, mut rows: Vec<Row>, stats: &mut Stats) -> Result<Vec<Row>, DataError> {
        let before = sessions::counts(&rows);
        sessions::k_core(&mut rows, self.rules().k);
        rows.shrink_to_fit();
        let left = sessions::counts(&rows);
        stats.reviews_after_first_kcore = left.reviews;
        stats.users_after_first_kcore = left.users;
        stats.items_after_first_kcore = left.items;
        let filter = format!("users and items with at least {} reviews", self.rules().k);
        nothing_left(rows.is_empty(), filter, before, "use more data, or a smaller --k")?;
        Ok(rows)
    }

    fn drop_long_items(
        &self,
        mut sessions: Vec<Session>,
        catalogue: &Catalogue,
        stats: &mut Stats,
    ) -> Result<Vec<Session>, DataError> {
        let before = counts(&sessions);
        sessions.retain(|session| session.rows.iter().all(|row| !catalogue.is_long(row.item)));
        stats.users_with_long_item = before.users - sessions.len();
        let filter = format!(
            "no item of more than {} tokens in a session",
            self.rules().max_item_tokens
        );
        nothing_left(sessions.is_empty(), filter, before, "use a larger --max-item-tokens")?;
        Ok(sessions)
    }

    fn texts_of(&self, sessions: &[Session], catalogue: &Catalogue) -> Result<Texts, DataError> {
        let items = sessions
            .iter()
            .flat_map(|session| &session.rows)
            .map(|row| row.item)
            .collect();
        let descriptions = catalogue.descriptions(&self.preparation.metadata, items)?;
        let mut reviews = ReviewTexts::new(&self.preparation.reviews);
        reviews.keep(self.history_lines(sessions.iter()))?;
        Ok(Texts { descriptions, reviews })
    }

    fn drop_long_prompts(
        &self,
        sessions: Vec<Session>,
        texts: &Texts,
        stats: &mut Stats,
    ) -> Result<Vec<Session>, DataError> {
        let before = counts(&sessions);
        let sessions: Vec<Session> = self
            .with_prompts(sessions, texts)?
            .into_iter()
            .map(|(session, _)| session)
            .collect();
        stats.users_with_long_prompt = before.users - sessions.len();
        stats.users_too_long = stats.users_with_long_item + stats.users_with_long_prompt;
        let filter = format!("no prompt of more than {} tokens", self.rules().max_prompt_tokens);
        nothing_left(
            sessions.is_empty(),
            filter,
            before,
            "use a larger --max-prompt-tokens, or a smaller --history",
        )?;
        Ok(sessions)
    }

    fn second_core(&self, sessions: Vec<Session>, stats: &mut Stats) -> Result<Vec<Session>, DataError> {
        let before = counts(&sessions);
        let mut rows = sessions::rows(sessions);
        sessions::k_core(&mut rows, self.rules().k);
        let left = sessions::counts(&rows);
        (stats.reviews, stats.users, stats.items) = (left.reviews, left.users, left.items);
        let filter = format!(
            "users and items with at least {} reviews, after the long ones",
            self.rules().k
        );
        let advice = "use more data, a smaller --k, or larger --max-item-tokens and --max-prompt-tokens";
        nothing_left(rows.is_empty(), filter, before, advice)?;
        Ok(sessions::sessions(rows))
    }

    fn split(&self, sessions: Vec<Session>, stats: &mut Stats) -> Result<(Vec<Session>, Vec<Session>), DataError> {
        let before = counts(&sessions);
        let (train, mut test) = split::by_first_interaction(sessions, self.rules().test_share);
        stats.train_users = train.len();
        stats.test_users_before_cold_items = test.len();
        let filter = format!("training users, all but a share of {}", self.rules().test_share);
        nothing_left(
            train.is_empty(),
            filter,
            before,
            "use more data, or a smaller --test-share",
        )?;
        let before = counts(&test);
        // One item more than the history: without it there is nothing to find.
        let min_rows = self.rules().history + 1;
        split::drop_cold(&train, &mut test, min_rows);
        stats.test_users_after_cold_items = test.len();
        let filter = format!("test users with at least {min_rows} items that a training user has");
        nothing_left(
            before.users > 0 && test.is_empty(),
            filter,
            before,
            "use more data, or another --test-share",
        )?;
        Ok((train, test))
    }

    /// Users with their targets and prompts; those without a target or with a long prompt are dropped.
    ///
    /// The reference profile, the text of a single item, cannot have become too long: no long item is left.
    fn users(
        &self,
        sessions: Vec<Session>,
        texts: &Texts,
        reviews: &Reviews,
        numbering: &Numbering,
        stats: &mut Stats,
    ) -> Result<Vec<User>, DataError> {
        let before = counts(&sessions);
        let history = self.rules().history;
        let asked = sessions.len();
        let with_prompts = self.with_prompts(sessions, texts)?;
        stats.users_too_long_after_split += asked - with_prompts.len();
        let mut users = Vec::with_capacity(with_prompts.len());
        for (session, prompt_tokens) in with_prompts {
            let Some(target) = split::target(&session, history) else {
                continue;
            };
            let (past, later) = session.rows.split_at(history);
            // A row that has no number would be a cold item, and those were dropped.
            let numbered = |rows: &[Row]| {
                rows.iter()
                    .filter_map(|row| numbering.get(row.item))
                    .collect::<Vec<u32>>()
            };
            users.push(User {
                id: reviews.users.get(session.user).to_owned(),
                history: numbered(past),
                targets: numbered(&session.rows[target..=target]),
                later: numbered(later),
                ratings: past.iter().map(|row| row.rating).collect(),
                reviews: past.iter().map(|row| texts.reviews.get(row.line).to_owned()).collect(),
                prompt: String::new(),
                prompt_tokens,
                tied_target_time: split::has_tied_target(&session, history, target),
            });
        }
        let filter = "users with a target, a later item that is not in the history".to_owned();
        nothing_left(
            before.users > 0 && users.is_empty(),
            filter,
            before,
            "use more data, or a smaller --history",
        )?;
        Ok(users)
    }

    fn drop_tied_targets(
        &self,
        train: &mut Vec<User>,
        test: &mut Vec<User>,
        stats: &mut Stats,
    ) -> Result<(), DataError> {
        let tied = |users: &[User]| users.iter().filter(|user| user.tied_target_time).count();
        stats.users_with_tied_target_time = tied(train) + tied(test);
        if !self.rules().drop_tied_targets {
            return Ok(());
        }
        stats.users_dropped_for_tied_target_time = stats.users_with_tied_target_time;
        for users in [train, test] {
            let before = users.len();
            let reviews = users.iter().map(|user| user.history.len() + user.later.len()).sum();
            users.retain(|user| !user.tied_target_time);
            let before = Counts {
                reviews,
                users: before,
                items: stats.train_items,
            };
            let filter = "history and target at different times".to_owned();
            nothing_left(
                before.users > 0 && users.is_empty(),
                filter,
                before,
                "leave out --drop-tied-targets",
            )?;
        }
        Ok(())
    }

    fn items(
        &self,
        numbering: &Numbering,
        descriptions: &Descriptions,
        train: &[User],
    ) -> Result<Vec<Item>, DataError> {
        let mut train_counts = vec![0; numbering.items.len()];
        for item in train.iter().flat_map(|user| user.history.iter().chain(&user.later)) {
            train_counts[*item as usize] += 1;
        }
        let described = numbering.items.par_iter().zip(train_counts);
        described
            .map(|(item, train_count)| {
                let record = descriptions.get(*item);
                Ok(Item {
                    id: record.id.clone(),
                    title: record.title.clone(),
                    text: record.text.clone(),
                    categories: record.categories.clone(),
                    tokens: self.embedder.encode(&record.text, SpecialTokens::Add)?,
                    train_count,
                })
            })
            .collect()
    }

    fn manifest(&self, stats: Stats) -> Result<Manifest, DataError> {
        let Preparation {
            reviews,
            metadata,
            lm,
            embedder,
            rules,
            ..
        } = self.preparation;
        Ok(Manifest {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            created_by: concat!("langptune ", env!("CARGO_PKG_VERSION")).to_owned(),
            reviews: Source::of(reviews)?,
            metadata: Source::of(metadata)?,
            rules: rules.clone(),
            prompt_form: self.template.render("{prompt}")?,
            lm_tokenizer: TokenizerSource::of(lm, &self.lm)?,
            embedder_tokenizer: TokenizerSource::of(embedder, &self.embedder)?,
            stats,
            files: Vec::new(),
        })
    }

    /// The lines of the reviews that go into prompts.
    fn history_lines<'s>(&self, sessions: impl Iterator<Item = &'s Session>) -> Vec<u32> {
        sessions
            .flat_map(|session| session.rows.iter().take(self.rules().history))
            .map(|row| row.line)
            .collect()
    }

    /// The sessions whose prompts are short enough, with the prompts' tokens.
    fn with_prompts(&self, sessions: Vec<Session>, texts: &Texts) -> Result<Vec<(Session, Vec<u32>)>, TextError> {
        let mut progress = Progress::start("tokenizing prompts", "prompts", Some(sessions.len() as u64));
        let mut kept = Vec::with_capacity(sessions.len());
        let mut sessions = sessions.into_iter();
        loop {
            let some: Vec<Session> = sessions.by_ref().take(PROMPTS_AT_ONCE).collect();
            if some.is_empty() {
                progress.finish();
                return Ok(kept);
            }
            progress.add(some.len() as u64);
            let tokenized: Result<Vec<(Session, Vec<u32>)>, TextError> = some
                .into_par_iter()
                .map(|session| self.prompt_tokens(&session, texts).map(|tokens| (session, tokens)))
                .collect();
            let limit = self.rules().max_prompt_tokens;
            kept.extend(tokenized?.into_iter().filter(|(_, tokens)| tokens.len() <= limit));
        }
    }

    fn prompt_tokens(&self, session: &Session, texts: &Texts) -> Result<Vec<u32>, TextError> {
        let history = session.rows.iter().take(self.rules().history).map(|row| Rated {
            item_text: &texts.descriptions.get(row.item).text,
            rating: row.rating,
            review: texts.reviews.get(row.line),
        });
        self.encode_prompt(&prompt::prompt(&self.rules().instruction, history))
    }

    pub(super) fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, TextError> {
        self.template.encode(&self.lm, prompt)
    }
}

fn counts(sessions: &[Session]) -> Counts {
    let items: std::collections::HashSet<u32> = sessions
        .iter()
        .flat_map(|session| &session.rows)
        .map(|row| row.item)
        .collect();
    let reviews = sessions.iter().map(|session| session.rows.len()).sum();
    Counts {
        reviews,
        users: sessions.len(),
        items: items.len(),
    }
}

fn nothing_left(nothing: bool, filter: String, before: Counts, advice: &'static str) -> Result<(), DataError> {
    if nothing {
        Err(DataError::NothingLeft { filter, before, advice })
    } else {
        Ok(())
    }
}
