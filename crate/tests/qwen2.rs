//! The decoder against transformers: logits and greedy tokens of tiny random Qwen2 checkpoints.
//!
//! `tests/reference/qwen2.py` makes the checkpoints and their reference; its header says how.
#![cfg(not(target_arch = "wasm32"))]

#[path = "reference/qwen2.rs"]
mod reference;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use futures_lite::future::block_on;

#[test]
fn a_tied_f32_checkpoint_agrees_with_transformers() {
    let difference =
        block_on(reference::largest_difference::<Flex>(&reference::tied(), &FlexDevice)).unwrap();
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn an_untied_bf16_checkpoint_agrees_with_transformers() {
    let difference =
        block_on(reference::largest_difference::<Flex>(&reference::untied(), &FlexDevice)).unwrap();
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for checkpoint in [reference::tied(), reference::untied()] {
        let greedy = block_on(reference::greedy::<Flex>(&checkpoint, &FlexDevice)).unwrap();
        assert_eq!(greedy, checkpoint.reference.greedy);
    }
}
