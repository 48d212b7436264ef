/** Whether a file is the one that was promised. */

import { MemoryR1Error } from "../errors.js";

/** Bytes that belong to this thread alone. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** A file of a model, and what is known of it before it comes. */
export interface Wanted {
  name: string;
  /** In bytes, exactly. */
  size?: number | undefined;
  /** 64 lower-case hexadecimal digits. */
  sha256?: string | undefined;
  /** The server's `ETag` when it was asked about the file. */
  etag?: string | undefined;
}

/** `text` as a sha256, without quotes; undefined where it is something else. */
export function asSha256(text: unknown): string | undefined {
  if (typeof text !== "string") return undefined;
  return /^"?([0-9a-f]{64})"?$/i.exec(text)?.[1]?.toLowerCase();
}

/** The sha256 of `bytes`; undefined in a page without a secure context, which cannot compute one. */
export async function sha256(bytes: Bytes): Promise<string | undefined> {
  const { crypto } = globalThis as { crypto?: Crypto };
  if (crypto?.subtle === undefined) return undefined;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** `MODEL_INTEGRITY` of one file. */
export function brokenFile(name: string, why: string): MemoryR1Error {
  return new MemoryR1Error("MODEL_INTEGRITY", `the bundle's file ${name} ${why}; get the bundle again`);
}

/** How many bytes there are, and how many there should be. */
export function wrongSize(name: string, size: number, wanted: number): MemoryR1Error {
  return brokenFile(name, `has ${size} bytes instead of ${wanted}`);
}

/** `QUOTA_EXCEEDED` of the memory that a file needs. */
export function noMemory(name: string, size: number, cause: unknown): MemoryR1Error {
  return new MemoryR1Error(
    "QUOTA_EXCEEDED",
    `the model's file ${name} needs ${size} bytes of memory, more than there are; close other pages, or take a smaller model`,
    { cause },
  );
}
