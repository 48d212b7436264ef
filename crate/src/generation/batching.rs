//! Questions that are asked at the same time are answered side by side.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use async_trait::async_trait;
use futures::channel::oneshot::{Sender, channel};

use super::language_model::{Cancel, ChatMessage, Generation, LanguageModel, ModelInfo, Request};
use crate::error::{Error, ErrorCode, Result};

/// A model that is asked by several futures of one thread, and answers all that wait at once
/// ([`LanguageModel::samples_each`]). Text is told when it is whole.
pub struct Batching {
    model: Rc<dyn LanguageModel>,
    waiting: RefCell<Vec<Waiting>>,
}

struct Waiting {
    asked: (Request, usize),
    cancel: Cancel,
    answer: Sender<Result<Vec<Generation>>>,
}

impl Batching {
    /// Around this model.
    pub fn new(model: Rc<dyn LanguageModel>) -> Self {
        Self { model, waiting: RefCell::default() }
    }

    /// Answers all who wait. Where that fails, each is answered alone, so that an error is that of its request.
    async fn answer(&self, waiting: Vec<Waiting>, cancel: &Cancel) {
        let (asked, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|own| (own.asked, (own.cancel, own.answer))).unzip();
        let together =
            if asked.len() > 1 { self.model.samples_each(&asked, cancel).await.ok() } else { None };
        if let Some(written) = together {
            for (own, (_, answer)) in written.into_iter().zip(rest) {
                // Who has gone in the meantime does not hear it.
                let _ = answer.send(Ok(own));
            }
            return;
        }
        for ((request, count), (cancel, answer)) in asked.into_iter().zip(rest) {
            let _ = answer.send(self.model.samples(&request, count, &cancel).await);
        }
    }
}

/// Lets the others of this thread have a turn.
async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if given {
            return Poll::Ready(());
        }
        given = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[async_trait(?Send)]
impl LanguageModel for Batching {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn room(&self, messages: &[ChatMessage]) -> Result<usize> {
        self.model.room(messages)
    }

    async fn generate(
        &self,
        request: &Request,
        cancel: &Cancel,
        on_text: &mut dyn for<'a> FnMut(&'a str),
    ) -> Result<Generation> {
        let generation = self.samples(request, 1, cancel).await?.pop();
        let generation = generation.ok_or_else(|| Error::internal("nothing was written"))?;
        on_text(&generation.text);
        Ok(generation)
    }

    async fn samples(&self, request: &Request, count: usize, cancel: &Cancel) -> Result<Vec<Generation>> {
        let (answer, written) = channel();
        let asked = (request.clone(), count);
        self.waiting.borrow_mut().push(Waiting { asked, cancel: cancel.clone(), answer });
        give_way().await;
        let waiting = self.waiting.take();
        if !waiting.is_empty() {
            self.answer(waiting, cancel).await;
        }
        let gone = |_| Error::new(ErrorCode::Aborted, "the one who asked for all has gone");
        written.await.map_err(gone)?
    }
}
