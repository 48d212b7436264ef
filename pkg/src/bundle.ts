/** Gets the files of a model bundle. The engine checks their hashes. */

import { abortError, MemoryR1Error } from "./errors.js";
import { readLocalFile } from "./platform.js";
import type { ModelSource } from "./protocol.js";

/** The files of a bundle by their names. */
export type BundleFiles = Map<string, Uint8Array>;

/** Bytes so far, of how many. */
export type OnBytes = (loaded: number, total: number) => void;

/** The files of nano, each named in full so that a bundler finds and ships them. */
function nanoUrl(name: string): URL | undefined {
  switch (name) {
    case "manifest.json":
      return new URL("../models/nano/manifest.json", import.meta.url);
    case "config.json":
      return new URL("../models/nano/config.json", import.meta.url);
    case "tokenizer.json":
      return new URL("../models/nano/tokenizer.json", import.meta.url);
    case "tokenizer_config.json":
      return new URL("../models/nano/tokenizer_config.json", import.meta.url);
    case "lexicon.txt":
      return new URL("../models/nano/lexicon.txt", import.meta.url);
    case "word_vectors.safetensors":
      return new URL("../models/nano/word_vectors.safetensors", import.meta.url);
    case "model.safetensors":
      return new URL("../models/nano/model.safetensors", import.meta.url);
    case "extractor_config.json":
      return new URL("../models/nano/extractor_config.json", import.meta.url);
    case "extractor_lexicon.txt":
      return new URL("../models/nano/extractor_lexicon.txt", import.meta.url);
    case "extractor.safetensors":
      return new URL("../models/nano/extractor.safetensors", import.meta.url);
    default:
      return undefined;
  }
}

/** What the engine reads; licences and the like stay where they are. */
const READ = /\.safetensors$|\.jinja$|config\.json$|tokenizer\.json$|lexicon\.txt$/;

interface Listed {
  name: string;
  size: number;
}

/** Reads the manifest, then every file that it lists. */
export async function loadBundle(
  source: ModelSource,
  onBytes: OnBytes,
  signal?: AbortSignal,
): Promise<BundleFiles> {
  const open = opener(source, signal);
  const manifest = await open("manifest.json", () => {});
  const listed = readList(manifest);
  const total = listed.reduce((sum, file) => sum + file.size, manifest.length);
  let done = manifest.length;
  onBytes(done, total);
  const files: BundleFiles = new Map([["manifest.json", manifest]]);
  for (const { name, size } of listed) {
    if (name === "manifest.json") continue;
    const bytes = await open(name, (loaded) => onBytes(done + Math.min(loaded, size), total), size);
    files.set(name, bytes);
    done += size;
    onBytes(done, total);
  }
  return files;
}

type Open = (name: string, onLoaded: (loaded: number) => void, size?: number) => Promise<Uint8Array>;

function opener(source: ModelSource, signal: AbortSignal | undefined): Open {
  if (source.kind === "files") {
    const byName = new Map(source.files.map(({ name, data }) => [name, data]));
    return async (name) => {
      const file = byName.get(name);
      if (file === undefined) throw missing(name, "is not among the chosen files");
      if (signal?.aborted) throw abortError(signal);
      return new Uint8Array(await file.arrayBuffer());
    };
  }
  const base =
    source.kind === "url" ? new URL(source.url.endsWith("/") ? source.url : `${source.url}/`) : null;
  return (name, onLoaded, size) => {
    const url = base === null ? nanoUrl(name) : new URL(name, base);
    if (url === undefined) throw missing(name, "is not shipped with the package");
    return download(url, name, onLoaded, size, signal);
  };
}

async function download(
  url: URL,
  name: string,
  onLoaded: (loaded: number) => void,
  size: number | undefined,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  if (signal?.aborted) throw abortError(signal);
  const local = await readLocalFile(url);
  if (local !== null) return local;
  try {
    const response = await fetch(url, signal === undefined ? {} : { signal });
    if (!response.ok) {
      const status = `${url.href} answered ${response.status}`;
      // The manifest says that the file is there: the bundle is broken, not the network.
      if (response.status === 404 && name !== "manifest.json") throw missing(name, `is missing: ${status}`);
      throw new MemoryR1Error("NOT_REACHABLE", `the model cannot be downloaded: ${status}`);
    }
    return await readBody(response, onLoaded, size);
  } catch (error) {
    if (signal?.aborted) throw abortError(signal);
    if (error instanceof MemoryR1Error) throw error;
    throw new MemoryR1Error("NOT_REACHABLE", `the model cannot be downloaded from ${url.href}`, {
      cause: error,
    });
  }
}

/** The bytes of an answer, counted as they come. `size` is a hint. */
export async function readBody(
  response: Response,
  onLoaded: (loaded: number) => void,
  size?: number,
): Promise<Uint8Array> {
  if (response.body === null) return new Uint8Array(await response.arrayBuffer());
  let bytes = new Uint8Array(size ?? 65_536);
  let loaded = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (loaded + value.length > bytes.length) {
      const larger = new Uint8Array(Math.max(bytes.length * 2, loaded + value.length));
      larger.set(bytes.subarray(0, loaded));
      bytes = larger;
    }
    bytes.set(value, loaded);
    loaded += value.length;
    onLoaded(loaded);
  }
  return loaded === bytes.length ? bytes : bytes.slice(0, loaded);
}

function readList(manifest: Uint8Array): Listed[] {
  let files: unknown;
  try {
    files = (JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(manifest)) as { files?: unknown })
      ?.files;
  } catch (error) {
    throw new MemoryR1Error(
      "MODEL_INTEGRITY",
      "the bundle's manifest.json is not JSON; get the bundle again",
      {
        cause: error,
      },
    );
  }
  if (typeof files !== "object" || files === null) {
    throw new MemoryR1Error(
      "MODEL_INTEGRITY",
      "the bundle's manifest.json lists no files; get the bundle again",
    );
  }
  const entries = Object.entries(files as Record<string, { size?: unknown } | null>);
  return entries
    .filter(([name]) => READ.test(name))
    .map(([name, entry]) => {
      const size = entry?.size;
      if (!/^[\w-][\w.-]*$/.test(name) || typeof size !== "number" || !(size >= 0 && size < 2 ** 32)) {
        throw new MemoryR1Error(
          "MODEL_INTEGRITY",
          `the bundle's manifest.json lists ${JSON.stringify(name)} wrongly`,
        );
      }
      return { name, size };
    });
}

function missing(name: string, why: string): MemoryR1Error {
  return new MemoryR1Error("MODEL_INTEGRITY", `the bundle's file ${name} ${why}; get the bundle again`);
}
