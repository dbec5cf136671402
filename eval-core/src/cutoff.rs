use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// How many places of a ranking count: the k of "recall at k". At least 1.
///
/// ```
/// use eval_core::{Cutoff, ErrorKind};
/// assert_eq!(Cutoff::new(20)?.get(), 20);
/// assert!(matches!(Cutoff::new(0).unwrap_err().kind(), ErrorKind::ZeroCutoff));
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub struct Cutoff(usize);

impl Cutoff {
    /// A cutoff of `places`.
    ///
    /// # Errors
    /// [`ErrorKind::ZeroCutoff`] when `places` is 0.
    pub fn new(places: usize) -> Result<Self, Error> {
        match places {
            0 => Err(ErrorKind::ZeroCutoff.into()),
            _ => Ok(Self(places)),
        }
    }

    /// The number of places.
    pub fn get(self) -> usize {
        self.0
    }
}

impl TryFrom<usize> for Cutoff {
    type Error = Error;

    fn try_from(places: usize) -> Result<Self, Error> {
        Self::new(places)
    }
}

impl From<Cutoff> for usize {
    fn from(cutoff: Cutoff) -> Self {
        cutoff.0
    }
}

impl FromStr for Cutoff {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim().parse() {
            Ok(places) => Self::new(places),
            Err(_) => Err(ErrorKind::CutoffNotANumber { found: text.to_owned() }.into()),
        }
    }
}

impl fmt::Display for Cutoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
