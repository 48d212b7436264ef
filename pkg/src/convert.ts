/** What callers write, checked and turned into what the engine reads. */

import { invalid } from "./errors.js";
import type {
  BareMemory,
  ExtractFrom,
  Messages,
  Metadata,
  Scope,
  ScopeInput,
  SearchOptions,
  Timestamp,
  When,
} from "./types.js";

/** A scope on the wire. */
export interface WireScope {
  user_id?: string;
  agent_id?: string;
  run_id?: string;
}

/** A turn on the wire. */
export interface WireTurn {
  role: "user" | "assistant" | "system";
  speaker: string;
  content: string;
  timestamp: string;
}

/** The longest text of one message or statement, in UTF-16 units. */
export const MAX_TEXT = 65_536;
/** The most messages of one `add`. */
export const MAX_MESSAGES = 1_000;

const SCOPE_KEYS = [
  ["userId", "user_id"],
  ["agentId", "agent_id"],
  ["runId", "run_id"],
] as const;
const ROLES: ReadonlySet<unknown> = new Set(["user", "assistant", "system"]);

/** Replaces lone surrogates, which are not Unicode text, by U+FFFD. */
export function wellFormed(text: string): string {
  const native = (text as { toWellFormed?: () => string }).toWellFormed;
  if (native !== undefined) return native.call(text);
  return text.replace(/[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g, "\uFFFD");
}

/** A non-empty text of a sane size. */
export function text(value: unknown, what: string): string {
  if (typeof value !== "string") throw invalid(`${what} must be a string, not ${typeName(value)}`);
  if (value.length > MAX_TEXT) {
    throw invalid(`${what} has ${value.length} characters; split it, the limit is ${MAX_TEXT}`);
  }
  if (value.trim() === "") throw invalid(`${what} is empty`);
  return wellFormed(value);
}

/** The scope in `input`, in either spelling. `others` are places to look after the first. */
export function scope(...inputs: (ScopeInput | undefined)[]): WireScope {
  const wire = optionalScope(...inputs);
  if (Object.keys(wire).length === 0) {
    throw invalid("whose memory? give userId, agentId or runId");
  }
  return wire;
}

/** The same, where no scope means every scope. */
export function optionalScope(...inputs: (ScopeInput | undefined)[]): WireScope {
  const wire: WireScope = {};
  for (const input of inputs) {
    if (input === undefined || input === null) continue;
    if (typeof input !== "object")
      throw invalid(`a scope is an object like { userId }, not ${typeName(input)}`);
    for (const [camel, snake] of SCOPE_KEYS) {
      for (const key of [camel, snake]) {
        const id: unknown = (input as Record<string, unknown>)[key];
        if (id === undefined || id === null) continue;
        if (typeof id !== "string") throw invalid(`${key} must be a string, not ${typeName(id)}`);
        const clean = wellFormed(id);
        if (clean.trim() === "" || clean.length > 512) throw invalid(`${key} must have 1 to 512 characters`);
        if (wire[snake] !== undefined && wire[snake] !== clean) {
          throw invalid(
            `${camel} is given twice, as ${JSON.stringify(wire[snake])} and ${JSON.stringify(clean)}`,
          );
        }
        wire[snake] = clean;
      }
    }
  }
  return wire;
}

/** A scope from the wire. */
export function publicScope(wire: WireScope): Scope {
  return {
    ...(wire.user_id === undefined ? {} : { userId: wire.user_id }),
    ...(wire.agent_id === undefined ? {} : { agentId: wire.agent_id }),
    ...(wire.run_id === undefined ? {} : { runId: wire.run_id }),
  };
}

/** A time as RFC 3339; text goes through, for the engine reads more forms than `Date` does. */
export function timestamp(value: Timestamp, what = "timestamp"): string {
  if (typeof value === "string") {
    if (value.trim() === "" || value.length > 100) throw invalid(`${what} is not a time`);
    return wellFormed(value);
  }
  const date = typeof value === "number" ? new Date(value) : value;
  if (!(date instanceof Date)) throw invalid(`${what} must be a string, a Date or milliseconds`);
  const year = date.getUTCFullYear();
  if (!(year >= 1 && year <= 9999)) throw invalid(`${what} is not a time between the years 1 and 9999`);
  return date.toISOString();
}

/** A point of a journal. */
export function when(value: When): { sequence: number } | { time: string } {
  if (typeof value === "number") {
    return { sequence: integer(value, "a sequence number", 0, Number.MAX_SAFE_INTEGER) };
  }
  return { time: timestamp(value, "when") };
}

/** The turns of `add`. */
export function turns(messages: Messages, fallback: Timestamp | undefined): WireTurn[] {
  const list: readonly unknown[] = Array.isArray(messages) ? messages : [messages];
  if (list.length === 0) throw invalid("there is no message to remember");
  if (list.length > MAX_MESSAGES) {
    throw invalid(`${list.length} messages in one add; the limit is ${MAX_MESSAGES}`);
  }
  const at = timestamp(fallback ?? new Date());
  return list.map((message, place) =>
    turn(message, at, list.length > 1 ? `message ${place}` : "the message"),
  );
}

function turn(message: unknown, at: string, what: string): WireTurn {
  if (typeof message === "string") {
    return { role: "user", speaker: "user", content: text(message, what), timestamp: at };
  }
  if (typeof message !== "object" || message === null) {
    throw invalid(`${what} must be a string or { role, content }, not ${typeName(message)}`);
  }
  const { role, content, name, timestamp: time } = message as Record<string, unknown>;
  if (!ROLES.has(role)) throw invalid(`the role of ${what} must be "user", "assistant" or "system"`);
  const speaker = name === undefined || name === null ? String(role) : text(name, `the name of ${what}`);
  if (speaker.length > 256) throw invalid(`the name of ${what} is longer than 256 characters`);
  return {
    role: role as WireTurn["role"],
    speaker,
    content: text(content, what),
    timestamp: time === undefined || time === null ? at : timestamp(time as Timestamp),
  };
}

/** The caller's fields as JSON. */
export function metadata(value: Metadata | undefined): Metadata | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "object" || Array.isArray(value)) throw invalid("metadata must be an object");
  let json: string;
  try {
    json = JSON.stringify(value, (_, field: unknown) =>
      typeof field === "string" ? wellFormed(field) : field,
    );
  } catch (error) {
    throw invalid(`metadata must be JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (json.length > MAX_TEXT)
    throw invalid(`metadata has ${json.length} characters; the limit is ${MAX_TEXT}`);
  return JSON.parse(json) as Metadata;
}

/** Whose turns give facts. */
export function extractFrom(value: ExtractFrom | undefined): ExtractFrom | undefined {
  if (value === undefined || value === "user" || value === "all") return value;
  throw invalid(`extractFrom must be "user" or "all"`);
}

/** The most results. */
export function limit(options: Pick<SearchOptions, "topK" | "limit">): number | undefined {
  const value = options.topK ?? options.limit;
  return value === undefined ? undefined : integer(value, "topK", 1, 10_000);
}

/** A number of 0 to 1. */
export function unit(value: number | undefined, what: string): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !(value >= 0 && value <= 1)) throw invalid(`${what} must be 0 to 1`);
  return value;
}

/** A whole number in a range. */
export function integer(value: unknown, what: string, least: number, most: number): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least || value > most) {
    throw invalid(`${what} must be a whole number of ${least} to ${most}`);
  }
  return value;
}

/** An id of a memory. */
export function memoryId(value: unknown): string {
  if (typeof value !== "string" || value === "" || value.length > 128) {
    throw invalid("the id of a memory is a non-empty string");
  }
  return wellFormed(value);
}

/** The facts of the bare manager. */
export function facts(list: readonly string[]): string[] {
  if (!Array.isArray(list)) throw invalid("facts must be an array of strings");
  return list.map((fact) => text(fact, "a fact"));
}

/** The memories of the bare agents. */
export function memories(
  list: readonly BareMemory[],
): { id: string; memory: string; timestamp: string; speaker: string }[] {
  if (!Array.isArray(list)) throw invalid("memories must be an array");
  const now = new Date();
  return list.map((item: BareMemory) => ({
    id: memoryId(item?.id),
    memory: text(item.memory, "a memory"),
    timestamp: timestamp(item.timestamp ?? now),
    speaker: item.speaker === undefined ? "user" : text(item.speaker, "a speaker"),
  }));
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : typeof value;
}
