//! Nested lists of numbers, and the shape that they spell.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::super::dtype::Values;
use super::super::message::MOST_DIMS;

/// A number, a text, or lists of lists of numbers, all of a depth as long as each other.
#[derive(Debug, Default)]
pub(super) struct Nested {
    /// The length of the lists at each depth; `None` while the first of them is being read.
    lengths: Vec<Option<usize>>,
    /// The depth at which numbers stand, once there is one.
    depth: Option<usize>,
    numbers: Numbers,
    text: Option<String>,
}

/// Integers stay exact, for the sake of times, until something else is among them.
#[derive(Debug)]
enum Numbers {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
}

impl Default for Numbers {
    fn default() -> Self {
        Self::Integers(Vec::new())
    }
}

impl Nested {
    /// The shape that the lists spell, and the values.
    pub(super) fn into_parts(self) -> (Vec<usize>, Values<'static>) {
        if let Some(text) = self.text {
            return (vec![text.len()], Values::text(&text));
        }
        let values = match self.numbers {
            Numbers::Integers(values) => Values::i64s(&values),
            Numbers::Floats(values) => Values::f64s(&values),
        };
        (self.lengths.into_iter().flatten().collect(), values)
    }

    fn float(&mut self, value: f64) {
        if let Numbers::Integers(values) = &self.numbers {
            self.numbers = Numbers::Floats(values.iter().map(|value| *value as f64).collect());
        }
        if let Numbers::Floats(values) = &mut self.numbers {
            values.push(value);
        }
    }
}

impl<'de> Deserialize<'de> for Nested {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut nested = Self::default();
        Level { nested: &mut nested, depth: 0 }.deserialize(deserializer)?;
        Ok(nested)
    }
}

/// One value at a depth.
struct Level<'n> {
    nested: &'n mut Nested,
    depth: usize,
}

impl Level<'_> {
    fn number<E: Error>(&mut self) -> Result<(), E> {
        if self.nested.lengths.len() > self.depth {
            return Err(E::custom("data: a number stands beside a list"));
        }
        self.nested.depth = Some(self.depth);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("numbers, null for what is missing, or nested lists of them")
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.number()?;
        match &mut self.nested.numbers {
            Numbers::Integers(values) => values.push(value),
            Numbers::Floats(values) => values.push(value as f64),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => {
                self.number()?;
                self.nested.float(value as f64);
                Ok(())
            }
        }
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.number()?;
        self.nested.float(value);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_f64(f64::NAN)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if self.depth > 0 {
            return Err(E::custom("data: a text stands in a list of numbers"));
        }
        self.nested.text = Some(value.to_owned());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { nested, depth } = self;
        if depth == MOST_DIMS {
            return Err(A::Error::custom(format!("data: lists nested deeper than {MOST_DIMS}")));
        }
        if nested.depth.is_some_and(|number| depth >= number) {
            return Err(A::Error::custom("data: a list stands beside a number"));
        }
        if nested.lengths.len() == depth {
            nested.lengths.push(None);
        }
        let mut count = 0;
        while list.next_element_seed(Level { nested: &mut *nested, depth: depth + 1 })?.is_some() {
            count += 1;
        }
        match nested.lengths[depth].replace(count) {
            Some(other) if other != count => {
                let why = format!("data: lists of {other} and of {count} beside each other");
                Err(A::Error::custom(why))
            }
            _ => Ok(()),
        }
    }
}
