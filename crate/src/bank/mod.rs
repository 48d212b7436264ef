//! What is remembered: scopes, turns, memories, operations, the journal and the bank that it
//! folds to. Pure and synchronous: no I/O, no clock, no model.

mod event;
mod memory;
mod operation;
mod scope;
mod timestamp;
mod turn;

pub use event::{Cause, EVENT_VERSION, Event, EventOp, Receipt};
pub use memory::{Memory, MemoryId};
pub use operation::{Operation, OperationKind};
pub use scope::Scope;
pub use timestamp::Timestamp;
pub use turn::{Role, Turn};
