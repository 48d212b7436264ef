//! An OpenAI-compatible server on this machine, which answers by rule and can be told to fail.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part, as of a library")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429, to be tried again at once.
    Busy,
    /// 500.
    Broken,
    /// Half of the stream.
    Cut,
    /// The whole reply in one piece, though a stream was asked for.
    Whole,
    /// Half of that.
    CutWhole,
    /// An error in the middle of the stream.
    Failed,
    /// No reply.
    Lost,
    /// 400: the prompt is too long.
    TooLong,
    /// 401.
    Locked,
    /// A completion in prose.
    Prose,
    /// A reply after a moment.
    Slow,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    asked: Vec<Value>,
    keys: Vec<Option<String>>,
}

pub struct LocalServer {
    pub base: String,
    state: Arc<Mutex<State>>,
}

impl LocalServer {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let own = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&own);
                // A client that goes away is none of the server's business.
                thread::spawn(move || stream.and_then(|stream| serve(stream, &state)));
            }
        });
        Self { base, state }
    }

    /// The next requests fail so, one after the other.
    pub fn fail(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    /// The requests since the last time.
    pub fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// The keys that came with all requests.
    pub fn keys(&self) -> Vec<Option<String>> {
        self.state.lock().unwrap().keys.clone()
    }
}

/// A request: the address that it goes to, its key, and its body.
pub fn read_request(stream: &TcpStream) -> std::io::Result<(String, Option<String>, Vec<u8>)> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut length, mut key, mut line) = (0, None, String::new());
    reader.read_line(&mut line)?;
    let address = line.split(' ').nth(1).unwrap_or_default().to_owned();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => key = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((address, key, body))
}

/// A reply in one piece, of which the first bytes are sent.
pub fn send(
    stream: &mut TcpStream,
    (status, headers): (&str, &str),
    body: &str,
    end: usize,
) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body.as_bytes()[..end])
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let (address, key, body) = read_request(&stream)?;
    let is_chat = address == "/v1/chat/completions";
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let fault = {
        let mut state = state.lock().unwrap();
        state.asked.push(request.clone());
        state.keys.push(key);
        state.faults.pop_front()
    };
    if fault == Some(Fault::Slow) {
        thread::sleep(std::time::Duration::from_millis(5));
    }
    let message = json!({"role": "assistant", "content": completion(&request, fault)});
    let reply = json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).to_string();
    let (status, headers, body) = match fault {
        _ if !is_chat => ("404 Not Found", "", "no such address"),
        Some(Fault::Busy) => ("429 Too Many Requests", "Retry-After: 0\r\n", "later"),
        Some(Fault::Broken) => ("500 Internal Server Error", "", "out of memory"),
        Some(Fault::TooLong) => {
            ("400 Bad Request", "", "This model's maximum context length is 16 tokens, you asked for 99.")
        }
        Some(Fault::Locked) => ("401 Unauthorized", "", "no such key"),
        Some(Fault::Lost) => return stream.shutdown(Shutdown::Both),
        _ if request["stream"] == true && !matches!(fault, Some(Fault::Whole | Fault::CutWhole)) => {
            return send_stream(&mut stream, &message["content"], fault);
        }
        _ => ("200 OK", "Content-Type: application/json\r\n", &*reply),
    };
    let end = if fault == Some(Fault::CutWhole) { body.len() / 2 } else { body.len() };
    send(&mut stream, (status, headers), body, end)
}

/// A completion in chunks of seven characters.
fn send_stream(stream: &mut TcpStream, content: &Value, fault: Option<Fault>) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")?;
    let characters: Vec<char> = content.as_str().unwrap_or_default().chars().collect();
    let pieces: Vec<String> = characters.chunks(7).map(|piece| piece.iter().collect()).collect();
    let mut send = |data: &str| stream.write_all(format!("data: {data}\n\n").as_bytes());
    for (i, piece) in pieces.iter().enumerate() {
        match fault {
            Some(Fault::Cut) if i == pieces.len() / 2 => return Ok(()),
            Some(Fault::Failed) if i == pieces.len() / 2 => {
                return send(&json!({"error": {"message": "out of memory"}}).to_string());
            }
            _ => {}
        }
        send(
            &json!({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]})
                .to_string(),
        )?;
    }
    send(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string())?;
    send("[DONE]")
}

/// What a model would say, talk around it included: each turn is a fact, each fact is added, the answer
/// is the first memory shown, and answers of even length are right.
fn completion(request: &Value, fault: Option<Fault>) -> String {
    let text = |role: &str| {
        let messages = request["messages"].as_array().into_iter().flatten();
        messages
            .filter(|own| own["role"] == role)
            .filter_map(|own| own["content"].as_str())
            .collect::<String>()
    };
    let (system, user) = (text("system"), text("user"));
    let last = user.lines().last().unwrap_or_default().trim_start_matches("> ").to_owned();
    if fault == Some(Fault::Prose) {
        return "I would rather talk.".to_owned();
    }
    let object = if system.starts_with("You mark the answers") {
        let (_, answer) = last.split_once(": ").unwrap_or_default();
        json!({"label": if answer.len() % 2 == 0 { "CORRECT" } else { "WRONG" }})
    } else if system.starts_with("You organise") {
        let (_, said) = last.split_once(": ").unwrap_or_default();
        json!({"facts": [said]})
    } else if system.starts_with("You are the manager") {
        json!({"event": "ADD", "text": last})
    } else {
        let first = user.lines().find(|line| line.ends_with("#0")).unwrap_or("I don't know");
        let memories: Vec<&str> = if first.ends_with("#0") { vec!["0"] } else { Vec::new() };
        json!({"memories": memories, "answer": first.split(" #").next()})
    };
    format!("Here you are:\n```json\n{object}\n```\n")
}
