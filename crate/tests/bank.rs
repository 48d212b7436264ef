//! The journal and the bank that it folds to: properties over random histories, and the frozen
//! format. The fixture `fixtures/journal-v1.jsonl` was written by `write_the_fixture` below and
//! is never written again: every later build must open it.
#![cfg(not(target_arch = "wasm32"))]

use memory_r1::bank::{
    Cause, Change, Draft, Event, EventOp, Journal, MemoryBank, MemoryId, Moment, Operation, Receipt, Role,
    Scope, Timestamp, Turn, seeded_journal_id,
};
use memory_r1::error::ErrorCode;
use proptest::prelude::*;
use serde_json::{Map, json};

const FIXTURE: &str = include_str!("fixtures/journal-v1.jsonl");

#[derive(Clone, Debug)]
enum Step {
    /// One batch of operations; a number names a live memory.
    Batch(Vec<Op>),
    Undo,
    Erase(usize),
}

#[derive(Clone, Debug)]
enum Op {
    Add(String),
    Update(usize, String),
    Delete(usize),
    Noop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let text = "[A-Za-zé🐕\n ]{0,12}x";
    let op = prop_oneof![
        4 => text.prop_map(Op::Add),
        3 => (any::<usize>(), text).prop_map(|(at, text)| Op::Update(at, text)),
        2 => any::<usize>().prop_map(Op::Delete),
        1 => Just(Op::Noop),
    ];
    let step = prop_oneof![
        6 => prop::collection::vec(op, 1..5).prop_map(Step::Batch),
        2 => Just(Step::Undo),
        1 => any::<usize>().prop_map(Step::Erase),
    ];
    prop::collection::vec(step, 0..24)
}

fn scope() -> Scope {
    Scope::user("caroline")
}

fn empty() -> Journal {
    Journal::new(seeded_journal_id(7, &scope()), scope()).unwrap()
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + minute * 60_000).unwrap()
}

fn receipt(text: &str, minute: i64) -> Receipt {
    Receipt {
        turn: Turn {
            role: Role::User,
            speaker: "Caroline".into(),
            content: format!("By the way: {text}!"),
            timestamp: at(minute),
        },
        fact: text.to_owned(),
        shown: Vec::new(),
        model: "fixture".into(),
        probability: 1.0 / (3.0 + minute as f64),
        id_probability: None,
        fact_probability: None,
        seed: 5,
        known: false,
    }
}

fn agent(text: &str, minute: i64) -> Change {
    Change::by_agent("Caroline", at(minute), receipt(text, minute))
}

fn pick(bank: &MemoryBank, number: usize) -> Option<MemoryId> {
    let ids: Vec<_> = bank.memories().map(|memory| memory.id.clone()).collect();
    (!ids.is_empty()).then(|| ids[number % ids.len()].clone())
}

fn apply(draft: &mut Draft, op: &Op, minute: i64) {
    let (operation, text) = match op {
        Op::Add(text) => (Operation::Add { text: text.clone() }, text.as_str()),
        Op::Update(number, text) => match pick(draft.bank(), *number) {
            Some(id) => (Operation::Update { id, text: text.clone() }, text.as_str()),
            None => return,
        },
        Op::Delete(number) => match pick(draft.bank(), *number) {
            Some(id) => (Operation::Delete { id }, "no longer"),
            None => return,
        },
        Op::Noop => (Operation::Noop, ""),
    };
    draft.apply(&operation, agent(text, minute)).unwrap();
}

/// Plays the steps, and calls `check` with the journal before and after each.
fn play(steps: &[Step], mut check: impl FnMut(&Step, &Journal, &Journal)) -> Journal {
    let mut journal = empty();
    for (minute, step) in steps.iter().enumerate() {
        let minute = minute as i64;
        let before = journal.clone();
        match step {
            Step::Batch(ops) => {
                let mut draft = journal.draft(at(minute));
                for op in ops {
                    apply(&mut draft, op, minute);
                }
                journal.append(draft.finish()).unwrap();
            }
            Step::Undo => {
                if let Some(events) = journal.undo(at(minute)).unwrap() {
                    journal.append(events).unwrap();
                }
            }
            Step::Erase(number) => {
                let ids = journal.erasable_ids();
                if !ids.is_empty() {
                    journal = journal.erase(&[ids[number % ids.len()].clone()], at(minute)).unwrap();
                }
            }
        }
        check(step, &before, &journal);
    }
    journal
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// The live memories alone: what an undo brings back.
fn memories(bank: &MemoryBank) -> String {
    json(&bank.memories().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn replaying_a_journal_gives_the_same_bank_bit_for_bit(steps in steps()) {
        let journal = play(&steps, |_, _, after| {
            let again = MemoryBank::replay(after.id(), scope(), after.events()).unwrap();
            assert_eq!(json(&again), json(after.bank()));
        });
        let read = Journal::read_export(&journal.export()).unwrap().remove(0);
        prop_assert_eq!(&read, &journal);
        prop_assert_eq!(read.export(), journal.export());
        let lines: Vec<Event> =
            journal.events().iter().map(|event| Event::from_json(&event.to_json()).unwrap()).collect();
        prop_assert_eq!(lines.as_slice(), journal.events());
    }

    #[test]
    fn undo_is_the_inverse_of_a_batch(steps in steps()) {
        let journal = play(&steps, |step, before, after| {
            if matches!(step, Step::Batch(_)) && after.seq() > before.seq() {
                let mut undone = after.clone();
                undone.append(after.undo(at(999)).unwrap().unwrap()).unwrap();
                assert_eq!(memories(undone.bank()), memories(before.bank()));
            }
        });
        // Undoing everything leads back to the start, through every state in between.
        let mut back = journal.clone();
        let mut count = 0;
        while let Some(events) = back.undo(at(1000)).unwrap() {
            prop_assert!(events.iter().all(|event| event.cause == Cause::Undo && event.undoes.is_some()));
            back.append(events).unwrap();
            count += 1;
        }
        prop_assert!(count <= steps.len());
        prop_assert!(back.bank().is_empty());
    }

    #[test]
    fn as_of_any_event_is_the_fold_of_the_events_up_to_it(steps in steps(), to in any::<u64>()) {
        let journal = play(&steps, |_, _, _| {});
        let seq = to % (journal.seq() + 1);
        let bank = journal.as_of(Moment::Seq(seq)).unwrap();
        let fold = MemoryBank::replay(journal.id(), scope(), &journal.events()[..seq as usize]).unwrap();
        let kept: Vec<_> =
            fold.memories().filter(|memory| !journal.bank().is_erased(&memory.id)).collect();
        prop_assert_eq!(json(&kept), memories(&bank));
        let diff = journal.diff(Moment::Seq(seq), Moment::Seq(journal.seq())).unwrap();
        prop_assert_eq!(bank.len() + diff.added.len(), journal.bank().len() + diff.removed.len());
    }

    #[test]
    fn an_append_on_another_sequence_number_or_of_another_journal_changes_nothing(
        steps in steps(), seq in 1u64..9,
    ) {
        let journal = play(&steps, |_, _, _| {});
        let mut draft = journal.draft(at(1000));
        draft.apply(&Operation::Add { text: "Has a dog".into() }, agent("Has a dog", 1000)).unwrap();
        let good = draft.finish();
        let mut other = journal.clone();
        let stale: Vec<_> = good.iter().cloned().map(|e| Event { seq: e.seq + seq, ..e }).collect();
        prop_assert_eq!(other.append(stale).unwrap_err().code(), ErrorCode::StoreConflict);
        let foreign: Vec<_> = good.iter().cloned().map(|e| Event { journal: "0".repeat(32), ..e }).collect();
        prop_assert_eq!(other.append(foreign).unwrap_err().code(), ErrorCode::StoreCorrupt);
        let unknown: Vec<_> =
            good.iter().cloned().map(|e| Event { op: EventOp::Delete, after: None, ..e }).collect();
        prop_assert!(other.append([good.clone(), unknown].concat()).is_err());
        prop_assert_eq!(&other, &journal);
        other.append(good.clone()).unwrap();
        prop_assert_eq!(other.append(good).unwrap_err().code(), ErrorCode::StoreConflict);
    }

    #[test]
    fn an_import_appends_the_rest_twice_changes_nothing_and_a_fork_is_a_conflict(
        steps in steps(), cut in any::<usize>(),
    ) {
        let whole = play(&steps, |_, _, _| {});
        let cut = cut % (whole.events().len() + 1);
        let mut part = empty();
        part.append(whole.events()[..cut].to_vec()).unwrap();
        prop_assert_eq!(whole.missing_from(&part).unwrap(), vec![]);
        let rest = part.missing_from(&whole).unwrap();
        prop_assert_eq!(rest.len(), whole.events().len() - cut);
        part.append(rest).unwrap();
        prop_assert_eq!(&part, &whole);
        prop_assert_eq!(part.missing_from(&whole).unwrap(), vec![]);

        let fork = |text: &str| {
            let mut journal = whole.clone();
            let mut draft = journal.draft(at(1000));
            draft.apply(&Operation::Add { text: text.into() }, agent(text, 1000)).unwrap();
            journal.append(draft.finish()).unwrap();
            journal
        };
        let (left, right) = (fork("Left"), fork("Right"));
        prop_assert_eq!(left.missing_from(&right).unwrap_err().code(), ErrorCode::StoreConflict);
    }

    #[test]
    fn an_erased_memory_leaves_no_byte_and_no_undo_brings_it_back(steps in steps(), number in any::<usize>()) {
        let secret = "Zebracorn";
        let mut journal = play(&steps, |_, _, _| {});
        let mut draft = journal.draft(at(1000));
        let ours = Operation::Add { text: format!("Keeps a {secret}") };
        let mut change = agent(secret, 1000);
        change.metadata = Some(Map::from_iter([("note".to_owned(), json!(secret))]));
        let id = draft.apply(&ours, change).unwrap().unwrap().id.clone();
        let mut sibling = agent("Likes tea", 1000);
        sibling.receipt = Some(Receipt { fact: "Likes tea".into(), ..receipt(secret, 1000) });
        draft.apply(&Operation::Add { text: "Likes tea".into() }, sibling).unwrap();
        journal.append(draft.finish()).unwrap();
        let mut draft = journal.draft(at(1001));
        if number % 2 == 0 {
            draft.apply(&Operation::Delete { id: id.clone() }, agent(secret, 1001)).unwrap();
            journal.append(draft.finish()).unwrap();
        }
        prop_assert!(journal.export().contains(secret));
        let seq = journal.seq();
        let mut journal = journal.erase(std::slice::from_ref(&id), at(1002)).unwrap();
        prop_assert!(!journal.export().to_lowercase().contains(&secret.to_lowercase()));
        prop_assert_eq!(journal.seq(), seq + 1);
        prop_assert_eq!(journal.events().last().unwrap().op, EventOp::Erase);
        let again = journal.erase(std::slice::from_ref(&id), at(1003)).unwrap_err();
        prop_assert_eq!(again.code(), ErrorCode::NotFound);
        while let Some(events) = journal.undo(at(1004)).unwrap() {
            prop_assert!(events.iter().all(|event| event.id != id));
            journal.append(events).unwrap();
        }
        prop_assert!(journal.as_of(Moment::Seq(seq)).unwrap().get(&id).is_none());
        prop_assert!(journal.history(&id).unwrap().iter().all(|event| event.receipt.is_none()));
    }

    #[test]
    fn an_operation_on_an_unknown_id_is_an_error_and_changes_nothing(steps in steps(), minute in 0i64..9) {
        let journal = play(&steps, |_, _, _| {});
        let mut foreign = Journal::new(seeded_journal_id(8, &scope()), scope()).unwrap().draft(at(0));
        let id = foreign
            .apply(&Operation::Add { text: "Elsewhere".into() }, agent("Elsewhere", 0))
            .unwrap()
            .unwrap()
            .id
            .clone();
        let mut draft = journal.draft(at(minute));
        for operation in
            [Operation::Update { id: id.clone(), text: "Mine".into() }, Operation::Delete { id: id.clone() }]
        {
            let error = draft.apply(&operation, agent("Mine", minute)).unwrap_err();
            prop_assert_eq!(error.code(), ErrorCode::NotFound);
        }
        prop_assert_eq!(json(draft.bank()), json(journal.bank()));
        prop_assert!(draft.finish().is_empty());
        prop_assert_eq!(journal.erase(&[id], at(0)).unwrap_err().code(), ErrorCode::NotFound);
    }
}

#[test]
fn a_draft_refuses_texts_that_a_bank_does_not_keep_and_stays_as_it_was() {
    let journal = empty();
    let mut draft = journal.draft(at(0));
    for text in ["", "  \n", "a\u{0}b", &"x".repeat(1 << 20)] {
        let error = draft.apply(&Operation::Add { text: text.into() }, agent("x", 0)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
    assert!(draft.events().is_empty());
    draft.apply(&Operation::Add { text: "Has\na dog".into() }, agent("x", 0)).unwrap();
    assert_eq!(draft.bank().memories().next().unwrap().text, "Has a dog");
}

#[test]
fn the_second_operation_of_a_batch_sees_what_the_first_one_did() {
    let mut draft = empty().draft(at(0));
    let add = Operation::Add { text: "Has a dog".into() };
    let id = draft.apply(&add, agent("x", 0)).unwrap().unwrap().id.clone();
    draft.apply(&Operation::Update { id: id.clone(), text: "Has two dogs".into() }, agent("y", 3)).unwrap();
    let same = Operation::Update { id: id.clone(), text: "Has two dogs".into() };
    assert_eq!(draft.apply(&same, agent("y", 3)).unwrap(), None);
    let events = draft.finish();
    assert_eq!(events.iter().map(|e| (e.seq, e.batch)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
    assert_eq!(events[1].after.as_ref().unwrap().observed, at(3));
    assert_eq!(events[1].before, events[0].after);
}

#[test]
fn a_clock_that_runs_back_is_held_at_the_last_event() {
    let mut journal = empty();
    for minute in [5, 2] {
        let mut draft = journal.draft(at(minute));
        draft.apply(&Operation::Add { text: format!("m{minute}") }, agent("x", minute)).unwrap();
        journal.append(draft.finish()).unwrap();
    }
    assert_eq!(journal.events()[1].at, at(5));
    assert_eq!(journal.as_of(Moment::Time(at(4))).unwrap().len(), 0);
    assert_eq!(journal.as_of(Moment::Time(at(5))).unwrap().len(), 2);
}

#[test]
fn a_list_that_is_not_a_journal_is_refused() {
    let whole = fixture();
    let events = whole.events();
    let mut gap = events.to_vec();
    gap.remove(2);
    let mut swapped = events.to_vec();
    swapped.swap(1, 2);
    let mut edited = events.to_vec();
    edited[0].after.as_mut().unwrap().text = "Has a cat".into();
    let mut newer = events.to_vec();
    newer[3].v = 2;
    let mut late = events.to_vec();
    late[0].at = at(100_000_000);
    for list in [gap, swapped, edited, late, newer.clone(), events[1..].to_vec(), vec![]] {
        assert_eq!(Journal::from_events(scope(), list).unwrap_err().code(), ErrorCode::StoreCorrupt);
    }
    let error = Journal::from_events(scope(), newer).unwrap_err();
    assert!(error.message().contains("newer version"), "{error}");
}

#[test]
fn a_cut_or_newer_or_foreign_export_is_refused() {
    let lines: Vec<&str> = FIXTURE.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    let half = &FIXTURE[..FIXTURE.len() - 20];
    let newer_header = FIXTURE.replacen("\"version\":1", "\"version\":2", 1);
    let newer_event = FIXTURE.replacen("{\"v\":1,", "{\"v\":9,\"shape\":\"unknown\",", 1);
    let other = FIXTURE.replacen("memory-r1-journal", "something-else", 1);
    for text in ["", "\n", "[]", "not json", &cut, half, &newer_header, &newer_event, &other] {
        let error = Journal::read_export(text).unwrap_err();
        assert_eq!(error.code(), ErrorCode::StoreCorrupt, "{text}");
    }
    for text in [newer_header, newer_event] {
        assert!(Journal::read_export(&text).unwrap_err().message().contains("newer version"));
    }
}

#[test]
fn a_different_journal_is_not_imported_over_this_one_and_an_empty_one_adopts() {
    let ours = fixture();
    let mut theirs = Journal::new("f".repeat(32), scope()).unwrap();
    assert_eq!(theirs.missing_from(&ours).unwrap(), ours.events());
    let mut draft = theirs.draft(at(0));
    draft.apply(&Operation::Add { text: "Else".into() }, Change::by_user("Caroline", at(0))).unwrap();
    theirs.append(draft.finish()).unwrap();
    assert_eq!(ours.missing_from(&theirs).unwrap_err().code(), ErrorCode::StoreConflict);
}

fn fixture() -> Journal {
    Journal::read_export(FIXTURE).unwrap().remove(0)
}

/// The history that the fixture holds: every operation, an undo, an erasure, metadata.
fn fixture_history() -> Journal {
    let mut journal = empty();
    let step = |journal: &mut Journal, minute, operation: Operation, change| {
        let mut draft = journal.draft(at(minute));
        draft.apply(&operation, change).unwrap();
        journal.append(draft.finish()).unwrap();
    };
    let mut adopted = agent("Adopted a dog on 3 May 2023", 0);
    adopted.metadata = Some(Map::from_iter([
        ("date_phrase".to_owned(), json!("last Wednesday")),
        ("weight".to_owned(), json!(0.1)),
    ]));
    step(&mut journal, 0, Operation::Add { text: "Adopted a dog on 3 May 2023".into() }, adopted);
    step(&mut journal, 1, Operation::Add { text: "Lives in Lyon".into() }, agent("Lives in Lyon", 1));
    let id = |journal: &Journal, number: usize| {
        journal.events().iter().filter(|e| e.op == EventOp::Add).nth(number).unwrap().id.clone()
    };
    let dog = id(&journal, 0);
    let mut update = agent("Has a dog named Scout", 2);
    let mut why = receipt("Has a dog named Scout", 2);
    why.shown = vec![dog.clone(), id(&journal, 1)];
    why.id_probability = Some(0.75);
    update.receipt = Some(why);
    step(&mut journal, 2, Operation::Update { id: dog, text: "Has a dog named Scout".into() }, update);
    let lyon = id(&journal, 1);
    step(&mut journal, 3, Operation::Delete { id: lyon }, agent("No longer lives in Lyon", 3));
    let undo = journal.undo(at(4)).unwrap().unwrap();
    journal.append(undo).unwrap();
    let secret = Operation::Add { text: "Dreads spiders".into() };
    step(&mut journal, 5, secret, Change::by_user("Caroline", at(5)));
    let secret = journal.events().last().unwrap().id.clone();
    journal.erase(&[secret], at(6)).unwrap()
}

#[test]
fn the_fixture_of_format_1_opens_and_means_what_it_meant() {
    let journal = fixture();
    assert_eq!(journal.id(), "1fccefc12cfdcf31a4494ad8bafad903");
    let texts: Vec<_> = journal.bank().memories().map(|memory| memory.text.as_str()).collect();
    assert_eq!(texts, ["Has a dog named Scout", "Lives in Lyon"]);
    let dog = journal.bank().memories().next().unwrap();
    assert_eq!(dog.id.0, "658a5c0b-b8ae-8fed-9208-bf933454a00a");
    assert_eq!(dog.metadata["date_phrase"], "last Wednesday");
    assert_eq!(journal.events()[2].receipt.as_ref().unwrap().id_probability, Some(0.75));
    assert_eq!(journal.export(), FIXTURE);
    assert_eq!(journal, fixture_history(), "the writer makes another format than the frozen one");
}

#[test]
#[ignore = "writes the fixture; run once, when a format is born"]
fn write_the_fixture() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/journal-v1.jsonl");
    std::fs::write(path, fixture_history().export()).unwrap();
}
