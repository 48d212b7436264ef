//! Examples as the network reads them: cases of the three tasks, tokenized, those of one prompt
//! sharing its beginning.

use std::sync::Arc;

use super::config::LossWeights;
use super::network::{Target, Tree};
use crate::error::{Error, Result};
use crate::generation::{ChatMessage, ChatTemplate, Grammar, Part, Tokenizer, encode_target};
use crate::nn::{DecoderConfig, Family};

/// What an example teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Facts out of a turn.
    Extract,
    /// An operation for a fact.
    Manage,
    /// An answer from memories.
    Answer,
}

/// Where an example comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Made up from tables.
    Synthetic,
    /// Written by hand.
    Freeform,
}

/// An example as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it teaches.
    pub task: Task,
    /// Where it comes from.
    pub source: Source,
    /// What kind of it, for the metrics: the operation, the question's category.
    pub kind: String,
    /// The prompt.
    pub messages: Vec<ChatMessage>,
    /// The form of the completion.
    pub grammar: Grammar,
    /// The completion.
    pub completion: String,
}

impl Case {
    /// Everything that is read and written, for the vocabulary.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().map(|message| &message.content[..]).chain([&self.completion[..]])
    }
}

/// One completion of an example.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// What kind of the task.
    pub kind: String,
    /// What stands behind the stem: the rest of the prompt, and the completion.
    tokens: Vec<u32>,
    /// How many of them are the prompt.
    prompt: usize,
    /// What the completion's tokens spell.
    parts: Vec<Part>,
}

impl Branch {
    /// The completion's tokens.
    pub fn completion(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// What the completion's chosen tokens spell.
    pub fn chosen(&self) -> impl Iterator<Item = Part> + '_ {
        self.parts.iter().copied().filter(|part| *part != Part::Forced)
    }

    /// The completion with other tokens in the places of the chosen ones.
    pub fn with_choices(&self, chosen: &[u32]) -> Vec<u32> {
        let mut chosen = chosen.iter();
        let tokens = self.completion().iter().zip(&self.parts);
        tokens
            .map(|(own, part)| if *part == Part::Forced { *own } else { *chosen.next().unwrap_or(own) })
            .collect()
    }

    /// What the network reads: all but the last token.
    fn inputs(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - 1]
    }
}

/// Cases as tokens: what their prompts share, once, and a branch for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What it teaches.
    pub task: Task,
    /// Where it comes from.
    pub source: Source,
    /// What all prompts begin with; empty where there is one branch.
    stem: Vec<u32>,
    /// The rest of each.
    pub branches: Vec<Branch>,
    /// Whether the stem and the rest of each prompt are the two blocks that BERT reads.
    in_blocks: bool,
}

impl Example {
    /// Tokenizes the cases of a group for a network of this configuration.
    pub fn new(
        group: &[Case],
        tokenizer: &Arc<Tokenizer>,
        template: &ChatTemplate,
        model: &DecoderConfig,
    ) -> Result<Self> {
        let task = group.first().map_or(Task::Extract, |case| case.task);
        let source = group.first().map_or(Source::Synthetic, |case| case.source);
        let mut branches = Vec::with_capacity(group.len());
        for case in group {
            let mut tokens = template.encode(tokenizer, &case.messages)?;
            let prompt = tokens.len();
            let target = encode_target(tokenizer, &case.grammar, &case.completion)?;
            tokens.extend(target.iter().map(|token| token.id));
            let parts = target.iter().map(|token| token.part).collect();
            branches.push(Branch { kind: case.kind.clone(), tokens, prompt, parts });
        }
        let in_blocks = model.family == Family::Bert;
        let mut shared = 0;
        if let (true, [first, rest @ ..]) = (in_blocks, &branches[..]) {
            shared = model.first_block(&first.tokens[..first.prompt]);
            let block = &first.tokens[..shared];
            if rest.iter().any(|other| {
                let prompt = &other.tokens[..other.prompt];
                prompt[..model.first_block(prompt)] != *block
            }) {
                return Err(Error::internal("prompts of one group do not begin with the same block"));
            }
        } else if let [first, rest @ ..] = &branches[..]
            && !rest.is_empty()
        {
            let alike = |other: &Branch| {
                let pairs = first.tokens[..first.prompt].iter().zip(&other.tokens[..other.prompt]);
                pairs.take_while(|(a, b)| a == b).count()
            };
            // Something of the prompt stays, which predicts the completion's first token.
            let shortest = branches.iter().map(|branch| branch.prompt).min().unwrap_or(0);
            shared = rest.iter().map(alike).min().unwrap_or(0).min(shortest.saturating_sub(1));
        }
        let stem = branches.first().map_or_else(Vec::new, |first| first.tokens[..shared].to_vec());
        for branch in &mut branches {
            branch.tokens.drain(..shared);
            branch.prompt -= shared;
        }
        Ok(Self { task, source, stem, branches, in_blocks })
    }

    /// An example without tokens.
    #[cfg(test)]
    pub(super) fn empty(task: Task, source: Source) -> Self {
        Self { task, source, stem: Vec::new(), branches: Vec::new(), in_blocks: false }
    }

    /// How many tokens the network reads.
    pub fn len(&self) -> usize {
        self.tree().len()
    }

    /// Whether that is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How the tokens divide.
    pub fn tree(&self) -> Tree {
        let branches = self.branches.iter().map(|branch| branch.inputs().len()).collect();
        let prompts = || self.branches.iter().map(|branch| branch.prompt).collect();
        Tree { stem: self.stem.len(), branches, prompts: self.in_blocks.then(prompts) }
    }

    /// All tokens, read or wanted.
    pub fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        let branches = self.branches.iter().flat_map(|branch| &branch.tokens);
        self.stem.iter().chain(branches).copied()
    }

    /// What the network reads.
    pub fn inputs(&self) -> Vec<u32> {
        let branches = self.branches.iter().map(Branch::inputs);
        std::iter::once(&self.stem[..]).chain(branches).flatten().copied().collect()
    }

    /// The prompt of a branch.
    pub fn prompt(&self, branch: &Branch) -> Vec<u32> {
        [&self.stem[..], &branch.tokens[..branch.prompt]].concat()
    }

    /// What the network should predict of the stem.
    pub fn stem_targets(&self, weights: &LossWeights) -> impl Iterator<Item = Target> + use<'_> {
        let weight = weights.prompt;
        let places = 1..if weight > 0.0 { self.stem.len() } else { 0 };
        places.step_by(weights.prompt_stride).map(move |place| Target {
            row: place - 1,
            token: self.stem[place],
            weight,
        })
    }

    /// For every branch, what the network should predict: the prompt's tokens where they count,
    /// then the completion's choices.
    pub fn branch_targets(&self, weights: &LossWeights) -> impl Iterator<Item = Vec<Target>> + use<'_> {
        let LossWeights { prompt, prompt_stride, text, event, id } = *weights;
        let mut start = self.stem.len();
        self.branches.iter().map(move |branch| {
            let places = 1..if prompt > 0.0 { branch.prompt } else { 0 };
            let of_prompt = places.step_by(prompt_stride).map(|place| (place, prompt));
            let of_completion = branch.parts.iter().enumerate().filter_map(|(i, part)| {
                let weight = match part {
                    Part::Forced => return None,
                    Part::Event => event,
                    Part::Id => id,
                    Part::Text => text,
                };
                Some((branch.prompt + i, weight))
            });
            let targets = of_prompt
                .chain(of_completion)
                .map(|(place, weight)| Target { row: start + place - 1, token: branch.tokens[place], weight })
                .collect();
            start += branch.inputs().len();
            targets
        })
    }

    /// All targets, the stem's first.
    pub fn targets(&self, weights: &LossWeights) -> impl Iterator<Item = Target> + use<'_> {
        self.stem_targets(weights).chain(self.branch_targets(weights).flatten())
    }
}

/// Tokenizes groups of cases for a network of this configuration; branches that it has no room for
/// are left out and counted.
pub fn tokenize(
    groups: &[Vec<Case>],
    tokenizer: &Arc<Tokenizer>,
    template: &ChatTemplate,
    model: &DecoderConfig,
) -> Result<(Vec<Example>, usize)> {
    let most = model.max_position_embeddings;
    let made = in_two_threads(groups.len(), |i| vec![Example::new(&groups[i], tokenizer, template, model)]);
    let mut examples = made.into_iter().collect::<Result<Vec<_>>>()?;
    let mut left_out = 0;
    for example in &mut examples {
        let (stem, all) = (example.stem.len(), example.branches.len());
        example.branches.retain(|b| stem + b.inputs().len() <= most && b.chosen().next().is_some());
        left_out += all - example.branches.len();
    }
    examples.retain(|example| !example.branches.is_empty());
    Ok((examples, left_out))
}

pub(super) fn in_two_threads<T: Send>(count: usize, make: impl Fn(usize) -> Vec<T> + Sync) -> Vec<T> {
    let make = &make;
    std::thread::scope(|scope| {
        let second = scope.spawn(move || (count / 2..count).flat_map(make).collect::<Vec<T>>());
        let mut all: Vec<T> = (0..count / 2).flat_map(make).collect();
        match second.join() {
            Ok(rest) => all.extend(rest),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        all
    })
}
