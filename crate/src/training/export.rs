//! A trained model as a bundle for the browser.

use std::path::Path;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;

use super::config::SftConfig;
use super::run_folder::{read_files, write_files};
use crate::checkpoint::{PackOptions, Quantization, TrainingRun, pack, total};
use crate::error::Result;
use crate::nn::Family;

const LICENCES: [(&str, &str); 2] = [
    ("LICENSE-MIT", include_str!("../../../LICENSE-MIT")),
    ("LICENSE-APACHE", include_str!("../../../LICENSE-APACHE")),
];

/// What Apache 2.0 asks of who passes on what was made of an encoder.
const NOTICE_OF_WORDS: &str = "\
The token embeddings of this model began as the word vectors of all-MiniLM-L6-v2
(sentence-transformers), which is licensed under the Apache License 2.0: see LICENSE-APACHE.
They were projected onto their principal components, and trained further.
";

/// The same where its layers were taken too.
const NOTICE_OF_LAYERS: &str = "\
The token embeddings and the layers of this model began as those of all-MiniLM-L6-v2
(sentence-transformers), which is licensed under the Apache License 2.0: see LICENSE-APACHE.
They were trained further.
";

/// Packs a model folder, or a checkpoint, of a run into `out` and returns the bundle's size in
/// bytes. The bundle says how it was made and how many memories its agents are shown. The weights
/// lie there in the first quantization, the tables of embeddings in the second, if there is one
/// ([`Quantization::of_embeddings`] else). Where the model is not the run's own, `made_by` are the commands that made it
/// out of that.
pub fn export(
    config: &SftConfig,
    name: &str,
    (quantization, embedding): (Quantization, Option<Quantization>),
    (model, made_by): (&Path, &[String]),
    out: &Path,
) -> Result<u64> {
    let formats: String = [
        (quantization != Quantization::default()).then(|| format!(" --quantize {quantization}")),
        embedding.map(|own| format!(" --embedding {own}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let encoder = config.encoder.is_some();
    let first = [
        (encoder && config.model_name_or_path.is_none()).then(|| "./build.sh encoder".to_owned()),
        Some(format!("memory-r1 train sft --config configs/{name}.toml")),
    ];
    let source = if made_by.is_empty() { String::new() } else { format!(" --model {}", model.display()) };
    let last = format!(
        "memory-r1 train export --config configs/{name}.toml{source} --name {name} --out {}{formats}",
        out.display()
    );
    let commands = config.model_commands.iter().cloned().chain(first.into_iter().flatten());
    let run = std::iter::once(format!("sft, {} steps, seed {}", config.max_steps, config.seed))
        .chain(made_by.iter().cloned())
        .collect::<Vec<_>>()
        .join("; then ");
    let options = PackOptions {
        name: name.to_owned(),
        quantization,
        embedding_quantization: embedding,
        prompt_family: "compact".to_owned(),
        context_length: None,
        candidates_per_speaker: config.data.candidates_per_speaker,
        manager_candidates: config.data.manager_candidates,
        extractor_candidates: config.data.extractor_candidates,
        fact_threshold: config.fact_threshold,
        licence: if encoder { "(MIT OR Apache-2.0) AND Apache-2.0" } else { "MIT OR Apache-2.0" }.to_owned(),
        training: TrainingRun {
            run,
            commands: commands.chain(made_by.iter().cloned()).chain([last]).collect(),
        },
    };
    let mut files = read_files(model)?;
    // A checkpoint's own, which no bundle has.
    for name in ["optimizer.safetensors", "trainer_state.json"] {
        files.remove(name);
    }
    for (name, text) in LICENCES {
        files.insert(name.to_owned(), text.as_bytes().to_vec().into());
    }
    if encoder {
        let is_whole = config.model.family == Family::Bert;
        let notice = if is_whole { NOTICE_OF_LAYERS } else { NOTICE_OF_WORDS };
        files.insert("NOTICE".to_owned(), notice.as_bytes().to_vec().into());
    }
    let bundle = futures_lite::future::block_on(pack::<Flex>(&files, &options, None, &FlexDevice))?;
    write_files(out, &bundle)?;
    Ok(total(&bundle))
}
