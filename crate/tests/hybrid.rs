//! Hybrid retrieval: what the agents find by sentence vectors, and how often a text is embedded.

#![cfg(not(target_arch = "wasm32"))]

mod scripted;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use async_trait::async_trait;
use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use futures_lite::future::block_on;
use memory_r1::agents::{AddOptions, AnswerOptions, MemoryAgent, Models, Recalled, SearchOptions};
use memory_r1::bank::{MemoryId, Operation, Role, Scope, Timestamp, Turn, seeded_journal_id};
use memory_r1::error::{ErrorCode, Result};
use memory_r1::generation::{Cancel, Embedder, EmbedderInfo, LocalEmbedder, Sampling, no_turn};
use memory_r1::store::{InMemoryStore, Space, SqliteStore, Store, TextKey};
use scripted::ScriptedModel;

/// What a made-up encoder knows: words that mean the same have the same direction.
const MEANINGS: [&[&str]; 4] = [
    &["dog", "puppy", "hound", "spaniel"],
    &["lives", "moved", "home", "lyon", "rome"],
    &["nurse", "hospital", "works", "job"],
    &["tea", "drinks", "coffee"],
];

/// An encoder that remembers what it was asked.
struct Meanings {
    info: EmbedderInfo,
    asked: RefCell<Vec<String>>,
    /// Stops the caller's work at this call.
    stop_at: Option<(usize, Cancel)>,
    calls: Cell<usize>,
}

impl Meanings {
    fn new(name: &str, dimensions: usize) -> Rc<Self> {
        Rc::new(Self::plain(name, dimensions))
    }

    fn plain(name: &str, dimensions: usize) -> Self {
        let info = EmbedderInfo { fingerprint: name.repeat(64), dimensions, max_length: 64 };
        Self { info, asked: RefCell::default(), stop_at: None, calls: Cell::default() }
    }

    /// What it was asked since it was last looked at, in the order of the alphabet.
    fn heard(&self) -> Vec<String> {
        let mut heard = self.asked.take();
        heard.sort();
        heard
    }
}

#[async_trait(?Send)]
impl Embedder for Meanings {
    fn info(&self) -> &EmbedderInfo {
        &self.info
    }

    async fn embed(&self, texts: &[&str], cancel: &Cancel) -> Result<Vec<Vec<f32>>> {
        self.calls.set(self.calls.get() + 1);
        if let Some((_, stop)) = self.stop_at.as_ref().filter(|(call, _)| *call == self.calls.get()) {
            stop.cancel();
        }
        cancel.check()?;
        self.asked.borrow_mut().extend(texts.iter().map(|text| (*text).to_owned()));
        let vector = |text: &&str| {
            let text = text.to_lowercase();
            let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).collect();
            let mut vector = vec![0.0f32; self.info.dimensions];
            for (place, words_of) in MEANINGS.iter().enumerate() {
                vector[place] = words.iter().filter(|word| words_of.contains(word)).count() as f32;
            }
            *vector.last_mut().unwrap() = 0.1;
            vector
        };
        Ok(texts.iter().map(vector).collect())
    }
}

fn turn(content: &str) -> Turn {
    let timestamp = Timestamp::parse("2023-05-08").unwrap();
    Turn { role: Role::User, speaker: "ann".into(), content: content.into(), timestamp }
}

fn agent(model: &Rc<ScriptedModel>, embedder: Option<Rc<dyn Embedder>>, store: Rc<dyn Store>) -> MemoryAgent {
    let models = Models { embedder, ..Models::one(model.clone()) };
    let now = Timestamp::parse("2024-01-01").unwrap();
    MemoryAgent::new(models, store, Rc::new(move || now), Rc::new(|scope| seeded_journal_id(7, scope)))
}

fn ann() -> Scope {
    Scope::user("ann")
}

fn add_as_is(agent: &MemoryAgent, texts: &[&str]) -> Vec<MemoryId> {
    let turns: Vec<Turn> = texts.iter().map(|text| turn(text)).collect();
    let options = AddOptions { infer: false, ..AddOptions::default() };
    let results = block_on(agent.add(&turns, &ann(), &options)).unwrap();
    results.into_iter().map(|result| result.id.unwrap()).collect()
}

fn search(agent: &MemoryAgent, query: &str) -> Vec<Recalled> {
    let options = SearchOptions { explain: true, ..SearchOptions::default() };
    block_on(agent.search(query, &ann(), &options)).unwrap()
}

fn texts(found: &[Recalled]) -> Vec<&str> {
    found.iter().map(|own| own.found.memory.text.as_str()).collect()
}

fn silent() -> Rc<ScriptedModel> {
    ScriptedModel::new(|_, _| panic!("no model is asked"))
}

const BANK: [&str; 4] = ["Has a spaniel", "Lives in Lyon", "Is a nurse", "Likes tea"];

#[test]
fn a_search_finds_what_means_the_same_and_says_why() {
    let store = Rc::new(InMemoryStore::new());
    let (lexical, embedder) = (agent(&silent(), None, store.clone()), Meanings::new("a", 5));
    add_as_is(&lexical, &BANK);
    assert_eq!(search(&lexical, "a puppy at home, or tea").len(), 1);
    assert!(search(&lexical, "puppy").is_empty());
    let hybrid = agent(&silent(), Some(embedder.clone()), store);
    let found = search(&hybrid, "puppy");
    assert_eq!(texts(&found)[0], "Has a spaniel");
    let explained = found[0].explanation.as_ref().unwrap();
    assert!(explained.bm25 == 0.0 && explained.cosine.unwrap() > 0.99 && explained.terms.is_empty());
    assert!((found[0].score - explained.cosine.unwrap()).abs() < 1e-12);
    // The threshold is on the better score, not on ranks, which are small.
    let strict = SearchOptions { threshold: 0.9, ..SearchOptions::default() };
    assert_eq!(texts(&block_on(hybrid.search("puppy", &ann(), &strict)).unwrap()), ["Has a spaniel"]);
    // First by words and by meaning.
    assert_eq!(texts(&search(&hybrid, "coffee or tea?"))[0], "Likes tea");
}

#[test]
fn the_manager_and_the_answer_agent_are_shown_what_means_the_same() {
    let shown = Rc::new(RefCell::new(Vec::new()));
    let seen = shown.clone();
    let model = ScriptedModel::with_extractor_candidates(1, 8192, move |task, body| {
        seen.borrow_mut().push((task.to_owned(), body.to_owned()));
        Ok(match task {
            "extract" => r#"{"facts":["Adopted a hound","The hound is old"]}"#.into(),
            "manage" => format!(r#"{{"event":"ADD","text":"{}"}}"#, body.rsplit("> ").next().unwrap()),
            _ => r#"{"memories":["0"],"answer":"Yes"}"#.into(),
        })
    });
    let filler: Vec<String> = (0..20).map(|number| format!("Likes colour number {number}")).collect();
    let bank: Vec<&str> = BANK.into_iter().chain(filler.iter().map(String::as_str)).collect();
    let embedder = Meanings::new("a", 5);
    let agent = agent(&model, Some(embedder.clone()), Rc::new(InMemoryStore::new()));
    add_as_is(&agent, &bank);
    assert!(embedder.heard().is_empty());
    let said = turn("We have a puppy now!");
    block_on(agent.add(&[said], &ann(), &AddOptions::default())).unwrap();
    let asked = shown.take();
    let names: Vec<&str> = asked.iter().map(|(task, _)| task.as_str()).collect();
    assert_eq!(names, ["extract", "manage", "manage"]);
    assert!(asked[0].1.contains("Has a spaniel"), "{}", asked[0].1);
    assert!(asked[1].1.lines().nth_back(1).unwrap().contains("Has a spaniel"), "{}", asked[1].1);
    // The second fact sees what the first one added.
    assert!(asked[2].1.contains("Adopted a hound #"), "{}", asked[2].1);
    // Every memory once, and each of the three queries, of which two became memories.
    let mut wanted: Vec<String> = bank.iter().map(|text| (*text).to_owned()).collect();
    wanted.extend(["We have a puppy now!", "Adopted a hound", "The hound is old"].map(str::to_owned));
    wanted.sort();
    assert_eq!(embedder.heard(), wanted);

    let options = AnswerOptions { per_speaker: Some(3), ..AnswerOptions::default() };
    let answer = block_on(agent.answer("Is there a puppy?", &ann(), &options)).unwrap();
    let candidates: Vec<&str> = answer.candidates.iter().map(|own| own.memory.text.as_str()).collect();
    assert_eq!(candidates.len(), 3);
    for text in ["Has a spaniel", "Adopted a hound", "The hound is old"] {
        assert!(candidates.contains(&text), "{candidates:?}");
    }
    assert_eq!(embedder.heard(), ["Is there a puppy?"]);
}

#[test]
fn the_bare_agents_find_by_meaning_too() {
    let model = ScriptedModel::new(|task, body| {
        Ok(match task {
            "manage" => {
                let line = body.lines().find(|line| line.contains("Has a spaniel")).unwrap_or(" #none");
                format!(r#"{{"event":"DELETE","id":"{}"}}"#, line.rsplit('#').next().unwrap())
            }
            _ => r#"{"memories":[],"answer":"Yes"}"#.into(),
        })
    });
    let embedder = Meanings::new("a", 5);
    let agent = agent(&model, Some(embedder.clone()), Rc::new(InMemoryStore::new()));
    let filler: Vec<String> = (0..9).map(|number| format!("Likes colour number {number}")).collect();
    let bank: Vec<&str> = BANK.into_iter().chain(filler.iter().map(String::as_str)).collect();
    let ids = add_as_is(&agent, &bank);
    let memories: Vec<_> =
        block_on(agent.get_all(&ann(), 99)).unwrap().into_iter().map(|own| own.memory).collect();
    let facts = ["Lost the puppy".to_owned(), "No hound any more".to_owned()];
    let cancel = Cancel::default();
    let decided = agent.manager().decide_each(&facts, &memories, Sampling::default(), &cancel);
    for (operation, _) in block_on(decided).unwrap() {
        assert_eq!(operation, Operation::Delete { id: ids[0].clone() });
    }
    assert_eq!(embedder.heard().len(), bank.len() + 2);
}

#[test]
fn a_second_start_embeds_nothing_but_the_query() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memories.db");
    let open = || Rc::new(SqliteStore::open(&path).unwrap());
    let first = Meanings::new("a", 5);
    let one = agent(&silent(), Some(first.clone()), open());
    let ids = add_as_is(&one, &BANK);
    search(&one, "puppy");
    assert_eq!(first.heard().len(), BANK.len() + 1);
    search(&one, "hound");
    assert_eq!(first.heard(), ["hound"]);
    drop(one);

    let second = Meanings::new("a", 5);
    let two = agent(&silent(), Some(second.clone()), open());
    assert_eq!(texts(&search(&two, "puppy"))[0], "Has a spaniel");
    assert_eq!(second.heard(), ["puppy"]);
    // A text that changed is embedded, and one that comes back by undo has its vector still.
    block_on(two.update(&ids[0], "Has a horse")).unwrap();
    search(&two, "x");
    assert_eq!(second.heard(), ["Has a horse", "x"]);
    block_on(two.undo(&ann())).unwrap();
    assert_eq!(texts(&search(&two, "puppy"))[0], "Has a spaniel");
    assert_eq!(second.heard(), ["puppy"]);
}

#[test]
fn another_encoder_embeds_everything_anew_and_says_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("memories.db");
    let open = || Rc::new(SqliteStore::open(&path).unwrap());
    let bank: Vec<String> = (0..40).map(|number| format!("Fact {number} about a dog")).collect();
    let bank: Vec<&str> = bank.iter().map(String::as_str).collect();
    let old = Meanings::new("a", 5);
    let one = agent(&silent(), Some(old), open());
    add_as_is(&one, &bank);
    search(&one, "puppy");
    drop(one);
    // Of the same dimension, and of another: neither is taken for the old one.
    for (name, dimensions) in [("b", 5), ("b", 8), ("a", 5)] {
        let new = Meanings::new(name, dimensions);
        let heard = Rc::new(RefCell::new(Vec::new()));
        let ear = heard.clone();
        let two = agent(&silent(), Some(new.clone()), open())
            .with_on_embedded(Rc::new(move |done, total| ear.borrow_mut().push((done, total))));
        assert_eq!(search(&two, "puppy").len(), 20);
        assert_eq!(new.heard().len(), 41, "{name} {dimensions}");
        assert_eq!(heard.take(), [(16, 40), (32, 40), (40, 40)]);
        search(&two, "puppy");
        assert_eq!((new.heard().len(), heard.take().len()), (1, 0));
        drop(two);
        let raw = rusqlite::Connection::open(&path).unwrap();
        let kept: (i64, i64, String, i64, i64) = raw
            .query_row(
                "SELECT count(*), count(DISTINCT embedder), min(embedder), min(dimensions), min(length(vector))
                 FROM vectors",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
            )
            .unwrap();
        let wide = dimensions as i64;
        assert_eq!(kept, (40, 1, name.repeat(64), wide, 4 * wide));
    }
}

#[test]
fn a_stop_in_the_midst_loses_nothing() {
    let store: Rc<dyn Store> = Rc::new(InMemoryStore::new());
    let bank: Vec<String> = (0..40).map(|number| format!("Fact {number}")).collect();
    let bank: Vec<&str> = bank.iter().map(String::as_str).collect();
    add_as_is(&agent(&silent(), None, store.clone()), &bank);
    let cancel = Cancel::default();
    let stopping = Rc::new(Meanings { stop_at: Some((3, cancel.clone())), ..Meanings::plain("a", 5) });
    let stopped = agent(&silent(), Some(stopping.clone()), store.clone());
    let options = SearchOptions { cancel, ..SearchOptions::default() };
    let error = block_on(stopped.search("dog", &ann(), &options)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Aborted);
    assert_eq!(stopping.heard().len(), 32);
    // An add that is stopped there changes nothing either.
    let cancel = Cancel::default();
    let options = AddOptions { cancel: cancel.clone(), ..AddOptions::default() };
    let at_once = Rc::new(Meanings { stop_at: Some((1, cancel)), ..Meanings::plain("a", 5) });
    let extracting = ScriptedModel::new(|_, _| Ok(r#"{"facts":["Has a dog"]}"#.into()));
    let adding = agent(&extracting, Some(at_once), store.clone());
    let error = block_on(adding.add(&[turn("I have a dog")], &ann(), &options)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Aborted);
    assert_eq!(block_on(store.load(&ann())).unwrap().unwrap().seq(), 40);
    // The rest is all that is left to do.
    let going_on = Meanings::new("a", 5);
    search(&agent(&silent(), Some(going_on.clone()), store), "dog");
    assert_eq!(going_on.heard().len(), 8 + 1);
}

#[test]
fn an_erased_memorys_vector_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Rc::new(SqliteStore::open(folder.path().join("memories.db")).unwrap());
    let embedder = Meanings::new("a", 5);
    let agent = agent(&silent(), Some(embedder.clone()), store.clone());
    let ids = add_as_is(&agent, &BANK);
    search(&agent, "puppy");
    embedder.heard();
    let space = Space { embedder: "a".repeat(64), dimensions: 5 };
    let kept = || -> Vec<TextKey> {
        block_on(store.vectors(&ann(), &space)).unwrap().iter().map(|own| own.text).collect()
    };
    assert_eq!(kept().len(), 4);
    block_on(agent.delete(&ids[0], true)).unwrap();
    assert!(kept().len() == 3 && !kept().contains(&TextKey::of(BANK[0])));
    assert!(!texts(&search(&agent, "puppy")).contains(&BANK[0]));
    // Nothing is embedded again for it.
    assert_eq!(embedder.heard(), ["puppy"]);
    block_on(agent.delete_all(&ann())).unwrap();
    assert!(kept().is_empty());
}

#[test]
fn the_real_encoder_gives_the_agents_its_vectors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoders/mean");
    let names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ];
    let files = names.map(|name| (name.to_owned(), std::fs::read(folder.join(name)).unwrap().into())).into();
    let embedder = LocalEmbedder::<Flex>::load(&files, &FlexDevice, no_turn()).unwrap();
    let mut other = files.clone();
    let pooling =
        String::from_utf8(other["1_Pooling/config.json"].whole().unwrap().into_owned()).unwrap() + " ";
    other.insert("1_Pooling/config.json".to_owned(), pooling.into_bytes().into());
    let other = LocalEmbedder::<Flex>::load(&other, &FlexDevice, no_turn()).unwrap();
    assert_ne!(embedder.info().fingerprint, other.info().fingerprint);
    let agent = agent(&silent(), Some(Rc::new(embedder)), Rc::new(InMemoryStore::new()));
    add_as_is(&agent, &BANK);
    let found = search(&agent, BANK[2]);
    assert_eq!(texts(&found)[0], BANK[2]);
    assert_eq!(found[0].explanation.as_ref().unwrap().cosine, Some(1.0));
}
