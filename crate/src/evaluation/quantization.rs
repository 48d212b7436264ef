//! `eval quantization`: what fewer bits cost.
//!
//! The model in f32 goes through the cases of `eval ops`, and what it was asked and wrote is kept.
//! Then each format does the same cases for itself, and reads what f32 wrote: how far its
//! distribution is from f32's at each token that was chosen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::ops::{ops_totals, run_case};
use crate::agents::{AddOptions, Models};
use crate::checkpoint::{
    EXTRACTOR_WEIGHTS, Files, PackOptions, Quantization, WEIGHTS, WORD_VECTORS, add_extractor, extractor,
    pack, small, total, verify,
};
use crate::datasets::synthetic::OpsCase;
use crate::error::{Error, Result};
use crate::generation::{
    Cancel, ChatMessage, Generation, LanguageModel, LocalModel, ModelInfo, Request, no_turn,
};
use crate::kernels::Kernels;
use crate::retrieval::Retriever;

/// What is compared, the reference first: how weights lie on disk, and how embeddings do where
/// it is said ([`Quantization::of_embeddings`] else).
pub const FORMATS: [(Quantization, Option<Quantization>); 6] = [
    (Quantization::F32, None),
    (Quantization::F16, None),
    (Quantization::Q8, None),
    (Quantization::Q6, None),
    (Quantization::Q4, None),
    (Quantization::Q4, Some(Quantization::Q4)),
];

/// What one format costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormatCost {
    /// How the weights lie on disk.
    pub quantization: Quantization,
    /// How the tables of embeddings lie there, where it is in another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_quantization: Option<Quantization>,
    /// The size of the bundle.
    pub bytes: usize,
    /// The size of its weights.
    pub weights_bytes: usize,
    /// The mean of `KL(f32 ‖ format)` in nats over the tokens that f32 chose, each among those that
    /// its grammar allowed.
    pub mean_kl: f64,
    /// The share of the cases that passed.
    pub accuracy: f64,
    /// The same by the operation that a case asks for.
    pub accuracy_by_op: BTreeMap<String, f64>,
}

/// What every format costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizationReport {
    /// The model's name.
    pub model: String,
    /// How many cases.
    pub cases: usize,
    /// How many tokens f32 chose.
    pub tokens: usize,
    /// As [`FORMATS`].
    pub formats: Vec<FormatCost>,
}

/// A model's folder through the cases in every format, on `device`.
pub async fn quantization_costs<B: Kernels>(
    folder: &Files,
    device: &B::Device,
    cases: &[OpsCase],
    cancel: &Cancel,
    on_case: &mut dyn FnMut(usize),
) -> Result<QuantizationReport> {
    let mut run = Run { folder, device, cases, cancel, done: 0, on_case };
    let [first, others @ ..] = FORMATS;
    let (models, mut cost) = run.load::<B>(first).await?;
    let name = models[0].info().name.clone();
    let recorders: Vec<Rc<Recorder<B>>> =
        models.into_iter().map(|model| Rc::new(Recorder { model, calls: RefCell::default() })).collect();
    run.pass_cases(&recorders, &mut cost).await?;
    let calls: Vec<_> = recorders.iter().map(|recorder| recorder.calls.take()).collect();
    let mut report = QuantizationReport { model: name, cases: cases.len(), tokens: 0, formats: vec![cost] };
    for format in others {
        let (models, mut cost) = run.load::<B>(format).await?;
        run.pass_cases(&models, &mut cost).await?;
        let (mut sum, mut tokens) = (0.0, 0);
        for ((recorder, calls), model) in recorders.iter().zip(&calls).zip(&models) {
            for (request, ids) in calls {
                let wanted = recorder.model.distributions(request, ids, cancel).await?;
                let own = model.distributions(request, ids, cancel).await?;
                sum += wanted.iter().zip(&own).map(|(wanted, own)| divergence(wanted, own)).sum::<f64>();
                tokens += wanted.len();
            }
        }
        cost.mean_kl = sum / tokens.max(1) as f64;
        report.tokens = tokens;
        report.formats.push(cost);
    }
    Ok(report)
}

/// What is the same for every format.
struct Run<'a, D> {
    folder: &'a Files,
    device: &'a D,
    cases: &'a [OpsCase],
    cancel: &'a Cancel,
    /// How many cases are done, of all formats.
    done: usize,
    on_case: &'a mut dyn FnMut(usize),
}

impl<D> Run<'_, D> {
    /// The model as it comes out of a bundle in this format, and its extractor where it has one.
    async fn load<B: Kernels<Device = D>>(
        &self,
        (quantization, embedding): (Quantization, Option<Quantization>),
    ) -> Result<(Vec<Rc<LocalModel<B>>>, FormatCost)> {
        let packed = async |folder: &Files| {
            let options = PackOptions {
                quantization,
                embedding_quantization: embedding,
                ..PackOptions::of(verify(folder)?.as_ref())
            };
            pack::<B>(folder, &options, None, self.device).await
        };
        let mut bundle = packed(self.folder).await?;
        if let Some(own) = extractor(self.folder)? {
            add_extractor(&mut bundle, &packed(&own).await?)?;
        }
        let cost = FormatCost {
            quantization,
            embedding_quantization: verify(&bundle)?.and_then(|own| own.embedding_quantization),
            bytes: total(&bundle) as usize,
            weights_bytes: [WEIGHTS, EXTRACTOR_WEIGHTS]
                .iter()
                .filter_map(|name| bundle.get(*name))
                .map(|weights| weights.len() as usize)
                .sum(),
            mean_kl: 0.0,
            accuracy: 0.0,
            accuracy_by_op: BTreeMap::new(),
        };
        let mut models = vec![Rc::new(LocalModel::load(&bundle, self.device, no_turn())?)];
        if let Some(own) = extractor(&bundle)? {
            models.push(Rc::new(LocalModel::load(&own, self.device, no_turn())?));
        }
        Ok((models, cost))
    }

    /// Runs the cases and writes down how many passed.
    async fn pass_cases<M: LanguageModel + 'static>(
        &mut self,
        models: &[Rc<M>],
        cost: &mut FormatCost,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (models.first().cloned(), models.last().cloned()) else {
            return Err(Error::internal("no model was loaded"));
        };
        let candidates = first.info().manager_candidates;
        let retriever = Retriever::read(small(self.folder, WORD_VECTORS))?;
        let models = Models { extractor: last, ..Models::one(first).with_retriever(retriever) };
        let mut outcomes = Vec::with_capacity(self.cases.len());
        let options = AddOptions { cancel: self.cancel.clone(), ..AddOptions::default() };
        for case in self.cases {
            let outcome = run_case(&models, case, &options).await.map_err(|error| {
                Error::new(error.code(), format!("case {}: {}", case.id, error.message()))
            })?;
            outcomes.push(outcome);
            self.done += 1;
            (self.on_case)(self.done);
        }
        let totals = ops_totals(&outcomes, candidates);
        cost.accuracy = totals.accuracy;
        cost.accuracy_by_op = totals.by_op.into_iter().map(|(op, scores)| (op, scores.accuracy)).collect();
        Ok(())
    }
}

/// `Σ p · (ln p − ln q)` of two distributions, given as logarithms.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    p.iter().zip(q).map(|(p, q)| f64::from(*p).exp() * f64::from(p - q)).sum()
}

/// A model that remembers what it was asked and the tokens that it wrote.
struct Recorder<B: Kernels> {
    model: Rc<LocalModel<B>>,
    calls: RefCell<Vec<(Request, Vec<u32>)>>,
}

#[async_trait(?Send)]
impl<B: Kernels> LanguageModel for Recorder<B> {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn room(&self, messages: &[ChatMessage]) -> Result<usize> {
        self.model.room(messages)
    }

    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        let generation = self.model.generate(request, cancel, on_text).await?;
        self.calls.borrow_mut().push((request.clone(), generation.ids.clone()));
        Ok(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_is_that_of_the_textbook() {
        let [p, q] = [[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]].map(|own| own.map(f32::ln));
        assert!((divergence(&p, &q) - 0.25 * std::f64::consts::LN_2).abs() < 1e-6);
        assert!(divergence(&p, &p).abs() < 1e-12);
    }
}
