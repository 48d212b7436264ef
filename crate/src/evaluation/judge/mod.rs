//! A language model that marks answers: the `J` of the paper's tables for LoCoMo and MSC, and
//! LongMemEval's rules by type of question. The wording is our own, so scores are comparable with
//! those that this program makes, and with others' in their order of size only.

use std::rc::Rc;
use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::agents::one_line;
use crate::error::Result;
use crate::generation::{Cancel, ChatMessage, LanguageModel, Request, Sampling, first_object};

const TEMPLATE: &str = include_str!("answer.jinja");
/// The longest verdict, in tokens.
const MOST_TOKENS: usize = 256;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template("judge", TEMPLATE).expect("a template of this crate parses");
    environment
});

/// Marks answers, greedily.
#[derive(Clone)]
pub struct Judge {
    model: Rc<dyn LanguageModel>,
    benchmark: String,
}

#[derive(Deserialize)]
struct Verdict {
    label: String,
}

impl Judge {
    /// A judge of answers to a benchmark's questions: `locomo`, `longmemeval` or `msc`.
    pub fn new(model: Rc<dyn LanguageModel>, benchmark: &str) -> Self {
        Self { model, benchmark: benchmark.to_owned() }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.model.info().name
    }

    /// The sha256 of the prompt's template.
    pub fn prompt() -> String {
        format!("{:x}", Sha256::digest(TEMPLATE))
    }

    /// Whether the answer is right; nothing where the model does not say.
    pub async fn judge(
        &self,
        category: &str,
        [question, reference, answer]: [&str; 3],
        cancel: &Cancel,
    ) -> Result<Option<bool>> {
        let request = Request {
            messages: self.messages(category, question, reference, answer),
            grammar: None,
            max_new_tokens: MOST_TOKENS,
            sampling: Sampling::default(),
            stop: Vec::new(),
        };
        let reply = self.model.generate(&request, cancel, &mut |_| ()).await?;
        let verdict =
            first_object(&reply.text).and_then(|object| serde_json::from_str::<Verdict>(object).ok());
        Ok(verdict.and_then(|verdict| match verdict.label.trim().to_uppercase().as_str() {
            "CORRECT" => Some(true),
            "WRONG" => Some(false),
            _ => None,
        }))
    }

    fn messages(&self, category: &str, question: &str, reference: &str, answer: &str) -> Vec<ChatMessage> {
        let template = ENVIRONMENT.get_template("judge").expect("the template was added");
        let message = |role: &str| ChatMessage {
            role: role.to_owned(),
            content: template
                .render(context! {
                    role,
                    category,
                    benchmark => self.benchmark,
                    question => one_line(question),
                    reference => one_line(reference),
                    answer => one_line(answer),
                })
                .expect("a template of this crate renders its own data"),
        };
        vec![message("system"), message("user")]
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use futures_lite::future::block_on;

    use super::*;
    use crate::generation::{FinishReason, Generation, ModelInfo, PromptFamily};

    /// Says what it is told to say.
    struct Says(ModelInfo, &'static str);

    #[async_trait(?Send)]
    impl LanguageModel for Says {
        fn info(&self) -> &ModelInfo {
            &self.0
        }

        async fn generate(
            &self,
            _: &Request,
            _: &Cancel,
            _: &mut dyn for<'a> FnMut(&'a str),
        ) -> Result<Generation> {
            Ok(Generation {
                prompt_ids: Vec::new(),
                ids: Vec::new(),
                logprobs: Vec::new(),
                parts: Vec::new(),
                ends: Vec::new(),
                text: self.1.to_owned(),
                finish_reason: FinishReason::Stop,
            })
        }
    }

    fn judge(benchmark: &str, says: &'static str) -> Judge {
        let info = ModelInfo {
            name: "judge".into(),
            fingerprint: String::new(),
            prompt_family: PromptFamily::Instruct,
            context_length: 1024,
            candidates_per_speaker: 30,
            manager_candidates: 5,
            extractor_candidates: 0,
            fact_threshold: 0.0,
        };
        Judge::new(Rc::new(Says(info, says)), benchmark)
    }

    #[test]
    fn a_verdict_is_read_wherever_it_stands() {
        for (says, wanted) in [
            (r#"{"reason":"Same city.","label":"CORRECT"}"#, Some(true)),
            ("Let me see.\n```json\n{\"label\": \"wrong\"}\n```", Some(false)),
            ("CORRECT", None),
            (r#"{"label":"MAYBE"}"#, None),
        ] {
            let own = judge("locomo", says);
            let verdict = block_on(own.judge("4", ["Where?", "Lyon", "In Lyon"], &Cancel::default()));
            assert_eq!(verdict.unwrap(), wanted, "{says}");
        }
    }

    #[test]
    fn the_rules_are_the_benchmarks_and_the_questions_own() {
        let system = |benchmark: &str, category: &str| {
            judge(benchmark, "").messages(category, "Where?\nNow?", "Lyon", "Paris").remove(0).content
        };
        let all = [
            system("locomo", "4"),
            system("msc", "msc"),
            system("longmemeval", "multi-session"),
            system("longmemeval", "temporal-reasoning"),
            system("longmemeval", "knowledge-update"),
            system("longmemeval", "single-session-preference"),
            system("longmemeval", "abstention"),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != one), "{one}");
        }
        let user = judge("locomo", "").messages("4", "Where?\nNow?", "Lyon", "Paris").remove(1).content;
        assert_eq!(user, "Question: Where? Now?\nReference: Lyon\nAnswer: Paris");
    }
}
