//! A message as all formats have it: a name, a time, and named arrays with axes and units.

use std::borrow::Cow;
use std::collections::BTreeSet;

use physicnet_stream::Time;

use super::dtype::{Dtype, Values};

/// More variables than this are no message of ours; the bound keeps a hostile one cheap.
pub(super) const MOST_VARIABLES: usize = 256;
/// More dims than this are no field: lead time, channel, time, level, y and x are six.
pub(super) const MOST_DIMS: usize = 8;
/// A longer text, in bytes, is no name. Many may lie in one place, so that the length of a message
/// does not bound what it takes to look at them all.
pub(super) const MOST_TEXT: usize = 64 << 10;
/// The array in a message that is the measurement.
pub(super) const SIGNAL: &str = "signal";

/// Who says what, and when.
#[derive(Clone, Debug)]
pub(super) struct Message<'a> {
    pub(super) source_name: Cow<'a, str>,
    /// `None` where the message says none.
    pub(super) timestamp: Option<Time>,
    pub(super) variables: Vec<Variable<'a>>,
}

/// A named array.
#[derive(Clone, Debug)]
pub(super) struct Variable<'a> {
    pub(super) name: Cow<'a, str>,
    /// Empty where there is none.
    pub(super) unit: Cow<'a, str>,
    /// What to call it in a picture; empty where that is the name.
    pub(super) label: Cow<'a, str>,
    /// The name of every dim; empty where the message names none.
    pub(super) axes: Vec<Cow<'a, str>>,
    /// Empty for a scalar; `[bytes]` for a text.
    pub(super) shape: Vec<usize>,
    pub(super) values: Values<'a>,
}

impl<'a> Message<'a> {
    /// The array of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Variable<'a>> {
        self.variables.iter().find(|variable| variable.name == name)
    }

    /// What a message must keep whatever its format.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.source_name.is_empty() {
            return Err("source_name: is empty".to_owned());
        }
        let mut names = BTreeSet::new();
        for variable in &self.variables {
            if !names.insert(&*variable.name) {
                return Err(format!("variable {}: is there twice", quoted(&variable.name)));
            }
            variable.check()?;
        }
        Ok(())
    }

    /// The names of its variables, for an error.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.variables.iter().take(8).map(|v| quoted(&v.name)).collect();
        let more = if self.variables.len() > 8 { ", ..." } else { "" };
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") + more }
    }
}

impl Variable<'_> {
    fn check(&self) -> Result<(), String> {
        let Self { axes, shape, values, .. } = self;
        let wrong = |why: String| Err(format!("variable {}: {why}", quoted(&self.name)));
        if shape.len() > MOST_DIMS {
            return wrong(format!("{} dims, more than {MOST_DIMS}", shape.len()));
        }
        if !axes.is_empty() && axes.len() != shape.len() {
            return wrong(format!("{} axes for {} dims", axes.len(), shape.len()));
        }
        let (size, held) = (values.dtype().size(), values.bytes_len());
        let needed = shape.iter().try_fold(size, |product, dim| product.checked_mul(*dim));
        if needed != Some(held) {
            let dtype = values.dtype().name();
            return wrong(format!("shape {shape:?} of {dtype} does not fill its {held} bytes"));
        }
        if values.dtype() == Dtype::Text && held > MOST_TEXT {
            return wrong(format!("c_string of {held} bytes, more than {MOST_TEXT}"));
        }
        if values.dtype() == Dtype::Text && values.as_text().is_none() {
            return wrong("c_string that is not UTF-8".to_owned());
        }
        Ok(())
    }
}

/// A text from a message as an error may say it: in quotes, escaped, and short.
pub(super) fn quoted(text: &str) -> String {
    let start = &text[..text.floor_char_boundary(64)];
    let mut quoted = format!("{start:?}");
    if start.len() < text.len() || quoted.len() > 66 {
        quoted.truncate(quoted.floor_char_boundary(66));
        quoted.push_str("...");
    }
    quoted
}

/// Names from a message as an error may say them.
pub(super) fn listed(names: &[Cow<str>]) -> String {
    let names: Vec<_> = names.iter().take(MOST_DIMS).map(|name| quoted(name)).collect();
    format!("[{}]", names.join(", "))
}
