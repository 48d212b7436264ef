//! From synthetic dialogues to cases: what each of the three tasks reads and should write.
//!
//! Prompts, candidates and their order are made by the code that makes them in use, so that
//! nano meets in training what it will meet later. Two things differ on purpose: the right
//! memory is always among the candidates, for otherwise a miss of retrieval would teach to
//! guess; and banks are cut to every size.

use super::config::DataConfig;
use super::examples::{Case, Source, Task, in_two_threads};
use crate::agents::{
    Block, MAX_FACTS, answer_messages, candidate_line, extract_messages, is_same_statement, manage_messages,
    one_line,
};
use crate::bank::{Memory, MemoryId, OperationKind, Role, Timestamp, Turn};
use crate::datasets::synthetic::{
    Decision as GoldDecision, GoldMemory, QuestionExample, SpokenTurn, SyntheticDialogue, TurnExample,
    UNKNOWN, question_examples, turn_examples,
};
use crate::generation::{Answer, Decision, Grammar, PromptFamily, facts_json};
use crate::random::{Random, keyed};
use crate::retrieval::{Retriever, named};

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

/// All cases of dialogues, in groups that share their memories: at most `questions` cases each.
pub fn cases(config: &DataConfig, questions: usize, dialogues: &[SyntheticDialogue]) -> Vec<Vec<Case>> {
    in_two_threads(dialogues.len(), |i| dialogue_cases(config, questions, &dialogues[i]))
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
    let bank: Vec<&GoldMemory> = example.bank.iter().collect();
    let memories = memories_beside(config, &bank, example.turn.text, random);
    let golds = example.decisions.iter().map(|decision| decision.gold);
    let wanted = golds.filter(|gold| is_wanted(config, &memories, &gold.resolved));
    let facts: Vec<&str> = wanted.map(|gold| &gold.fact[..]).collect();
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

/// Whether the extractor is to write this fact down beside the memories that it is shown.
pub(super) fn is_wanted(config: &DataConfig, memories: &[String], fact: &str) -> bool {
    config.repeats || !memories.iter().any(|memory| is_same_statement(memory, fact))
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
    let both = example.speakers;
    let asked = named(example.question, &both);
    if let Some(only) = asked {
        speakers.retain(|speaker| *speaker == both[only]);
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
        // In use it would be put to other memories.
        if named(other.question, &both) != asked {
            continue;
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
    fn an_extractor_of_news_writes_down_nothing_that_it_is_shown() {
        let mut config = SftConfig::parse(include_str!("../../../configs/nano.toml")).unwrap().data;
        config.extractor_candidates = 5;
        let dialogues = generate(5, 6, Split::Train, Options::default());
        let mut repeated = |repeats: bool| {
            config.repeats = repeats;
            let all = dialogues.iter().flat_map(|own| cases(&config, 4, std::slice::from_ref(own))).flatten();
            let repeats = all.filter(|case| case.task == Task::Extract).filter(|case| {
                let shown = case.messages[1].content.lines().filter_map(|line| line.strip_prefix("- "));
                let shown: Vec<&str> = shown.collect();
                let facts = crate::generation::parse_facts(&case.completion, MAX_FACTS).unwrap();
                facts.iter().any(|fact| shown.iter().any(|memory| is_same_statement(memory, fact)))
            });
            repeats.count()
        };
        assert_eq!(repeated(false), 0);
        assert!(repeated(true) > 10);
    }

    #[test]
    fn a_question_that_names_one_speaker_is_put_to_that_ones_memories() {
        let config = SftConfig::parse(include_str!("../../../configs/nano.toml")).unwrap().data;
        let mut by_name = 0;
        for dialogue in generate(6, 3, Split::Train, Options::default()) {
            let conversation = &dialogue.sample.conversation;
            let speakers = [&*conversation.speaker_a, &*conversation.speaker_b];
            for group in cases(&config, 4, std::slice::from_ref(&dialogue)) {
                let answers = group.iter().filter(|case| case.task == Task::Answer);
                let mut asked = Vec::new();
                for body in answers.map(|case| &case.messages[1].content) {
                    let (shown, question) = body.rsplit_once("> ").unwrap();
                    let only = named(question, &speakers);
                    let is_shown = |name: &&str| shown.lines().any(|line| line == format!("{name}:"));
                    if let Some(only) = only {
                        assert!(is_shown(&speakers[only]) && !is_shown(&speakers[1 - only]), "{body}");
                    }
                    by_name += usize::from(only.is_some());
                    asked.push(only);
                }
                assert!(asked.windows(2).all(|pair| pair[0] == pair[1]), "{asked:?}");
            }
        }
        assert!(by_name > 100, "{by_name}");
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
