/** A learned long-term memory. Importing this has no side effect. */

export { type ErrorCode, MemoryR1Error } from "./errors.js";
export { type AnswerAgent, type Manager, MemoryR1 } from "./memory_r1.js";
export { type Models, models } from "./models/kept.js";
export type * from "./types.js";
