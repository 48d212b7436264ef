//! Means of what steps say of themselves, which a checkpoint keeps until they are reported.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Sums and counts by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Means(BTreeMap<String, (f64, u64)>);

impl Means {
    /// Counts a number.
    pub(super) fn add(&mut self, name: &str, value: f64) {
        let own = self.0.entry(name.to_owned()).or_default();
        *own = (own.0 + value, own.1 + 1);
    }

    /// The means so far, which begin anew.
    pub(super) fn take(&mut self) -> BTreeMap<String, f64> {
        std::mem::take(&mut self.0)
            .into_iter()
            .map(|(name, (sum, count))| (name, sum / count as f64))
            .collect()
    }

    /// Whether nothing was counted since the last time.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sums bit for bit, which decimal digits would not keep.
    pub(super) fn to_json(&self) -> Value {
        self.0.iter().map(|(name, (sum, count))| (name.clone(), json!([sum.to_bits(), count]))).collect()
    }

    /// What [`Self::to_json`] wrote; nothing of what is something else.
    pub(super) fn of_json(value: &Value) -> Self {
        let entry = |(name, own): (&String, &Value)| {
            Some((name.clone(), (f64::from_bits(own[0].as_u64()?), own[1].as_u64()?)))
        };
        Self(value.as_object().into_iter().flatten().filter_map(entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_kept_to_the_bit() {
        let mut means = Means::default();
        for i in 1..50 {
            means.add("a", 1.0 / f64::from(i));
            means.add("b/c", -1e-300 * f64::from(i));
        }
        let text = means.to_json().to_string();
        assert_eq!(Means::of_json(&serde_json::from_str(&text).unwrap()), means);
        assert_eq!(Means::of_json(&Value::Null), Means::default());
        let taken = means.take();
        assert_eq!((taken.len(), means), (2, Means::default()));
    }
}
