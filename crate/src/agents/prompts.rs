//! The prompts: templates in files, in two families, rendered by pure functions.
//!
//! What people said is data. It stands on one line of its own: line breaks and other control
//! characters become spaces, and the marks of chat templates (`<|…|>`) are broken up, so that
//! no text can open a line, a message or a role. The rendered forms are frozen by
//! `tests/fixtures/prompts.json`, because they are baked into the weights that ship.

use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use serde::Serialize;

use super::dates::format_day;
use crate::bank::{Timestamp, Turn};
use crate::generation::{ChatMessage, PromptFamily};

/// The candidates of one speaker, best last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Whose memories they are.
    pub speaker: String,
    /// Their lines, as [`candidate_line`] writes them.
    pub lines: Vec<String>,
}

const TEMPLATES: [(&str, &str); 6] = [
    ("compact/extract", include_str!("prompts/compact/extract.jinja")),
    ("compact/manage", include_str!("prompts/compact/manage.jinja")),
    ("compact/answer", include_str!("prompts/compact/answer.jinja")),
    ("instruct/extract", include_str!("prompts/instruct/extract.jinja")),
    ("instruct/manage", include_str!("prompts/instruct/manage.jinja")),
    ("instruct/answer", include_str!("prompts/instruct/answer.jinja")),
];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source).expect("a template of this crate parses");
    }
    environment
});

/// Asks for the facts of `turn`, with up to two turns before it as context, and `memories`, texts that
/// the speaker's bank holds already, best last: what a turn ends or changes, it seldom says in full.
pub fn extract_messages(
    family: PromptFamily,
    memories: &[String],
    context: &[Turn],
    turn: &Turn,
) -> Vec<ChatMessage> {
    #[derive(Serialize)]
    struct Line {
        speaker: String,
        text: String,
    }
    let line = |turn: &Turn| Line { speaker: one_line(&turn.speaker), text: one_line(&turn.content) };
    let context: Vec<Line> = context.iter().map(line).collect();
    let memories: Vec<String> = memories.iter().map(|text| one_line(text)).collect();
    messages(family, "extract", context! { memories => memories, context => context, turn => line(turn) })
}

/// Asks for the operation that `fact` calls for; `lines` are the candidates, best last, and
/// their places are their ids.
pub fn manage_messages(family: PromptFamily, lines: &[String], fact: &str) -> Vec<ChatMessage> {
    messages(family, "manage", context! { lines => lines, fact => one_line(fact) })
}

/// Asks for an answer to `question`; ids run on over the blocks.
pub fn answer_messages(family: PromptFamily, blocks: &[Block], question: &str) -> Vec<ChatMessage> {
    let mut first = 0;
    let numbered: Vec<Value> = blocks
        .iter()
        .map(|block| {
            let value =
                context! { speaker => one_line(&block.speaker), lines => block.lines, first => first };
            first += block.lines.len();
            value
        })
        .collect();
    messages(family, "answer", context! { blocks => numbered, question => one_line(question) })
}

/// A memory as prompts show it, without its id: `8 May 2023: Has a dog named Scout`.
pub fn candidate_line(observed: Timestamp, text: &str) -> String {
    format!("{}: {}", format_day(observed.date()), one_line(text))
}

/// The text on one line, without control characters and without the marks of chat templates.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        let c = if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c };
        let opens = line.ends_with('<') && c == '|';
        let closes = line.ends_with('|') && c == '>';
        if opens || closes {
            line.push(' ');
        }
        if c != ' ' || !line.ends_with(' ') {
            line.push(c);
        }
    }
    line.trim().to_owned()
}

fn messages(family: PromptFamily, task: &str, data: Value) -> Vec<ChatMessage> {
    let folder = match family {
        PromptFamily::Instruct => "instruct",
        PromptFamily::Compact => "compact",
    };
    let template =
        ENVIRONMENT.get_template(&format!("{folder}/{task}")).expect("every family has every task");
    ["system", "user"]
        .into_iter()
        .map(|role| ChatMessage {
            role: role.to_owned(),
            content: template
                .render(context! { role => role, ..data.clone() })
                .expect("a template of this crate renders its own data"),
        })
        .collect()
}
