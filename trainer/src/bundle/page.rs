//! The viewer's page with its styles and scripts in it.
//!
//! What is read here is our own page, as `assets/viewer` has it: tags in lower case, attributes in double quotes, and one module
//! that imports the viewer's. Anything else is refused, so that a page that would not work is never written.

use std::collections::{BTreeMap, BTreeSet};

use super::BundleError;
use crate::site::Site;

/// Where the elements of files go.
pub(super) const END_OF_BODY: &str = "</body>";
/// What wasm-bindgen made: the module's glue, and the module.
const GLUE: &str = "viewer.js";
const MODULE: &str = "viewer_bg.wasm";
/// The script that starts the module beside the page.
const WORKER: &str = "worker.js";

/// The page, cut where the elements of files go.
#[derive(Debug)]
pub(super) struct Page {
    before: String,
    after: String,
    left: BTreeMap<String, Vec<u8>>,
}

impl Page {
    /// The page of a viewer.
    ///
    /// # Errors
    /// When the page or a script is not as it is expected here.
    pub(super) fn of_site(site: &Site) -> Result<Self, BundleError> {
        let html = text(site, Site::PAGE)?;
        if site.get(MODULE).is_none() {
            return Err(expected(MODULE, "the file".to_owned()));
        }
        let mut used = BTreeSet::from([Site::PAGE.to_owned()]);
        let html = with_everything_inside(site, html, &mut used)?;
        let Some((before, after)) = html.rsplit_once(END_OF_BODY) else {
            return Err(expected(Site::PAGE, format!("a {END_OF_BODY}")));
        };
        let left = site.files().filter(|(name, _)| !used.contains(*name));
        let mut left: BTreeMap<_, _> = left.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
        if let Some(worker) = left.get_mut(WORKER) {
            // Browsers give a page from a disk no workers that are modules.
            let module = module(site, WORKER, text(site, WORKER)?, "", "__wbg_init")?;
            *worker = plain_script(&module).into_bytes();
        }
        Ok(Self {
            before: before.to_owned(),
            after: after.to_owned(),
            left,
        })
    }

    /// Up to the end of the body.
    pub(super) fn before(&self) -> &str {
        &self.before
    }

    /// What follows the end of the body.
    pub(super) fn after(&self) -> &str {
        &self.after
    }

    /// The viewer's files that are not in the page yet, its module among them: names and contents.
    pub(super) fn left(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.left.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
}

/// Puts the files that tags name in place of the tags.
fn with_everything_inside(site: &Site, html: &str, used: &mut BTreeSet<String>) -> Result<String, BundleError> {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(start) = next_tag(rest) {
        let end = rest[start..].find('>').map(|end| start + end + 1);
        let end = end.ok_or_else(|| expected(Site::PAGE, "an end of every tag".to_owned()))?;
        let (text_before, tag) = (&rest[..start], &rest[start..end]);
        out.push_str(text_before);
        rest = &rest[end..];
        let named = attribute(tag, "href").or_else(|| attribute(tag, "src"));
        let Some(name) = named.filter(|name| !name.starts_with("data:")) else {
            out.push_str(tag);
            continue;
        };
        used.insert(name.to_owned());
        let content = text(site, name)?;
        if tag.starts_with("<link ") {
            match attribute(tag, "rel") {
                Some("stylesheet") => out.push_str(&format!("<style>\n{}</style>", safe(content, SAFE_IN_STYLES))),
                // What is to be loaded early is here already.
                Some("preload" | "modulepreload") => {}
                _ => return Err(expected(Site::PAGE, format!("a style or a preload in {tag}"))),
            }
            continue;
        }
        let after = rest.strip_prefix("</script>");
        rest = after.ok_or_else(|| expected(Site::PAGE, format!("</script> after {tag}")))?;
        if attribute(tag, "type") == Some("module") {
            used.insert(GLUE.to_owned());
            let module = module(site, name, content, UNPACK, "startFromThisPage")?;
            out.push_str(&format!("<script type=\"module\">\n{module}</script>"));
        } else {
            out.push_str(&format!("<script>\n{}</script>", safe(content, SAFE_IN_SCRIPTS)));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the next `<link …>` or `<script …>` begins.
fn next_tag(html: &str) -> Option<usize> {
    let places = ["<link ", "<script "].into_iter().filter_map(|tag| html.find(tag));
    places.min()
}

/// The value of a tag's attribute.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// One module of the glue and of the script that starts it. In place of its import comes a `function` of the glue's or of `more`.
fn module(site: &Site, name: &str, script: &str, more: &str, function: &str) -> Result<String, BundleError> {
    let glue = text(site, GLUE)?;
    if !glue.contains("function __wbg_init(") {
        return Err(expected(GLUE, "the function __wbg_init of wasm-bindgen".to_owned()));
    }
    if let Some(line) = glue.lines().find(|line| line.starts_with("import ")) {
        return Err(expected(GLUE, format!("no import, found {line:?}")));
    }
    let mut start = None;
    let mut others = String::new();
    for line in script.lines() {
        match line.strip_prefix("import ") {
            None => others.extend([line, "\n"]),
            Some(import) => {
                let function = import.trim_end().strip_suffix(" from \"./viewer.js\";");
                let plain = |function: &&str| function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                start = function.filter(plain);
                if start.is_none() {
                    return Err(expected(
                        name,
                        format!("no import but `import init from \"./viewer.js\";`, found {line:?}"),
                    ));
                }
            }
        }
    }
    let start = start.ok_or_else(|| expected(name, "`import init from \"./viewer.js\";`".to_owned()))?;
    let (glue, others) = (safe(glue, SAFE_IN_SCRIPTS), safe(&others, SAFE_IN_SCRIPTS));
    Ok(format!("{glue}\n{more}{{\nconst {start} = {function};\n{others}}}\n"))
}

/// Starts the module in this page.
const UNPACK: &str = "\
async function startFromThisPage() {
  const element = document.querySelector('script[data-file=\"viewer_bg.wasm\"]');
  const packed = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream(\"gzip\"));
  return __wbg_init({ module_or_path: await new Response(stream).arrayBuffer() });
}
";

/// A module of the glue as a script that is none: nothing is exported, and its address is that of the worker.
fn plain_script(module: &str) -> String {
    let mut script = String::with_capacity(module.len());
    for line in module.lines().filter(|line| !line.starts_with("export {")) {
        script.push_str(line.strip_prefix("export ").unwrap_or(line));
        script.push('\n');
    }
    script.replace("import.meta.url", "self.location.href")
}

/// What stands for `<` in scripts: in strings, templates and patterns alike.
const SAFE_IN_SCRIPTS: &str = "\\x3C";
/// And in styles' strings.
const SAFE_IN_STYLES: &str = "\\3C ";

/// Text that ends neither its element nor begins a comment: the `<` that would is `escape`d.
fn safe(text: &str, escape: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find('<') {
        let (before, from) = rest.split_at(place);
        out.push_str(before);
        let lower: String = from.chars().take(8).collect::<String>().to_ascii_lowercase();
        let dangerous = ["</script", "</style", "<!--"]
            .iter()
            .any(|start| lower.starts_with(start));
        out.push_str(if dangerous { escape } else { "<" });
        rest = &from[1..];
    }
    out.push_str(rest);
    out
}

fn text<'a>(site: &'a Site, name: &str) -> Result<&'a str, BundleError> {
    let bytes = site.get(name).ok_or_else(|| expected(name, "the file".to_owned()))?;
    std::str::from_utf8(bytes).map_err(|_| expected(name, "UTF-8".to_owned()))
}

fn expected(file: &str, expected: String) -> BundleError {
    BundleError::Page {
        file: file.to_owned(),
        expected,
    }
}
