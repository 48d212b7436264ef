//! Errors that say where in a file they stand.

use serde_json::Value;

use crate::error::{Error, Result};

/// Where in the file we are, for errors.
pub(super) struct Place(pub(super) String);

impl Place {
    pub(super) fn at(&self, field: &str) -> Self {
        Self(format!("{}: {field}", self.0))
    }

    pub(super) fn error(&self, expected: &str) -> Error {
        Error::invalid(format!("{}: expected {expected}", self.0))
    }

    pub(super) fn field<'a>(&self, value: &'a Value, name: &str) -> Result<&'a Value> {
        value.get(name).ok_or_else(|| self.at(name).error("this field, which is missing"))
    }

    pub(super) fn text(&self, value: &Value, name: &str) -> Result<String> {
        let text = self.field(value, name)?.as_str().ok_or_else(|| self.at(name).error("a string"))?;
        Ok(text.to_owned())
    }

    pub(super) fn list<'a>(&self, value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
        self.field(value, name)?.as_array().ok_or_else(|| self.at(name).error("a list"))
    }

    /// A string or a number, as the released file writes years; absent is `None`.
    pub(super) fn scalar(&self, value: &Value, name: &str) -> Result<Option<String>> {
        match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(self.at(name).error("a string or a number")),
        }
    }
}
