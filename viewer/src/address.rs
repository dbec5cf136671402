//! Which report a page shows: what its own address says.

/// The folder that is opened when the address names none: a report published beside the viewer.
pub const BESIDE_THE_VIEWER: &str = "report/";

/// The report's folder, with a slash at the end, from the page's query (`?report=…`) or else its fragment (`#…`).
pub fn report_folder(query: &str, fragment: &str) -> String {
    let parameters = query.trim_start_matches('?').split('&');
    let named = parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| *name == "report");
    let address = match named {
        Some((_, value)) => decoded(value),
        None => decoded(fragment.trim_start_matches('#')),
    };
    let address = address.trim().trim_end_matches("manifest.json").trim_end_matches('/');
    if address.is_empty() {
        BESIDE_THE_VIEWER.to_owned()
    } else {
        format!("{address}/")
    }
}

/// Text of a query without its percent signs; what is no valid escape stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while place < bytes.len() {
        let digits = (bytes[place] == b'%').then(|| text.get(place + 1..place + 3)).flatten();
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                place += 3;
            }
            None => {
                plain.push(bytes[place]);
                place += 1;
            }
        }
    }
    String::from_utf8(plain).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_report_opens_the_one_beside_the_viewer() {
        assert_eq!(report_folder("", ""), "report/");
        assert_eq!(report_folder("?theme=dark", "#"), "report/");
    }

    #[test]
    fn the_query_comes_before_the_fragment() {
        assert_eq!(report_folder("?report=runs/a", "#runs/b"), "runs/a/");
        assert_eq!(report_folder("", "#runs/b/"), "runs/b/");
    }

    #[test]
    fn escapes_are_decoded_and_the_manifest_may_be_named() {
        let query = "?x=1&report=https%3A%2F%2Fexample.org%2Fr%C3%A9port%2Fmanifest.json";
        assert_eq!(report_folder(query, ""), "https://example.org/réport/");
        assert_eq!(report_folder("?report=100%", ""), "100%/");
        assert_eq!(
            report_folder("?report=a%+1b", ""),
            "a%+1b/",
            "a sign is no hexadecimal digit"
        );
    }
}
