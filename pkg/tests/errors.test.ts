import { describe, expect, it } from "vitest";
import { abortError, fromWire, MemoryR1Error, toPublic, toWire } from "../src/errors.js";

describe("errors", () => {
  it("keep code, sentence and cause across a border", () => {
    const error = new MemoryR1Error("STORE_CONFLICT", "try again", { cause: new TypeError("why") });
    const wire = structuredClone(toWire(error));
    expect(wire).toEqual({ code: "STORE_CONFLICT", message: "try again", cause: "TypeError: why" });
    const back = fromWire(wire) as MemoryR1Error;
    expect(back).toBeInstanceOf(MemoryR1Error);
    expect([back.name, back.code, back.message, back.cause]).toEqual([
      "MemoryR1Error",
      "STORE_CONFLICT",
      "try again",
      "TypeError: why",
    ]);
  });

  it("from the engine are recognised by their code", () => {
    const engines = Object.assign(new Error("no such memory"), { code: "NOT_FOUND" });
    expect(toPublic(engines)).toMatchObject({ code: "NOT_FOUND", message: "no such memory" });
  });

  it("that nobody expected are INTERNAL, with their cause", () => {
    expect(toPublic(new TypeError("x is undefined"))).toMatchObject({
      code: "INTERNAL",
      cause: "TypeError: x is undefined",
    });
    expect(toPublic("text")).toMatchObject({ code: "INTERNAL", message: "text" });
    expect(toPublic({ code: "ENOENT", message: "no file" })).toMatchObject({ code: "INTERNAL" });
  });

  it("of a full disk are QUOTA_EXCEEDED", () => {
    expect(toPublic(new DOMException("full", "QuotaExceededError"))).toMatchObject({
      code: "QUOTA_EXCEEDED",
    });
  });

  it("of a cancellation are an AbortError, or the caller's own reason", () => {
    const plain = fromWire({ code: "ABORTED", message: "" });
    expect(plain).toBeInstanceOf(DOMException);
    expect((plain as DOMException).name).toBe("AbortError");
    const timeout = new DOMException("late", "TimeoutError");
    expect(abortError(AbortSignal.abort(timeout))).toBe(timeout);
    expect(abortError(AbortSignal.abort("because"))).toMatchObject({ name: "AbortError" });
    expect(toWire(new DOMException("", "AbortError")).code).toBe("ABORTED");
  });
});
