//! A chart as a file: the SVG that is on the page with its looks written out, so that it needs no style sheet, under its title and
//! legend; and the same as PNG.

use std::fmt::Write;

use leptos::prelude::document;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::js_sys::encode_uri_component;
use web_sys::{CanvasRenderingContext2d, CssStyleDeclaration, Element, HtmlCanvasElement, HtmlImageElement};

/// Dots of a PNG file to a CSS pixel.
const DOTS: f64 = 2.0;

/// Height of a line of title or legend, and the space around everything, in CSS pixels.
const LINE: f64 = 20.0;
const MARGIN: f64 = 12.0;

/// Width of a letter of the legend, as far as one can tell without measuring it.
const LETTER: f64 = 7.0;

/// A chart with its looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// Width and height of the drawing in CSS pixels.
    pub size: [f64; 2],
    /// The chart's title.
    pub title: String,
    /// Colours of the ground and of text.
    pub ground: String,
    /// Colour of text.
    pub ink: String,
    /// The series' names and colours.
    pub legend: Vec<(String, String)>,
    /// The drawing's elements, as XML.
    pub shapes: String,
}

impl Picture {
    /// Reads a chart's `figure` as it is on the page.
    ///
    /// # Errors
    /// What the browser says.
    pub fn read(figure: &Element, title: String, size: [f64; 2]) -> Result<Self, JsValue> {
        let mut shapes = String::new();
        for shape in all(figure, "svg > g:first-of-type > *")? {
            write_shape(&mut shapes, &shape, &style_of(&shape)?);
        }
        let mut legend = Vec::new();
        for entry in all(figure, ".legend")? {
            if let (Some(swatch), Some(name)) =
                (entry.query_selector(".swatch")?, entry.query_selector(".series-name")?)
            {
                let colour = style_of(&swatch)?.get_property_value("background-color")?;
                legend.push((name.text_content().unwrap_or_default(), colour));
            }
        }
        let card = figure.closest("section")?.unwrap_or_else(|| figure.clone());
        Ok(Self {
            size,
            title,
            ground: style_of(&card)?.get_property_value("background-color")?,
            ink: style_of(&card)?.get_property_value("color")?,
            legend,
            shapes,
        })
    }

    /// Width and height of the file in CSS pixels.
    pub fn outer_size(&self) -> [f64; 2] {
        let [width, height] = self.size;
        [width + 2.0 * MARGIN, self.top() + height + MARGIN]
    }

    /// The file.
    pub fn svg(&self) -> String {
        let [width, height] = self.outer_size();
        let (ground, ink) = (escaped(&self.ground), escaped(&self.ink));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\"><title>{title}</title><rect width=\"100%\" height=\"100%\" \
             fill=\"{ground}\"/><text x=\"{MARGIN}\" y=\"{y}\" fill=\"{ink}\" font-size=\"14\">{title}</text>",
            title = escaped(&self.title),
            y = MARGIN + 12.0,
        );
        for ((name, colour), [x, y]) in self.legend.iter().zip(self.legend_places()) {
            // Writing to a string cannot fail.
            _ = write!(
                svg,
                "<rect x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\" rx=\"3\" fill=\"{}\"/><text x=\"{}\" y=\"{y}\" \
                 fill=\"{ink}\">{}</text>",
                y - 10.0,
                escaped(colour),
                x + 16.0,
                escaped(name),
            );
        }
        _ = writeln!(
            svg,
            "<g transform=\"translate({MARGIN} {})\">{}</g></svg>",
            self.top(),
            self.shapes
        );
        svg
    }

    /// Where the names of the legend begin, wrapped into lines.
    fn legend_places(&self) -> Vec<[f64; 2]> {
        let (mut x, mut line) = (MARGIN, 1.0);
        let place = |(name, _): &(String, String)| {
            let width = 34.0 + LETTER * name.chars().count() as f64;
            if x > MARGIN && x + width > self.size[0] + MARGIN {
                (x, line) = (MARGIN, line + 1.0);
            }
            let place = [x, MARGIN + 12.0 + line * LINE];
            x += width;
            place
        };
        self.legend.iter().map(place).collect()
    }

    /// Where the drawing begins.
    fn top(&self) -> f64 {
        let last = self.legend_places().last().map_or(MARGIN + 12.0, |&[_, y]| y);
        last + 10.0
    }
}

/// The address of a PNG file of the picture.
///
/// # Errors
/// What the browser says.
pub async fn png(picture: &Picture) -> Result<String, JsValue> {
    let [width, height] = picture.outer_size().map(|length| length * DOTS);
    let image = HtmlImageElement::new()?;
    image.set_src(&format!(
        "data:image/svg+xml;charset=utf-8,{}",
        String::from(encode_uri_component(&picture.svg()))
    ));
    JsFuture::from(image.decode()).await?;
    let canvas: HtmlCanvasElement = document().create_element("canvas")?.dyn_into().map_err(JsValue::from)?;
    canvas.set_width(width.ceil() as u32);
    canvas.set_height(height.ceil() as u32);
    let context = canvas
        .get_context("2d")?
        .ok_or_else(|| JsValue::from_str("the browser draws no pictures"))?;
    let context: CanvasRenderingContext2d = context.dyn_into().map_err(JsValue::from)?;
    context.draw_image_with_html_image_element_and_dw_and_dh(&image, 0.0, 0.0, width, height)?;
    canvas.to_data_url()
}

fn all(element: &Element, selector: &str) -> Result<Vec<Element>, JsValue> {
    let found = element.query_selector_all(selector)?;
    let nodes = (0..found.length()).filter_map(|place| found.get(place));
    Ok(nodes.filter_map(|node| node.dyn_into().ok()).collect())
}

fn style_of(element: &Element) -> Result<CssStyleDeclaration, JsValue> {
    let style = web_sys::window()
        .map(|window| window.get_computed_style(element))
        .transpose()?;
    style
        .flatten()
        .ok_or_else(|| JsValue::from_str("the page has no styles"))
}

/// A shape of the page with its looks as attributes.
fn write_shape(shapes: &mut String, shape: &Element, style: &CssStyleDeclaration) {
    let value = |name: &str| style.get_property_value(name).unwrap_or_default();
    if value("display") == "none" {
        return;
    }
    let tag = shape.tag_name().to_lowercase();
    let own = ["d", "x", "y", "cx", "cy", "r"].into_iter();
    let own = own.filter_map(|name| Some((name, shape.get_attribute(name)?)));
    let names: &[&str] = match tag.as_str() {
        "text" => &["fill", "font-size", "text-anchor"],
        _ => &[
            "fill",
            "stroke",
            "stroke-width",
            "stroke-dasharray",
            "stroke-linejoin",
            "opacity",
        ],
    };
    let looks = names.iter().map(|&name| (name, value(name)));
    let looks = looks.filter(|(name, value)| !value.is_empty() && (*name == "fill" || value != "none"));
    _ = write!(shapes, "<{tag}");
    for (name, value) in own.chain(looks) {
        _ = write!(shapes, " {name}=\"{}\"", escaped(&value));
    }
    _ = write!(
        shapes,
        ">{}</{tag}>",
        escaped(&shape.text_content().unwrap_or_default())
    );
}

/// Text as XML has it; what XML cannot have is left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\0'..'\u{20}' | '\u{fffe}' | '\u{ffff}' => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        Picture {
            size: [300.0, 100.0],
            title: "Loss < 1 & \"more\"\u{1}".into(),
            ground: "rgb(255, 255, 255)".into(),
            ink: "black".into(),
            legend: ["generated", "reference", "popular items"]
                .map(|name| (name.to_owned(), "red".to_owned()))
                .to_vec(),
            shapes: "<path d=\"M0 0\"></path>".into(),
        }
    }

    #[test]
    fn a_file_has_title_legend_and_drawing_and_no_markup_from_names() {
        let svg = picture().svg();
        assert!(
            svg.contains("<title>Loss &lt; 1 &amp; &quot;more&quot;</title>"),
            "{svg}"
        );
        assert!(svg.contains(">popular items</text>") && svg.contains("<path d=\"M0 0\"></path></g></svg>"));
    }

    #[test]
    fn a_legend_that_is_too_wide_is_wrapped_and_the_drawing_lies_below() {
        let picture = picture();
        let places = picture.legend_places();
        assert_eq!((places[0], places[1][1]), ([12.0, 44.0], 44.0));
        assert_eq!(places[2], [12.0, 64.0], "the third begins a line");
        assert_eq!(picture.outer_size(), [324.0, 64.0 + 10.0 + 100.0 + 12.0]);
        let none = Picture {
            legend: Vec::new(),
            ..picture
        };
        assert_eq!(none.outer_size()[1], 24.0 + 10.0 + 100.0 + 12.0);
    }
}
