//! What is remembered: scopes, turns, memories, operations, the journal and the bank that it
//! folds to. Pure and synchronous: no I/O, no clock, no model.

mod draft;
mod erasure;
mod event;
mod export;
mod journal;
mod memory;
mod memory_bank;
mod operation;
mod scope;
mod text;
mod timeline;
mod timestamp;
mod turn;

pub use draft::{Change, Draft};
pub use event::{Cause, EVENT_VERSION, Event, EventOp, Receipt};
pub(crate) use journal::conflict;
pub use journal::{Journal, journal_id, seeded_journal_id};
pub use memory::{Memory, MemoryId};
pub use memory_bank::MemoryBank;
pub use operation::{Operation, OperationKind};
pub use scope::Scope;
pub use text::{MAX_METADATA_BYTES, MAX_SPEAKER_BYTES, MAX_TEXT_BYTES, clean_text};
pub use timeline::{Changed, Difference, Moment};
pub use timestamp::Timestamp;
pub use turn::{Role, Turn};
