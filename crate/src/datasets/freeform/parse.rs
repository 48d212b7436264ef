//! From the text of a file to situations, strictly: a slip of the pen would be learned by heart.

use std::collections::BTreeSet;

use super::{Decided, Question, Said, Situation, Statement};
use crate::agents::{CONTEXT_TURNS, one_line};
use crate::error::{Error, Result};

/// What stands between the parts of a line.
const BETWEEN: &str = " ~ ";
/// The answer to a question that the memories do not answer.
const UNKNOWN: &str = "unknown";
/// The longest name of a speaker, in characters.
const MAX_SPEAKER: usize = 30;
/// The most memories of a situation.
const MAX_MEMORIES: usize = 6;

/// The situations of a file. The error has a line for each case that is wrong, with the file's
/// name and the number of the line.
pub fn parse(file: &str, text: &str) -> Result<Vec<Situation>> {
    let lines: Vec<(usize, &str)> = (1..).zip(text.lines()).collect();
    let (mut all, mut errors, mut turns) = (Vec::new(), Vec::new(), BTreeSet::new());
    for block in lines.split(|(_, line)| line.trim().is_empty()).filter(|block| !block.is_empty()) {
        match situation(block) {
            // A bank that is asked may be beside any small talk.
            Ok(own) if !own.facts.is_empty() || own.questions.is_empty() => {
                if turns.insert(own.turn.text.to_lowercase()) {
                    all.push(own);
                } else {
                    errors.push(format!("{file}, line {}: this turn stands there twice", block[0].0));
                }
            }
            Ok(own) => all.push(own),
            Err((number, why)) => errors.push(format!("{file}, line {number}: {why}")),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(Error::invalid(errors.join("\n"))) }
}

/// The lines of a case as far as they are read.
#[derive(Default)]
struct Draft {
    memories: Vec<String>,
    context: Vec<Said>,
    turn: Option<Said>,
    facts: Vec<Statement>,
    /// The texts after the facts so far, by their places.
    bank: Vec<Option<String>>,
    questions: Vec<Question>,
}

fn situation(block: &[(usize, &str)]) -> Result<Situation, (usize, String)> {
    let mut draft = Draft::default();
    for (number, line) in block {
        draft.read(line.trim()).map_err(|why| (*number, why))?;
    }
    match draft {
        Draft { memories, context, turn: Some(turn), facts, questions, .. } => {
            Ok(Situation { memories, context, turn, facts, questions })
        }
        _ => Err((block[0].0, "a case without a turn (`> speaker: text`)".to_owned())),
    }
}

impl Draft {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let (kind, rest) = line.split_once(' ').ok_or_else(|| format!("nothing behind {line:?}"))?;
        if line.chars().any(char::is_control) {
            return Err("a control character".to_owned());
        }
        if !self.questions.is_empty() && kind != "?" {
            return Err("a line behind the question".to_owned());
        }
        let before = matches!(kind, "@" | "." | ">");
        if before == self.turn.is_some() {
            return Err(
                if before { "a line that belongs before the turn" } else { "no turn before it" }.into()
            );
        }
        let parts: Vec<String> = rest.split(BETWEEN).map(one_line).collect();
        match (kind, &parts[..]) {
            ("@", _) => self.memory(filled(rest)?)?,
            ("." | ">", _) => {
                let said = said(rest)?;
                if kind == ">" {
                    self.turn = Some(said);
                } else if self.context.len() < CONTEXT_TURNS {
                    self.context.push(said);
                } else {
                    return Err(format!("more than {CONTEXT_TURNS} turns of context"));
                }
            }
            ("+", [fact]) => {
                let fact = filled(fact)?;
                self.bank.push(Some(fact.clone()));
                self.facts.push(Statement { fact, decided: Decided::Add });
            }
            ("~", [fact, memory, text]) => {
                let (target, text) = (self.place(memory)?, filled(text)?);
                self.bank[target] = Some(text.clone());
                self.facts.push(Statement { fact: filled(fact)?, decided: Decided::Update { target, text } });
            }
            ("-", [fact, memory]) => {
                let target = self.place(memory)?;
                self.bank[target] = None;
                self.facts.push(Statement { fact: filled(fact)?, decided: Decided::Delete { target } });
            }
            ("=", [fact, memory]) => {
                let target = self.place(memory)?;
                self.facts.push(Statement { fact: filled(fact)?, decided: Decided::Noop { target } });
            }
            ("?", _) => {
                let question = self.question(rest)?;
                self.questions.push(question);
            }
            ("+" | "~" | "-" | "=", _) => return Err(format!("not the parts of a {kind} line: {rest:?}")),
            _ => return Err(format!("an unknown kind of line: {line:?}")),
        }
        Ok(())
    }

    fn memory(&mut self, text: String) -> Result<(), String> {
        if self.memories.len() == MAX_MEMORIES {
            return Err(format!("more than {MAX_MEMORIES} memories"));
        }
        if self.memories.contains(&text) {
            return Err(format!("a memory that stands there twice: {text:?}"));
        }
        self.bank.push(Some(text.clone()));
        self.memories.push(text);
        Ok(())
    }

    /// The place of the memory that an `@` line wrote and no fact has deleted.
    fn place(&self, memory: &str) -> Result<usize, String> {
        let place = self.memories.iter().position(|own| own == memory);
        place
            .filter(|place| self.bank[*place].is_some())
            .ok_or_else(|| format!("not a memory of this case: {memory:?}"))
    }

    fn question(&self, rest: &str) -> Result<Question, String> {
        let parts: Vec<String> = rest.split('~').map(one_line).collect();
        let (text, memories, answer) = match &parts[..] {
            [text, memories @ .., answer] if !memories.is_empty() => {
                (filled(text)?, memories, filled(answer)?)
            }
            _ => return Err(format!("not `question ~ memory ~ answer`: {rest:?}")),
        };
        if memories.iter().all(String::is_empty) {
            return if answer == UNKNOWN {
                Ok(Question { text, answer: None })
            } else {
                Err(format!("an answer without a memory is {UNKNOWN:?}, not {answer:?}"))
            };
        }
        let place = |memory: &String| {
            let place = self.bank.iter().position(|own| own.as_ref() == Some(memory));
            place.ok_or_else(|| format!("not a memory after the turn: {memory:?}"))
        };
        let places = memories.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Question { text, answer: Some((places, answer)) })
    }
}

fn filled(text: &str) -> Result<String, String> {
    let text = one_line(text);
    if text.is_empty() { Err("an empty part".to_owned()) } else { Ok(text) }
}

fn said(rest: &str) -> Result<Said, String> {
    let (speaker, text) = rest.split_once(": ").ok_or_else(|| format!("not `speaker: text`: {rest:?}"))?;
    if speaker.chars().count() > MAX_SPEAKER || speaker.contains(':') {
        return Err(format!("not the name of a speaker: {speaker:?}"));
    }
    Ok(Said { speaker: filled(speaker)?, text: filled(text)? })
}
