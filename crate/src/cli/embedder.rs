//! The sentence encoder that a command finds memories by, where one is given.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use clap::Args;

use super::device::Device;
use super::model::load_embedder;
use super::output::Output;
use super::progress::Progress;
use crate::agents::OnEmbedded;
use crate::error::Result;
use crate::generation::Embedder;

/// Which encoder.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct EmbedderArguments {
    /// Find memories by their sentence vectors too, fused with the lexical ranking: an encoder's folder in the layout
    /// of Sentence Transformers, such as all-MiniLM-L6-v2, or the name of its repository on the hub. By words
    /// alone without it.
    #[arg(long, value_name = "DIR|NAME")]
    embedder: Option<PathBuf>,
}

impl EmbedderArguments {
    /// Loads it.
    pub(in crate::cli) fn load(&self, device: Device) -> Result<Option<Rc<dyn Embedder>>> {
        self.embedder.as_deref().map(|folder| load_embedder(folder, device)).transpose()
    }
}

/// A bar for the memories that have to be embedded before a command can go on.
pub(in crate::cli) fn on_embedded() -> OnEmbedded {
    let bar: RefCell<Option<Progress>> = RefCell::default();
    let output = Output::new(false);
    Rc::new(move |done, total| {
        let (done, total) = (done as u64, total as u64);
        let mut bar = bar.borrow_mut();
        bar.get_or_insert_with(|| Progress::new(total)).at(done, total, "memories embedded", &output);
        if done == total
            && let Some(bar) = bar.take()
        {
            bar.finish();
        }
    })
}
