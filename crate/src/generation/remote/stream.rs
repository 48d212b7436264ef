//! A completion that a server sends piece by piece: server-sent events, each `data:` a chunk with a `delta`,
//! the last one `[DONE]`.

use std::io::BufRead;

use serde_json::{Value, json};

/// Why a stream gave no completion.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It ended early, or failed on the way.
    Cut(String),
    /// Nobody waits for it any more.
    Cancelled,
}

/// The chunks of one stream as the completion that a server sends in one piece.
pub(super) fn read_stream(stream: impl BufRead, is_cancelled: impl Fn() -> bool) -> Result<Value, Broken> {
    let (mut content, mut finish, mut usage) = (String::new(), Value::Null, Value::Null);
    let mut is_done = false;
    for line in stream.lines() {
        if is_cancelled() {
            return Err(Broken::Cancelled);
        }
        let line = line.map_err(|error| Broken::Cut(error.to_string()))?;
        // Other fields, comments that keep the connection open, and the empty lines between events.
        let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
        if data == "[DONE]" {
            is_done = true;
            break;
        }
        let chunk: Value = serde_json::from_str(data).map_err(|error| Broken::Cut(error.to_string()))?;
        if let Some(error) = chunk.get("error") {
            let said = error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned);
            return Err(Broken::Cut(format!("the server failed: {said}")));
        }
        // The chunk with the counts of tokens has no choice.
        let choice = &chunk["choices"][0];
        content.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
        if !chunk["usage"].is_null() {
            usage = chunk["usage"].clone();
        }
    }
    if !is_done && finish.is_null() {
        return Err(Broken::Cut("the stream ended before the completion".to_owned()));
    }
    let message = json!({"role": "assistant", "content": content});
    Ok(json!({
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, Broken> {
        read_stream(text.as_bytes(), || false)
    }

    #[test]
    fn chunks_are_put_together() {
        let text = ": open\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\"},\"finish_reason\":null}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"content\":\"Ly\"}}]}\r\n\r\n\
                    data:{\"choices\":[{\"delta\":{\"content\":\"on\"},\"finish_reason\":\"stop\"}]}\n\n\
                    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7}}\n\ndata: [DONE]\n\n";
        let whole = read(text).unwrap();
        assert_eq!(whole["choices"][0]["message"]["content"], "Lyon");
        assert_eq!(whole["choices"][0]["finish_reason"], "stop");
        assert_eq!(whole["usage"]["prompt_tokens"], 7);
    }

    #[test]
    fn what_ends_early_or_fails_is_no_completion() {
        let start = "data: {\"choices\":[{\"delta\":{\"content\":\"Ly\"}}]}\n\n";
        for (rest, why) in [
            ("", "ended before"),
            ("data: {\"choi", "EOF"),
            ("data: {\"error\":{\"message\":\"out of memory\"}}\n", "the server failed: out of memory"),
        ] {
            let Err(Broken::Cut(said)) = read(&format!("{start}{rest}")) else { panic!("{rest}") };
            assert!(said.contains(why), "{said}");
        }
        assert_eq!(read_stream(start.as_bytes(), || true), Err(Broken::Cancelled));
    }
}
