//! The agents on a scripted model: order, staging, conflicts, what each agent is shown.

#![cfg(not(target_arch = "wasm32"))]

mod scripted;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use async_trait::async_trait;
use futures_lite::future::block_on;
use memory_r1::agents::{
    AddOptions, AddResult, AnswerOptions, ExtractFrom, Extractor, MemoryAgent, Models, Progress,
    SearchOptions,
};
use memory_r1::bank::{
    Cause, Event, EventOp, Journal, MemoryId, Moment, OperationKind, Role, Scope, Timestamp, Turn,
    seeded_journal_id,
};
use memory_r1::error::{Error, ErrorCode, Result};
use memory_r1::evaluation::{read_cases, run_case, run_places};
use memory_r1::generation::{Cancel, Sampling};
use memory_r1::store::{InMemoryStore, ScopeLock, Store};
use scripted::ScriptedModel;

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn turn(speaker: &str, content: &str) -> Turn {
    let role = if speaker == "assistant" { Role::Assistant } else { Role::User };
    Turn { role, speaker: speaker.into(), content: content.into(), timestamp: time("2023-05-08") }
}

fn agent_on(model: &Rc<ScriptedModel>, store: Rc<dyn Store>) -> MemoryAgent {
    let ticks = Cell::new(time("2024-01-01").millis());
    let clock = move || {
        ticks.set(ticks.get() + 1000);
        Timestamp::from_millis(ticks.get()).unwrap()
    };
    let ids = |scope: &Scope| seeded_journal_id(7, scope);
    MemoryAgent::new(Models::one(model.clone()), store, Rc::new(clock), Rc::new(ids))
}

fn agent(model: &Rc<ScriptedModel>) -> MemoryAgent {
    agent_on(model, Rc::new(InMemoryStore::new()))
}

/// Each sentence of the turn is a fact; the manager does what the fact's first word says, to the
/// memory that has its second word.
fn obedient(task: &str, body: &str) -> Result<String> {
    let said = body.rsplit("> ").next().unwrap();
    Ok(match task {
        "extract" => {
            let text = said.split_once(": ").unwrap().1;
            let facts: Vec<&str> = text.split('.').map(str::trim).filter(|fact| !fact.is_empty()).collect();
            serde_json::json!({ "facts": facts }).to_string()
        }
        "manage" => {
            let mut words = said.split_whitespace();
            let event = words.next().unwrap();
            let named = words.next().unwrap_or_default();
            let line = body.lines().find(|line| !line.starts_with("> ") && line.contains(named));
            let id = line.map_or(named, |line| line.rsplit('#').next().unwrap());
            match event {
                "UPDATE" => format!(r#"{{"event":"UPDATE","id":"{id}","text":"{said}"}}"#),
                "DELETE" => format!(r#"{{"event":"DELETE","id":"{id}"}}"#),
                "NONE" => r#"{"event":"NONE"}"#.into(),
                "FAIL" => return Err(Error::new(ErrorCode::DeviceLost, "gone")),
                _ => format!(r#"{{"event":"ADD","text":"{said}"}}"#),
            }
        }
        _ => {
            let ids: Vec<String> = body
                .lines()
                .filter(|line| line.contains("useful"))
                .map(|line| format!("\"{}\"", line.rsplit('#').next().unwrap()))
                .collect();
            format!(r#"{{"memories":[{}],"answer":"It is \"so\""}}"#, ids.join(","))
        }
    })
}

fn add(agent: &MemoryAgent, text: &str) -> Result<Vec<AddResult>> {
    block_on(agent.add(&[turn("ann", text)], &Scope::user("ann"), &AddOptions::default()))
}

fn texts(agent: &MemoryAgent, scope: &Scope) -> Vec<String> {
    let all = block_on(agent.get_all(scope, usize::MAX)).unwrap();
    all.into_iter().map(|remembered| remembered.memory.text).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

#[test]
fn facts_are_decided_in_order_on_a_staged_bank_and_appended_at_once() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let results =
        add(&agent, "Has a dog. Has a cat. UPDATE cat - has two. DELETE dog now. NONE of it").unwrap();
    let names: Vec<_> = results.iter().map(|result| result.event.wire_name()).collect();
    assert_eq!(names, ["ADD", "ADD", "UPDATE", "DELETE", "NONE"]);
    assert_eq!(
        model.bodies("manage")[..2],
        ["> Has a dog".to_owned(), "8 May 2023: Has a dog #0\n> Has a cat".to_owned()]
    );
    assert_eq!(results[2].previous_memory.as_deref(), Some("Has a cat"));
    assert_eq!(results[2].id, results[1].id);
    assert_eq!((results[3].memory.as_str(), &results[3].id), ("Has a dog", &results[0].id));
    assert_eq!((results[4].memory.as_str(), &results[4].id), ("NONE of it", &None));
    assert_eq!(texts(&agent, &Scope::user("ann")), ["UPDATE cat - has two"]);
    let journal = block_on(agent.existing(&Scope::user("ann"))).unwrap();
    assert!(journal.events().iter().all(|event| event.batch == 1 && event.cause == Cause::Agent));
    let receipt = journal.events()[2].receipt.as_ref().unwrap();
    assert_eq!((receipt.fact.as_str(), receipt.shown.len()), ("UPDATE cat - has two", 2));
    assert!((receipt.probability - (-0.5f64).exp()).abs() < 1e-6);
    assert!((receipt.id_probability.unwrap() - (-0.25f64).exp()).abs() < 1e-6);
    assert_eq!(receipt.model, "f".repeat(64));
}

/// The scripted model's chosen tokens have the probabilities e^-0.5 and e^-0.25.
#[test]
fn facts_below_the_models_threshold_are_left_out_before_any_decision() {
    let wanted = (-0.375f64).exp();
    let sure = ScriptedModel::doubting(wanted - 0.01, obedient);
    let results = add(&agent(&sure), "Has a dog").unwrap();
    let receipt = results[0].receipt.as_ref().unwrap();
    assert!((receipt.fact_probability.unwrap() - wanted).abs() < 1e-6);
    let unsure = ScriptedModel::doubting(wanted + 0.01, obedient);
    let doubting = agent(&unsure);
    assert_eq!(add(&doubting, "Has a dog").unwrap(), []);
    assert!(unsure.bodies("extract").len() == 1 && unsure.bodies("manage").is_empty());
    assert!(texts(&doubting, &Scope::user("ann")).is_empty());
    // They end the list: the fact before them is not doubted.
    let results = add(&doubting, "Has a dog. Has a cat").unwrap();
    assert_eq!(results.iter().map(|result| &*result.fact).collect::<Vec<_>>(), ["Has a dog"]);
    assert!((results[0].receipt.as_ref().unwrap().fact_probability.unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn without_the_manager_every_fact_is_added() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let options = AddOptions { manage: false, ..AddOptions::default() };
    let said = turn("ann", "UPDATE the dog. Has a dog. Has a dog");
    let results = block_on(agent.add(&[said], &Scope::user("ann"), &options)).unwrap();
    assert!(results.iter().all(|result| result.event == OperationKind::Add), "{results:?}");
    assert_eq!(texts(&agent, &Scope::user("ann")), ["UPDATE the dog", "Has a dog", "Has a dog"]);
    assert!(model.bodies("manage").is_empty());
    let receipt = results[2].receipt.as_ref().unwrap();
    assert!(receipt.model.is_empty() && receipt.shown.is_empty());
}

#[test]
fn a_failure_or_an_abort_in_the_middle_appends_nothing() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    add(&agent, "Has a dog").unwrap();
    assert_eq!(code(add(&agent, "Has a cat. FAIL here. Has a cow")), ErrorCode::DeviceLost);
    // An id that was not shown is no operation.
    assert_eq!(code(add(&agent, "Has a cat. DELETE 7")), ErrorCode::MalformedOutput);
    let cancel = Cancel::default();
    let stop = cancel.clone();
    let options = AddOptions {
        cancel,
        on_progress: Some(Rc::new(move |progress| {
            if matches!(progress, Progress::Decided { index: 1, .. }) {
                stop.cancel();
            }
        })),
        ..AddOptions::default()
    };
    let turns = [turn("ann", "Has a cat. Has a cow")];
    assert_eq!(code(block_on(agent.add(&turns, &Scope::user("ann"), &options))), ErrorCode::Aborted);
    assert_eq!(texts(&agent, &Scope::user("ann")), ["Has a dog"]);
    // And the lock was given back.
    add(&agent, "Has a cat").unwrap();
}

#[test]
fn progress_is_told_as_it_happens() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let heard = Rc::new(RefCell::new(Vec::new()));
    let ear = heard.clone();
    let options = AddOptions {
        on_progress: Some(Rc::new(move |progress| {
            ear.borrow_mut().push(match progress {
                Progress::Facts(facts) => facts.join("+"),
                Progress::Decided { index, total, result } => format!("{index}/{total} {}", result.memory),
                Progress::Restarted => "again".into(),
            });
        })),
        ..AddOptions::default()
    };
    let turns = [turn("ann", "Has a dog"), turn("assistant", "Nice dog."), turn("ann", "Has a cat")];
    block_on(agent.add(&turns, &Scope::user("ann"), &options)).unwrap();
    assert_eq!(*heard.borrow(), ["Has a dog+Has a cat", "0/2 Has a dog", "1/2 Has a cat"]);
    assert_eq!(
        model.bodies("extract"),
        ["> ann: Has a dog", "ann: Has a dog\nassistant: Nice dog.\n> ann: Has a cat"]
    );
}

#[test]
fn a_known_fact_asks_no_model() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let first = add(&agent, "Has a dog, Scout").unwrap();
    let again = add(&agent, "has a DOG scout").unwrap();
    assert_eq!((again[0].event, &again[0].id), (OperationKind::Noop, &first[0].id));
    let receipt = again[0].receipt.as_ref().unwrap();
    assert!(receipt.known && receipt.model.is_empty());
    assert_eq!(model.bodies("manage").len(), 1);
    assert_eq!(block_on(agent.existing(&Scope::user("ann"))).unwrap().seq(), 1);
}

#[test]
fn the_manager_sees_the_best_candidates_last_and_only_those_of_the_speaker() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let scope = Scope::user("ann");
    add(&agent, "Likes tea. Plays chess. Owns a red bicycle. Lives in Lyon. Works at a bank. Speaks Czech")
        .unwrap();
    let bob = [turn("bob", "Owns a blue bicycle")];
    block_on(agent.add(&bob, &scope, &AddOptions::default())).unwrap();
    assert_eq!(*model.bodies("manage").last().unwrap(), "> Owns a blue bicycle");
    let results = add(&agent, "DELETE bicycle").unwrap();
    let shown = model.bodies("manage").pop().unwrap();
    assert_eq!(shown.lines().count(), 6, "{shown}");
    assert!(shown.contains("Owns a red bicycle #4\n> ") && !shown.contains("blue"), "{shown}");
    assert_eq!(results[0].memory, "Owns a red bicycle");
    assert_eq!(results[0].receipt.as_ref().unwrap().shown.last(), results[0].id.as_ref());
}

#[test]
fn relative_dates_are_resolved_and_kept_in_the_metadata() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let options = AddOptions {
        metadata: serde_json::json!({"source": "chat"}).as_object().unwrap().clone(),
        ..AddOptions::default()
    };
    let scope = Scope::user("ann");
    block_on(agent.add(&[turn("ann", "Went hiking last Friday")], &scope, &options)).unwrap();
    let all = block_on(agent.get_all(&scope, 10)).unwrap();
    assert_eq!(all[0].memory.text, "Went hiking on 5 May 2023");
    assert_eq!(
        serde_json::to_string(&all[0].memory.metadata).unwrap(),
        r#"{"source":"chat","when":"last Friday"}"#
    );
    add(&agent, "UPDATE hiking often").unwrap();
    let all = block_on(agent.get_all(&scope, 10)).unwrap();
    assert_eq!(serde_json::to_string(&all[0].memory.metadata).unwrap(), r#"{"source":"chat"}"#);
}

#[test]
fn whose_turns_give_facts() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let turns = [
        Turn { role: Role::System, ..turn("system", "Be nice") },
        turn("Caroline", "Has a dog"),
        turn("assistant", "Likes rain"),
        turn("Melanie", "Has a cat"),
    ];
    let add =
        |scope: &Scope, options: &AddOptions| block_on(agent.add(&turns, scope, options)).unwrap().len();
    let all = AddOptions { extract_from: ExtractFrom::All, ..AddOptions::default() };
    assert_eq!(add(&Scope::user("a"), &AddOptions::default()), 2);
    assert_eq!(add(&Scope::user("b"), &all), 3);
    let mirrored = AddOptions { bank_speaker: Some("Melanie".into()), ..AddOptions::default() };
    assert_eq!(add(&Scope::user("c"), &mirrored), 1);
    assert_eq!(texts(&agent, &Scope::user("c")), ["Has a cat"]);
    assert!(model.asked.borrow().iter().all(|(_, body)| !body.contains("Be nice")));
    let before = AddOptions { context: vec![turn("assistant", "Any pets?")], ..AddOptions::default() };
    block_on(agent.add(&turns[1..2], &Scope::user("d"), &before)).unwrap();
    assert_eq!(model.bodies("extract").pop().unwrap(), "assistant: Any pets?\n> Caroline: Has a dog");
}

#[test]
fn without_inference_the_text_is_kept_as_it_is() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let options = AddOptions { infer: false, ..AddOptions::default() };
    let scope = Scope::user("ann");
    let results = block_on(agent.add(&[turn("ann", "I met Tom last week.")], &scope, &options)).unwrap();
    assert_eq!((results[0].event, results[0].memory.as_str()), (OperationKind::Add, "I met Tom last week."));
    assert!(results[0].receipt.is_none() && model.asked.borrow().is_empty());
    assert_eq!(block_on(agent.existing(&scope)).unwrap().events()[0].cause, Cause::User);
}

/// A store in which another process appends first, some times over.
struct Contested {
    inner: InMemoryStore,
    intrusions: Cell<usize>,
}

#[async_trait(?Send)]
impl Store for Contested {
    async fn scopes(&self) -> Result<Vec<Scope>> {
        self.inner.scopes().await
    }
    async fn load(&self, scope: &Scope) -> Result<Option<Journal>> {
        self.inner.load(scope).await
    }
    async fn append(&self, scope: &Scope, expected: u64, events: &[Event]) -> Result<()> {
        if self.intrusions.get() > 0 {
            self.intrusions.set(self.intrusions.get() - 1);
            let journal = match self.inner.load(scope).await? {
                Some(journal) => journal,
                None => Journal::new(seeded_journal_id(7, scope), scope.clone())?,
            };
            let mut draft = journal.draft(time("2024-01-01"));
            let text = format!("Intruder {}", journal.seq());
            let change = memory_r1::bank::Change::by_user("ann", time("2024-01-01"));
            draft.apply(&memory_r1::bank::Operation::Add { text }, change)?;
            self.inner.append(scope, journal.seq(), &draft.finish()).await?;
        }
        self.inner.append(scope, expected, events).await
    }
    async fn rewrite(&self, expected: u64, journal: &Journal) -> Result<()> {
        self.inner.rewrite(expected, journal).await
    }
    async fn remove(&self, scope: &Scope) -> Result<bool> {
        self.inner.remove(scope).await
    }
    async fn lock(&self, scope: &Scope) -> Result<ScopeLock> {
        self.inner.lock(scope).await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[test]
fn a_conflict_is_decided_again_at_most_three_times() {
    for (intrusions, fails) in [(1, false), (3, false), (4, true)] {
        let model = ScriptedModel::new(obedient);
        let store = Contested { inner: InMemoryStore::new(), intrusions: Cell::new(intrusions) };
        let agent = agent_on(&model, Rc::new(store));
        let result = add(&agent, "Has a dog");
        assert_eq!(model.bodies("extract").len(), 1);
        assert_eq!(model.bodies("manage").len(), intrusions.min(3) + 1);
        let kept = texts(&agent, &Scope::user("ann"));
        assert_eq!(kept.contains(&"Has a dog".to_owned()), !fails, "{kept:?}");
        if fails {
            assert_eq!(code(result), ErrorCode::StoreConflict);
        } else {
            let shown = model.bodies("manage").pop().unwrap();
            assert!(shown.starts_with("1 January 2024: Intruder 0 #0"), "{shown}");
            assert_eq!(result.unwrap()[0].receipt.as_ref().unwrap().shown.len(), intrusions);
        }
    }
}

#[test]
fn a_long_turn_is_read_in_windows_and_nothing_is_lost() {
    for context in [200, 400] {
        let model = ScriptedModel::with_context(context, obedient);
        let sentences: Vec<String> = (0..200).map(|n| format!("Owns thing number {n}")).collect();
        let said = turn("ann", &(sentences.join(". ") + "."));
        let before = [turn("bob", &"Hello there. ".repeat(100)), turn("bob", "So?")];
        let extractor = Extractor::new(model.clone());
        let cancel = Cancel::default();
        let facts = block_on(extractor.extract(&[], &before, &said, Sampling::default(), &cancel)).unwrap();
        assert_eq!(facts.iter().map(|fact| fact.text.clone()).collect::<Vec<_>>(), sentences);
        assert!(facts.iter().all(|fact| fact.said.content.contains(&fact.text)));
        assert!(model.bodies("extract").len() > 5);
    }
}

#[test]
fn a_manager_can_be_given_the_fact_of_a_case() {
    let lines = [
        r#"{"id":"a","memories":[{"id":"m","text":"Owns a bicycle"}],"turn":{"speaker":"ann","text":"Gone!","timestamp":"2024-01-01T00:00:00Z"},"accept":[{"op":"DELETE","target":"m","contains":[]}],"fact":"DELETE bicycle"}"#,
        r#"{"id":"b","memories":[],"turn":{"speaker":"ann","text":"Likes tea","timestamp":"2024-01-01T00:00:00Z"},"accept":[{"op":"NOOP","target":null,"contains":[]}]}"#,
    ];
    let model = ScriptedModel::new(obedient);
    let models = Models::one(model.clone());
    for case in read_cases(lines.join("\n").as_bytes()).unwrap() {
        let facts = Some(vec![case.fact.iter().cloned().collect()]);
        let given = AddOptions { facts, ..AddOptions::default() };
        assert!(block_on(run_case(&models, &case, &given)).unwrap().passed);
        // On its own the model takes the turn for a fact.
        assert!(!block_on(run_case(&models, &case, &AddOptions::default())).unwrap().passed);
    }
    assert_eq!(model.bodies("extract").len(), 2);
    let two = AddOptions { facts: Some(vec![Vec::new(); 2]), ..AddOptions::default() };
    let error =
        block_on(agent(&model).add(&[turn("ann", "Likes tea")], &Scope::user("ann"), &two)).unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (ErrorCode::InvalidArgument, "facts: give a list for every message")
    );
}

#[test]
fn the_extractor_is_shown_what_the_speaker_has_to_do_with_the_turn() {
    let model = ScriptedModel::with_extractor_candidates(2, 8192, obedient);
    let agent = agent(&model);
    add(&agent, "Likes green tea. Plays chess. Owns a red bicycle").unwrap();
    assert_eq!(model.bodies("extract"), ["> ann: Likes green tea. Plays chess. Owns a red bicycle"]);
    let scope = Scope::user("ann");
    let both = [turn("bob", "Owns a bicycle too"), turn("ann", "Sold the bicycle")];
    block_on(agent.add(&both, &scope, &AddOptions::default())).unwrap();
    // Another speaker's memories are not shown, and the turns of one call see one bank.
    assert_eq!(
        model.bodies("extract")[1..],
        [
            "> bob: Owns a bicycle too",
            "- Plays chess\n- Owns a red bicycle\nbob: Owns a bicycle too\n> ann: Sold the bicycle"
        ]
    );

    // Where they do not fit they go, the worst first, and then the context; a quarter is for the answer.
    for (context, wanted) in [
        (56, "- Has b\nbob: So?\n> ann: Nothing at all"),
        (44, "bob: So?\n> ann: Nothing at all"),
        (32, "> ann: Nothing at all"),
    ] {
        let model = ScriptedModel::with_extractor_candidates(2, context, obedient);
        let extractor = Extractor::new(model.clone());
        let (memories, before) = (["Has c", "Has a", "Has b"].map(str::to_owned), [turn("bob", "So?")]);
        let said = turn("ann", "Nothing at all");
        let facts =
            block_on(extractor.extract(&memories, &before, &said, Sampling::default(), &Cancel::default()));
        assert_eq!(facts.unwrap().len(), 1);
        assert_eq!(model.bodies("extract"), [wanted]);
    }
}

#[test]
fn a_megabyte_without_a_single_space_goes_through() {
    let model = ScriptedModel::with_context(4096, |_, _| Ok(r#"{"facts":[]}"#.into()));
    let agent = agent(&model);
    assert!(add(&agent, &"語".repeat((1 << 20) / 3)).unwrap().is_empty());
    let read: usize = model.bodies("extract").iter().map(|body| body.matches('語').count()).sum();
    assert_eq!(read, (1 << 20) / 3);
}

#[test]
fn a_prompt_that_does_not_fit_loses_its_worst_candidates_first() {
    let model = ScriptedModel::with_context(120, obedient);
    let agent = agent(&model);
    add(&agent, "Likes green tea. Plays chess. Owns a red bicycle. Lives in Lyon").unwrap();
    let results = add(&agent, "DELETE bicycle").unwrap();
    let shown = model.bodies("manage").pop().unwrap();
    assert!(shown.len() <= 120 && shown.contains("bicycle #"), "{shown}");
    let lines = shown.lines().count() - 1;
    assert!(lines < 4);
    let receipt = results[0].receipt.as_ref().unwrap();
    assert_eq!(receipt.shown.len(), lines);
    assert_eq!(results[0].id.as_ref(), receipt.shown.last());
}

#[test]
fn an_answer_stands_on_a_block_for_each_speaker() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let scope = Scope::user("both");
    let turns = [turn("Ann", "Has a useful dog. Likes tea"), turn("Bob", "Has a useful cat")];
    block_on(agent.add(&turns, &scope, &AddOptions::default())).unwrap();
    let heard = Rc::new(RefCell::new(String::new()));
    let ear = heard.clone();
    let options = AnswerOptions {
        on_text: Some(Rc::new(move |text: &str| ear.borrow_mut().push_str(text))),
        ..AnswerOptions::default()
    };
    let answer = block_on(agent.answer("What about a dog?", &scope, &options)).unwrap();
    assert_eq!(
        model.bodies("answer"),
        ["Ann:\n8 May 2023: Likes tea #0\n8 May 2023: Has a useful dog #1\nBob:\n\
          8 May 2023: Has a useful cat #2\n> What about a dog?"]
    );
    let used: Vec<_> = answer.memories.iter().map(|used| used.memory.text.as_str()).collect();
    assert_eq!(used, ["Has a useful dog", "Has a useful cat"]);
    assert_eq!(answer.candidates.len(), 3);
    assert_eq!((answer.answer.as_str(), heard.borrow().as_str()), ("It is \"so\"", "It is \"so\""));
}

#[test]
fn where_nothing_is_remembered_it_does_not_know_and_asks_no_model() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let answer = block_on(agent.answer("Who?", &Scope::user("ann"), &AnswerOptions::default())).unwrap();
    assert_eq!((answer.answer.as_str(), answer.memories.len()), ("I don't know", 0));
    assert!(model.asked.borrow().is_empty());
}

#[test]
fn an_answer_that_does_not_fit_drops_the_worst_and_keeps_places_right() {
    let model = ScriptedModel::with_context(200, obedient);
    let agent = agent(&model);
    for fact in ["Likes tea", "Plays chess", "Has a useful red bicycle", "Lives in Lyon"] {
        add(&agent, fact).unwrap();
    }
    let answer = block_on(agent.answer(
        "Which colour has the red bicycle, of all the bicycles that there are?",
        &Scope::user("ann"),
        &AnswerOptions::default(),
    ))
    .unwrap();
    assert!(answer.candidates.len() < 4);
    assert_eq!(answer.memories.len(), 1);
    assert_eq!(answer.memories[0].memory.text, "Has a useful red bicycle");
}

#[test]
fn scopes_are_read_by_agreement_and_written_exactly() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let run = |run: &str| Scope { run_id: Some(run.into()), ..Scope::user("ann") };
    let add = |scope: &Scope, text: &str| {
        block_on(agent.add(&[turn("user", text)], scope, &AddOptions::default())).unwrap();
    };
    add(&run("1"), "Has a dog");
    add(&run("2"), "Has a cat");
    add(&Scope::user("bob"), "Has a dog and a cow");
    assert_eq!(texts(&agent, &Scope::user("ann")).len(), 2);
    assert_eq!(texts(&agent, &run("2")), ["Has a cat"]);
    let found = block_on(agent.search("dog", &Scope::user("ann"), &SearchOptions::default())).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].found.memory.text.as_str(), &found[0].found.scope), ("Has a dog", &run("1")));
    assert!(found[0].score > 0.0 && found[0].score <= 1.0);
    let strict = SearchOptions { threshold: 1.0, ..SearchOptions::default() };
    assert!(block_on(agent.search("dog", &Scope::user("ann"), &strict)).unwrap().is_empty());
    assert!(block_on(agent.undo(&Scope::user("ann"))).unwrap().is_empty());
    assert_eq!(block_on(agent.undo(&run("1"))).unwrap().len(), 1);
    assert_eq!(texts(&agent, &Scope::user("ann")), ["Has a cat"]);
}

#[test]
fn memories_are_changed_by_name_and_their_journal_tells() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let scope = Scope::user("ann");
    let id = add(&agent, "Has a dog").unwrap()[0].id.clone().unwrap();
    assert_eq!(block_on(agent.update(&id, "Has two dogs")).unwrap().memory.text, "Has two dogs");
    block_on(agent.delete(&id, false)).unwrap();
    assert_eq!(code(block_on(agent.get(&id))), ErrorCode::NotFound);
    let history = block_on(agent.history(&id)).unwrap();
    assert_eq!(
        history.iter().map(|e| e.op).collect::<Vec<_>>(),
        [EventOp::Add, EventOp::Update, EventOp::Delete]
    );
    assert_eq!(block_on(agent.as_of(&scope, Moment::Seq(1))).unwrap().len(), 1);
    let difference = block_on(agent.diff(&scope, Moment::Seq(1), Moment::Seq(3))).unwrap();
    assert_eq!((difference.added.len(), difference.removed.len()), (0, 1));
    block_on(agent.undo(&scope)).unwrap();
    assert_eq!(block_on(agent.get(&id)).unwrap().memory.text, "Has two dogs");
}

#[test]
fn erased_words_are_in_no_export() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    let scope = Scope::user("ann");
    let id = add(&agent, "Keeps a zebra").unwrap()[0].id.clone().unwrap();
    add(&agent, "Has a dog").unwrap();
    assert!(block_on(agent.export(None)).unwrap().contains("zebra"));
    block_on(agent.delete(&id, true)).unwrap();
    assert!(!block_on(agent.export(None)).unwrap().contains("zebra"));
    assert_eq!(texts(&agent, &scope), ["Has a dog"]);
    assert_eq!(block_on(agent.delete_all(&scope)).unwrap(), 1);
    let export = block_on(agent.export(Some(&scope))).unwrap();
    assert!(!export.contains("dog") && texts(&agent, &scope).is_empty());
    block_on(agent.reset()).unwrap();
    assert_eq!(code(block_on(agent.export(None))), ErrorCode::NotFound);
}

#[test]
fn an_export_is_imported_once() {
    let model = ScriptedModel::new(obedient);
    let (one, two) = (agent(&model), agent(&model));
    add(&one, "Has a dog").unwrap();
    let early = block_on(one.export(None)).unwrap();
    add(&one, "Has a cat").unwrap();
    let late = block_on(one.export(None)).unwrap();
    let import = |data: &str| block_on(two.import(data)).map(|done| (done.imported, done.skipped));
    assert_eq!(import(&early).unwrap(), (1, 0));
    assert_eq!(import(&late).unwrap(), (1, 1));
    assert_eq!(import(&late).unwrap(), (0, 2));
    assert_eq!(import(&early).unwrap(), (0, 1));
    assert_eq!(texts(&two, &Scope::user("ann")), ["Has a dog", "Has a cat"]);
    assert_eq!(block_on(two.export(None)).unwrap(), late);
    block_on(two.undo(&Scope::user("ann"))).unwrap();
    add(&one, "Has a cow").unwrap();
    let parted = block_on(one.export(None)).unwrap();
    assert_eq!(code(import(&parted)), ErrorCode::StoreConflict);
    assert_eq!(code(import("nonsense")), ErrorCode::StoreCorrupt);
}

#[test]
fn bad_input_has_its_code_and_loses_nothing() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    add(&agent, "Has a dog").unwrap();
    let scope = Scope::user("ann");
    let invalid = ErrorCode::InvalidArgument;
    for text in ["", " \n\t ", "\0\u{7}", &"x".repeat((1 << 20) + 1)] {
        assert_eq!(code(add(&agent, text)), invalid);
        assert_eq!(code(block_on(agent.answer(text, &scope, &AnswerOptions::default()))), invalid);
        assert_eq!(code(block_on(agent.search(text, &scope, &SearchOptions::default()))), invalid);
    }
    let add = |turns: &[Turn], scope: &Scope| block_on(agent.add(turns, scope, &AddOptions::default()));
    assert_eq!(code(add(&[], &scope)), invalid);
    assert_eq!(code(add(&[turn("", "Has a cat")], &scope)), invalid);
    assert_eq!(code(add(&[turn("ann", "Has a cat")], &Scope::default())), invalid);
    assert_eq!(code(block_on(agent.get_all(&Scope::default(), 1))), invalid);
    assert_eq!(code(block_on(agent.delete_all(&Scope::default()))), invalid);
    let unknown = MemoryId("00000000-0000-8000-8000-000000000000".into());
    assert_eq!(code(block_on(agent.get(&unknown))), ErrorCode::NotFound);
    assert_eq!(code(block_on(agent.update(&unknown, "x"))), ErrorCode::NotFound);
    assert_eq!(code(block_on(agent.delete(&unknown, false))), ErrorCode::NotFound);
    assert_eq!(code(block_on(agent.delete(&unknown, true))), ErrorCode::NotFound);
    assert_eq!(code(block_on(agent.history(&unknown))), ErrorCode::NotFound);
    assert_eq!(texts(&agent, &scope), ["Has a dog"]);
    // Control characters inside a text are spaces.
    let results = add(&[turn("ann", "Has\0a\u{7}cat")], &scope).unwrap();
    assert_eq!(results[0].memory, "Has a cat");
}

#[test]
fn the_bare_agents_work_without_a_store() {
    let model = ScriptedModel::new(obedient);
    let agent = agent(&model);
    add(&agent, "Has a useful dog. Likes tea").unwrap();
    let memories: Vec<_> =
        block_on(agent.get_all(&Scope::user("ann"), 9)).unwrap().into_iter().map(|own| own.memory).collect();
    let facts = ["DELETE dog".to_owned(), "Has a cow".to_owned()];
    let decided =
        block_on(agent.manager().decide_each(&facts, &memories, Sampling::default(), &Cancel::default()))
            .unwrap();
    assert_eq!(decided[0].0, memory_r1::bank::Operation::Delete { id: memories[0].id.clone() });
    assert_eq!(decided[1].0, memory_r1::bank::Operation::Add { text: "Has a cow".into() });
    let (cancel, mut deaf) = (Cancel::default(), |_: &str| ());
    let bare = agent.answer_agent();
    let answer = bare.answer_from("What dog?", &memories, Sampling::default(), &cancel, &mut deaf);
    assert_eq!(block_on(answer).unwrap(), ("It is \"so\"".to_owned(), vec![0]));
}

/// A manager that knows no memory but the last one shown is found out by the target's place.
#[test]
fn a_manager_that_goes_by_the_place_is_right_in_one_place_only() {
    let case = |fact: &str| {
        let memories: Vec<String> = ["Lives in Paris", "Has a cat", "Plays chess", "Is a nurse", "Likes tea"]
            .iter()
            .zip(0..)
            .map(|(text, place)| format!(r#"{{"id":"m{place}","text":"{text}"}}"#))
            .collect();
        let line = format!(
            r#"{{"id":"one","memories":[{}],"turn":{{"speaker":"Ann","text":"Lyon!","timestamp":"2024-05-02T10:00:00Z"}},
            "accept":[{{"op":"UPDATE","target":"m0","contains":["Lyon"]}}]{fact}}}"#,
            memories.join(",")
        );
        read_cases(line.replace('\n', "").as_bytes()).unwrap().remove(0)
    };
    let model = ScriptedModel::new(|task, _| {
        assert_eq!(task, "manage");
        Ok(r#"{"event":"UPDATE","id":"4","text":"Lives in Lyon"}"#.to_owned())
    });
    let models = Models::one(model);
    let places = |fact| block_on(run_places(&models, &case(fact), 0, &Cancel::default())).unwrap();
    assert_eq!(places(r#","fact":"Lives in Lyon""#), Some(vec![false, false, false, false, true]));
    assert_eq!(places(""), None);
}
