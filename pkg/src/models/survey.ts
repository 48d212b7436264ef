/** Which files a model's folder has. */

import { MemoryR1Error } from "../errors.js";
import { asSha256, type Bytes, brokenFile, sha256, type Wanted } from "./integrity.js";
import { readIndex, readManifest } from "./manifest.js";
import { endedEarly, leastLength, type Network, request, wholeNumber, withRetries } from "./network.js";
import type { Folder } from "./source.js";

/** The files of a folder, and the content of those that had to be read to know the others. */
export interface Survey {
  files: Wanted[];
  bytes: Map<string, Bytes>;
}

/** Which files a folder without a manifest has, beside its weights. */
export interface Layout {
  needed: readonly string[];
  optional: readonly string[];
  /** `"never"`: there is no manifest. `"off the hub"`: only a hub's folder may be without one. */
  manifest: "never" | "off the hub";
}

/** A language model in Hugging Face's layout. */
export const LANGUAGE_MODEL: Layout = {
  needed: ["config.json", "tokenizer.json", "tokenizer_config.json"],
  optional: ["generation_config.json", "chat_template.jinja"],
  manifest: "off the hub",
};
/** A sentence encoder in the layout of Sentence Transformers, which has no manifest. */
export const ENCODER: Layout = {
  needed: ["config.json", "tokenizer.json"],
  optional: ["sentence_bert_config.json", "1_Pooling/config.json"],
  manifest: "never",
};
export const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/**
 * Asks for the manifest, and takes its list; a folder without one, as its layout allows, is looked through.
 * `MODEL_INTEGRITY` names a file that is needed and not there. `NOT_REACHABLE` where nothing answers.
 */
export async function survey(folder: Folder, network: Network, layout: Layout): Promise<Survey> {
  const found: Survey = { files: [], bytes: new Map() };
  if (layout.manifest !== "never" && (await add(found, folder, "manifest.json", network))) {
    found.files.push(...readManifest(found.bytes.get("manifest.json") ?? new Uint8Array()));
    return found;
  }
  if (folder.raw === null && layout.manifest === "off the hub") throw noManifest(folder.base);
  const names = [...layout.needed, ...layout.optional, WEIGHTS];
  const there = await Promise.all(names.map((name) => probe(folder, name, network)));
  found.files.push(...there.filter((file) => file !== null));
  for (const name of layout.needed) {
    if (!found.files.some((file) => file.name === name)) throw missing(folder, name);
  }
  if (there.at(-1) !== null) return found;
  if (!(await add(found, folder, INDEX, network))) throw missing(folder, `${WEIGHTS} (or ${INDEX})`);
  const shards = readIndex(INDEX, found.bytes.get(INDEX) ?? new Uint8Array());
  for (const shard of await Promise.all(shards.map((name) => probe(folder, name, network)))) {
    if (shard !== null) found.files.push(shard);
  }
  for (const name of shards) {
    if (!found.files.some((file) => file.name === name)) throw missing(folder, name);
  }
  return found;
}

/**
 * What the hub's pointer says of a large file: a browser that follows the hub to where such a file lies
 * does not see the headers that say it. Undefined where there is no pointer.
 */
export async function pointedAt(
  folder: Folder,
  name: string,
  network: Network,
): Promise<Pick<Wanted, "sha256" | "size"> | undefined> {
  if (folder.raw === null) return undefined;
  const url = new URL(name, folder.raw);
  const read = async (response: Response) => {
    const reader = response.body?.getReader();
    // The pointer is shorter than this; a file that has none comes itself, and need not come twice.
    return new TextDecoder().decode((await reader?.read())?.value?.subarray(0, 1024));
  };
  const text = await withRetries(network, () => request(url, { cache: "no-cache" }, network, read)).catch(
    (error: unknown) => {
      // Not every mirror has pointers.
      if (error instanceof MemoryR1Error) return null;
      throw error;
    },
  );
  const [, hash, size] = /^version \S+\noid sha256:([0-9a-f]{64})\nsize (\d+)\n/.exec(text ?? "") ?? [];
  return hash === undefined ? undefined : { sha256: hash, size: Number(size) };
}

/** A small file; null where it is not there. */
export function readSmall(url: URL, network: Network, cache: RequestCache): Promise<Bytes | null> {
  const read = async (response: Response) => {
    const bytes = new Uint8Array(await response.arrayBuffer());
    const least = leastLength(response.headers);
    if (bytes.length < least) throw endedEarly(url, bytes.length, least);
    return bytes;
  };
  return withRetries(network, () => request(url, { cache }, network, read));
}

/** `NOT_REACHABLE` of a folder that is none of a model. */
export function noManifest(base: string): MemoryR1Error {
  const why = `${base} has no manifest.json; look at the URL`;
  return new MemoryR1Error("NOT_REACHABLE", `the model cannot be downloaded: ${why}`);
}

/** Whether this is a file of weights: large, and never packed on its way. */
export function isWeights(name: string): boolean {
  return name.endsWith(".safetensors");
}

/** Reads a small file whole and adds it; false where it is not there. */
async function add(found: Survey, folder: Folder, name: string, network: Network): Promise<boolean> {
  const bytes = await readSmall(new URL(name, folder.base), network, "no-cache");
  if (bytes === null) return false;
  found.bytes.set(name, bytes);
  found.files.push({ name, size: bytes.length, sha256: await sha256(bytes) });
  return true;
}

/** What the server says of a file without sending it; null where it is not there. */
async function probe(folder: Folder, name: string, network: Network): Promise<Wanted | null> {
  const url = new URL(name, folder.base);
  const ask = (method: "HEAD" | "GET") =>
    withRetries(network, () =>
      request(url, { method, cache: "no-cache" }, network, async ({ ok, headers }) =>
        ok ? told(name, headers) : undefined,
      ),
    );
  const answer = await ask("HEAD");
  // A server that does not know HEAD is asked for the file, and stopped once it has said what it is.
  return answer === undefined ? ((await ask("GET")) ?? null) : answer;
}

function told(name: string, headers: Headers): Wanted {
  const isPlain = isWeights(name) && !headers.has("content-encoding");
  const length = isPlain ? wholeNumber(headers, "content-length") : undefined;
  return {
    name,
    size: wholeNumber(headers, "x-linked-size") ?? length,
    sha256: asSha256(headers.get("x-linked-etag")),
    etag: headers.get("etag") ?? undefined,
  };
}

function missing(folder: Folder, name: string): MemoryR1Error {
  return brokenFile(name, `is missing: ${folder.base} does not have it`);
}
