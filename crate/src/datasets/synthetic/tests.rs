//! What must hold of every conversation, whatever the tables say.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::Tables;
use super::*;
use crate::datasets::locomo::Dataset;

fn some(split: Split) -> Vec<SyntheticDialogue> {
    generate(11, 60, split, Options::default())
}

#[test]
fn the_same_seed_gives_the_same_dialogues_and_another_seed_others() {
    let options = Options::default();
    assert_eq!(generate(3, 4, Split::Train, options), generate(3, 4, Split::Train, options));
    assert_ne!(generate(3, 1, Split::Train, options), generate(4, 1, Split::Train, options));
    // A dialogue does not depend on how many are made.
    assert_eq!(generate(3, 4, Split::Train, options)[1], generate(3, 2, Split::Train, options)[1]);
}

#[test]
fn the_tables_are_rich_and_their_splits_do_not_overlap() {
    let tables = Tables::get();
    assert!(tables.relations.len() >= 30, "{}", tables.relations.len());
    for relation in &tables.relations {
        for (slot, pool) in &relation.slots {
            let known = *pool == "person" || tables.pools.contains_key(pool);
            assert!(known, "{}: {slot}:{pool}", relation.name);
        }
        for (key, group) in &relation.wordings {
            let all = |split| group.of(split).iter();
            // A question may have several answers.
            let distinct: BTreeSet<_> =
                all(Split::Train).chain(all(Split::Test)).map(|w| (w.text, w.right)).collect();
            assert_eq!(distinct.len(), group.len(), "{}: {key}: twice the same", relation.name);
            let train: BTreeSet<_> = all(Split::Train).map(|w| w.text).collect();
            assert!(all(Split::Test).all(|w| !train.contains(w.text)), "{}: {key}", relation.name);
            assert!(group.len() >= 2, "{}: {key} has nothing for the test split", relation.name);
        }
    }
    for (name, pool) in tables.pools.iter().filter(|(_, pool)| !pool.closed) {
        let train: BTreeSet<_> = pool.values.of(Split::Train).iter().collect();
        assert!(pool.values.of(Split::Test).iter().all(|value| !train.contains(value)), "{name}");
        assert!(pool.values.len() >= 10, "{name}");
    }
}

/// An extractor cannot write what is not said: every slot of a fact stands in its wording.
#[test]
fn every_fact_can_be_read_from_its_wording() {
    let slots = |text: &'static str| -> BTreeSet<String> {
        let parts = text.split('{').skip(1).filter_map(|part| part.split_once('}'));
        parts.map(|(name, _)| name.trim_start_matches("a:").to_lowercase()).filter(|n| n != "count").collect()
    };
    for relation in &Tables::get().relations {
        let usual = [
            ("state", relation.fact),
            ("update", relation.fact),
            ("repeat", relation.fact),
            ("refine", relation.fact),
            ("vague", relation.fact),
            ("withdraw", relation.gone),
            ("more", relation.more_fact),
            ("less", relation.less_fact),
            ("pair", relation.plural.unwrap_or_default()),
        ];
        for (key, fact) in usual {
            for split in [Split::Train, Split::Test] {
                for wording in relation.wordings(key, split) {
                    let fact = wording.right.unwrap_or(fact);
                    assert!(!fact.is_empty(), "{}: {key} has no fact", relation.name);
                    let (said, needed) = (slots(wording.text), slots(fact));
                    assert!(
                        needed.is_subset(&said),
                        "{}: {:?} does not say {fact}",
                        relation.name,
                        wording.text
                    );
                }
            }
        }
        for wording in
            relation.wordings("prompt", Split::Train).iter().chain(relation.wordings("prompt", Split::Test))
        {
            let (text, fact) = wording
                .right
                .and_then(|a| a.split_once(" => "))
                .unwrap_or((wording.right.unwrap_or_default(), relation.fact));
            assert!(slots(fact).is_subset(&slots(text)), "{}: {text}", relation.name);
        }
    }
}

#[test]
fn no_name_of_the_test_split_is_said_in_training() {
    let pools = &Tables::get().pools;
    let kept: BTreeSet<&str> = ["woman", "man", "pet", "city"]
        .iter()
        .flat_map(|pool| pools[pool].values.of(Split::Test).iter().copied())
        .collect();
    // Some names stand in several lists (Sofia the city, Sofia the person).
    let free: BTreeSet<String> = pools
        .values()
        .flat_map(|pool| pool.values.of(Split::Train).iter())
        .flat_map(|value| value.split([' ', '\'']).map(wording::capitalise))
        .collect();
    for turn in some(Split::Train).iter().flat_map(|d| &d.sample.conversation.sessions).flat_map(|s| &s.turns)
    {
        for word in turn.text.split(|c: char| !c.is_alphabetic()) {
            assert!(!kept.contains(word) || free.contains(word), "{word}: {}", turn.text);
        }
    }
}

#[test]
fn every_text_is_filled_and_every_fact_passes_the_grammar() {
    for dialogue in some(Split::Train).iter().chain(&some(Split::Test)) {
        let turns = dialogue.sample.conversation.sessions.iter().flat_map(|session| &session.turns);
        let questions = dialogue.sample.questions.iter().map(|q| &q.question);
        for text in turns.map(|turn| &turn.text).chain(questions) {
            assert!(!text.is_empty() && !text.contains(['<', '{', '[', ']', '}', '|']), "{text:?}");
        }
        for fact in dialogue.gold.turns.iter().flat_map(|turn| &turn.facts) {
            for text in [Some(&fact.fact), Some(&fact.resolved), fact.text.as_ref()].into_iter().flatten() {
                assert!(!text.is_empty() && text.len() < 128, "{text}");
                assert!(!text.contains(['<', '{', '[', '|', '"', '\\']), "{text}");
                assert!(!text.chars().any(char::is_control) && !text.ends_with('.'), "{text}");
                assert!(text.starts_with(|c: char| !c.is_lowercase()), "{text}");
            }
        }
    }
}

#[test]
fn the_gold_replays_and_every_answer_is_supported() {
    for dialogue in some(Split::Train).iter().chain(&some(Split::Test)) {
        // `apply` panics where an operation does not fit to the bank.
        let decisions: usize = turn_examples(dialogue).map(|example| example.decisions.len()).sum();
        assert_eq!(decisions, dialogue.gold.turns.iter().map(|turn| turn.facts.len()).sum::<usize>());
        for question in question_examples(dialogue) {
            let supporting: Vec<_> =
                question.memories.iter().filter(|m| question.supporting.contains(&m.key)).collect();
            assert_eq!(supporting.len(), question.supporting.len(), "{}", question.question);
            assert_eq!(question.category == 5, question.answer == UNKNOWN, "{}", question.question);
            assert_eq!(question.category == 5, supporting.is_empty(), "{}", question.question);
            if matches!(question.category, 2 | 4) {
                let text = supporting[0].text.to_lowercase();
                assert!(text.contains(&question.answer.to_lowercase()), "{}: {text}", question.question);
            }
        }
    }
}

/// Two files know how relative times are written: the resolver, and the table of this folder.
#[test]
fn the_resolver_writes_times_as_the_gold_does() {
    for (split, most) in [(Split::Train, 0.002), (Split::Test, 0.0)] {
        let mut differences = BTreeSet::new();
        let dialogues = some(split);
        let turns = || dialogues.iter().flat_map(|dialogue| &dialogue.gold.turns);
        for turn in turns() {
            for fact in &turn.facts {
                let resolved = crate::agents::dates::resolve(&fact.fact, turn.at).text;
                if resolved != fact.resolved {
                    differences.insert(format!("{} at {}: {resolved}", fact.fact, turn.at));
                }
                let again = fact.text.as_ref().map(|text| crate::agents::dates::resolve(text, turn.at).text);
                assert_eq!(again, fact.text);
            }
        }
        // In training any English word stands in for a part of a value, and some look like verbs:
        // `Has to finish the grant travestied in two days`.
        let facts = turns().map(|turn| turn.facts.len()).sum::<usize>();
        assert!(differences.len() as f64 <= most * facts as f64, "{differences:#?}");
    }
}

#[test]
fn the_operations_are_balanced() {
    for split in [Split::Train, Split::Test] {
        let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
        for fact in some(split).iter().flat_map(|d| &d.gold.turns).flat_map(|turn| &turn.facts) {
            *counts.entry(fact.op.wire_name()).or_default() += 1.0;
        }
        let total: f64 = counts.values().sum();
        for (op, least, most) in
            [("ADD", 0.35, 0.52), ("UPDATE", 0.2, 0.3), ("DELETE", 0.08, 0.17), ("NONE", 0.14, 0.25)]
        {
            let share = counts[op] / total;
            assert!((least..most).contains(&share), "{split:?}: {op} {share}");
        }
    }
}

#[test]
fn a_written_file_is_read_back_as_one_synthetic_split() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("synthetic.json");
    let dialogues = generate(5, 3, Split::Test, Options::default());
    write_locomo(&path, &dialogues).unwrap();
    let data = Dataset::load(&path).unwrap();
    assert!(data.synthetic);
    assert_eq!(data.malformed_evidence, 0);
    let samples: Vec<_> = dialogues.iter().map(|dialogue| dialogue.sample.clone()).collect();
    assert_eq!(data.samples, samples);
    assert_eq!(data.split(crate::datasets::locomo::Split::Val).len(), 3);
    assert!(write_locomo(&folder.path().join("no/such/folder"), &dialogues).is_err());
}

#[test]
fn cases_hold_their_target_and_are_balanced() {
    let cases = ops_cases(1, 200, Split::Test);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        let accept = &case.accept[0];
        *counts.entry(&accept.op).or_default() += 1;
        assert!((5..=8).contains(&case.memories.len()), "{}", case.id);
        let found = case.memories.iter().any(|memory| Some(&memory.id) == accept.target.as_ref());
        assert_eq!(found, matches!(accept.op.as_str(), "UPDATE" | "DELETE"), "{}", case.id);
        let ids: BTreeSet<&str> = case.memories.iter().map(|memory| memory.id.as_str()).collect();
        assert_eq!(ids.len(), case.memories.len(), "{}", case.id);
        assert_eq!(case.relation.is_empty(), case.id.starts_with("talk"), "{}", case.id);
    }
    assert_eq!(counts, [("ADD", 50), ("DELETE", 50), ("NOOP", 50), ("UPDATE", 50)].into());
}

#[test]
fn every_second_target_has_a_lookalike_beside_it() {
    for split in [Split::Train, Split::Test] {
        let cases = ops_cases(1, 200, split);
        for op in ["UPDATE", "DELETE"] {
            let with = cases.iter().filter(|case| case.accept[0].op == op && case.lookalike).count();
            assert_eq!(with, 25, "{op}");
        }
    }
}

/// Files of cases that say neither are still read, and nothing is written for them.
#[test]
fn a_case_may_leave_out_its_relation() {
    let cases = ops_cases(1, 8, Split::Test);
    for case in &cases {
        let text = serde_json::to_string(case).unwrap();
        assert_eq!(text.contains("\"relation\""), !case.relation.is_empty());
        assert_eq!(text.contains("\"lookalike\""), case.lookalike);
        assert_eq!(&serde_json::from_str::<OpsCase>(&text).unwrap(), case);
    }
}

/// Prints conversations to read: `cargo test --release --lib reads_like_people -- --ignored --nocapture`.
#[test]
#[ignore = "for human eyes"]
#[expect(clippy::print_stdout, reason = "that is its purpose")]
fn reads_like_people() {
    for split in [Split::Train, Split::Test] {
        for dialogue in generate(1, 6, split, Options::default()) {
            let mut gold = dialogue.gold.turns.iter();
            for session in &dialogue.sample.conversation.sessions {
                println!("\n== {} {}", dialogue.sample.sample_id, session.date_time);
                for turn in &session.turns {
                    println!("{}: {}", turn.speaker, turn.text);
                    for fact in gold.next().into_iter().flat_map(|turn| &turn.facts) {
                        let text = fact.text.as_deref().unwrap_or_default();
                        println!("      {} {} | {} | {text}", fact.op.wire_name(), fact.key, fact.fact);
                    }
                }
            }
            for question in question_examples(&dialogue) {
                println!("  {} {} -> {}", question.category, question.question, question.answer);
            }
        }
    }
}
