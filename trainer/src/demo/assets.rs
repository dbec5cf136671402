//! The pretrained models that this program carries.

use std::path::Path;

use super::tokenizer;
use crate::TrainError;

macro_rules! embedded {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_bytes!(concat!("../../../assets/demo-models/", $path)).as_slice())),*]
    };
}

/// Paths within the models' folder, and contents.
static FILES: [(&str, &[u8]); 10] = embedded![
    "lm/config.json",
    "lm/model.safetensors",
    "lm/tokenizer.json",
    "lm/tokenizer_config.json",
    "lm/chat_template.jinja",
    "embedder/config.json",
    "embedder/model.safetensors",
    "embedder/tokenizer.json",
    "embedder/tokenizer_config.json",
    "embedder/1_Pooling/config.json",
];

/// Writes both models' folders, `lm` and `embedder`, into `folder`.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(folder: &Path) -> Result<(), TrainError> {
    FILES.iter().try_for_each(|(path, bytes)| {
        let path = folder.join(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tokenizer::write(path.parent().unwrap_or(folder), &name, bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_are_at_most_twelve_megabytes() {
        let bytes: usize = FILES.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 12_000_000, "{bytes}");
    }
}
