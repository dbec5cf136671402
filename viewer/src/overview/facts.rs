//! What was trained on what, as names and values.

use eval_core::report::{Manifest, Model};

/// Everything that the manifest says of the run; what it leaves empty is left out.
pub fn facts(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let data = &manifest.dataset;
    let last = manifest.checkpoints.last();
    let users = format!(
        "{} to train on, {} val, {} test",
        thousands(data.train_users as u64),
        thousands(data.val_users as u64),
        thousands(data.test_users as u64)
    );
    let checkpoints = match last {
        None => "none yet".to_owned(),
        Some(last) => format!("{}, the last at update {}", manifest.checkpoints.len(), last.update),
    };
    let all = [
        ("Dataset", named_data(&data.name, &data.split)),
        ("Items", thousands(data.items as u64)),
        ("Users", users),
        ("Language model", described(&manifest.language_model)),
        ("Embedder", described(&manifest.embedder)),
        ("Checkpoints", checkpoints),
        (
            "Profiles a user",
            last.map_or_else(String::new, |checkpoint| checkpoint.profiles_per_user.to_string()),
        ),
        ("Written", manifest.created.clone()),
        ("By", manifest.generator.clone()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn named_data(name: &str, split: &str) -> String {
    match (name.is_empty(), split.is_empty()) {
        (true, _) => String::new(),
        (false, true) => name.to_owned(),
        (false, false) => format!("{name}, split {split}"),
    }
}

fn described(model: &Model) -> String {
    let Model {
        name,
        architecture,
        parameters,
        trained_parameters,
    } = model;
    if name.is_empty() {
        return String::new();
    }
    let (trained, all) = (thousands(*trained_parameters), thousands(*parameters));
    format!("{name} ({architecture}; {trained} of {all} parameters trained)")
}

/// A number with commas between thousands.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::super::samples::manifest;
    use super::*;

    #[test]
    fn facts_that_the_manifest_leaves_empty_are_left_out() {
        let names: Vec<_> = facts(&manifest()).into_iter().map(|(name, _)| name).collect();
        assert!(!names.contains(&"Written") && !names.contains(&"Embedder") && names.contains(&"Checkpoints"));
    }

    #[test]
    fn thousands_are_set_apart() {
        let grouped = [0, 999, 1000, 1_057_920].map(thousands);
        assert_eq!(grouped, ["0", "999", "1,000", "1,057,920"]);
    }
}
