/** The stable codes of {@link MemoryR1Error}. */
export type ErrorCode =
  | "NO_WEBGPU"
  | "DEVICE_LOST"
  | "MODEL_INTEGRITY"
  | "MODEL_UNSUPPORTED"
  | "NOT_REACHABLE"
  | "QUOTA_EXCEEDED"
  | "STORE_BLOCKED"
  | "STORE_CORRUPT"
  | "STORE_CONFLICT"
  | "STORE_FAILED"
  | "INVALID_ARGUMENT"
  | "NOT_FOUND"
  | "CONTEXT_OVERFLOW"
  | "MALFORMED_OUTPUT"
  | "INTERNAL";

const CODES: ReadonlySet<string> = new Set<ErrorCode>([
  "NO_WEBGPU",
  "DEVICE_LOST",
  "MODEL_INTEGRITY",
  "MODEL_UNSUPPORTED",
  "NOT_REACHABLE",
  "QUOTA_EXCEEDED",
  "STORE_BLOCKED",
  "STORE_CORRUPT",
  "STORE_CONFLICT",
  "STORE_FAILED",
  "INVALID_ARGUMENT",
  "NOT_FOUND",
  "CONTEXT_OVERFLOW",
  "MALFORMED_OUTPUT",
  "INTERNAL",
]);

/** Every failure but a cancellation: a stable code, a sentence that says what to do, a cause. */
export class MemoryR1Error extends Error {
  override readonly name = "MemoryR1Error";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** `INVALID_ARGUMENT`. */
export function invalid(message: string): MemoryR1Error {
  return new MemoryR1Error("INVALID_ARGUMENT", message);
}

/** What a cancelled call throws: the signal's own reason, or a `DOMException` named `AbortError`. */
export function abortError(signal?: AbortSignal): unknown {
  const reason: unknown = signal?.reason;
  if (isNamed(reason, "AbortError") || isNamed(reason, "TimeoutError")) return reason;
  return new DOMException("the operation was cancelled; nothing was changed", "AbortError");
}

/** An error as it crosses the border to a worker or from Rust. */
export interface WireError {
  code: string;
  message: string;
  cause?: string;
}

/** Any thrown value as plain data. */
export function toWire(error: unknown): WireError {
  const fields = isObject(error) ? error : {};
  const message = typeof fields.message === "string" ? fields.message : String(error);
  const cause = fields.cause === undefined ? undefined : describe(fields.cause);
  if (isNamed(error, "AbortError") || fields.code === "ABORTED") {
    return { code: "ABORTED", message };
  }
  if (typeof fields.code === "string" && CODES.has(fields.code)) {
    return { code: fields.code, message, ...(cause === undefined ? {} : { cause }) };
  }
  if (isNamed(error, "QuotaExceededError")) return { code: "QUOTA_EXCEEDED", message };
  return { code: "INTERNAL", message, cause: describe(error) };
}

/** The inverse of {@link toWire}; a cancellation becomes an `AbortError`. */
export function fromWire(wire: WireError, signal?: AbortSignal): unknown {
  if (wire.code === "ABORTED") return abortError(signal);
  const code = CODES.has(wire.code) ? (wire.code as ErrorCode) : "INTERNAL";
  return new MemoryR1Error(code, wire.message, wire.cause === undefined ? undefined : { cause: wire.cause });
}

/** Any thrown value as what a user of the package may see. */
export function toPublic(error: unknown, signal?: AbortSignal): unknown {
  if (error instanceof MemoryR1Error) return error;
  return fromWire(toWire(error), signal);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isNamed(value: unknown, name: string): boolean {
  return isObject(value) && value.name === name;
}

function describe(value: unknown): string {
  if (isObject(value) && typeof value.message === "string") {
    return typeof value.name === "string" ? `${value.name}: ${value.message}` : value.message;
  }
  return String(value);
}
