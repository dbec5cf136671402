//! Whether a report agrees with itself.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::{Checkpoint, Chunks, F16File, Manifest, MapFiles, TextIndex, check_version};
use crate::{Error, ErrorKind};

impl Manifest {
    /// Whether the manifest is of this version and agrees with itself: file names stay in the report's folder, chunks
    /// cover their records, checkpoints and baselines have names of their own, checkpoints ascend, shapes fit, and files of
    /// text indexes ascend by their words.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownSchema`], or [`ErrorKind::Inconsistent`] with the field.
    pub fn check(&self) -> Result<(), Error> {
        check_version(u64::from(self.schema_version))?;
        check_chunks("items", &self.items)?;
        check_chunks("users", &self.users)?;
        check_text_index("history_index", self.history_index.as_ref())?;
        check_optional("curves".to_owned(), self.curves.as_deref())?;
        check_optional("catalogue".to_owned(), self.catalogue.as_deref())?;
        self.check_baselines()?;
        let mut names = BTreeSet::new();
        let mut update = 0;
        for (place, checkpoint) in self.checkpoints.iter().enumerate() {
            let field = |name: &str| format!("checkpoints[{place}].{name}");
            check_name(field("name"), &checkpoint.name, &mut names)?;
            if checkpoint.update < update {
                return inconsistent(field("update"), &format_args!("at least {update}"), &checkpoint.update);
            }
            update = checkpoint.update;
            self.check_results(checkpoint.results.as_ref(), &field("results"))?;
            check_text_index(&field("profile_index"), checkpoint.profile_index.as_ref())?;
            check_optional(field("exposure"), checkpoint.exposure.as_deref())?;
            self.check_embeddings(checkpoint, &field)?;
            check_map(checkpoint.map.as_ref(), &field)?;
        }
        Ok(())
    }

    fn check_baselines(&self) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        for (place, baseline) in self.baselines.iter().enumerate() {
            check_name(format!("baselines[{place}].name"), &baseline.name, &mut names)?;
            self.check_results(baseline.results.as_ref(), &format!("baselines[{place}].results"))?;
            check_optional(format!("baselines[{place}].exposure"), baseline.exposure.as_deref())?;
        }
        Ok(())
    }

    fn check_results(&self, results: Option<&Chunks>, field: &str) -> Result<(), Error> {
        let Some(results) = results else {
            return Ok(());
        };
        check_chunks(field, results)?;
        expect(format!("{field}.count"), &self.users.count, &results.count)
    }

    fn check_embeddings(&self, checkpoint: &Checkpoint, field: &dyn Fn(&str) -> String) -> Result<(), Error> {
        let Some(embeddings) = &checkpoint.embeddings else {
            return Ok(());
        };
        let users = self.users.count;
        let profiles = users.saturating_mul(checkpoint.profiles_per_user);
        let shapes = [
            ("embeddings.items", Some(&embeddings.items), self.items.count),
            ("embeddings.profiles", Some(&embeddings.profiles), profiles),
            ("embeddings.references", embeddings.references.as_ref(), users),
        ];
        for (name, file, rows) in shapes {
            let Some(F16File {
                file,
                rows: found,
                dims,
            }) = file
            else {
                continue;
            };
            check_file(field(name) + ".file", file)?;
            expect(field(name) + ".rows", &rows, found)?;
            expect(field(name) + ".dims", &embeddings.items.dims.max(1), dims)?;
        }
        Ok(())
    }
}

/// Comparisons name what they compare with, so a name must not stand for two.
pub(super) fn check_name<'a>(field: String, name: &'a str, names: &mut BTreeSet<&'a str>) -> Result<(), Error> {
    match names.insert(name) {
        true => Ok(()),
        false => inconsistent(field, &"a name of its own", &format_args!("{name:?} again")),
    }
}

fn check_chunks(field: &str, chunks: &Chunks) -> Result<(), Error> {
    if chunks.count > 0 && chunks.per_file == 0 {
        return inconsistent(format!("{field}.per_file"), &"at least 1", &0);
    }
    let files = if chunks.count == 0 {
        0
    } else {
        chunks.count.div_ceil(chunks.per_file)
    };
    expect(
        format!("{field}.files"),
        &format!("{files} files"),
        &format!("{} files", chunks.files.len()),
    )?;
    chunks
        .files
        .iter()
        .enumerate()
        .try_for_each(|(place, file)| check_file(format!("{field}.files[{place}]"), file))
}

/// A word is looked for in the last file that does not begin after it.
fn check_text_index(field: &str, index: Option<&TextIndex>) -> Result<(), Error> {
    let mut before = "";
    for (place, listed) in index.iter().flat_map(|index| &index.files).enumerate() {
        let field = |name: &str| format!("{field}.files[{place}].{name}");
        check_file(field("file"), &listed.file)?;
        if listed.first.as_str() <= before {
            let (expected, found) = (format!("a word after {before:?}"), format!("{:?}", listed.first));
            return inconsistent(field("first"), &expected, &found);
        }
        before = &listed.first;
    }
    Ok(())
}

fn check_map(map: Option<&MapFiles>, field: &dyn Fn(&str) -> String) -> Result<(), Error> {
    let Some(map) = map else {
        return Ok(());
    };
    map.files()
        .try_for_each(|(name, file)| check_file(field("map.") + name, file))?;
    let [first, second] = map.explained;
    // A share that is no number fails every comparison.
    match first >= second && second >= 0.0 && first + second <= 1.0 + 1e-9 {
        true => Ok(()),
        false => inconsistent(
            field("map.explained"),
            &"two shares of a whole, the larger first",
            &format_args!("{first} and {second}"),
        ),
    }
}

fn check_optional(field: String, file: Option<&str>) -> Result<(), Error> {
    file.map_or(Ok(()), |file| check_file(field, file))
}

/// A report may come from anyone, so a file name must not lead out of its folder or to another host.
pub(super) fn check_file(field: String, file: &str) -> Result<(), Error> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    match file.chars().all(allowed) && file.split('/').all(plain) {
        true => Ok(()),
        false => inconsistent(
            field,
            &"a path of letters, digits, '-', '_' and '.' inside the report",
            &format_args!("{file:?}"),
        ),
    }
}

/// An error unless `found` is what is expected.
pub(super) fn expect<T: PartialEq + Display>(field: String, expected: &T, found: &T) -> Result<(), Error> {
    match expected == found {
        true => Ok(()),
        false => inconsistent(field, expected, found),
    }
}

pub(super) fn inconsistent<T>(field: String, expected: &dyn Display, found: &dyn Display) -> Result<T, Error> {
    Err(ErrorKind::Inconsistent {
        field,
        expected: expected.to_string(),
        found: found.to_string(),
    }
    .into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Baseline, Embeddings, TextIndexFile, read_manifest, write_json};
    use super::*;

    fn manifest() -> Manifest {
        let file = |file: &str, rows| F16File {
            file: file.into(),
            rows,
            dims: 8,
        };
        let words = |firsts: [&str; 2]| TextIndex {
            files: firsts
                .map(|first| TextIndexFile {
                    file: "words.bin".into(),
                    first: first.into(),
                })
                .to_vec(),
        };
        Manifest {
            items: Chunks::in_files("items", 5, 2),
            users: Chunks::in_files("users", 3, 2),
            history_index: Some(words(["b", "é"])),
            curves: Some("curves.json".into()),
            catalogue: Some("catalogue.json".into()),
            baselines: vec![Baseline {
                name: "random".into(),
                results: Some(Chunks::in_files("random", 3, 2)),
                exposure: Some("random/exposure.json".into()),
                ..Baseline::default()
            }],
            checkpoints: vec![Checkpoint {
                name: "update-1".into(),
                update: 1,
                profiles_per_user: 2,
                results: Some(Chunks::in_files("update-1/results", 3, 2)),
                profile_index: Some(words(["a", "m"])),
                embeddings: Some(Embeddings {
                    items: file("update-1/items.f16", 5),
                    profiles: file("update-1/profiles.f16", 6),
                    references: None,
                }),
                exposure: Some("update-1/exposure.json".into()),
                map: Some(MapFiles {
                    items: "update-1/items.xy".into(),
                    profiles: "update-1/profiles.xy".into(),
                    references: Some("update-1/references.xy".into()),
                    explained: [0.5, 0.25],
                }),
                ..Checkpoint::default()
            }],
            ..Manifest::default()
        }
    }

    /// The message for a manifest that `break_it` has changed.
    fn message(break_it: impl Fn(&mut Manifest)) -> String {
        let mut broken = manifest();
        break_it(&mut broken);
        broken.check().unwrap_err().to_string()
    }

    #[test]
    fn a_whole_manifest_reads_back() {
        let mut file = Vec::new();
        write_json(&mut file, &manifest()).unwrap();
        assert_eq!(read_manifest(&file[..]).unwrap(), manifest());
    }

    #[test]
    fn a_manifest_lists_all_files_of_its_report_once() {
        let mut manifest = manifest();
        let embeddings = manifest.checkpoints[0].embeddings.as_mut().unwrap();
        embeddings.references = Some(F16File {
            file: "update-1/references.f16".into(),
            ..embeddings.items.clone()
        });
        let expected = [
            "catalogue.json",
            "curves.json",
            "items-0.json",
            "items-1.json",
            "items-2.json",
            "random-0.json",
            "random-1.json",
            "random/exposure.json",
            "update-1/exposure.json",
            "update-1/items.f16",
            "update-1/items.xy",
            "update-1/profiles.f16",
            "update-1/profiles.xy",
            "update-1/references.f16",
            "update-1/references.xy",
            "update-1/results-0.json",
            "update-1/results-1.json",
            "users-0.json",
            "users-1.json",
            "words.bin",
        ];
        assert_eq!(manifest.files().into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_manifest_without_what_was_added_later_reads() {
        let mut json = serde_json::to_value(manifest()).unwrap();
        let remove = |value: &mut serde_json::Value, field: &str| value.as_object_mut().unwrap().remove(field).unwrap();
        remove(&mut json, "history_index");
        remove(&mut json, "curves");
        remove(&mut json, "redacted");
        remove(&mut json, "catalogue");
        remove(&mut json["baselines"][0], "exposure");
        remove(&mut json["checkpoints"][0], "exposure");
        remove(&mut json["checkpoints"][0], "map");
        remove(&mut json["baselines"][0], "results");
        remove(&mut json["checkpoints"][0], "profile_index");
        let read = read_manifest(json.to_string().as_bytes()).unwrap();
        assert_eq!((read.history_index, &read.baselines[0].results), (None, &None));
        assert_eq!((&read.checkpoints[0].profile_index, &read.curves), (&None, &None));
        assert!(!read.redacted && read.catalogue.is_none());
        assert_eq!(
            (&read.checkpoints[0].exposure, &read.checkpoints[0].map),
            (&None, &None)
        );
    }

    #[test]
    fn another_version_is_refused_before_its_fields() {
        let error = read_manifest(r#"{"schema_version": 2, "other": []}"#.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("use a newer langptune"), "{error}");
        let error = read_manifest(r#"{"schema_version": 0}"#.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("write it again"), "{error}");
        let error = read_manifest(r#"{"run": "x"}"#.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("schema_version"), "{error}");
    }

    #[test]
    fn files_cannot_lead_out_of_the_report() {
        for file in [
            "../secret",
            "/etc/passwd",
            "https://elsewhere/x",
            "a//b",
            "a\\b",
            "",
            "x/./y",
        ] {
            let message = message(|manifest| manifest.items.files[1] = file.into());
            assert!(message.starts_with("items.files[1]: expected a path"), "{message}");
            let message = self::message(|manifest| manifest.curves = Some(file.into()));
            assert!(message.starts_with("curves: expected a path"), "{message}");
            let message = self::message(|manifest| manifest.baselines[0].exposure = Some(file.into()));
            assert!(
                message.starts_with("baselines[0].exposure: expected a path"),
                "{message}"
            );
            let message =
                self::message(|manifest| manifest.checkpoints[0].map.as_mut().unwrap().profiles = file.into());
            assert!(
                message.starts_with("checkpoints[0].map.profiles: expected a path"),
                "{message}"
            );
            let message = self::message(|manifest| {
                let index = manifest.history_index.as_mut();
                index.unwrap().files[0].file = file.into();
            });
            assert!(
                message.starts_with("history_index.files[0].file: expected a path"),
                "{message}"
            );
        }
    }

    #[test]
    fn contradictions_name_their_field() {
        let missing = message(|manifest| manifest.users.files.truncate(1));
        assert_eq!(missing, "users.files: expected 2 files, found 1 files");
        assert!(message(|manifest| manifest.users.per_file = 0).starts_with("users.per_file"));
        let twice = message(|manifest| manifest.checkpoints.push(manifest.checkpoints[0].clone()));
        assert_eq!(
            twice,
            "checkpoints[1].name: expected a name of its own, found \"update-1\" again"
        );
        let twice = message(|manifest| manifest.baselines.push(manifest.baselines[0].clone()));
        assert_eq!(
            twice,
            "baselines[1].name: expected a name of its own, found \"random\" again"
        );
        let fewer = message(|manifest| manifest.baselines[0].results = Some(Chunks::in_files("random", 2, 2)));
        assert_eq!(fewer, "baselines[0].results.count: expected 3, found 2");
        let again = message(|manifest| {
            let index = manifest.checkpoints[0].profile_index.as_mut();
            index.unwrap().files[1].first = "a".into();
        });
        assert_eq!(
            again,
            "checkpoints[0].profile_index.files[1].first: expected a word after \"a\", found \"a\""
        );
        let rows = message(|manifest| manifest.checkpoints[0].profiles_per_user = 3);
        assert_eq!(rows, "checkpoints[0].embeddings.profiles.rows: expected 9, found 6");
        for explained in [[0.2, 0.3], [0.9, 0.2], [0.5, -0.1], [f64::NAN, 0.0]] {
            let shares = message(|manifest| manifest.checkpoints[0].map.as_mut().unwrap().explained = explained);
            assert!(
                shares.starts_with("checkpoints[0].map.explained: expected two shares"),
                "{shares}"
            );
        }
        let earlier = message(|manifest| {
            let earlier = Checkpoint {
                name: "update-0".into(),
                update: 0,
                ..Checkpoint::default()
            };
            manifest.checkpoints.push(earlier);
        });
        assert_eq!(earlier, "checkpoints[1].update: expected at least 1, found 0");
    }
}
