/** The shapes that the package's users see. No code lives here. */

import type { ErrorCode } from "./errors.js";

/** A moment: RFC 3339 or a date (`"2024-03-02"`), a `Date`, or milliseconds since 1970. */
export type Timestamp = string | number | Date;

/** Whose memory it is. At least one id is required; scopes never leak into each other. */
export interface Scope {
  userId?: string | undefined;
  agentId?: string | undefined;
  runId?: string | undefined;
}

/** The same scope in Mem0's Python spelling; both are accepted everywhere. */
export interface SnakeScope {
  user_id?: string | undefined;
  agent_id?: string | undefined;
  run_id?: string | undefined;
}

/** A scope as a caller may write it. */
export type ScopeInput = Scope & SnakeScope;

/** One message of a conversation. */
export interface Message {
  role: "user" | "assistant" | "system";
  content: string;
  /** The speaker; the role's name where it is left out. */
  name?: string | undefined;
  /** When it was said; the call's `timestamp`, or now, where it is left out. */
  timestamp?: Timestamp | undefined;
}

/** What `add` takes: one thing that the user said, a message, or a conversation. */
export type Messages = string | Message | readonly (string | Message)[];

/** The caller's own fields of a memory. */
export type Metadata = Record<string, unknown>;

/** The operations of the Memory Manager; `NONE` is the paper's NOOP. */
export type EventName = "ADD" | "UPDATE" | "DELETE" | "NONE";

/** One entry of the memory bank. */
export interface Memory {
  id: string;
  /** The statement. */
  memory: string;
  /** Whose statement it is, in a conversation of several. */
  speaker: string;
  createdAt: string;
  updatedAt: string;
  /** When it was last said. */
  observedAt: string;
  metadata: Metadata;
  userId?: string;
  agentId?: string;
  runId?: string;
}

/** A found memory. */
export interface ScoredMemory extends Memory {
  /** 0 to 1. */
  score: number;
  /** With `explain`: what the score is made of, and what the list is ordered by. */
  explanation?: Explanation;
}

/** Why a memory was found. */
export interface Explanation {
  /** The better of what the words say, `sum / (sum + 2)` of `bm25` and `nearness`, and the cosine. */
  score: number;
  /** The BM25 sum. */
  bm25: number;
  /** What the word vectors of the model's bundle add to it. */
  nearness?: number;
  /** The cosine of the sentence vectors, -1 to 1, with an encoder. */
  cosine?: number;
  /** The reciprocal ranks by words and by cosine together, with an encoder: they order the list. */
  fused?: number;
  /** What each shared word adds to `bm25`. */
  terms: { term: string; weight: number }[];
}

/** A list of memories, in Mem0's envelope. */
export interface MemoryList<T extends Memory = Memory> {
  results: T[];
}

/** Why an agent decided as it did. */
export interface Receipt {
  /** The turn that it was taken from. */
  turn: { role: string; speaker: string; content: string; timestamp: string };
  /** The fact that was taken out of the turn. */
  fact: string;
  /** The ids of the memories that the manager saw, in its order. */
  shown: string[];
  /** The fingerprint of the model's weights; empty where no model was asked. */
  model: string;
  /** The probability of the operation's name, 0 to 1. */
  probability: number;
  /** The probability of the id, where the operation has one. */
  idProbability?: number;
  /** How sure the extractor was of the fact: the geometric mean of its tokens' probabilities. */
  factProbability?: number;
  seed: number;
  /** True where the fact was already known, so that no model was asked. */
  known?: boolean;
}

/** One operation that was decided. */
export interface Decision {
  /** The memory that it touches; of a fact that is known, the one that says it; else null. */
  id: string | null;
  event: EventName;
  /** The text after (for DELETE the text that went; for NONE the fact). */
  memory: string;
  /** The text before, of UPDATE and DELETE. */
  previousMemory?: string;
  /** The fact that it was decided for. */
  fact: string;
  /** The probability of the operation's name, 0 to 1; 1 where no model was asked. */
  probability: number;
  /** Why; absent with `infer: false`. */
  receipt?: Receipt;
}

/** What `add` did, in order. */
export interface AddResult {
  results: Decision[];
}

/**
 * What `add` reports while it works. A decision is kept only when the whole `add` resolves.
 * `restarted`: another tab was faster, and the decisions so far are made again.
 */
export type AddProgress =
  | { type: "facts"; facts: string[] }
  | { type: "decision"; index: number; total: number; decision: Decision }
  | { type: "restarted" };

/** Options of calls that can be cancelled. */
export interface Cancellable {
  /** Cancels the call, which then throws `AbortError`; nothing is changed. */
  signal?: AbortSignal | undefined;
}

/** Options of `add`. */
export interface AddOptions extends ScopeInput, Cancellable {
  /** When it was said, for messages without a time of their own. Now by default. */
  timestamp?: Timestamp | undefined;
  /** What was said just before: it helps to understand the messages, and gives no facts. */
  context?: readonly (string | Message)[] | undefined;
  /** Put on each memory that is added. */
  metadata?: Metadata | undefined;
  /** False adds the text as it is, without the models. True by default. */
  infer?: boolean | undefined;
  /** Whose turns give facts: the user's (the default), or all. */
  extractFrom?: ExtractFrom | undefined;
  /** Each operation as it is decided. */
  onDecision?: ((decision: Decision, index: number, total: number) => void) | undefined;
  /** Everything that happens on the way: the facts, then each decision. */
  onEvent?: ((event: AddProgress) => void) | undefined;
}

/** Whose turns give facts. */
export type ExtractFrom = "user" | "all";

/** Options of `answer` and `answerStream`. */
export interface AnswerOptions extends ScopeInput, Cancellable {
  /** How many memories of a speaker the agent may see; the model's own number by default. */
  topK?: number | undefined;
}

/** An answer and what it stands on. */
export interface Answer {
  answer: string;
  /** The memories that the agent used. */
  memories: Memory[];
  /** All that it was shown. */
  candidates: Memory[];
}

/** A piece of an answer: text as it is written, then the whole. */
export type AnswerChunk = { type: "text"; text: string } | ({ type: "done"; text: "" } & Answer);

/** Options of `search`. */
export interface SearchOptions extends ScopeInput, Cancellable {
  /** Mem0's place for the scope. */
  filters?: ScopeInput | undefined;
  /** 20 by default. */
  topK?: number | undefined;
  /** Mem0's older name of `topK`. */
  limit?: number | undefined;
  /** The least score, by words or by cosine, whichever is more; 0 by default. */
  threshold?: number | undefined;
  /** Adds `explanation` to each result. */
  explain?: boolean | undefined;
}

/** Options of `getAll`. */
export interface GetAllOptions extends ScopeInput, Cancellable {
  filters?: ScopeInput | undefined;
  topK?: number | undefined;
  limit?: number | undefined;
}

/** Options of `delete`. */
export interface DeleteOptions extends Cancellable {
  /** Blank the text in every event, for ever. False by default: history is kept. */
  erase?: boolean | undefined;
}

/** One change of a journal. */
export interface HistoryEntry {
  /** Its place in its journal, from 1. */
  seq: number;
  /** The append that it came in. */
  batch: number;
  /** The journal's id. */
  journal: string;
  memoryId: string;
  event: "ADD" | "UPDATE" | "DELETE" | "ERASE";
  /** Who caused it. */
  cause: "agent" | "user" | "undo" | "import" | "erase";
  /** The text before; null where there was none; empty after an erasure. */
  previousMemory: string | null;
  /** The text after; null where it is gone. */
  memory: string | null;
  createdAt: string;
  /** The batch that an undo takes back. */
  undoes?: number;
  receipt?: Receipt;
}

/** A change between two states of a bank. */
export interface Change {
  id: string;
  event: "ADD" | "UPDATE" | "DELETE";
  memory: string | null;
  previousMemory: string | null;
}

/** What changed. */
export interface ChangeList {
  results: Change[];
}

/** A point of a journal: a sequence number (number), or a time (`Date` or text). */
export type When = number | string | Date;

/** What an import did. */
export interface ImportResult {
  /** Events that were new. */
  imported: number;
  /** Events that were there already. */
  skipped: number;
}

/** A memory as the bare manager takes it. */
export interface BareMemory {
  id: string;
  memory: string;
  /** When it was observed. */
  timestamp?: Timestamp | undefined;
  speaker?: string | undefined;
}

/** What the bare manager decided for a fact. */
export interface BareDecision {
  /** The memory that it would touch; null where it would add or change nothing. */
  id: string | null;
  event: EventName;
  /** The text after; of DELETE the text that would go, of NONE the fact. */
  memory: string;
  previousMemory?: string;
  fact: string;
  probability: number;
  idProbability?: number;
  /** True where the fact equals a memory, so that no model was asked. */
  known: boolean;
}

/** An answer of the bare answer agent. */
export interface BareAnswer {
  answer: string;
  /** The memories that it used, as they were given. */
  memories: BareMemory[];
}

/** Where `owner/name` is looked up. */
export interface HubOptions {
  /** The public Hugging Face hub by default; a mirror with the same URLs is as good. */
  endpoint?: string | URL | undefined;
  /** For repositories that are not for everybody: sent to the hub, and stored nowhere. */
  token?: string | undefined;
}

/** A model from a URL or the hub of which this browser keeps something. */
export interface KeptModel {
  /** As `create` and `models.delete` take it. */
  model: string;
  /** The room that it takes. */
  bytes: number;
  /** How many of its files are there, whole. */
  files: number;
  /** Whether all of them are: then it is used without a network. */
  complete: boolean;
  /** RFC 3339. */
  lastUsed: string;
}

/** Progress of loading; and, after it, of embedding many memories. */
export interface LoadProgress {
  /** `"embed"`: a call has to embed many memories first, because they are new or the encoder is another. */
  stage: "engine" | "download" | "model" | "device" | "check" | "ready" | "embed";
  /** Bytes so far, of `"embed"` memories; 0 where they do not say anything. */
  loaded: number;
  total: number;
  /** 0 to 1 over the whole of `create`; of `"embed"`, over that. */
  progress: number;
  /** A sentence for the user. */
  text: string;
  /** Where something went wrong that does not stop the loading: `QUOTA_EXCEEDED`, say. */
  code?: ErrorCode | undefined;
}

/** What runs, where and why. */
export interface Info {
  version: string;
  device: "webgpu" | "cpu";
  /** Why this device. */
  reason: string;
  /** The GPU, where one was found. */
  adapter: { vendor: string; architecture: string; description: string; software: boolean } | null;
  model: {
    name: string;
    fingerprint: string;
    promptFamily: "instruct" | "compact";
    contextLength: number;
    candidatesPerSpeaker: number;
    managerCandidates: number;
  };
  /** The sentence encoder that memories are found by; null with `"lexical"`. */
  embedder: { fingerprint: string; dimensions: number } | null;
  /** A few logits on this device against the bundle's constants. */
  selfCheck: { status: "passed" | "failed" | "skipped"; maxDifference: number | null };
  store: {
    kind: "indexeddb" | "memory" | "custom";
    name: string;
    /** What `navigator.storage.persist()` answered; null where it cannot be asked. */
    persisted: boolean | null;
  };
  worker: boolean;
  /** How often a broken worker was replaced. */
  restarts: number;
  seed: number;
}

/** Options of {@link MemoryR1.create}. */
export interface CreateOptions extends Cancellable {
  /**
   * `"nano"` (bundled), the URL of a bundle's folder, its files, or a repository of the Hugging Face hub,
   * `"owner/name"` or `"owner/name@revision"`: a bundle, or a plain model with its tokenizer. What comes
   * from a URL or the hub is kept in Cache Storage, see {@link KeptModel}.
   */
  model?: string | URL | Iterable<File> | undefined;
  hub?: HubOptions | undefined;
  /**
   * How memories are found. `"lexical"`, the default: by their words. The URL of a sentence encoder's folder, or its
   * repository on the hub (`"sentence-transformers/all-MiniLM-L6-v2"`), a BERT in the layout of Sentence
   * Transformers: by their sentence vectors too, the two rankings fused. The vectors are kept beside the journal;
   * another encoder makes them anew.
   */
  embedder?: "lexical" | (string & {}) | URL | undefined;
  /** `"indexeddb"` where there is one, else `"memory"`; or an object of yours. */
  store?: "indexeddb" | "memory" | Store | undefined;
  /** The database's name, `"memory-r1"`. */
  name?: string | undefined;
  /** `"auto"`: WebGPU on a real adapter, the CPU otherwise. */
  device?: "auto" | "webgpu" | "cpu" | undefined;
  /** Everything heavy in a module worker. True where there is `Worker`, false otherwise. */
  worker?: boolean | undefined;
  /** The sampler's seed and, with it, the journals' ids; random journals where it is left out. */
  seed?: number | undefined;
  /** Whose turns give facts, unless `add` says otherwise. */
  extractFrom?: ExtractFrom | undefined;
  onProgress?: ((progress: LoadProgress) => void) | undefined;
  /** Not for users: opens the hooks that the package's own fault tests need. */
  __test?: boolean | undefined;
}

/** One event of a journal, as a store keeps it: JSON that a store need not look into. */
export interface StoredEvent {
  v: number;
  journal: string;
  seq: number;
  batch: number;
  [field: string]: unknown;
}

/**
 * Where journals are kept. Every method may be async. Each call is all or nothing, and `append`
 * and `rewrite` reject with a {@link MemoryR1Error} `STORE_CONFLICT` (an object with
 * `code: "STORE_CONFLICT"` is enough) when the last sequence number is not `expected`.
 */
export interface Store {
  /** The scopes that have a journal. */
  scopes(): Promise<Scope[]> | Scope[];
  /** All events of the journal of exactly this scope, by `seq`; `[]` where there is none. */
  read(scope: Scope): Promise<StoredEvent[]> | StoredEvent[];
  /** Appends all of `events` if the journal's last `seq` is `expected` (0 for no journal). */
  append(scope: Scope, expected: number, events: StoredEvent[]): Promise<void> | void;
  /** Replaces the whole journal, so that no byte of the old one is left (erasure). */
  rewrite(scope: Scope, expected: number, events: StoredEvent[]): Promise<void> | void;
  /** Removes the scope's journal as if it had never been; whether there was one. */
  remove(scope: Scope): Promise<boolean> | boolean;
  close?(): Promise<void> | void;
}
