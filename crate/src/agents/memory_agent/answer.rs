//! Answering from what is remembered.

use std::rc::Rc;

use super::super::SpeakerCandidates;
use super::super::extractor::clean_content;
use super::{MemoryAgent, Remembered};
use crate::bank::{Journal, Memory, Scope};
use crate::error::Result;
use crate::generation::{Cancel, Sampling};

/// Hears the pieces of an answer.
pub type OnText = Rc<dyn Fn(&str)>;

/// How to answer.
#[derive(Clone)]
pub struct AnswerOptions {
    /// How many memories of a speaker the agent is shown; the model's own number where absent.
    pub per_speaker: Option<usize>,
    /// How tokens are chosen; greedy by default.
    pub sampling: Sampling,
    /// Whether the agent names the useful memories before it answers (Memory-R1's distillation); true by
    /// default.
    pub distill: bool,
    /// Gets the answer's text as it is written.
    pub on_text: Option<OnText>,
    /// Stops the work.
    pub cancel: Cancel,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            per_speaker: None,
            sampling: Sampling::default(),
            distill: true,
            on_text: None,
            cancel: Cancel::default(),
        }
    }
}

/// An answer and what it stands on.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The answer.
    pub answer: String,
    /// The memories that the agent used, in the order in which it named them.
    pub memories: Vec<Remembered>,
    /// All that it was shown, a speaker after another, best last.
    pub candidates: Vec<Remembered>,
    /// How many more were found that did not fit into the model's context.
    pub left_out: usize,
}

impl MemoryAgent {
    /// Answers from every scope that agrees with the filter's ids, in a block of candidates for
    /// each speaker.
    pub async fn answer(&self, question: &str, filter: &Scope, options: &AnswerOptions) -> Result<Answer> {
        let question = clean_content(question, "a question")?;
        let journals = self.journals(filter).await?;
        let memories: Vec<Remembered> = journals.iter().flat_map(Journal::remembered).collect();
        let most = options.per_speaker.unwrap_or(self.answer_agent.model().info().candidates_per_speaker);
        let found: Vec<&Memory> = memories.iter().map(|remembered| &remembered.memory).collect();
        let own: Vec<&Journal> = journals.iter().collect();
        let mut retriever = self.retriever_of(&own, &options.cancel).await?;
        self.recall.teach(&mut retriever, [&*question], &options.cancel).await?;
        let blocks = retriever.for_question(&found, &question, self.answer_agent.speakers(), most);
        let candidates = SpeakerCandidates::of(&found, &blocks);
        options.cancel.check()?;
        let mut on_text = |text: &str| {
            if let Some(on_text) = &options.on_text {
                on_text(text);
            }
        };
        let answered = self
            .answer_agent
            .answer(&question, &candidates, options.distill, options.sampling, &options.cancel, &mut on_text)
            .await?;
        let shown = blocks.iter().zip(&answered.shown_from).flat_map(|((_, own), from)| &own[*from..]);
        let used = answered.used.iter().map(|(block, place)| &blocks[*block].1[*place]);
        Ok(Answer {
            answer: answered.text,
            memories: used.map(|found| memories[found.place].clone()).collect(),
            candidates: shown.map(|found| memories[found.place].clone()).collect(),
            left_out: answered.shown_from.iter().sum(),
        })
    }
}
