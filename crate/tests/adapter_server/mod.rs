//! A server on this machine in vLLM's manner, which samples from real weights with the adapters that it is told.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use futures_lite::future::block_on;
use memory_r1::checkpoint::Files;
use memory_r1::generation::{Bitset, LocalModel, Sampling, choose, no_turn};
use memory_r1::nn::KvCache;
use memory_r1::training::merge_adapter;
use serde_json::{Value, json};

use crate::local_server::{read_request, send};

/// How it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As vLLM does.
    Right,
    /// The model that it began with, whatever adapter is asked for.
    Stale,
    /// Without the tokens of its completions, as an older one.
    Old,
    /// Told no adapters, as one that was not started for it.
    Closed,
}

struct State {
    model: PathBuf,
    scratch: PathBuf,
    manner: Manner,
    /// The folders of the merged weights, by the adapters' names.
    loaded: BTreeMap<String, PathBuf>,
    /// What was loaded and forgotten, in order.
    told: Vec<String>,
}

pub(crate) struct AdapterServer {
    pub(crate) base: String,
    state: Arc<Mutex<State>>,
}

impl AdapterServer {
    /// Serves the model in a folder, with another for what it makes of it.
    pub(crate) fn new(model: &Path, scratch: &Path, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let (model, scratch) = (model.to_owned(), scratch.to_owned());
        let state = State { model, scratch, manner, loaded: BTreeMap::new(), told: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let own = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&own);
                thread::spawn(move || stream.and_then(|stream| serve(stream, &state)));
            }
        });
        Self { base, state }
    }

    /// What it was told, and the adapters that are loaded now.
    pub(crate) fn told(&self) -> (Vec<String>, Vec<String>) {
        let state = self.state.lock().unwrap();
        (state.told.clone(), state.loaded.keys().cloned().collect())
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let (address, _, body) = read_request(&stream)?;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let manner = state.lock().unwrap().manner;
    let (status, headers, reply) = match &*address {
        "/v1/load_lora_adapter" if state.lock().unwrap().has(&asked) => {
            let name = &asked["lora_name"];
            ("400 Bad Request", "", format!("The lora adapter '{name}' has already been loaded."))
        }
        "/v1/load_lora_adapter" if manner != Manner::Closed => {
            ("200 OK", "", state.lock().unwrap().load(&asked))
        }
        "/v1/unload_lora_adapter" => ("200 OK", "", state.lock().unwrap().unload(&asked)),
        "/v1/completions" => {
            let folder = state.lock().unwrap().loaded[asked["model"].as_str().unwrap()].clone();
            let reply = complete(&folder, &asked, manner).to_string();
            ("200 OK", "Content-Type: application/json\r\n", reply)
        }
        _ => (
            "404 Not Found",
            "Content-Type: application/json\r\n",
            json!({"detail": "Not Found"}).to_string(),
        ),
    };
    send(&mut stream, (status, headers), &reply, reply.len())
}

impl State {
    fn has(&self, asked: &Value) -> bool {
        asked["lora_name"].as_str().is_some_and(|name| self.loaded.contains_key(name))
    }

    fn load(&mut self, asked: &Value) -> String {
        let name = asked["lora_name"].as_str().unwrap().to_owned();
        let adapter = Path::new(asked["lora_path"].as_str().unwrap());
        let merged = if self.manner == Manner::Stale { self.model.clone() } else { self.scratch.join(&name) };
        if self.manner != Manner::Stale {
            merge_adapter(&self.model, adapter, &merged).unwrap();
        }
        self.told.push(format!("load {name}"));
        let reply = format!("Success: LoRA adapter '{name}' added successfully.");
        assert_eq!(self.loaded.insert(name, merged), None);
        reply
    }

    fn unload(&mut self, asked: &Value) -> String {
        let name = asked["lora_name"].as_str().unwrap();
        assert!(self.loaded.remove(name).is_some());
        self.told.push(format!("unload {name}"));
        format!("Success: LoRA adapter '{name}' removed successfully.")
    }
}

fn model(folder: &Path) -> LocalModel<Flex> {
    let files = fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file());
    let files: Files = files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap().into()))
        .collect();
    LocalModel::load(&files, &FlexDevice, no_turn()).unwrap()
}

/// `n` completions of a prompt's tokens.
fn complete(folder: &Path, asked: &Value, manner: Manner) -> Value {
    let model = model(folder);
    let decoder = model.decoder();
    let mut known = Bitset::new(decoder.config().vocab_size);
    (0..model.tokenizer().vocabulary_size() as u32).for_each(|id| known.insert(id));
    let prompt: Vec<u32> = serde_json::from_value(asked["prompt"].clone()).unwrap();
    let room = asked["max_tokens"].as_u64().unwrap() as usize;
    let choices = (0..asked["n"].as_u64().unwrap()).map(|index| {
        let sampling = Sampling {
            temperature: asked["temperature"].as_f64().unwrap() as f32,
            seed: asked["seed"].as_u64().unwrap(),
            key: [0, 0, index],
            ..Sampling::default()
        };
        let (mut ids, mut logprobs) = (Vec::new(), Vec::new());
        let mut cache = KvCache::new(decoder.config(), 1, prompt.len() + room, &FlexDevice);
        let mut unread = prompt.clone();
        let mut reason = "length";
        while ids.len() < room {
            let hidden = block_on(decoder.read(&unread, prompt.len(), &mut cache, async || Ok(()))).unwrap();
            let logits = decoder.logits(hidden.unwrap());
            let choice = block_on(choose(logits, Some(&known), &sampling, ids.len())).unwrap();
            ids.push(choice.id);
            logprobs.push(choice.logprob);
            unread = vec![choice.id];
            if model.tokenizer().end_tokens().contains(&choice.id) {
                reason = "stop";
                break;
            }
        }
        let mut choice =
            json!({"index": index, "finish_reason": reason, "logprobs": {"token_logprobs": logprobs}});
        if manner != Manner::Old {
            choice["token_ids"] = json!(ids);
        }
        choice
    });
    // The last one first: what says where it belongs is its index.
    let mut choices: Vec<Value> = choices.collect();
    choices.reverse();
    json!({"choices": choices})
}
