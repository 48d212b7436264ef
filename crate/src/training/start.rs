//! The weights that a run begins with, where these are a model's.

use std::collections::HashMap;
use std::path::Path;

use super::network::Layout;
use super::run_folder::{broken, read_files, read_text};
use crate::checkpoint::CONFIG;
use crate::error::{Error, Result};
use crate::nn::DecoderConfig;

/// The layout of a plain model folder.
pub(super) fn read_layout(folder: &Path) -> Result<Layout> {
    Layout::new(DecoderConfig::from_json(&read_text(&folder.join(CONFIG))?)?)
}

/// Reads the weights of any model folder or bundle, in any format, into the flat buffer. A network of
/// several times the folder's layers begins as the folder's: behind each of its layers stand copies of
/// it that add nothing yet, for their last products are 0 (block expansion; Wu et al., "`LLaMA` Pro",
/// 2024).
pub(super) fn read_start(folder: &Path, layout: &Layout) -> Result<Vec<f32>> {
    let files = read_files(folder)?;
    crate::checkpoint::verify(&files)?;
    let own = crate::checkpoint::read_config(&files)?;
    let times = layout.config.num_hidden_layers / own.num_hidden_layers;
    let config = DecoderConfig { num_hidden_layers: own.num_hidden_layers, ..layout.config.clone() };
    if config.num_hidden_layers * times != layout.config.num_hidden_layers {
        return Err(Error::invalid(format!(
            "model.num_hidden_layers is {}, no multiple of the {} of {}",
            layout.config.num_hidden_layers,
            own.num_hidden_layers,
            folder.display()
        )));
    }
    let weights = crate::checkpoint::read_weights(&config, &files)?;
    let weights: HashMap<String, Vec<f32>> =
        weights.into_iter().map(|(spec, values)| (spec.name, values)).collect();
    let mut parameters = vec![0.0; layout.len()];
    for tensor in &layout.tensors {
        let (name, is_copy) = expanded(&tensor.name, times);
        if is_copy && LAST_PRODUCTS.iter().any(|last| name.contains(last)) {
            continue;
        }
        let values = weights.get(&name).filter(|values| values.len() == tensor.len());
        parameters[tensor.range()].copy_from_slice(values.ok_or_else(|| broken(folder))?);
    }
    Ok(parameters)
}

/// What a layer of Qwen2 adds to the residual stream goes through one of these.
const LAST_PRODUCTS: [&str; 2] = [".o_proj.", ".down_proj."];

/// The tensor that one of a network of so many times the layers begins as, and whether its layer is a copy.
fn expanded(name: &str, times: usize) -> (String, bool) {
    let parts = name.split_once(".layers.").and_then(|(before, rest)| {
        let (layer, behind) = rest.split_once('.')?;
        Some((before, layer.parse::<usize>().ok()?, behind))
    });
    match parts {
        Some((before, layer, behind)) => {
            (format!("{before}.layers.{}.{behind}", layer / times), !layer.is_multiple_of(times))
        }
        None => (name.to_owned(), false),
    }
}
