//! Requests with retries, on threads of their own so that several can be under way.

use std::io::BufReader;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use futures::channel::oneshot;
use serde_json::Value;

use super::cache::Cache;
use super::stream::{Broken, read_stream};
use crate::error::{Error, ErrorCode, Result};
use crate::generation::Cancel;

/// How often the same request is sent, and how long is waited in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// The most times.
    pub attempts: u32,
    /// Before the second time; twice as long before each further one, unless the server says how long.
    pub first_wait: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { attempts: 6, first_wait: Duration::from_millis(500) }
    }
}

/// The longest time that is waited because a server asks for it.
const MOST_WAIT: Duration = Duration::from_mins(1);
/// How long a reply may take.
const TIMEOUT: Duration = Duration::from_mins(10);
/// How often a waiting request looks whether it is cancelled.
const GLANCE: Duration = Duration::from_millis(50);

/// A server's address with what requests need.
#[derive(Clone)]
pub struct Connection {
    base: String,
    key: Option<String>,
    retries: Retries,
    cache: Option<Cache>,
    agent: ureq::Agent,
}

/// A failure, and whether the same request may succeed later.
enum Failure {
    Passing(Error, Option<Duration>),
    Lasting(Error),
}

impl Connection {
    /// A server at `base`, for example `http://localhost:8000/v1`. Replies are kept in the folder
    /// `cache`, where one is given.
    pub fn new(base: &str, key: Option<String>, retries: Retries, cache: Option<PathBuf>) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            key,
            retries,
            cache: cache.map(Cache::new),
            agent: ureq::AgentBuilder::new().timeout(TIMEOUT).build(),
        }
    }

    /// Where requests of a kind go.
    pub(super) fn url(&self, kind: &str) -> String {
        format!("{}/{kind}", self.base)
    }

    /// The reply to a request: 429, 5xx, a cut reply and a lost connection are tried again.
    /// `NOT_REACHABLE` where that does not help, `CONTEXT_OVERFLOW` where the server says that the prompt is
    /// too long, `INVALID_ARGUMENT` for whatever else it refuses.
    pub(super) async fn post(&self, kind: &str, request: Value, cancel: &Cancel) -> Result<String> {
        cancel.check()?;
        let url = self.url(kind);
        if let Some(reply) =
            self.cache.as_ref().map(|cache| cache.find(&url, &request)).transpose()?.flatten()
        {
            return Ok(reply);
        }
        let (send, receive) = oneshot::channel();
        let (own, cancel) = (self.clone(), cancel.clone());
        thread::spawn(move || {
            let reply = own.insist(&url, &request, &cancel);
            // Nobody waits any more where the run was stopped.
            let _ = send.send(reply.and_then(|reply| {
                own.cache.as_ref().map(|cache| cache.keep(&url, &request, &reply)).transpose()?;
                Ok(reply)
            }));
        });
        receive.await.map_err(|_| Error::internal("a request's thread failed"))?
    }

    fn insist(&self, url: &str, request: &Value, cancel: &Cancel) -> Result<String> {
        let mut wait = self.retries.first_wait;
        let mut attempt = 1;
        loop {
            let (error, asked) = match self.once(url, request, cancel) {
                Ok(reply) => return Ok(reply),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing(error, asked)) => (error, asked),
            };
            if attempt >= self.retries.attempts {
                let message = format!("{} (tried {attempt} times)", error.message());
                return Err(Error::new(error.code(), message).with_source(error));
            }
            attempt += 1;
            let mut left = asked.unwrap_or(wait).min(MOST_WAIT);
            while !left.is_zero() {
                cancel.check()?;
                let now = left.min(GLANCE);
                thread::sleep(now);
                left -= now;
            }
            wait *= 2;
        }
    }

    fn once(&self, url: &str, request: &Value, cancel: &Cancel) -> std::result::Result<String, Failure> {
        let mut post = self.agent.post(url).set("Content-Type", "application/json");
        if let Some(key) = &self.key {
            post = post.set("Authorization", &format!("Bearer {key}"));
        }
        let unreachable = |why: String| Error::new(ErrorCode::NotReachable, format!("{url}: {why}"));
        match post.send_string(&request.to_string()) {
            Ok(reply) if reply.content_type() == "text/event-stream" => {
                let stream = BufReader::new(reply.into_reader());
                match read_stream(stream, || cancel.check().is_err()) {
                    Ok(completion) => Ok(completion.to_string()),
                    Err(Broken::Cut(why)) => {
                        Err(Failure::Passing(unreachable(format!("the reply was cut off: {why}")), None))
                    }
                    Err(Broken::Cancelled) => Err(Failure::Lasting(Error::aborted())),
                }
            }
            // A server that does not stream.
            Ok(reply) => {
                let is_json = reply.content_type() == "application/json";
                let text = reply.into_string().map_err(|error| {
                    Failure::Passing(unreachable(format!("the reply was cut off: {error}")), None)
                })?;
                // A proxy may end a reply early without saying so.
                match serde_json::from_str::<Value>(&text) {
                    Err(error) if is_json => Err(Failure::Passing(
                        unreachable("the reply is not whole JSON".to_owned()).with_source(error),
                        None,
                    )),
                    _ => Ok(text),
                }
            }
            Err(ureq::Error::Status(code, reply)) => {
                let asked = reply.header("Retry-After").and_then(|text| text.trim().parse().ok());
                let said: String = reply.into_string().unwrap_or_default().chars().take(300).collect();
                let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
                if code == 429 || code >= 500 {
                    let error = unreachable(format!("status {code}: {said}"));
                    return Err(Failure::Passing(error, asked.map(Duration::from_secs)));
                }
                let is_too_long = ["context length", "context_length", "maximum context", "too long"]
                    .iter()
                    .any(|form| said.to_lowercase().contains(form));
                let kind = if is_too_long { ErrorCode::ContextOverflow } else { ErrorCode::InvalidArgument };
                Err(Failure::Lasting(Error::new(kind, format!("{url}: status {code}: {said}"))))
            }
            Err(ureq::Error::Transport(error)) => Err(Failure::Passing(unreachable(error.to_string()), None)),
        }
    }
}
