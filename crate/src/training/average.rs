//! The mean of several models' weights.

use std::path::{Path, PathBuf};

use super::bpe::TokenizerFiles;
use super::run_folder::write_model_folder;
use super::start::{read_layout, read_start};
use crate::error::{Error, Result};

/// Writes a plain model folder whose every weight is the mean of those of `models`: a uniform soup (Wortsman et
/// al., "Model soups", 2022). What a soup needs is that all went on from the same weights. A folder that stands
/// there twice counts twice; what is no weight is the first one's.
///
/// Models of another shape or vocabulary than the first are `INVALID_ARGUMENT`.
pub fn average(models: &[PathBuf], out: &Path) -> Result<()> {
    let (first, others) =
        models.split_first().ok_or_else(|| Error::invalid("there is no model to average"))?;
    let layout = read_layout(first)?;
    let tokenizer = TokenizerFiles::load(first)?;
    let mut sums: Vec<f64> = read_start(first, &layout)?.into_iter().map(f64::from).collect();
    for other in others {
        let has_other = |what: &str| {
            Error::invalid(format!("{} has another {what} than {}", other.display(), first.display()))
        };
        if read_layout(other)?.config != layout.config {
            return Err(has_other("shape"));
        }
        if TokenizerFiles::load(other)?.tokenizer != tokenizer.tokenizer {
            return Err(has_other("vocabulary"));
        }
        for (sum, value) in sums.iter_mut().zip(read_start(other, &layout)?) {
            *sum += f64::from(value);
        }
    }
    let means: Vec<f32> = sums.into_iter().map(|sum| (sum / models.len() as f64) as f32).collect();
    write_model_folder(out, &layout, &tokenizer, &means)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
    use crate::training::read_model;

    #[test]
    fn every_weight_is_the_mean_and_other_shapes_are_refused() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decoders");
        let base = fixtures.join("qwen2_tied");
        let layout = read_layout(&base).unwrap();
        let weights = read_model(&base, &layout).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let scaled = folder.path().join("scaled");
        let tokenizer = TokenizerFiles::load(&base).unwrap();
        let fourfold: Vec<f32> = weights.iter().map(|weight| weight * 4.0).collect();
        write_model_folder(&scaled, &layout, &tokenizer, &fourfold).unwrap();

        let out = folder.path().join("mean");
        average(&[base.clone(), scaled.clone(), base.clone()], &out).unwrap();
        for (mean, weight) in read_model(&out, &layout).unwrap().into_iter().zip(&weights) {
            assert!((mean - 2.0 * weight).abs() <= 1e-6 * weight.abs(), "{mean} {weight}");
        }
        assert_eq!(TokenizerFiles::load(&out).unwrap().tokenizer, tokenizer.tokenizer);

        let before = read_model(&out, &layout).unwrap();
        let strange = folder.path().join("strange");
        let vocabulary = tokenizer.tokenizer.replacen("\"version\"", "\"version \"", 1);
        let renamed = TokenizerFiles { tokenizer: vocabulary, ..tokenizer };
        write_model_folder(&strange, &layout, &renamed, &weights).unwrap();
        for (other, wanted) in [
            (fixtures.join("llama32"), "llama32 has another shape than"),
            (strange, "strange has another vocabulary than"),
        ] {
            let error = average(&[base.clone(), other], &out).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
            assert!(error.message().contains(wanted), "{error}");
        }
        assert_eq!(average(&[], &out).unwrap_err().code(), ErrorCode::InvalidArgument);
        assert_eq!(read_model(&out, &layout).unwrap(), before);
    }
}
