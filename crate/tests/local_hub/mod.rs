//! A server with Hugging Face's addresses on this machine, which can be told to fail.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part, as of a library")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit of everything.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The only repository.
pub const NAME: &str = "someone/tiny";

/// What goes wrong; each is a number of times that are left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The content of a file of weights ends in the middle, and the connection with it.
    pub cut: u32,
    /// The server is too busy.
    pub busy: u32,
    /// A file has another byte than it should.
    pub wrong: u32,
    /// A file is shorter than the list says, and its length agrees with what comes.
    pub short: u32,
    /// No token opens it.
    pub locked: bool,
}

#[derive(Default)]
struct State {
    faults: Faults,
    /// What was asked: path and range.
    asked: Vec<(String, Option<u64>)>,
}

pub struct LocalHub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl LocalHub {
    /// Serves `files`; those named `*.safetensors` by way of another address, as large files are.
    pub fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (own, files, base) = (Arc::clone(&state), Arc::new(files), endpoint.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, files, base) = (Arc::clone(&own), Arc::clone(&files), base.clone());
                // A client that goes away is none of the server's business.
                thread::spawn(move || stream.and_then(|stream| serve(stream, &files, &base, &state)));
            }
        });
        Self { endpoint, state }
    }

    pub fn fail(&self, faults: Faults) {
        self.state.lock().unwrap().faults = faults;
    }

    /// What was asked since the last time, without the requests for one byte that look a file up.
    pub fn asked(&self) -> Vec<(String, Option<u64>)> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

fn serve(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    base: &str,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let path = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let range = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
        name.eq_ignore_ascii_case("range").then(|| (from.parse::<usize>().unwrap(), to.parse::<usize>().ok()))
    });
    let looks_up = range == Some((0, Some(0)));
    let mut state = state.lock().unwrap();
    if !looks_up {
        state.asked.push((path.clone(), range.map(|range| range.0 as u64)));
    }
    if state.faults.locked {
        return respond(&mut stream, "401 Unauthorized", "", b"no");
    }
    if state.faults.busy > 0 {
        state.faults.busy -= 1;
        return respond(&mut stream, "503 Service Unavailable", "", b"later");
    }
    if path == format!("/api/models/{NAME}/revision/main")
        || path == format!("/api/models/{NAME}/revision/{COMMIT}")
    {
        return respond(&mut stream, "200 OK", "", listing(files).as_bytes());
    }
    let resolved = path.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/"));
    let large = path.strip_prefix("/large/");
    let Some((name, content)) = resolved.or(large).and_then(|name| files.get_key_value(name)) else {
        return respond(&mut stream, "404 Not Found", "", b"no such file");
    };
    if resolved.is_some() && name.ends_with(".safetensors") {
        let hash = hex(&Sha256::digest(content));
        let headers = format!(
            "x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{hash}\"\r\nLocation: {base}/large/{name}\r\n"
        );
        return respond(&mut stream, "302 Found", &headers, b"");
    }
    let mut content = content.clone();
    if !looks_up && state.faults.wrong > 0 {
        state.faults.wrong -= 1;
        content[0] ^= 1;
    }
    let (from, to) =
        range.map_or((0, content.len()), |(from, to)| (from, to.map_or(content.len(), |to| to + 1)));
    if from >= content.len() {
        return respond(&mut stream, "416 Range Not Satisfiable", "", b"");
    }
    let headers = format!(
        "x-repo-commit: {COMMIT}\r\netag: \"{}\"\r\nContent-Range: bytes {from}-{}/{}\r\n",
        git_hash(&content),
        to - 1,
        content.len()
    );
    let part = &content[from..to];
    if !looks_up && large.is_some() && state.faults.cut > 0 {
        state.faults.cut -= 1;
        let start = format!(
            "HTTP/1.1 206 Partial Content\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            part.len()
        );
        stream.write_all(start.as_bytes())?;
        return stream.write_all(&part[..part.len() / 2]);
    }
    if !looks_up && state.faults.short > 0 {
        state.faults.short -= 1;
        return respond(&mut stream, "206 Partial Content", &headers, &part[..part.len() / 2]);
    }
    respond(&mut stream, "206 Partial Content", &headers, part)
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let start =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(start.as_bytes())?;
    stream.write_all(body)
}

fn listing(files: &BTreeMap<String, Vec<u8>>) -> String {
    let siblings: Vec<serde_json::Value> = files
        .iter()
        .map(|(name, content)| {
            let mut own = serde_json::json!({
                "rfilename": name, "size": content.len(), "blobId": git_hash(content)
            });
            if name.ends_with(".safetensors") {
                own["lfs"] =
                    serde_json::json!({ "sha256": hex(&Sha256::digest(content)), "size": content.len() });
            }
            own
        })
        .collect();
    serde_json::json!({ "id": NAME, "sha": COMMIT, "siblings": siblings }).to_string()
}

fn git_hash(content: &[u8]) -> String {
    hex(&Sha1::new().chain_update(format!("blob {}\0", content.len())).chain_update(content).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
