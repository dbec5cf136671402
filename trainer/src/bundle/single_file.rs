//! The viewer and reports in one HTML page, which opens from a disk.

use std::io::{self, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use models::write_atomically;

use super::page::{END_OF_BODY, Page};
use super::{Bundle, BundleError};

/// What the files of all reports may be in one page, in bytes: a browser holds the page, its text, and what is unpacked of it.
pub const MAX_SINGLE_FILE_BYTES: u64 = 50_000_000;

/// Writes one page in which everything is: styles and scripts inline; the viewer's module and all files of reports in elements that
/// the viewer looks for before it fetches, `<script type="text/plain" data-file="PATH" data-encoding="gzip+base64">`.
///
/// # Errors
/// When the reports are above [`MAX_SINGLE_FILE_BYTES`], cannot be read, or the page cannot be written.
pub fn write_single_file(bundle: &Bundle<'_>, output: &Path) -> Result<(), BundleError> {
    let files = bundle.report_files()?;
    let lengths = files.iter().map(|file| file.content.length());
    let bytes = lengths.sum::<Result<u64, _>>()?;
    if bytes > MAX_SINGLE_FILE_BYTES {
        return Err(BundleError::TooLarge { bytes });
    }
    let page = Page::of_site(bundle.site)?;
    let mut packed = Vec::new();
    for (name, bytes) in page.left() {
        packed.push(element(name, bytes));
    }
    for file in [bundle.list()?].iter().chain(&files) {
        packed.push(element(&file.name, &file.content.bytes()?));
    }
    let elements = packed.into_iter().collect::<io::Result<Vec<_>>>();
    let elements = elements.map_err(|source| models::ModelError::io(output, source))?;
    write_atomically(output, |out| {
        out.write_all(page.before().as_bytes())?;
        elements
            .iter()
            .try_for_each(|element| out.write_all(element.as_bytes()))?;
        out.write_all(END_OF_BODY.as_bytes())?;
        out.write_all(page.after().as_bytes())
    })?;
    Ok(())
}

/// A file in the page. Base64 holds nothing that HTML reads.
fn element(name: &str, bytes: &[u8]) -> io::Result<String> {
    // No time and no name in it: equal files give equal elements.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    let text = STANDARD.encode(encoder.finish()?);
    Ok(format!(
        "<script type=\"text/plain\" data-file=\"{name}\" data-encoding=\"gzip+base64\">{text}</script>\n"
    ))
}
