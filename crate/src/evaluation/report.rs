//! The totals of a benchmark.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::benchmark::{BankState, BenchmarkSettings, QuestionOutcome, Stale, System, tally};
use super::bootstrap;
use super::judge::Judge;
use super::metrics::Scores;
use super::scores::{Category, Totals, is_adversarial};
use crate::agents::Models;
use crate::bank::OperationKind;
use crate::datasets::{ADVERSARIAL, Corrections};

/// Of the turns that hold the answers, how many reached the answer agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRecall {
    /// How many memories of one speaker it is shown.
    pub k: usize,
    /// How many questions (those that cannot be answered apart) name their turns.
    pub n: usize,
    /// The mean share of a question's turns that a candidate came from.
    pub recall: f64,
    /// The mean share that any memory of the banks came from: more cannot be found.
    pub kept: f64,
}

/// 95 % of the resampled means lie within these bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Of F1.
    pub f1: [f64; 2],
    /// Of BLEU-1.
    pub bleu1: [f64; 2],
    /// Of exact match.
    pub exact_match: [f64; 2],
}

/// Of many times, those that so many per cent do not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half.
    pub p50: f64,
    /// 95 of a hundred.
    pub p95: f64,
}

impl Percentiles {
    /// The nearest ranks; 0 of nothing.
    fn of(seconds: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = seconds.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p50: at(0.5), p95: at(0.95) }
    }
}

/// What a judge said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The model's name.
    pub model: String,
    /// The sha256 of its prompt's template.
    pub prompt: String,
    /// How many answers it marked; all that can be answered, but where it said nothing.
    pub n: usize,
    /// The share of them that it found right.
    pub accuracy: f64,
    /// The same of each category, those that cannot be answered too.
    pub by_category: BTreeMap<Category, f64>,
    /// How many answers it said nothing about that could be read.
    pub unjudged: usize,
}

impl Judged {
    fn new(judge: &Judge, outcomes: &[QuestionOutcome]) -> Self {
        let share = |verdicts: &[bool]| {
            verdicts.iter().filter(|right| **right).count() as f64 / verdicts.len().max(1) as f64
        };
        let pooled: Vec<bool> = pooled(outcomes).filter_map(|outcome| outcome.judged).collect();
        let mut by_category: BTreeMap<Category, Vec<bool>> = BTreeMap::new();
        for outcome in outcomes {
            by_category.entry(outcome.category.clone()).or_default().extend(outcome.judged);
        }
        Self {
            model: judge.name().to_owned(),
            prompt: Judge::prompt(),
            n: pooled.len(),
            accuracy: share(&pooled),
            by_category: by_category.iter().map(|(name, verdicts)| (name.clone(), share(verdicts))).collect(),
            unjudged: outcomes.iter().filter(|outcome| outcome.judged.is_none()).count(),
        }
    }
}

/// The scores against corrected labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Corrected {
    /// How many of the questions asked have another answer than the released one.
    pub corrections: usize,
    /// The scores.
    #[serde(flatten)]
    pub totals: Totals,
    /// How sure they are.
    pub intervals: Intervals,
}

impl Corrected {
    /// Scores the same answers against the corrected ones.
    pub fn new(outcomes: &[QuestionOutcome], corrections: &Corrections, seed: u64) -> Self {
        let mut corrected = outcomes.to_vec();
        let mut count = 0;
        for outcome in &mut corrected {
            if let Some(answer) = corrections.get(&(outcome.sample_id.clone(), outcome.index)) {
                count += 1;
                outcome.answer.clone_from(answer);
                outcome.scores = Scores::of(&outcome.prediction, answer, Some(&outcome.category));
            }
        }
        Self {
            corrections: count,
            totals: tally(&corrected).totals(),
            intervals: intervals(&corrected, seed),
        }
    }
}

/// The report of a benchmark of conversations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkReport {
    /// The scores.
    #[serde(flatten)]
    pub totals: Totals,
    /// How sure they are, by the bootstrap over questions.
    pub intervals: Intervals,
    /// The same answers against an audit's corrected labels, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Corrected>,
    /// The share of the questions without an answer that was declined, as it should be; null without such
    /// questions.
    pub declined: Option<f64>,
    /// How many operations of each name were decided.
    pub ops: BTreeMap<String, usize>,
    /// How many conversations were read.
    pub conversations: usize,
    /// How many turns.
    pub turns: usize,
    /// How many facts they gave.
    pub facts: usize,
    /// How many memories all banks hold together.
    pub bank: usize,
    /// How many of them say what another of the same bank says.
    pub duplicates: usize,
    /// Statements that the conversations change or take back, and how many of them a memory still says; null
    /// where the data do not tell.
    pub stale: Option<Stale>,
    /// The memories of all banks by conversation and speaker.
    pub banks: BTreeMap<String, BTreeMap<String, usize>>,
    /// Whether retrieval found what the answers stand in.
    pub evidence: EvidenceRecall,
    /// Of the memories that were found, or the turns that were to be shown, the share that did not fit
    /// into the model's context.
    pub left_out: f64,
    /// What was measured.
    pub system: System,
    /// Whether the answer agent answered without naming the useful memories first.
    pub no_distillation: bool,
    /// Where the model computed.
    pub device: String,
    /// The name of the model that decided.
    pub model: String,
    /// The sha256 of its weights.
    pub fingerprint: String,
    /// The name of the model that took the facts out of turns.
    pub extractor: String,
    /// The name of the model that answered.
    pub answer_agent: String,
    /// The fingerprint of the sentence encoder that memories were found by too, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedder: Option<String>,
    /// How many completions were not of the form that was asked for, and changed nothing; none under a grammar.
    pub malformed: usize,
    /// What a judge said; null without one.
    pub judge: Option<Judged>,
    /// The sampler's temperature: 0, greedy.
    pub temperature: f32,
    /// The seed of the sampler and of the journals' ids.
    pub seed: u64,
    /// How long turns and questions took, earlier parts of a resumed run included.
    pub seconds: f64,
    /// The turns' part of it.
    pub seconds_reading: f64,
    /// How long one turn took; those that no bank reads apart.
    pub seconds_of_turn: Percentiles,
    /// How long one question took.
    pub seconds_of_answer: Percentiles,
}

impl BenchmarkReport {
    /// Adds up a run.
    pub fn new(
        states: &[BankState],
        outcomes: &[QuestionOutcome],
        models: &Models,
        malformed: usize,
        judge: Option<&Judge>,
        device: &str,
        settings: &BenchmarkSettings,
    ) -> Self {
        let model = models.manager.info();
        let totals = tally(outcomes).totals();
        let mut ops: BTreeMap<String, usize> =
            OperationKind::ALL.iter().map(|kind| (kind.wire_name().to_owned(), 0)).collect();
        for (name, count) in states.iter().flat_map(|state| &state.ops) {
            *ops.entry(name.clone()).or_default() += count;
        }
        let reading: f64 = states.iter().map(|state| state.turn_seconds.iter().sum::<f64>()).sum();
        let seconds = reading + outcomes.iter().map(|outcome| outcome.seconds).sum::<f64>();
        let millis = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        Self {
            intervals: intervals(outcomes, settings.seed),
            corrected: None,
            declined: ADVERSARIAL
                .iter()
                .find_map(|name| totals.by_category.get(*name))
                .map(|category| category.declined),
            totals,
            ops,
            conversations: states.len(),
            turns: states.iter().map(|state| state.turns).sum(),
            facts: states.iter().flat_map(|state| state.facts.values()).map(Vec::len).sum(),
            bank: states.iter().flat_map(|state| state.banks.values()).sum(),
            duplicates: states.iter().map(|state| state.duplicates).sum(),
            stale: states.iter().filter_map(|state| state.superseded).reduce(|sum, own| Stale {
                superseded: sum.superseded + own.superseded,
                stale: sum.stale + own.stale,
            }),
            banks: states.iter().map(|state| (state.sample_id.clone(), state.banks.clone())).collect(),
            evidence: evidence(outcomes, models.answer_agent.info().candidates_per_speaker),
            left_out: left_out(outcomes),
            system: settings.system,
            no_distillation: settings.no_distillation,
            device: device.to_owned(),
            model: model.name.clone(),
            fingerprint: model.fingerprint.clone(),
            extractor: models.extractor.info().name.clone(),
            answer_agent: models.answer_agent.info().name.clone(),
            embedder: models.embedder.as_ref().map(|own| own.info().fingerprint.clone()),
            malformed,
            judge: judge.map(|judge| Judged::new(judge, outcomes)),
            temperature: settings.temperature,
            seed: settings.seed,
            seconds: millis(seconds),
            seconds_reading: millis(reading),
            seconds_of_turn: Percentiles::of(
                states.iter().flat_map(|state| state.turn_seconds.iter().copied()),
            ),
            seconds_of_answer: Percentiles::of(outcomes.iter().map(|outcome| outcome.seconds)),
        }
    }
}

fn pooled(outcomes: &[QuestionOutcome]) -> impl Iterator<Item = &QuestionOutcome> {
    outcomes.iter().filter(|outcome| !is_adversarial(&outcome.category))
}

fn evidence(outcomes: &[QuestionOutcome], k: usize) -> EvidenceRecall {
    let with: Vec<&QuestionOutcome> =
        pooled(outcomes).filter(|outcome| !outcome.evidence.is_empty()).collect();
    let mean = |part: fn(&QuestionOutcome) -> usize| {
        let shares = with.iter().map(|outcome| part(outcome) as f64 / outcome.evidence.len() as f64);
        if with.is_empty() { 0.0 } else { shares.sum::<f64>() / with.len() as f64 }
    };
    EvidenceRecall {
        k,
        n: with.len(),
        recall: mean(|outcome| outcome.evidence_shown),
        kept: mean(|outcome| outcome.evidence_kept),
    }
}

fn left_out(outcomes: &[QuestionOutcome]) -> f64 {
    let left_out: usize = outcomes.iter().map(|outcome| outcome.left_out).sum();
    let shown: usize = outcomes.iter().map(|outcome| outcome.candidates.len()).sum();
    left_out as f64 / (left_out + shown).max(1) as f64
}

fn intervals(outcomes: &[QuestionOutcome], seed: u64) -> Intervals {
    let scores: Vec<[f64; 3]> = pooled(outcomes)
        .map(|outcome| [outcome.scores.f1, outcome.scores.bleu1, outcome.scores.exact_match])
        .collect();
    let [f1, bleu1, exact_match] = bootstrap::intervals(&scores, seed);
    Intervals { f1, bleu1, exact_match }
}
