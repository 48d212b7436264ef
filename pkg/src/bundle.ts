/** Gets the files of a model bundle, of nano, of files that were chosen, of a URL, of the hub; and of an encoder. */

import { abortError, invalid, MemoryR1Error } from "./errors.js";
import { download } from "./models/download.js";
import { brokenFile, type Wanted } from "./models/integrity.js";
import { readManifest } from "./models/manifest.js";
import { type Network, PATIENCE } from "./models/network.js";
import { type OnBytes, Tally } from "./models/progress.js";
import { loadRemote } from "./models/remote.js";
import { folderOf } from "./models/source.js";
import { ENCODER, noManifest, readSmall, WEIGHTS } from "./models/survey.js";
import { readLocalFile } from "./platform.js";
import type { ModelSource, RemoteSource } from "./protocol.js";

/** The files of a bundle by their names. */
export type BundleFiles = Map<string, Uint8Array>;

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

/**
 * Gets every file of a model that the engine reads. What comes over the network from a URL or the hub
 * is checked, and kept where there is Cache Storage; of the rest the engine checks the hashes.
 * `patience` is for the tests.
 */
export async function loadBundle(
  source: ModelSource,
  onBytes: OnBytes,
  signal?: AbortSignal,
  patience: Partial<typeof PATIENCE> = {},
): Promise<BundleFiles> {
  const tally = new Tally(onBytes);
  const network = networkOf(tally, signal, patience);
  if (source.kind === "hub") return loadRemote(folderOf(source), network, tally);
  if (source.kind === "url" && /^https?:/i.test(source.url)) {
    return loadRemote(folderOf(source), network, tally);
  }
  return loadListed(opener(source, network, tally), tally);
}

/**
 * Gets every file of a sentence encoder in the layout of Sentence Transformers. What comes over the
 * network is kept as a model's files are.
 */
export async function loadEncoder(
  source: RemoteSource,
  onBytes: OnBytes,
  signal?: AbortSignal,
  patience: Partial<typeof PATIENCE> = {},
): Promise<BundleFiles> {
  const tally = new Tally(onBytes);
  const folder = folderOf(source);
  if (/^https?:/i.test(folder.base)) {
    return loadRemote(folder, networkOf(tally, signal, patience), tally, ENCODER);
  }
  const files: BundleFiles = new Map();
  const add = async (name: string) => {
    if (signal?.aborted) throw abortError(signal);
    const bytes = await readLocalFile(new URL(name, folder.base));
    if (bytes === null) throw invalid(`an encoder cannot be read from ${folder.base}`);
    files.set(name, bytes);
    tally.loaded(name, bytes.length);
  };
  for (const name of [...ENCODER.needed, WEIGHTS]) await add(name);
  for (const name of ENCODER.optional) await add(name).catch(unlessMissing);
  return files;
}

function unlessMissing(error: unknown): void {
  if (!(error instanceof MemoryR1Error) || error.code !== "NOT_REACHABLE") throw error;
}

function networkOf(
  tally: Tally,
  signal: AbortSignal | undefined,
  patience: Partial<typeof PATIENCE>,
): Network {
  return { headers: {}, signal, ...PATIENCE, ...patience, onNote: (text) => tally.say(text) };
}

type Open = (file: Wanted) => Promise<Uint8Array>;

/** Reads the manifest, then every file that it lists. */
async function loadListed(open: Open, tally: Tally): Promise<BundleFiles> {
  const files: BundleFiles = new Map();
  const add = async (file: Wanted) => {
    const bytes = await open(file);
    files.set(file.name, bytes);
    return bytes;
  };
  const manifest = await add({ name: "manifest.json" });
  const listed = readManifest(manifest);
  tally.expect(listed);
  tally.loaded("manifest.json", manifest.length);
  for (const file of listed) tally.loaded(file.name, (await add(file)).length);
  return files;
}

function opener(
  source: Extract<ModelSource, { kind: "nano" | "url" | "files" }>,
  network: Network,
  tally: Tally,
): Open {
  if (source.kind === "files") {
    const byName = new Map(source.files.map(({ name, data }) => [name, data]));
    return async ({ name }) => {
      const file = byName.get(name);
      if (file === undefined) throw brokenFile(name, "is not among the chosen files");
      if (network.signal?.aborted) throw abortError(network.signal);
      return new Uint8Array(await file.arrayBuffer());
    };
  }
  const base = source.kind === "url" ? folderOf(source).base : null;
  return async ({ name, size }) => {
    const url = base === null ? nanoUrl(name) : new URL(name, base);
    if (url === undefined) throw brokenFile(name, "is not shipped with the package");
    if (network.signal?.aborted) throw abortError(network.signal);
    const local = await readLocalFile(url);
    if (local !== null) return local;
    if (size === undefined) {
      const manifest = await readSmall(url, network, "default");
      if (manifest === null) throw noManifest(new URL(".", url).href);
      return manifest;
    }
    const onLoaded = (loaded: number) => tally.loaded(name, loaded);
    return (await download(url, { name, size }, { network, pieces: null, cache: "default", onLoaded })).bytes;
  };
}
