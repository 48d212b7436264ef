//! From synthetic dialogues to tokens: what each of the three tasks reads and should write.
//!
//! Prompts, candidates and their order are made by the code that makes them in use, so that
//! nano meets in training what it will meet later. Two things differ on purpose: the right
//! memory is always among the candidates, for otherwise a miss of retrieval would teach to
//! guess; and banks are cut to every size.

use std::sync::Arc;

use super::config::{DataConfig, LossWeights};
use super::network::{Target, Tree};
use crate::agents::{
    Block, MAX_FACTS, answer_messages, candidate_line, extract_messages, is_same_statement, manage_messages,
    one_line,
};
use crate::bank::{Memory, MemoryId, OperationKind, Role, Timestamp, Turn};
use crate::datasets::synthetic::{
    Decision as GoldDecision, GoldMemory, QuestionExample, SpokenTurn, SyntheticDialogue, TurnExample,
    UNKNOWN, question_examples, turn_examples,
};
use crate::error::{Error, Result};
use crate::generation::{
    Answer, ChatMessage, ChatTemplate, Decision, Grammar, Part, PromptFamily, Tokenizer, encode_target,
    facts_json,
};
use crate::nn::{DecoderConfig, Family};
use crate::random::{Random, keyed};
use crate::retrieval::Retriever;

/// How often a turn that can do without its context is shown without it.
const WITHOUT_CONTEXT: f64 = 0.25;
/// How often the extractor is shown fewer memories than it could be.
const FEWER_MEMORIES: f64 = 0.2;
/// How often an answerable question loses the memories that answer it.
const WITHOUT_SUPPORT: f64 = 0.08;
/// How often an unanswerable question is put beside another: dialogues have more of them than a
/// person would ask.
const UNANSWERABLE: f64 = 0.5;
/// How often a question is put to a part of the bank only.
const PARTIAL_BANK: f64 = 0.4;

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

/// All cases of dialogues, in groups that share their memories: at most `questions` cases each.
pub fn cases(config: &DataConfig, questions: usize, dialogues: &[SyntheticDialogue]) -> Vec<Vec<Case>> {
    in_two_threads(dialogues.len(), |i| dialogue_cases(config, questions, &dialogues[i]))
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

fn dialogue_cases(config: &DataConfig, questions: usize, dialogue: &SyntheticDialogue) -> Vec<Vec<Case>> {
    let number = letters(&dialogue.sample.sample_id);
    let mut groups = Vec::new();
    for (i, example) in turn_examples(dialogue).enumerate() {
        let mut random = Random::new(config.seed, &[0xca5e, number, i as u64]);
        if !example.assistant {
            groups.push(vec![extract_case(config, &example, &mut random)]);
        }
        // Draws of its own, so that a run without shuffling meets the same examples as ever.
        let mut order = Random::new(config.seed, &[0x5aff, number, i as u64]);
        for decision in &example.decisions {
            groups.extend(manage_case(config, decision, &mut order).map(|case| vec![case]));
        }
    }
    let all: Vec<QuestionExample<'_>> = question_examples(dialogue).collect();
    for lead in 0..all.len() {
        let mut random = Random::new(config.seed, &[0x9e57, number, lead as u64]);
        groups.extend(answer_cases(config, questions, &all, lead, &mut random));
    }
    groups
}

/// A number for a name: dialogues keep their chances whatever their order.
pub(super) fn letters(name: &str) -> u64 {
    keyed(0, &name.bytes().map(u64::from).collect::<Vec<_>>())
}

fn spoken(turn: &SpokenTurn<'_>, at: Timestamp) -> Turn {
    Turn { role: Role::User, speaker: turn.speaker.to_owned(), content: turn.text.to_owned(), timestamp: at }
}

fn extract_case(config: &DataConfig, example: &TurnExample<'_>, random: &mut Random) -> Case {
    let mut context: Vec<Turn> = example.context.iter().map(|turn| spoken(turn, example.at)).collect();
    if !example.needs_context && random.chance(WITHOUT_CONTEXT) {
        context.clear();
    }
    let facts: Vec<&str> = example.decisions.iter().map(|decision| &decision.gold.fact[..]).collect();
    let bank: Vec<&GoldMemory> = example.bank.iter().collect();
    let memories = memories_beside(config, &bank, example.turn.text, random);
    Case {
        task: Task::Extract,
        source: Source::Synthetic,
        kind: if facts.is_empty() { "none" } else { "some" }.to_owned(),
        messages: extract_messages(
            PromptFamily::Compact,
            &memories,
            &context,
            &spoken(&example.turn, example.at),
        ),
        grammar: Grammar::Facts { max_facts: MAX_FACTS },
        completion: facts_json(&facts),
    }
}

/// What the extractor is shown of a bank beside a turn; now and then fewer, or nothing.
pub(super) fn memories_beside(
    config: &DataConfig,
    bank: &[&GoldMemory],
    turn: &str,
    random: &mut Random,
) -> Vec<String> {
    let mut most = config.extractor_candidates;
    if most > 0 && random.chance(FEWER_MEMORIES) {
        most = random.below(most);
    }
    let shown = if most > 0 { candidates(bank, turn, most, &[]) } else { Vec::new() };
    shown.iter().map(|memory| memory.text.clone()).collect()
}

/// Nothing where the fact equals a candidate: then no model is asked.
fn manage_case(config: &DataConfig, decision: &GoldDecision<'_>, order: &mut Random) -> Option<Case> {
    let fact = &decision.gold.resolved;
    let bank: Vec<&GoldMemory> = decision.bank.iter().collect();
    let target = decision.target();
    let needed: Vec<&str> = target.into_iter().collect();
    let mut shown = candidates(&bank, fact, config.manager_candidates, &needed);
    if order.chance(config.shuffled_candidates) {
        order.shuffle(&mut shown);
    }
    if shown.iter().any(|memory| is_same_statement(&memory.text, fact)) {
        return None;
    }
    let place = target.and_then(|key| shown.iter().position(|memory| memory.key == key));
    let text = decision.gold.text.as_deref().map(one_line);
    let operation = match (decision.gold.op, place, text) {
        (OperationKind::Add, _, Some(text)) => Decision::Add { text },
        (OperationKind::Update, Some(id), Some(text)) => Decision::Update { id, text },
        (OperationKind::Delete, Some(id), _) => Decision::Delete { id },
        (OperationKind::Noop, ..) => Decision::Noop,
        _ => return None,
    };
    let lines = lines(&shown);
    Some(Case {
        task: Task::Manage,
        source: Source::Synthetic,
        kind: decision.gold.op.wire_name().to_owned(),
        messages: manage_messages(PromptFamily::Compact, &lines, fact),
        grammar: Grammar::Decision { shown: lines.len() },
        completion: operation.to_json(),
    })
}

/// A question with the memories that it retrieves, and some of the dialogue's other questions that
/// the same memories answer. Nothing where no memory is left: then no model is asked.
fn answer_cases(
    config: &DataConfig,
    questions: usize,
    all: &[QuestionExample<'_>],
    lead: usize,
    random: &mut Random,
) -> Option<Vec<Case>> {
    let example = &all[lead];
    let mut support: Vec<&str> = example.supporting.iter().map(|key| &key[..]).collect();
    let mut answer = example.answer;
    let is_support = |memory: &GoldMemory| example.supporting.contains(&memory.key);
    let without = !support.is_empty() && random.chance(WITHOUT_SUPPORT);
    // A share of the bank between nothing and all of it.
    let share = if random.chance(PARTIAL_BANK) { random.uniform() } else { 1.0 };
    let bank: Vec<&GoldMemory> = example
        .memories
        .iter()
        .filter(|memory| if is_support(memory) { !without } else { random.chance(share) })
        .collect();
    if without {
        support.clear();
        answer = UNKNOWN;
    }
    // One person's own memory, where that is enough.
    let owners: Vec<&str> = example
        .speakers
        .into_iter()
        .filter(|s| bank.iter().any(|m| m.speaker == **s && is_support(m)))
        .collect();
    // As in use, speakers stand in the order in which the bank first names them.
    let mut speakers: Vec<&str> = Vec::new();
    for memory in &bank {
        if !speakers.contains(&&memory.speaker[..]) {
            speakers.push(&memory.speaker);
        }
    }
    if let ([owner], true) = (&owners[..], random.chance(0.5)) {
        speakers.retain(|speaker| speaker == owner);
    }
    let mut order = Random::new(config.seed, &[0x5aff, letters(example.question), lead as u64, u64::MAX]);
    let is_shuffled = order.chance(config.shuffled_candidates);
    let mut blocks = Vec::new();
    let mut keys: Vec<&str> = Vec::new();
    for speaker in speakers {
        let own: Vec<&GoldMemory> = bank.iter().copied().filter(|memory| memory.speaker == speaker).collect();
        let mut shown = candidates(&own, example.question, config.candidates_per_speaker, &support);
        if is_shuffled {
            order.shuffle(&mut shown);
        }
        if !shown.is_empty() {
            keys.extend(shown.iter().map(|memory| &memory.key[..]));
            blocks.push(Block { speaker: speaker.to_owned(), lines: lines(&shown) });
        }
    }
    if blocks.is_empty() {
        return None;
    }
    let case = |example: &QuestionExample<'_>, support: &[&str], answer: &str| {
        let memories: Vec<usize> = (0..keys.len()).filter(|&i| support.contains(&keys[i])).collect();
        let known = answer != UNKNOWN;
        Case {
            task: Task::Answer,
            source: Source::Synthetic,
            kind: if known { format!("category {}", example.category) } else { "unknown".to_owned() },
            messages: answer_messages(PromptFamily::Compact, &blocks, example.question),
            grammar: Grammar::Answer { lines: blocks.iter().flat_map(|block| block.lines.clone()).collect() },
            completion: answer_completion(memories, answer),
        }
    };
    let mut group = vec![case(example, &support, answer)];
    let mut others: Vec<usize> = (0..all.len()).filter(|&i| i != lead).collect();
    random.shuffle(&mut others);
    for other in others.into_iter().map(|i| &all[i]) {
        if group.len() >= questions {
            break;
        }
        let support: Vec<&str> = other.supporting.iter().map(|key| &key[..]).collect();
        if support.iter().all(|key| keys.contains(key)) {
            if !support.is_empty() || random.chance(UNANSWERABLE) {
                group.push(case(other, &support, other.answer));
            }
        } else if !support.iter().any(|key| keys.contains(key)) && random.chance(WITHOUT_SUPPORT) {
            group.push(case(other, &[], UNKNOWN));
        }
    }
    Some(group)
}

/// The answer begins with a space, behind which a word is the token that it is in the memories:
/// behind a quotation mark it would be spelled in pieces that are written nowhere else.
pub(super) fn answer_completion(memories: Vec<usize>, answer: &str) -> String {
    Answer { memories, answer: format!(" {answer}") }.to_json()
}

pub(super) fn lines(shown: &[&GoldMemory]) -> Vec<String> {
    shown.iter().map(|memory| candidate_line(memory.observed, &memory.text)).collect()
}

/// The candidates as lexical retrieval gives them, best last, where those in `needed` take the
/// places of the worst others. Word vectors are learned beside, and would not change much: a
/// bank of one person is small, and order within it is no sign of what is right.
pub(super) fn candidates<'a>(
    bank: &[&'a GoldMemory],
    query: &str,
    most: usize,
    needed: &[&str],
) -> Vec<&'a GoldMemory> {
    let memories: Vec<Memory> = bank.iter().map(|gold| memory(gold)).collect();
    let memories: Vec<&Memory> = memories.iter().collect();
    let speaker = bank.first().map_or("", |memory| &memory.speaker);
    let ranked: Vec<usize> = Retriever::default()
        .for_fact(&memories, query, speaker, bank.len())
        .iter()
        .map(|found| found.place)
        .collect();
    let is_needed = |place: &usize| needed.contains(&&bank[*place].key[..]);
    let wanted = ranked.iter().filter(|place| is_needed(place)).count();
    let others = ranked.len() - wanted;
    let mut left_out = others.saturating_sub(most.saturating_sub(wanted));
    let mut shown = Vec::new();
    for place in ranked {
        if left_out > 0 && !is_needed(&place) {
            left_out -= 1;
        } else {
            shown.push(bank[place]);
        }
    }
    shown
}

fn memory(gold: &GoldMemory) -> Memory {
    Memory {
        id: MemoryId(gold.key.clone()),
        text: gold.text.clone(),
        speaker: gold.speaker.clone(),
        created: gold.observed,
        updated: gold.observed,
        observed: gold.observed,
        metadata: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasets::synthetic::{Options, Split, generate};
    use crate::generation::parse_decision;
    use crate::training::SftConfig;

    /// Of the decisions with a target among several, the share that have it last.
    fn last(config: &DataConfig, dialogues: &[SyntheticDialogue]) -> (usize, f64) {
        let all = cases(config, 1, dialogues);
        let places: Vec<bool> = all
            .iter()
            .flatten()
            .filter_map(|case| {
                let Grammar::Decision { shown: shown @ 3.. } = case.grammar else { return None };
                match parse_decision(&case.completion, shown).unwrap() {
                    Decision::Update { id, .. } | Decision::Delete { id } => Some(id + 1 == shown),
                    _ => None,
                }
            })
            .collect();
        (all.len(), places.iter().filter(|last| **last).count() as f64 / places.len() as f64)
    }

    #[test]
    fn retrieval_puts_the_target_last_and_shuffling_anywhere() {
        let mut config = SftConfig::parse(include_str!("../../../configs/nano.toml")).unwrap().data;
        config.shuffled_candidates = 0.0;
        let dialogues = generate(5, 12, Split::Train, Options::default());
        let (count, share) = last(&config, &dialogues);
        assert!(share > 0.8, "{share}");
        config.shuffled_candidates = 1.0;
        let (shuffled, share) = last(&config, &dialogues);
        assert!(shuffled == count && (0.1..0.4).contains(&share), "{share}");
    }

    #[test]
    fn questions_of_a_group_are_put_to_the_same_memories() {
        let config = SftConfig::parse(include_str!("../../../configs/nano.toml")).unwrap().data;
        let dialogues = generate(6, 3, Split::Train, Options::default());
        let groups = cases(&config, 4, &dialogues);
        let alone: Vec<Case> = cases(&config, 1, &dialogues).into_iter().flatten().collect();
        let several: Vec<&Vec<Case>> = groups.iter().filter(|group| group.len() > 1).collect();
        assert!(several.len() > 10 && several.iter().all(|group| group.len() <= 4));
        for group in several {
            let memories = |case: &Case| {
                let body = &case.messages[1].content;
                body.rsplit_once("> ").map(|(lines, _)| lines.to_owned())
            };
            assert!(
                group.iter().all(|case| case.task == Task::Answer && memories(case) == memories(&group[0]))
            );
            // The first is the one that retrieved them, as it would be alone.
            assert!(alone.contains(&group[0]));
        }
    }
}
