/** How far a model's files have come. */

import type { ErrorCode } from "../errors.js";
import type { Wanted } from "./integrity.js";

/** What a person who waits may want to know; `code` where something went wrong that stops nothing. */
export interface Note {
  text: string;
  code?: ErrorCode | undefined;
}

/** Bytes so far, of how many, and what there is to say. Bytes so far never shrink. */
export type OnBytes = (loaded: number, total: number, note?: Note) => void;

/** Adds up several files, one of which may begin anew. */
export class Tally {
  readonly #report: OnBytes;
  readonly #sizes = new Map<string, number>();
  readonly #loaded = new Map<string, number>();
  #most = 0;
  /** What is said from now on. */
  #note: Note | undefined;

  constructor(report: OnBytes) {
    this.#report = report;
  }

  /** The files that come, those of unknown size as if they were empty. */
  expect(files: readonly Wanted[]): void {
    for (const { name, size } of files) this.#sizes.set(name, size ?? 0);
  }

  /** How much of a file is there, and what to say if nothing else is said. */
  loaded(name: string, loaded: number, note?: Note): void {
    this.#loaded.set(name, loaded);
    this.#sizes.set(name, Math.max(this.#sizes.get(name) ?? 0, loaded));
    this.#send(this.#note ?? note);
  }

  /** Says something once. */
  say(text: string): void {
    this.#send({ text });
  }

  /** Says something from now on. */
  keepSaying(note: Note): void {
    this.#note = note;
    this.#send(note);
  }

  /** How many bytes all files have. */
  total(): number {
    return sum(this.#sizes);
  }

  #send(note: Note | undefined): void {
    this.#most = Math.max(this.#most, sum(this.#loaded));
    this.#report(this.#most, Math.max(this.#most, this.total()), note);
  }
}

function sum(numbers: Map<string, number>): number {
  return [...numbers.values()].reduce((total, one) => total + one, 0);
}
