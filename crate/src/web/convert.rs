//! Values and errors across the border.

use std::sync::Arc;

use js_sys::{Reflect, Uint8Array};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_wasm_bindgen::Serializer;
use wasm_bindgen::{JsCast, JsValue};

use crate::checkpoint::{Content, Files, Source, is_weights};
use crate::error::{Error, ErrorCode, Result};

/// Reads a plain JavaScript value.
pub(super) fn from_js<T: DeserializeOwned>(value: JsValue) -> Result<T> {
    serde_wasm_bindgen::from_value(value).map_err(|error| Error::invalid(error.to_string()))
}

/// Makes a plain JavaScript value: objects, not maps; numbers, not big integers.
pub(super) fn to_js<T: Serialize + ?Sized>(value: &T) -> Result<JsValue> {
    value.serialize(&Serializer::json_compatible()).or_else(|_| {
        // A number beyond 2^53, as a caller's metadata may have: JavaScript rounds it.
        let json = serde_json::to_string(value)
            .map_err(|error| Error::internal("a result cannot be written").with_source(error))?;
        parse_json(&json)
    })
}

/// A JSON text as a value.
pub(super) fn parse_json(json: &str) -> Result<JsValue> {
    js_sys::JSON::parse(json).map_err(|error| Error::internal(text_of(&error)))
}

/// A value as a JSON text.
pub(super) fn to_json(value: &JsValue) -> Result<String> {
    js_sys::JSON::stringify(value)
        .map(String::from)
        .map_err(|error| Error::new(ErrorCode::StoreFailed, text_of(&error)))
}

/// An `Error` with `code`, `message` and `cause`.
pub(super) fn error_to_js(error: &Error) -> JsValue {
    let value = js_sys::Error::new(error.message());
    // Setting a field of an object that was just made does not fail.
    let _ = Reflect::set(&value, &"code".into(), &error.code().as_str().into());
    if let Some(source) = std::error::Error::source(error) {
        let _ = Reflect::set(&value, &"cause".into(), &source.to_string().into());
    }
    value.into()
}

/// What a caller's store threw. Codes that are not a store's are its failure.
pub(super) fn store_error(value: &JsValue) -> Error {
    let code = match field(value, "code").and_then(|code| code.as_string()).as_deref() {
        Some("STORE_CONFLICT") => ErrorCode::StoreConflict,
        Some("STORE_BLOCKED") => ErrorCode::StoreBlocked,
        Some("STORE_CORRUPT") => ErrorCode::StoreCorrupt,
        Some("QUOTA_EXCEEDED") => ErrorCode::QuotaExceeded,
        Some("ABORTED") => ErrorCode::Aborted,
        _ => ErrorCode::StoreFailed,
    };
    Error::new(code, format!("the store failed: {}", text_of(value)))
}

/// A field that is there.
pub(super) fn field(object: &JsValue, name: &str) -> Option<JsValue> {
    Reflect::get(object, &name.into()).ok().filter(|value| !value.is_undefined() && !value.is_null())
}

/// The text of something thrown.
pub(super) fn text_of(value: &JsValue) -> String {
    let message = field(value, "message").and_then(|message| message.as_string());
    message.or_else(|| value.as_string()).unwrap_or_else(|| format!("{value:?}"))
}

/// Bytes that stay in JavaScript's memory.
struct Outside(Uint8Array);

impl Source for Outside {
    fn len(&self) -> u64 {
        self.0.length().into()
    }

    fn read(&self, start: u64, into: &mut [u8]) -> Result<()> {
        let end = start + into.len() as u64;
        // A buffer that was given away to another thread is empty.
        if end > self.len() {
            return Err(Error::new(ErrorCode::ModelIntegrity, "the bytes of a model's file were taken away"));
        }
        self.0.subarray(start as u32, end as u32).copy_to(into);
        Ok(())
    }
}

/// The files of a bundle: a `Map` from names to bytes. Weights stay where they are.
pub(super) fn files(map: &JsValue) -> Result<Files> {
    let wrong = || Error::invalid("a bundle's files are a Map from names to bytes");
    let map = map.dyn_ref::<js_sys::Map>().ok_or_else(wrong)?;
    let mut files = Files::new();
    for entry in map.entries() {
        let entry = entry.map_err(|error| Error::invalid(text_of(&error)))?;
        let entry = entry.dyn_ref::<js_sys::Array>().ok_or_else(wrong)?;
        let name = entry.get(0).as_string().ok_or_else(wrong)?;
        let bytes = entry.get(1).dyn_into::<Uint8Array>().map_err(|_| wrong())?;
        let content = if is_weights(&name) {
            Content::Elsewhere(Arc::new(Outside(bytes)))
        } else {
            bytes.to_vec().into()
        };
        files.insert(name, content);
    }
    Ok(files)
}
