//! A prefix language model that begins as a sentence encoder: its layers are the encoder's first
//! ones, and each token begins as the vector of the word or piece that it spells.
//!
//! The encoder was made of a bidirectional language model that read a billion sentences (Wang et
//! al., "`MiniLM`", 2020; Reimers and Gurevych, 2019). Writing is new to it: the head begins at
//! random, and the vocabulary is the run's own, whose capitals and spaces the encoder never saw.

use std::path::Path;

use super::config::EncoderConfig;
use super::encoder::{Encoder, capitals_of};
use super::network::Layout;
use super::run_folder::read_shaped;
use crate::error::{Error, Result};
use crate::generation::Tokenizer;
use crate::random::Random;

const WEIGHTS: &str = "model.safetensors";
/// What the special tokens of a prompt begin as, in their order: padding, end, system, user, assistant.
const SPECIAL: [&str; 5] = ["[PAD]", "[SEP]", "[CLS]", "[SEP]", "[SEP]"];
/// How much of a vector's deviation says how a word is written.
const FORM: f64 = 0.3;
/// How much tells tokens of the same word and form apart.
const OWN: f64 = 0.1;
/// How many positions the encoder's last ones are repeated by, where more are wanted.
const REPEATED: usize = 128;

/// Writes the encoder's values over the fresh ones.
pub(super) fn initialize(
    encoder: &Encoder,
    config: &EncoderConfig,
    layout: &Layout,
    tokenizer: &Tokenizer,
    seed: u64,
    parameters: &mut [f32],
) -> Result<()> {
    let hidden = layout.config.hidden_size;
    let path = config.folder.join(WEIGHTS);
    if encoder.width() != hidden {
        return Err(Error::invalid(format!(
            "model.hidden_size is {hidden}, and the encoder's {}",
            encoder.width()
        )));
    }
    embed(encoder, layout, tokenizer, seed, parameters)?;
    for tensor in &layout.tensors {
        let Some(name) = tensor.name.strip_prefix("bert.") else { continue };
        if tensor.range() == layout.embedding() {
            continue;
        }
        let (shape, mut values) = read_shaped(&path, name)?;
        let is_table = name.ends_with("_embeddings.weight");
        if is_table {
            lengthen(&mut values, hidden, tensor.shape[0]);
        }
        if values.len() != tensor.len() || shape.last() != tensor.shape.last() {
            return Err(misfit(&path, name, &shape, &tensor.shape));
        }
        parameters[tensor.range()].copy_from_slice(&values);
    }
    Ok(())
}

/// As many rows as are wanted: the first ones, and behind them the last ones again.
fn lengthen(values: &mut Vec<f32>, width: usize, rows: usize) {
    while values.len() < rows * width && values.len() >= REPEATED * width {
        let last = values[values.len() - REPEATED * width..].to_vec();
        values.extend(last);
    }
    values.truncate(rows * width);
}

fn embed(
    encoder: &Encoder,
    layout: &Layout,
    tokenizer: &Tokenizer,
    seed: u64,
    parameters: &mut [f32],
) -> Result<()> {
    let hidden = layout.config.hidden_size;
    let deviation = encoder.deviation();
    let mut random = Random::new(seed, &[0xbe27]);
    let mut normals =
        |scale: f64| -> Vec<f64> { (0..hidden).map(|_| random.normal() * scale * deviation).collect() };
    let (joined, capital, capitals) = (normals(FORM), normals(FORM), normals(FORM));
    let mut known = 0;
    for (id, row) in parameters[layout.embedding()].chunks_exact_mut(hidden).enumerate() {
        let token = tokenizer.decode(&[id as u32])?;
        let place = match SPECIAL.get(id) {
            Some(special) => encoder.word(special),
            None => encoder.place(&token),
        };
        known += usize::from(place.is_some());
        let mut values = normals(if place.is_some() { OWN } else { 1.0 });
        let mut add = |other: &[f64]| values.iter_mut().zip(other).for_each(|(sum, own)| *sum += own);
        if let Some(place) = place {
            add(&encoder.vector(place).iter().map(|value| f64::from(*value)).collect::<Vec<_>>());
        }
        // The encoder's words stand behind a space.
        if !token.starts_with(' ') {
            add(&joined);
        }
        match capitals_of(&token) {
            0 => {}
            1 => add(&capital),
            _ => add(&capitals),
        }
        row.iter_mut().zip(values).for_each(|(place, value)| *place = value as f32);
    }
    tracing::info!(tokens = known, "embeddings and layers begin as the encoder's");
    Ok(())
}

fn misfit(path: &Path, name: &str, own: &[usize], wanted: &[usize]) -> Error {
    Error::invalid(format!("{}: {name} has the shape {own:?} instead of {wanted:?}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Quantization, write_weights};
    use crate::nn::{DecoderConfig, Family};
    use crate::training::TokenizerFiles;
    use crate::training::encoder::tests::write_encoder;

    #[test]
    fn a_table_is_cut_or_goes_on_with_its_last_rows() {
        let table: Vec<f32> = (0..130).map(|row| row as f32).collect();
        let mut longer = table.clone();
        lengthen(&mut longer, 1, 260);
        assert_eq!(
            (longer.len(), longer[129], longer[130], longer[257], longer[258]),
            (260, 129.0, 2.0, 129.0, 2.0)
        );
        let mut shorter = table;
        lengthen(&mut shorter, 1, 3);
        assert_eq!(shorter, [0.0, 1.0, 2.0]);
    }

    /// An encoder of two layers in Sentence Transformers' names, and a language model of its first one.
    #[test]
    fn layers_and_words_begin_as_the_encoders_and_the_head_does_not() {
        let folder = tempfile::tempdir().unwrap();
        write_encoder(folder.path());
        let texts = vec!["I moved to Lyon. Moved? moved! I went to a dog, dog. Went. I went Moved"; 20];
        let files = TokenizerFiles::train(&texts, 285, 64).unwrap();
        let tokenizer =
            Tokenizer::from_bytes(files.tokenizer.as_bytes(), Some(files.config.as_bytes()), None).unwrap();
        let model = |layers: usize, positions: usize| DecoderConfig {
            family: Family::Bert,
            vocab_size: 285,
            hidden_size: 24,
            num_hidden_layers: layers,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            head_dim: 6,
            intermediate_size: 32,
            max_position_embeddings: positions,
            ..DecoderConfig::nano()
        };
        let words = Encoder::load(folder.path()).unwrap();
        let other = Layout::new(model(2, 9)).unwrap();
        let values = other.initialize(8);
        let mut tensors =
            vec![("embeddings.word_embeddings.weight".to_owned(), vec![9, 24], words.all().to_vec())];
        for tensor in &other.tensors {
            let Some(name) =
                tensor.name.strip_prefix("bert.").filter(|_| tensor.range() != other.embedding())
            else {
                continue;
            };
            tensors.push((name.to_owned(), tensor.shape.clone(), values[tensor.range()].to_vec()));
        }
        let views =
            tensors.iter().map(|(name, shape, values)| (&**name, &shape[..], &values[..], Quantization::F32));
        std::fs::write(folder.path().join(WEIGHTS), write_weights(views).unwrap()).unwrap();

        let own = EncoderConfig { folder: folder.path().to_owned(), words: 4, scale: 0.3, slowness: 1.0 };
        let begin = |layout: &Layout| {
            let fresh = layout.initialize(1);
            let mut parameters = fresh.clone();
            let done = initialize(&words, &own, layout, &tokenizer, 1, &mut parameters);
            done.map(|()| (fresh, parameters))
        };
        let layout = Layout::new(model(1, 6)).unwrap();
        let (fresh, parameters) = begin(&layout).unwrap();
        for tensor in layout.tensors.iter().filter(|tensor| tensor.range() != layout.embedding()) {
            let begun = &parameters[tensor.range()];
            if tensor.name.starts_with("cls.") {
                assert_eq!(begun, &fresh[tensor.range()], "{}", tensor.name);
            } else {
                let theirs = other.tensors.iter().find(|their| their.name == tensor.name).unwrap();
                assert_eq!(begun, &values[theirs.range()][..tensor.len()], "{}", tensor.name);
            }
        }
        let &[dog] = &tokenizer.encode(" dog").unwrap()[..] else { panic!("a token") };
        let row = &parameters[layout.embedding()][dog as usize * 24..][..24];
        let theirs = words.vector(words.word("dog").unwrap());
        let distance = row.iter().zip(theirs).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let length = theirs.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!(distance > 0.0 && distance < 0.3 * length, "{distance} of {length}");

        // A layer that the encoder has not, and another width.
        assert!(begin(&Layout::new(model(3, 6)).unwrap()).unwrap_err().message().contains("encoder.layer.2"));
        let wide = DecoderConfig { hidden_size: 32, head_dim: 8, ..model(1, 6) };
        assert!(begin(&Layout::new(wide).unwrap()).unwrap_err().message().contains("hidden_size"));
    }
}
