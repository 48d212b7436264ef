//! nano's vocabulary: a byte-level BPE trained on the text that nano is trained on.

use std::path::Path;

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::run_folder::read_bytes;
use crate::checkpoint::{LEXICON, WORD_VECTORS};
use crate::error::{Error, Result};

/// The padding token; no text holds it.
const PAD: &str = "<|pad|>";
/// The token that ends a completion.
const END: &str = "<|end|>";
/// The special tokens, whose ids are their places here.
pub const SPECIAL_TOKENS: [&str; 5] = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"];
/// How nano's prompts are laid out.
pub const CHAT_TEMPLATE: &str =
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>";

/// The two files of a tokenizer in Hugging Face's layout, and what else is learned of the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `tokenizer_config.json`.
    pub config: String,
    /// `lexicon.txt`; empty until it is learned.
    pub lexicon: String,
    /// `word_vectors.safetensors`; empty until they are learned.
    pub word_vectors: Vec<u8>,
}

impl TokenizerFiles {
    /// Trains a vocabulary of exactly `vocab_size` tokens; the same texts give the same bytes.
    pub fn train<S: AsRef<str> + Send + Sync>(
        texts: &[S],
        vocab_size: usize,
        context_length: usize,
    ) -> Result<Self> {
        let failed = |error| Error::internal("the tokenizer could not be trained").with_source(error);
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let mut trainer = TrainerWrapper::from(
            BpeTrainer::builder()
                .vocab_size(vocab_size)
                .min_frequency(2)
                .show_progress(false)
                .special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)).to_vec())
                .initial_alphabet(alphabet.into_iter().collect())
                .build(),
        );
        tokenizer.train(&mut trainer, texts.iter().map(AsRef::as_ref)).map_err(failed)?;
        let size = tokenizer.get_vocab_size(true);
        if size != vocab_size {
            return Err(Error::invalid(format!(
                "the text gives a vocabulary of {size} tokens, not {vocab_size}; \
                 ask for fewer tokens or give more dialogues"
            )));
        }
        let tokenizer = tokenizer.to_string(true).map_err(failed)?;
        Ok(Self {
            tokenizer,
            config: config(context_length),
            lexicon: String::new(),
            word_vectors: Vec::new(),
        })
    }

    /// Reads the files of a folder; it may have neither lexicon nor word vectors.
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| super::run_folder::read_text(&folder.join(name));
        let (tokenizer, config) = (read("tokenizer.json")?, read("tokenizer_config.json")?);
        let lexicon = if folder.join(LEXICON).exists() { read(LEXICON)? } else { String::new() };
        let vectors = folder.join(WORD_VECTORS);
        let word_vectors = if vectors.exists() { read_bytes(&vectors)? } else { Vec::new() };
        Ok(Self { tokenizer, config, lexicon, word_vectors })
    }
}

fn config(context_length: usize) -> String {
    let special: serde_json::Map<String, serde_json::Value> = SPECIAL_TOKENS
        .iter()
        .enumerate()
        .map(|(id, token)| {
            let token = serde_json::json!({
                "content": token, "lstrip": false, "normalized": false, "rstrip": false,
                "single_word": false, "special": true,
            });
            (id.to_string(), token)
        })
        .collect();
    let config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": false,
        "added_tokens_decoder": special,
        "additional_special_tokens": SPECIAL_TOKENS[2..],
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": END,
        "model_max_length": context_length,
        "pad_token": PAD,
        "unk_token": null,
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<String> {
        (0..200)
            .map(|i| {
                format!("Caroline: I moved to Lyon in {} with dog number {i}.\n> {{\"facts\":[]}}", 1900 + i)
            })
            .collect()
    }

    #[test]
    fn a_vocabulary_is_deterministic_and_spells_any_text() {
        let files = TokenizerFiles::train(&texts(), 320, 64).unwrap();
        assert_eq!(files, TokenizerFiles::train(&texts(), 320, 64).unwrap());
        let tokenizer = Tokenizer::from_bytes(files.tokenizer.as_bytes()).unwrap();
        for (id, token) in SPECIAL_TOKENS.iter().enumerate() {
            assert_eq!(tokenizer.token_to_id(token), Some(id as u32));
        }
        let text = "Zoë moved to 東京 in 1999,\tand 🐕 too.";
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(ids.get_ids(), true).unwrap(), text);
        let known = tokenizer.encode(" moved to Lyon", false).unwrap();
        assert_eq!(known.get_tokens(), ["Ġmoved", "Ġto", "ĠLyon"]);
    }

    #[test]
    fn too_little_text_for_a_vocabulary_is_an_error() {
        assert!(TokenizerFiles::train(&texts(), 20_000, 64).is_err());
    }
}
