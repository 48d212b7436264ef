//! Token embeddings that begin as the word vectors of a sentence encoder.
//!
//! nano reads far less text than its users' words; an encoder that read a billion sentences (Wang
//! et al., "`MiniLM`", 2020) knows which of them mean alike. Its input vectors, projected onto
//! their principal components (the eigenvectors of their covariance), are the first values of
//! nano's embedding; a token of several letter cases, or with a space before it, has the same
//! vector plus one for its form. What training does not read stays where it began, beside the
//! words that it is like.

use std::collections::HashMap;
use std::path::Path;

use super::config::EncoderConfig;
use super::network::Layout;
use super::run_folder::{read_shaped, read_text};
use crate::error::{Error, Result};
use crate::generation::Tokenizer;
use crate::random::Random;

const WEIGHTS: &str = "model.safetensors";
const TENSOR: &str = "embeddings.word_embeddings.weight";
/// How much of a vector says what stands before a word and how it is written.
const FORM: f64 = 0.3;
/// How much tells tokens of the same word and form apart.
const OWN: f64 = 0.1;
/// Rounds of orthogonal iteration.
const ROUNDS: usize = 30;

/// The input vectors of a `WordPiece` encoder in Hugging Face's layout.
#[derive(Debug)]
pub(super) struct Encoder {
    places: HashMap<String, usize>,
    words: Vec<String>,
    vectors: Vec<f32>,
    width: usize,
}

impl Encoder {
    /// Reads `vocab.txt` and the one tensor of `model.safetensors` that is of use here.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let words: Vec<String> = read_text(&folder.join("vocab.txt"))?.lines().map(str::to_owned).collect();
        let (shape, vectors) = read_shaped(&folder.join(WEIGHTS), TENSOR)?;
        let &[rows, width] = &shape[..] else { return Err(mismatch(folder)) };
        if rows != words.len() || width == 0 {
            return Err(mismatch(folder));
        }
        let places = words.iter().cloned().zip(0..).collect();
        Ok(Self { places, words, vectors, width })
    }

    /// The first words of its vocabulary, which stand in the order of their frequency.
    pub(super) fn words(&self, count: usize) -> impl Iterator<Item = &str> {
        let plain = |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_lowercase());
        self.words.iter().map(String::as_str).filter(plain).take(count)
    }

    /// How many numbers a vector has.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The deviation of the numbers.
    pub(super) fn deviation(&self) -> f64 {
        let square = self.vectors.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        (square / self.vectors.len().max(1) as f64).sqrt()
    }

    /// The place of a word of its own vocabulary.
    pub(super) fn word(&self, word: &str) -> Option<usize> {
        self.places.get(word).copied()
    }

    /// All vectors, one behind the other.
    #[cfg(test)]
    pub(super) fn all(&self) -> &[f32] {
        &self.vectors
    }

    /// The vector at a place.
    pub(super) fn vector(&self, place: usize) -> &[f32] {
        &self.vectors[place * self.width..][..self.width]
    }

    /// The place of what a token spells: a word after a space, or at the start of one; else the
    /// middle of a word.
    pub(super) fn place(&self, token: &str) -> Option<usize> {
        let spelt = token.trim_start().to_lowercase();
        let starts = token.starts_with(' ') || token.starts_with(char::is_uppercase) || spelt.len() == 1;
        let middle = || self.places.get(&format!("##{spelt}"));
        let whole = || self.places.get(&spelt);
        (if starts { whole() } else { middle().or_else(whole) }).copied()
    }

    /// The vectors at `places`, of `width` numbers with deviation 1, their common part taken away.
    fn project(&self, places: &[usize], width: usize) -> Vec<Vec<f64>> {
        let count = places.len().max(1) as f64;
        let row = |place: usize| &self.vectors[place * self.width..][..self.width];
        let mut mean = vec![0.0; self.width];
        for &place in places {
            mean.iter_mut().zip(row(place)).for_each(|(sum, value)| *sum += f64::from(*value) / count);
        }
        let centred: Vec<Vec<f64>> = places
            .iter()
            .map(|&place| {
                row(place).iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect()
            })
            .collect();
        let axes = principal_axes(&centred, self.width, width);
        let mut projected: Vec<Vec<f64>> =
            centred.iter().map(|row| axes.iter().map(|axis| dot(row, axis)).collect()).collect();
        let square = projected.iter().flatten().map(|value| value * value).sum::<f64>();
        let deviation = (square / (count * width as f64)).sqrt().max(f64::MIN_POSITIVE);
        projected.iter_mut().flatten().for_each(|value| *value /= deviation);
        projected
    }

    /// Writes the first values of the embedding and of the gain before the head.
    pub(super) fn initialize(
        &self,
        config: &EncoderConfig,
        layout: &Layout,
        tokenizer: &Tokenizer,
        seed: u64,
        parameters: &mut [f32],
    ) -> Result<()> {
        let hidden = layout.config.hidden_size;
        let spelt: Vec<String> =
            (0..layout.config.vocab_size as u32).map(|id| tokenizer.decode(&[id])).collect::<Result<_>>()?;
        let places: Vec<Option<usize>> = spelt.iter().map(|token| self.place(token)).collect();
        let known: Vec<usize> = places.iter().copied().flatten().collect();
        let mut projected = self.project(&known, hidden).into_iter();
        let mut random = Random::new(seed, &[0xe2c0]);
        let mut normals =
            |deviation: f64| -> Vec<f64> { (0..hidden).map(|_| random.normal() * deviation).collect() };
        let (space, capital, capitals) = (normals(FORM), normals(FORM), normals(FORM));
        let rows = parameters[layout.embedding()].chunks_exact_mut(hidden);
        for ((row, token), place) in rows.zip(&spelt).zip(&places) {
            let mut values = normals(if place.is_some() { OWN } else { 1.0 });
            let mut add = |other: &[f64]| values.iter_mut().zip(other).for_each(|(sum, own)| *sum += own);
            if place.is_some() {
                add(&projected.next().unwrap_or_default());
            }
            if token.starts_with(' ') {
                add(&space);
            }
            match capitals_of(token) {
                0 => {}
                1 => add(&capital),
                _ => add(&capitals),
            }
            row.iter_mut().zip(values).for_each(|(place, value)| *place = (value * config.scale) as f32);
        }
        // So that the first logits have a deviation of about 1.
        let gain = 1.0 / (config.scale * (hidden as f64).sqrt());
        parameters[layout.final_norm()].fill(gain as f32);
        tracing::info!(tokens = known.len(), "embeddings begin as the encoder's");
        Ok(())
    }
}

/// How many capitals a token begins with, two at most: `moved`, `Moved`, `MOVED`.
pub(super) fn capitals_of(token: &str) -> usize {
    token.trim_start().chars().take(2).take_while(|letter| letter.is_uppercase()).count()
}

/// The directions in which `rows` differ most, by orthogonal iteration on their covariance.
fn principal_axes(rows: &[Vec<f64>], width: usize, count: usize) -> Vec<Vec<f64>> {
    let mut covariance = vec![vec![0.0; width]; width];
    for row in rows {
        for (own, sums) in row.iter().zip(&mut covariance) {
            sums.iter_mut().zip(row).for_each(|(sum, other)| *sum += own * other);
        }
    }
    let mut random = Random::new(0, &[0xa8e5]);
    let mut axes: Vec<Vec<f64>> = (0..count).map(|_| (0..width).map(|_| random.normal()).collect()).collect();
    for _ in 0..ROUNDS {
        for axis in &mut axes {
            *axis = covariance.iter().map(|row| dot(row, axis)).collect();
        }
        orthonormalize(&mut axes);
    }
    axes
}

/// Gram and Schmidt. What is left of a direction that the others span is 0.
fn orthonormalize(axes: &mut [Vec<f64>]) {
    for i in 0..axes.len() {
        let (before, rest) = axes.split_at_mut(i);
        let own = &mut rest[0];
        for axis in before {
            let along = dot(axis, own);
            own.iter_mut().zip(axis).for_each(|(value, other)| *value -= along * *other);
        }
        let length = dot(own, own).sqrt();
        let scale = if length > 1e-9 { 1.0 / length } else { 0.0 };
        for value in own.iter_mut() {
            *value *= scale;
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mismatch(folder: &Path) -> Error {
    Error::invalid(format!("{}: vocab.txt and the encoder's vectors do not fit together", folder.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use safetensors::tensor::{Dtype, TensorView, serialize};

    use super::*;
    use crate::nn::DecoderConfig;
    use crate::training::TokenizerFiles;

    const WORDS: [&str; 9] = ["[PAD]", "t", "moved", "a", "went", "lyon", "##ved", "to", "dog"];

    /// A small encoder's files: `moved` and `went` point the same way, `dog` another.
    pub(in crate::training) fn write_encoder(folder: &Path) {
        let mut random = Random::new(3, &[]);
        let mut rows: Vec<Vec<f32>> =
            WORDS.iter().map(|_| (0..24).map(|_| random.normal() as f32).collect()).collect();
        rows[4] = rows[2].iter().map(|value| value + (random.normal() * 0.1) as f32).collect();
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![WORDS.len(), 24], &bytes).unwrap();
        std::fs::write(folder.join(WEIGHTS), serialize([(TENSOR, view)], None).unwrap()).unwrap();
        std::fs::write(folder.join("vocab.txt"), WORDS.join("\n")).unwrap();
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[test]
    fn words_that_mean_alike_begin_alike_in_every_form() {
        let folder = tempfile::tempdir().unwrap();
        write_encoder(folder.path());
        let encoder = Encoder::load(folder.path()).unwrap();
        assert_eq!(encoder.words(2).collect::<Vec<_>>(), ["moved", "went"]);
        let texts = vec!["I moved to Lyon. Moved? moved! I went to a dog, dog. Went. I went Moved"; 20];
        let files = TokenizerFiles::train(&texts, 285, 64).unwrap();
        let tokenizer =
            Tokenizer::from_bytes(files.tokenizer.as_bytes(), Some(files.config.as_bytes()), None).unwrap();
        let config = DecoderConfig { vocab_size: 285, hidden_size: 8, head_dim: 2, ..DecoderConfig::nano() };
        let layout = Layout::new(config).unwrap();
        let own = EncoderConfig { folder: folder.path().to_owned(), words: 4, scale: 0.5, slowness: 1.0 };
        let begin = || {
            let mut parameters = layout.initialize(1);
            encoder.initialize(&own, &layout, &tokenizer, 1, &mut parameters).unwrap();
            parameters
        };
        let parameters = begin();
        assert_eq!(parameters, begin());
        let row = |text: &str| {
            let &[id] = &tokenizer.encode(text).unwrap()[..] else { panic!("{text} is no token") };
            &parameters[layout.embedding()][id as usize * 8..][..8]
        };
        assert!(cosine(row(" moved"), row(" Moved")) > 0.7);
        assert!(cosine(row(" moved"), row(" went")) > 0.7);
        assert!(cosine(row(" moved"), row(" dog")) < 0.5);
        assert_ne!(row(" moved"), row(" Moved"));
        let all = &parameters[layout.embedding()];
        let deviation = (all.iter().map(|value| value * value).sum::<f32>() / all.len() as f32).sqrt();
        assert!((0.4..0.7).contains(&deviation), "{deviation}");
        // The first logits are of order 1.
        assert!((parameters[layout.final_norm()][0] - 1.0 / (0.5 * 8f32.sqrt())).abs() < 1e-6);
    }

    #[test]
    fn the_axes_are_orthonormal_and_span_what_differs() {
        let mut random = Random::new(1, &[]);
        let [a, b] = [[1.0, 2.0, 0.0, 1.0], [0.0, 1.0, -1.0, 3.0]];
        let rows: Vec<Vec<f64>> = (0..50)
            .map(|_| {
                let (x, y) = (random.normal(), random.normal());
                a.iter().zip(b).map(|(a, b)| x * a + y * b).collect()
            })
            .collect();
        let axes = principal_axes(&rows, 4, 2);
        assert!((dot(&axes[0], &axes[0]) - 1.0).abs() < 1e-9 && dot(&axes[0], &axes[1]).abs() < 1e-9);
        for row in &rows {
            let kept: f64 = axes.iter().map(|axis| dot(row, axis).powi(2)).sum();
            assert!((kept - dot(row, row)).abs() < 1e-6 * dot(row, row));
        }
    }

    #[test]
    fn a_folder_that_is_no_encoder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Encoder::load(folder.path()).is_err());
        write_encoder(folder.path());
        std::fs::write(folder.path().join("vocab.txt"), "one\ntwo\n").unwrap();
        assert!(Encoder::load(folder.path()).unwrap_err().message().contains("vocab.txt"));
    }
}
