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

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use futures::future::join_all;
    use futures_lite::future::block_on;

    use super::*;
    use crate::generation::{FinishReason, PromptFamily, Sampling};

    /// Says how many it was asked at once, and refuses to write nothing.
    struct Counting {
        info: ModelInfo,
        asked: RefCell<Vec<usize>>,
    }

    #[async_trait(?Send)]
    impl LanguageModel for Counting {
        fn info(&self) -> &ModelInfo {
            &self.info
        }

        async fn generate(
            &self,
            request: &Request,
            cancel: &Cancel,
            _on_text: &mut dyn for<'a> FnMut(&'a str),
        ) -> Result<Generation> {
            cancel.check()?;
            if request.max_new_tokens == 0 {
                return Err(Error::invalid("no room"));
            }
            Ok(Generation {
                prompt_ids: Vec::new(),
                ids: Vec::new(),
                logprobs: Vec::new(),
                parts: Vec::new(),
                ends: Vec::new(),
                text: request.max_new_tokens.to_string(),
                finish_reason: FinishReason::Stop,
            })
        }

        async fn samples_each(
            &self,
            asked: &[(Request, usize)],
            cancel: &Cancel,
        ) -> Result<Vec<Vec<Generation>>> {
            self.asked.borrow_mut().push(asked.len());
            let mut written = Vec::new();
            for (request, count) in asked {
                written.push(self.samples(request, *count, cancel).await?);
            }
            Ok(written)
        }
    }

    fn ask(rooms: &[usize], stopped: usize) -> (Vec<Result<String>>, Vec<usize>) {
        let info = ModelInfo {
            name: String::new(),
            fingerprint: String::new(),
            prompt_family: PromptFamily::Compact,
            context_length: 8,
            candidates_per_speaker: 1,
            manager_candidates: 1,
            extractor_candidates: 0,
            fact_threshold: 0.0,
        };
        let model = Rc::new(Counting { info, asked: RefCell::default() });
        let batching = Batching::new(model.clone());
        let batching = &batching;
        let asks = rooms.iter().enumerate().map(|(place, room)| async move {
            let sampling = Sampling::default();
            let (messages, stop) = (Vec::new(), Vec::new());
            let request = Request { messages, grammar: None, max_new_tokens: *room, sampling, stop };
            let cancel = Cancel::default();
            if place == stopped {
                cancel.cancel();
            }
            batching.generate(&request, &cancel, &mut |_| ()).await.map(|own| own.text)
        });
        let told = block_on(join_all(asks));
        let asked = model.asked.take();
        (told, asked)
    }

    #[test]
    fn who_asks_at_the_same_time_is_answered_at_once_and_each_with_its_own() {
        let (told, asked) = ask(&[3, 1, 2], usize::MAX);
        assert_eq!(told.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ["3", "1", "2"]);
        assert_eq!(asked, [3]);
    }

    /// The first to ask is who asks for all: whatever becomes of it, the others are answered.
    #[test]
    fn an_error_or_a_stop_is_of_the_one_it_belongs_to() {
        let stop = ([3, 1, 2], 0, 0, ErrorCode::Aborted);
        for (rooms, stopped, failed, code) in [([3, 0, 2], 9, 1, ErrorCode::InvalidArgument), stop] {
            let (told, _) = ask(&rooms, stopped);
            for (place, own) in told.into_iter().enumerate() {
                match own {
                    Err(error) => assert_eq!((place, error.code()), (failed, code)),
                    Ok(text) => assert_eq!((text, place != failed), (rooms[place].to_string(), true)),
                }
            }
        }
    }
}
