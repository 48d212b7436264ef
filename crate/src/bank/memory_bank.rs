//! The state that a journal folds to.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::journal::{check_journal_id, memory_id};
use super::{EVENT_VERSION, Event, EventOp, Memory, MemoryId, Scope};
use crate::error::{Error, ErrorCode, Result};

/// The memories of one scope after some number of events, in the order of their creation.
///
/// Two banks that serialise to the same JSON are the same bank.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryBank {
    journal: String,
    scope: Scope,
    seq: u64,
    /// The live memories, keyed by the event that added them: a memory that an undo brings
    /// back takes its old place.
    live: BTreeMap<u64, Memory>,
    /// The adding event of every memory there ever was.
    births: HashMap<MemoryId, u64>,
    erased: HashSet<MemoryId>,
}

impl MemoryBank {
    /// A bank without memories. `journal` is 32 hexadecimal digits.
    pub fn new(journal: impl Into<String>, scope: Scope) -> Result<Self> {
        let journal = journal.into();
        check_journal_id(&journal)?;
        scope.validate()?;
        Ok(Self {
            journal,
            scope,
            seq: 0,
            live: BTreeMap::new(),
            births: HashMap::new(),
            erased: HashSet::new(),
        })
    }

    /// Folds events, from the first on.
    pub fn replay(journal: impl Into<String>, scope: Scope, events: &[Event]) -> Result<Self> {
        let mut bank = Self::new(journal, scope)?;
        events.iter().try_for_each(|event| bank.apply(event))?;
        Ok(bank)
    }

    /// Applies one event. What does not follow from the state is an error and changes nothing.
    pub fn apply(&mut self, event: &Event) -> Result<()> {
        let id = &event.id;
        let fail = |why: String| {
            Err(Error::new(ErrorCode::StoreCorrupt, format!("event {} of the journal {why}", event.seq)))
        };
        if event.v > EVENT_VERSION {
            return fail(format!(
                "has the format {} and this build reads up to {EVENT_VERSION}: it was written by a newer \
                 version; update this one",
                event.v
            ));
        }
        if event.v == 0 {
            return fail("has no format version".into());
        }
        if event.journal != self.journal {
            return fail(format!("belongs to the journal {}, not {}", event.journal, self.journal));
        }
        if event.seq != self.seq + 1 {
            return fail(format!("follows event {}", self.seq));
        }
        if let Some(other) = [&event.before, &event.after].into_iter().flatten().find(|m| m.id != *id) {
            return fail(format!("is about {id} but holds {}", other.id));
        }
        if event.before.as_ref() != self.get(id) {
            return fail(format!("does not start from the state of {id}"));
        }
        let birth = self.births.get(id).copied();
        if self.erased.contains(id) {
            return fail(format!("changes {id}, which was erased"));
        }
        match (event.op, &event.before, &event.after, birth) {
            (EventOp::Add, None, Some(after), birth) => {
                if birth.is_none() && *id != memory_id(&self.journal, event.seq) {
                    return fail(format!("adds {id}, which is not the id that it should make"));
                }
                self.births.entry(id.clone()).or_insert(event.seq);
                self.live.insert(birth.unwrap_or(event.seq), after.clone());
            }
            (EventOp::Update, Some(_), Some(after), Some(birth)) => {
                self.live.insert(birth, after.clone());
            }
            (EventOp::Delete, Some(_), None, Some(birth)) => {
                self.live.remove(&birth);
            }
            (EventOp::Erase, _, None, Some(birth)) => {
                self.live.remove(&birth);
                self.erased.insert(id.clone());
            }
            _ => return fail(format!("has an {:?} that does not fit its before and after", event.op)),
        }
        self.seq = event.seq;
        Ok(())
    }

    /// The journal's id.
    pub fn journal(&self) -> &str {
        &self.journal
    }

    /// Whose bank it is.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The sequence number of the last event in it; 0 before the first.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The live memory of this id.
    pub fn get(&self, id: &MemoryId) -> Option<&Memory> {
        self.births.get(id).and_then(|birth| self.live.get(birth))
    }

    /// The live memory of this id, or [`ErrorCode::NotFound`].
    pub fn require(&self, id: &MemoryId) -> Result<&Memory> {
        self.get(id).ok_or_else(|| {
            Error::new(ErrorCode::NotFound, format!("no memory of this scope has the id {id}"))
        })
    }

    /// The live memories in the order of their creation.
    pub fn memories(&self) -> impl DoubleEndedIterator<Item = &Memory> + ExactSizeIterator + Clone {
        self.live.values()
    }

    /// How many live memories there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether this memory was erased for ever.
    pub fn is_erased(&self, id: &MemoryId) -> bool {
        self.erased.contains(id)
    }

    /// Whether the journal ever had this id.
    pub(super) fn has_known(&self, id: &MemoryId) -> bool {
        self.births.contains_key(id)
    }

    /// Leaves out memories that a later event erased: what is blank is not shown.
    pub(super) fn without(mut self, erased: &HashSet<MemoryId>) -> Self {
        self.live.retain(|_, memory| !erased.contains(&memory.id));
        self
    }

    pub(super) fn erased(&self) -> &HashSet<MemoryId> {
        &self.erased
    }
}

impl Serialize for MemoryBank {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("MemoryBank", 4)?;
        state.serialize_field("journal", &self.journal)?;
        state.serialize_field("scope", &self.scope)?;
        state.serialize_field("seq", &self.seq)?;
        state.serialize_field("memories", &self.live.values().collect::<Vec<_>>())?;
        state.end()
    }
}
