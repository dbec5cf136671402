//! The forms in which a prompt is put to a language model.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use minijinja::{Environment, ErrorKind, Value, context, syntax::SyntaxConfig};
use serde::Serialize;

use super::{
    SpecialTokens, TextError, Tokenizer,
    json::{object_if_there, read_if_there, shown},
    special::SpecialNames,
};

/// How a prompt becomes what the language model reads.
#[derive(Debug)]
pub enum PromptTemplate {
    /// `<start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model` after BOS, without a newline at the end. This
    /// is what LangPTune trains Gemma with; Gemma's own chat template differs from it.
    Gemma,
    /// The model's own chat template: one user turn, with the generation prompt.
    Chat(Box<ChatTemplate>),
}

impl PromptTemplate {
    /// The chat template of a model folder.
    ///
    /// # Errors
    /// As [`ChatTemplate::open`].
    pub fn chat(folder: &Path) -> Result<Self, TextError> {
        ChatTemplate::open(folder).map(Box::new).map(Self::Chat)
    }

    /// The text that is put to the model. A chat template may write a BOS into it; the Gemma form's is added by
    /// [`encode`](Self::encode).
    ///
    /// # Errors
    /// [`TextError::Template`] where the chat template fails.
    pub fn render(&self, prompt: &str) -> Result<String, TextError> {
        match self {
            Self::Gemma => Ok(format!(
                "<start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model"
            )),
            Self::Chat(template) => template.render(prompt),
        }
    }

    /// The token ids of [`render`](Self::render), with BOS once: the Gemma form gets it here (where the tokenizer has
    /// one), a chat template writes it itself.
    ///
    /// # Errors
    /// As [`render`](Self::render) and [`Tokenizer::encode`].
    pub fn encode(&self, tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = tokenizer.encode(&self.render(prompt)?, SpecialTokens::None)?;
        if let (Self::Gemma, Some(bos)) = (self, tokenizer.bos())
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}

/// A Jinja chat template with the settings and functions that transformers gives it.
///
/// `strftime_now` is left undefined: a prompt must not change with the date. Templates that ask for it (Llama 3.2)
/// carry a fixed date for this case.
pub struct ChatTemplate {
    environment: Environment<'static>,
    path: PathBuf,
    special: SpecialNames,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Reads `chat_template.jinja`, or `chat_template` of `tokenizer_config.json`: a template, or a list of named ones,
    /// of which the one called `default` counts.
    ///
    /// # Errors
    /// [`TextError::NoChatTemplate`] where there is none, [`TextError::Template`] where it does not parse or does not
    /// accept a single user turn, and the errors of reading the files.
    pub fn open(folder: &Path) -> Result<Self, TextError> {
        let (path, source) = find_source(folder)?;
        let template = Self::new(path, source, SpecialNames::read(folder)?)?;
        template.render("")?;
        Ok(template)
    }

    fn new(path: PathBuf, source: String, special: SpecialNames) -> Result<Self, TextError> {
        let environment = environment().and_then(|mut environment| {
            environment.add_template_owned(NAME, source)?;
            Ok(environment)
        });
        let environment = environment.map_err(|error| failed(&path, &error))?;
        Ok(Self {
            environment,
            path,
            special,
        })
    }

    /// One user turn with content `prompt`, then the start of the model's turn.
    ///
    /// # Errors
    /// [`TextError::Template`] where the template fails or refuses with `raise_exception`.
    pub fn render(&self, prompt: &str) -> Result<String, TextError> {
        let token = |name: &Option<String>| Value::from(name.clone().unwrap_or_default());
        let variables = context! {
            messages => vec![context! { role => "user", content => prompt }],
            tools => (),
            documents => (),
            add_generation_prompt => true,
            bos_token => token(&self.special.bos),
            eos_token => token(&self.special.eos),
            pad_token => token(&self.special.pad),
            unk_token => token(&self.special.unk),
        };
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(variables))
            .map_err(|error| failed(&self.path, &error))
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ChatTemplate")
            .field("path", &self.path)
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

/// The template's text and the file that holds it.
fn find_source(folder: &Path) -> Result<(PathBuf, String), TextError> {
    let file = folder.join("chat_template.jinja");
    if let Some(source) = read_if_there(&file)? {
        return Ok((file, source));
    }
    let config_path = folder.join("tokenizer_config.json");
    let config = object_if_there(&config_path)?;
    let source = match config.get("chat_template") {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(source)) => Some(source.clone()),
        Some(serde_json::Value::Array(named)) => named
            .iter()
            .find(|entry| entry["name"] == "default")
            .and_then(|entry| entry["template"].as_str())
            .map(str::to_owned),
        Some(other) => {
            return Err(TextError::Field {
                path: config_path,
                field: "chat_template".to_owned(),
                expected: "a template, or a list of objects with `name` and `template`",
                found: shown(other),
            });
        }
    };
    match source {
        Some(source) => Ok((config_path, source)),
        None => Err(TextError::NoChatTemplate {
            folder: folder.to_owned(),
        }),
    }
}

/// Jinja as transformers sets it up: block tags eat their line, Python's string methods, `raise_exception`, `tojson`
/// in Python's spacing.
fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| {
        Err::<String, _>(minijinja::Error::new(
            ErrorKind::InvalidOperation,
            format!("the template refuses the conversation: {message}"),
        ))
    });
    environment.add_filter("tojson", python_json);
    Ok(environment)
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` spaces it.
fn python_json(value: &Value) -> Result<String, minijinja::Error> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonSpacing);
    value
        .serialize(&mut serializer)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// `, ` between elements and `: ` after keys.
struct PythonSpacing;

impl serde_json::ser::Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

fn failed(path: &Path, error: &minijinja::Error) -> TextError {
    TextError::Template {
        path: path.to_owned(),
        line: error.line().unwrap_or(0),
        message: error.detail().map_or_else(|| error.to_string(), str::to_owned),
    }
}
