//! A table as a file: CSV, JSON or LaTeX.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A table to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sheet {
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows, with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// What stands in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    Empty,
    /// A finite number.
    Number(f64),
    /// Text, which may be anyone's.
    Text(String),
}

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values after RFC 4180.
    Csv,
    /// A list with an object for each row.
    Json,
    /// A `tabular`.
    Latex,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Csv, Self::Json, Self::Latex];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "CSV",
            Self::Json => "JSON",
            Self::Latex => "LaTeX",
        }
    }

    /// The end of a file's name, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Latex => "tex",
        }
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv;charset=utf-8",
            Self::Json => "application/json",
            Self::Latex => "application/x-tex;charset=utf-8",
        }
    }
}

impl Sheet {
    /// The file's content.
    pub fn written(&self, format: Format) -> String {
        match format {
            Format::Csv => self.csv(),
            Format::Json => self.json(),
            Format::Latex => self.latex(),
        }
    }

    fn csv(&self) -> String {
        let head = self.columns.iter().map(|name| csv_text(name)).collect();
        let cell = |cell: &Cell| match cell {
            Cell::Empty => String::new(),
            Cell::Number(number) => number.to_string(),
            Cell::Text(text) => csv_text(text),
        };
        let rows = self.rows.iter().map(|row| row.iter().map(cell).collect());
        let lines = std::iter::once(head).chain(rows);
        lines.map(|cells: Vec<String>| cells.join(",") + "\r\n").collect()
    }

    fn json(&self) -> String {
        let records: Vec<Record<'_>> = self
            .rows
            .iter()
            .map(|cells| Record {
                columns: &self.columns,
                cells,
            })
            .collect();
        // Strings, numbers and lists of them always have a form in JSON.
        serde_json::to_string_pretty(&records).unwrap_or_default() + "\n"
    }

    fn latex(&self) -> String {
        let is_number = |place: usize| {
            let mut cells = self.rows.iter().filter_map(|row| row.get(place));
            cells.any(|cell| matches!(cell, Cell::Number(_)))
        };
        let sides: String = (0..self.columns.len())
            .map(|place| if is_number(place) { 'r' } else { 'l' })
            .collect();
        let cell = |cell: &Cell| match cell {
            Cell::Empty => "--".to_owned(),
            Cell::Number(number) if *number < 0.0 => format!("${number}$"),
            Cell::Number(number) => number.to_string(),
            Cell::Text(text) => latex_text(text),
        };
        let head: Vec<String> = self.columns.iter().map(|name| latex_text(name)).collect();
        let mut lines = format!(
            "\\begin{{tabular}}{{{sides}}}\n\\hline\n{} \\\\\n\\hline\n",
            head.join(" & ")
        );
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(cell).collect();
            lines.push_str(&cells.join(" & "));
            lines.push_str(" \\\\\n");
        }
        lines + "\\hline\n\\end{tabular}\n"
    }
}

/// Text as a cell of CSV. What a spreadsheet would take for a formula is made text by an apostrophe: profiles and reviews are
/// anyone's words.
fn csv_text(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guarded = match is_formula {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match guarded.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", guarded.replace('"', "\"\"")),
        false => guarded,
    }
}

/// Text that LaTeX prints as it is, on one line.
fn latex_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', letter]),
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '<' => escaped.push_str("\\textless{}"),
            '>' => escaped.push_str("\\textgreater{}"),
            '|' => escaped.push_str("\\textbar{}"),
            '"' => escaped.push_str("\\textquotedbl{}"),
            // Behind the end of a row they would be taken for its options.
            '[' | ']' | '*' => escaped.extend(['{', letter, '}']),
            letter if letter.is_whitespace() || letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// A row as an object, its fields in the order of the columns.
struct Record<'a> {
    columns: &'a [String],
    cells: &'a [Cell],
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.cells.len()))?;
        for (column, cell) in self.columns.iter().zip(self.cells) {
            match cell {
                Cell::Empty => map.serialize_entry(column, &())?,
                // Whole numbers without a `.0`, as in the other formats.
                Cell::Number(number) => match is_exact_integer(*number) {
                    true => map.serialize_entry(column, &(*number as i64))?,
                    false => map.serialize_entry(column, number)?,
                },
                Cell::Text(text) => map.serialize_entry(column, text)?,
            }
        }
        map.end()
    }
}

fn is_exact_integer(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() < 2f64.powi(53)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn text(text: &str) -> Cell {
        Cell::Text(text.into())
    }

    fn sheet(columns: &[&str], rows: Vec<Vec<Cell>>) -> Sheet {
        Sheet {
            columns: columns.iter().map(|&name| name.into()).collect(),
            rows,
        }
    }

    #[test]
    fn csv_quotes_what_rfc_4180_wants_quoted() {
        let rows = vec![
            vec![text("plain"), Cell::Number(-3.0), Cell::Empty],
            vec![text("a,b"), Cell::Number(0.25), text("say \"hi\"\nand go")],
        ];
        assert_eq!(
            sheet(&["id", "delta", "note, if any"], rows).written(Format::Csv),
            "id,delta,\"note, if any\"\r\nplain,-3,\r\n\"a,b\",0.25,\"say \"\"hi\"\"\nand go\"\r\n"
        );
    }

    #[test]
    fn csv_text_is_never_a_formula() {
        for (found, written) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("=HYPERLINK(\"a\",1)", "\"'=HYPERLINK(\"\"a\"\",1)\""),
            ("a=b", "a=b"),
        ] {
            assert_eq!(csv_text(found), written);
        }
    }

    #[test]
    fn json_has_an_object_for_each_row_with_its_fields_in_order() {
        let rows = vec![vec![
            text("a\"</script>"),
            Cell::Number(2.0),
            Cell::Number(0.5),
            Cell::Empty,
        ]];
        let json = sheet(&["user", "rank", "mrr", "delta"], rows).written(Format::Json);
        assert_eq!(
            json.split_whitespace().collect::<String>(),
            r#"[{"user":"a\"</script>","rank":2,"mrr":0.5,"delta":null}]"#
        );
        assert_eq!(sheet(&["a"], Vec::new()).written(Format::Json), "[]\n");
    }

    #[test]
    fn latex_aligns_numbers_right_and_escapes_text() {
        let rows = vec![
            vec![text("50% of A&B_#1 {x}"), Cell::Number(-1.5)],
            vec![text("~^\\$<>|\" [1] *"), Cell::Empty],
        ];
        let expected = r"\begin{tabular}{lr}
\hline
user\_id & delta \\
\hline
50\% of A\&B\_\#1 \{x\} & $-1.5$ \\
\textasciitilde{}\textasciicircum{}\textbackslash{}\$\textless{}\textgreater{}\textbar{}\textquotedbl{} {[}1{]} {*} & -- \\
\hline
\end{tabular}
";
        assert_eq!(sheet(&["user_id", "delta"], rows).written(Format::Latex), expected);
    }

    #[test]
    fn latex_text_stays_on_one_line() {
        assert_eq!(latex_text("a\nb\tc\u{2028}d"), "a b c d");
    }
}
