//! The Answer Agent: first the memories that are useful for a question, then the answer.

use std::rc::Rc;

use super::answer_stream::AnswerStream;
use super::extractor::clean_content;
use super::manager::Candidate;
use super::prompts::{Block, answer_messages, one_line};
use super::{Recall, generate};
use crate::bank::Memory;
use crate::error::{ErrorCode, Result};
use crate::generation::{
    Cancel, Generation, Grammar, LanguageModel, MAX_ANSWER_TOKENS, Part, PromptFamily, Request, Sampling,
    parse_answer,
};
use crate::retrieval::{Candidate as Found, Speakers};

/// The most memories that the grammar of answers can name.
const MAX_SHOWN: usize = 256;
/// Room for the longest answer, and for naming and writing out a few memories.
const LEAST_ROOM: usize = MAX_ANSWER_TOKENS + 128;
/// The answer where nothing is remembered that helps.
pub const NO_ANSWER: &str = "I don't know";

/// The candidates of one speaker, best last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerCandidates {
    /// Whose memories they are.
    pub speaker: String,
    /// What is remembered.
    pub candidates: Vec<Candidate>,
}

impl SpeakerCandidates {
    /// What was found for each speaker.
    pub(crate) fn of(memories: &[&Memory], blocks: &[(String, Vec<Found>)]) -> Vec<Self> {
        let shown = |own: &[Found]| own.iter().map(|found| Candidate::from(memories[found.place])).collect();
        let block =
            |(speaker, own): &(String, Vec<Found>)| Self { speaker: speaker.clone(), candidates: shown(own) };
        blocks.iter().map(block).collect()
    }
}

/// An answer and what it stands on.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The answer.
    pub text: String,
    /// The memories that were selected, in the order of selection: (block, place in the block).
    pub used: Vec<(usize, usize)>,
    /// The first candidate of each block that was shown: those before it did not fit.
    pub shown_from: Vec<usize>,
    /// The probability of the selected ids, taken together; 1 where the model was not asked.
    pub id_probability: f64,
}

/// Answers.
#[derive(Clone)]
pub struct AnswerAgent {
    model: Rc<dyn LanguageModel>,
    recall: Recall,
}

impl AnswerAgent {
    /// An agent that asks this model, and is shown what is found so.
    pub fn new(model: Rc<dyn LanguageModel>, recall: impl Into<Recall>) -> Self {
        Self { model, recall: recall.into() }
    }

    /// The model that it asks.
    pub fn model(&self) -> &Rc<dyn LanguageModel> {
        &self.model
    }

    /// Whose memories it is to be shown: a small model takes what another said for an answer.
    pub fn speakers(&self) -> Speakers {
        match self.model.info().prompt_family {
            PromptFamily::Instruct => Speakers::Each,
            PromptFamily::Compact => Speakers::Named,
        }
    }

    /// Answers `question` from the blocks. `on_text` gets the answer's text, and nothing else
    /// of the completion, as it comes.
    ///
    /// Without any candidate the answer is [`NO_ANSWER`], and the model is not asked.
    /// Candidates that do not fit into the model's context are left out, the worst of the
    /// longest block first. Without `distill` no memory is named, and the answer is given at once.
    pub async fn answer(
        &self,
        question: &str,
        blocks: &[SpeakerCandidates],
        distill: bool,
        sampling: Sampling,
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answered> {
        let total: usize = blocks.iter().map(|block| block.candidates.len()).sum();
        if total == 0 {
            on_text(NO_ANSWER);
            let (text, used, shown_from) = (NO_ANSWER.to_owned(), Vec::new(), vec![0; blocks.len()]);
            return Ok(Answered { text, used, shown_from, id_probability: 1.0 });
        }
        let mut most = self.most_that_fit(question, blocks, total.min(MAX_SHOWN))?;
        loop {
            let from = shown_from(blocks, most);
            match self.ask(question, blocks, &from, distill, sampling, cancel, on_text).await {
                // Not every model can tell how much room there is.
                Err(error) if error.code() == ErrorCode::ContextOverflow && most > 1 => most -= 1,
                other => return other,
            }
        }
    }

    /// How many candidates, at least 1 and at most `most`, leave room for an answer.
    fn most_that_fit(&self, question: &str, blocks: &[SpeakerCandidates], most: usize) -> Result<usize> {
        let info = self.model.info();
        let fits = |count: usize| {
            let shown = shown_blocks(blocks, &shown_from(blocks, count));
            let room = self.model.room(&answer_messages(info.prompt_family, &shown, question))?;
            Ok(room >= LEAST_ROOM.min(info.context_length / 4))
        };
        let (mut low, mut high) = (1, most);
        if fits(high)? {
            return Ok(high);
        }
        while low + 1 < high {
            let middle = usize::midpoint(low, high);
            if fits(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// So many answers, each with random numbers of its own ([`Sampling::of_sample`]); a local model reads the
    /// prompt once for all of them. Otherwise as [`Self::answer`].
    pub async fn answers(
        &self,
        question: &str,
        blocks: &[SpeakerCandidates],
        sampling: Sampling,
        count: usize,
        cancel: &Cancel,
    ) -> Result<Vec<Answered>> {
        let total: usize = blocks.iter().map(|block| block.candidates.len()).sum();
        let most = self.most_that_fit(question, blocks, total.clamp(1, MAX_SHOWN))?;
        let from = shown_from(blocks, most);
        let asked = self.request(question, blocks, &from, true, sampling);
        let written = self.model.samples(&asked, count, cancel).await?;
        written.iter().map(|generation| answered(generation, blocks, &from)).collect()
    }

    /// Asks the model for an answer though nothing is remembered.
    pub async fn answer_without_memories(
        &self,
        question: &str,
        sampling: Sampling,
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answered> {
        self.ask(question, &[], &[], false, sampling, cancel, on_text).await
    }

    /// Answers from memories as they are given: for each speaker those that are related to the
    /// question, as many as the model takes. The memories used are places in `memories`.
    pub async fn answer_from(
        &self,
        question: &str,
        memories: &[Memory],
        sampling: Sampling,
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<(String, Vec<usize>)> {
        let question = clean_content(question, "a question")?;
        let memories: Vec<&Memory> = memories.iter().collect();
        let most = self.model.info().candidates_per_speaker;
        let texts = memories.iter().map(|memory| &*memory.text).chain([&*question]);
        let retriever = self.recall.with(texts, cancel).await?;
        let blocks = retriever.for_question(&memories, &question, self.speakers(), most);
        let candidates = SpeakerCandidates::of(&memories, &blocks);
        let answered = self.answer(&question, &candidates, true, sampling, cancel, on_text).await?;
        Ok((
            answered.text,
            answered.used.iter().map(|(block, place)| blocks[*block].1[*place].place).collect(),
        ))
    }

    #[allow(clippy::too_many_arguments)]
    async fn ask(
        &self,
        question: &str,
        blocks: &[SpeakerCandidates],
        shown_from: &[usize],
        distill: bool,
        sampling: Sampling,
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answered> {
        let mut stream = AnswerStream::default();
        let request = self.request(question, blocks, shown_from, distill, sampling);
        let generation =
            generate(&*self.model, &request, LEAST_ROOM, cancel, &mut |piece| stream.push(piece, on_text))
                .await?;
        let answered = answered(&generation, blocks, shown_from)?;
        stream.finish(&answered.text, on_text);
        Ok(answered)
    }

    fn request(
        &self,
        question: &str,
        blocks: &[SpeakerCandidates],
        shown_from: &[usize],
        distill: bool,
        sampling: Sampling,
    ) -> Request {
        let info = self.model.info();
        let shown = shown_blocks(blocks, shown_from);
        let nameable = shown.iter().filter(|_| distill);
        let lines: Vec<String> = nameable.flat_map(|block| block.lines.iter().cloned()).collect();
        let longest_copy = lines.iter().map(|line| line.len() + 8).sum::<usize>();
        Request {
            messages: answer_messages(info.prompt_family, &shown, question),
            grammar: Some(Grammar::Answer { lines }),
            max_new_tokens: (MAX_ANSWER_TOKENS + 32 + longest_copy).min(info.context_length / 2),
            sampling,
            stop: Vec::new(),
        }
    }
}

/// What a completion says.
fn answered(generation: &Generation, blocks: &[SpeakerCandidates], shown_from: &[usize]) -> Result<Answered> {
    let places: Vec<(usize, usize)> = blocks
        .iter()
        .zip(shown_from)
        .enumerate()
        .flat_map(|(block, (own, from))| (*from..own.candidates.len()).map(move |place| (block, place)))
        .collect();
    let answer = parse_answer(&generation.text, places.len())?;
    Ok(Answered {
        text: one_line(&answer.answer),
        used: answer.memories.into_iter().map(|id| places[id]).collect(),
        shown_from: shown_from.to_vec(),
        id_probability: generation.probability(Part::Id).min(1.0),
    })
}

/// The first candidate of each block that is shown where `most` are shown of all: the worst of the
/// longest block are left out first.
fn shown_from(blocks: &[SpeakerCandidates], most: usize) -> Vec<usize> {
    let mut from = vec![0; blocks.len()];
    let mut total: usize = blocks.iter().map(|block| block.candidates.len()).sum();
    while total > most {
        let longest = (0..blocks.len()).max_by_key(|place| blocks[*place].candidates.len() - from[*place]);
        from[longest.unwrap_or_default()] += 1;
        total -= 1;
    }
    from
}

/// What the prompt shows of the blocks; one with nothing to show is left out.
fn shown_blocks(blocks: &[SpeakerCandidates], from: &[usize]) -> Vec<Block> {
    let shown = blocks.iter().zip(from).filter(|(own, from)| **from < own.candidates.len());
    let block = |(own, from): (&SpeakerCandidates, &usize)| Block {
        speaker: own.speaker.clone(),
        lines: own.candidates[*from..].iter().map(Candidate::line).collect(),
    };
    shown.map(block).collect()
}
