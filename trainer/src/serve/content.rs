//! What an address holds, and the form in which a request gets it: whole, in part, packed, or not again.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::request::Request;
use super::response::{Body, Response, Status};

/// Below, packing saves nothing; above, whoever waits is better served by the file as it is.
const PACKED_BYTES: RangeInclusive<u64> = 1024..=(32 << 20);

/// A file of the viewer, in memory.
#[derive(Debug)]
pub(super) struct Asset {
    bytes: Cow<'static, [u8]>,
    tag: String,
    /// Packed when it is first asked for, by coding.
    packed: [OnceLock<Vec<u8>>; 2],
}

impl Asset {
    pub(super) fn new(bytes: Cow<'static, [u8]>) -> Self {
        let hash = Sha256::digest(&bytes);
        let tag = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        Self {
            bytes,
            tag,
            packed: [const { OnceLock::new() }; 2],
        }
    }

    fn packed(&self, coding: Coding) -> io::Result<&[u8]> {
        let kept = &self.packed[coding as usize];
        if let Some(packed) = kept.get() {
            return Ok(packed);
        }
        let packed = match coding {
            Coding::Gzip => gzip(&self.bytes[..], Compression::default())?,
            Coding::Brotli => brotli(&self.bytes)?,
        };
        Ok(kept.get_or_init(|| packed))
    }
}

/// How an answer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Brotli,
}

impl Coding {
    /// In the order in which they are chosen.
    const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }
}

/// What an address holds.
#[derive(Debug)]
pub(super) struct Content<'a> {
    source: Source<'a>,
    media: Media,
    /// In bytes.
    length: u64,
    /// Names this very content.
    tag: String,
}

#[derive(Debug)]
enum Source<'a> {
    Asset(&'a Asset),
    File(File),
}

impl<'a> Source<'a> {
    fn part(self, range: Range<u64>) -> Body<'a> {
        match self {
            Self::Asset(asset) => {
                let part = asset.bytes.get(range.start as usize..range.end as usize);
                Body::Bytes(Cow::Borrowed(part.unwrap_or_default()))
            }
            Self::File(file) => Body::File {
                file,
                first: range.start,
                length: range.end - range.start,
            },
        }
    }

    /// How it is packed for a request.
    fn coding(&self, request: &Request) -> Option<Coding> {
        let offered: &[Coding] = match self {
            Self::Asset(_) => &Coding::ALL,
            Self::File(_) => &[Coding::Gzip],
        };
        offered.iter().copied().find(|&coding| takes(request, coding))
    }

    fn packed(self, coding: Coding) -> io::Result<Body<'a>> {
        Ok(Body::Bytes(match self {
            Self::Asset(asset) => Cow::Borrowed(asset.packed(coding)?),
            // Packed anew each time, hence quickly; what has not changed is not sent again anyway.
            Self::File(file) => Cow::Owned(gzip(file, Compression::fast())?),
        }))
    }
}

impl<'a> Content<'a> {
    pub(super) fn of_asset(name: &str, asset: &'a Asset) -> Self {
        Self {
            source: Source::Asset(asset),
            media: Media::of(name),
            length: asset.bytes.len() as u64,
            tag: asset.tag.clone(),
        }
    }

    /// The file at `path`, as it is now: one that takes its place later has another tag.
    pub(super) fn of_file(name: &str, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            source: Source::File(file),
            media: Media::of(name),
            length: metadata.len(),
            tag: file_tag(&metadata),
        })
    }

    /// The answer to a request for it.
    pub(super) fn answer(self, request: &Request) -> io::Result<Response<'a>> {
        let Self {
            source,
            media,
            length,
            tag,
        } = self;
        let plain = format!("\"{tag}\"");
        let packed = |coding: Coding| format!("\"{tag}-{}\"", coding.name());
        if let Some(known) = request.header("if-none-match") {
            let mut forms = std::iter::once(plain.clone()).chain(Coding::ALL.map(packed));
            if let Some(same) = forms.find(|tag| names(known, tag)) {
                return Ok(media.response(Status::NotModified, Body::None, &same));
            }
        }
        // A part of what has changed meanwhile would not fit the parts before it.
        let same = request.header("if-range").is_none_or(|tag| tag == plain);
        let range = request.header("range").filter(|_| same && !request.is_head());
        let is_packed = media.is_text && PACKED_BYTES.contains(&length);
        let coding = source.coding(request).filter(|_| is_packed);
        Ok(match (wanted(range, length), coding) {
            (Wanted::Nothing, _) => {
                Response::refusal(Status::NoSuchRange).with("Content-Range", format!("bytes */{length}"))
            }
            (Wanted::Part { first, last }, _) => media
                .response(Status::Part, source.part(first..last + 1), &plain)
                .with("Content-Range", format!("bytes {first}-{last}/{length}")),
            (Wanted::Whole, Some(coding)) => media
                .response(Status::Whole, source.packed(coding)?, &packed(coding))
                .with("Content-Encoding", coding.name()),
            (Wanted::Whole, None) => media.response(Status::Whole, source.part(0..length), &plain),
        })
    }
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Media {
    name: &'static str,
    /// Whether packing makes it smaller.
    is_text: bool,
}

impl Media {
    /// By the end of its name.
    fn of(name: &str) -> Self {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let (name, is_text) = match ending {
            "html" => ("text/html; charset=utf-8", true),
            "js" | "mjs" => ("text/javascript; charset=utf-8", true),
            "css" => ("text/css; charset=utf-8", true),
            "json" => ("application/json", true),
            "svg" => ("image/svg+xml", true),
            "txt" => ("text/plain; charset=utf-8", true),
            // No text, but as compressible: over a slow line that counts.
            "wasm" => ("application/wasm", true),
            "png" => ("image/png", false),
            "woff2" => ("font/woff2", false),
            _ => ("application/octet-stream", false),
        };
        Self { name, is_text }
    }

    /// An answer with content of this kind.
    fn response<'a>(self, status: Status, body: Body<'a>, tag: &str) -> Response<'a> {
        let response = Response::new(status, body)
            .with("Content-Type", self.name)
            .with("ETag", tag.to_owned())
            .with("Accept-Ranges", "bytes");
        match self.is_text {
            true => response.with("Vary", "Accept-Encoding"),
            false => response,
        }
    }
}

/// Which bytes a request is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// From `first` to `last`, that included.
    Part {
        first: u64,
        last: u64,
    },
    /// None that there are.
    Nothing,
}

/// Reads a `Range` (RFC 9110, 14.1.2) over `length` bytes. Several ranges at once, and what is no range of bytes, are not
/// understood, which gives the whole.
fn wanted(range: Option<&str>, length: u64) -> Wanted {
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let ends = range
        .and_then(|range| range.strip_prefix("bytes="))
        .and_then(|range| range.trim().split_once('-'));
    let part = |first: u64, last: u64| match first < length {
        true => Wanted::Part {
            first,
            last: last.min(length - 1),
        },
        false => Wanted::Nothing,
    };
    match ends {
        None => Wanted::Whole,
        Some(("", last)) => match number(last) {
            Some(0) => Wanted::Nothing,
            Some(count) => part(length.saturating_sub(count), u64::MAX),
            None => Wanted::Whole,
        },
        Some((first, "")) => number(first).map_or(Wanted::Whole, |first| part(first, u64::MAX)),
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => part(first, last),
            _ => Wanted::Whole,
        },
    }
}

/// Whether a list of tags names this one. The answer saves sending the same, so a weak tag counts like a strong one.
fn names(list: &str, tag: &str) -> bool {
    let mut tags = list.split(',').map(str::trim);
    tags.any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == tag)
}

/// Whether a request takes a coding: it is named, or everything is, and not with a weight of 0 (RFC 9110, 12.5.3).
fn takes(request: &Request, coding: Coding) -> bool {
    let mut everything = false;
    let accepted = request.all("accept-encoding").flat_map(|list| list.split(','));
    for listed in accepted {
        let (name, parameters) = listed.split_once(';').unwrap_or((listed, ""));
        let weight = parameters.trim().strip_prefix("q=");
        let wanted = weight.is_none_or(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0));
        match name.trim() {
            name if name.eq_ignore_ascii_case(coding.name()) => return wanted,
            "*" => everything = wanted,
            _ => {}
        }
    }
    everything
}

/// Level 6 of 11: what is above takes up to seconds, which whoever opens the viewer would wait for.
fn brotli(mut from: &[u8]) -> io::Result<Vec<u8>> {
    let settings = brotli::enc::BrotliEncoderParams {
        quality: 6,
        ..Default::default()
    };
    let mut packed = Vec::new();
    brotli::BrotliCompress(&mut from, &mut packed, &settings)?;
    Ok(packed)
}

fn gzip(mut from: impl Read, level: Compression) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()
}

/// Names a file's content: reports are written beside their place and renamed, so a new content is a new file.
fn file_tag(metadata: &Metadata) -> String {
    let since = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = since.unwrap_or_default().as_nanos();
    format!("{:x}-{modified:x}-{:x}", metadata.len(), file_number(metadata))
}

#[cfg(unix)]
fn file_number(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn file_number(_metadata: &Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_standard_says() {
        let part = |first, last| Wanted::Part { first, last };
        for (range, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-4", part(2, 4)),
            ("bytes=2-", part(2, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-30", part(0, 9)),
            ("bytes=8-30", part(8, 9)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=a-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(range), 10), expected, "{range}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Nothing);
        assert_eq!(wanted(Some("bytes=-1"), 0), Wanted::Nothing);
    }

    #[test]
    fn a_tag_is_found_in_a_list() {
        assert!(names("\"a\", W/\"b\"", "\"b\""));
        assert!(names("*", "\"b\""));
        assert!(!names("\"ab\"", "\"b\""));
    }
}
