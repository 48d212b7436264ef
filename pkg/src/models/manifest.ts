/** `manifest.json`: which files a bundle has. */

import { MemoryR1Error } from "../errors.js";
import { asSha256, type Wanted } from "./integrity.js";

/** What the engine reads; licences and the like stay where they are. */
const READ = /\.safetensors$|\.jinja$|config\.json$|tokenizer\.json$|lexicon\.txt$/;
const NAME = /^[\w-][\w.-]*$/;

/** The files of a manifest that the engine reads, but itself; `MODEL_INTEGRITY` where it is none. */
export function readManifest(manifest: Uint8Array): Wanted[] {
  const { files } = readJson("manifest.json", manifest) as { files?: unknown };
  if (typeof files !== "object" || files === null) {
    throw new MemoryR1Error(
      "MODEL_INTEGRITY",
      "the bundle's manifest.json lists no files; get the bundle again",
    );
  }
  const entries = Object.entries(files as Record<string, { size?: unknown; sha256?: unknown } | null>);
  return entries
    .filter(([name]) => READ.test(name) && name !== "manifest.json")
    .map(([name, entry]) => {
      const size = entry?.size;
      if (!NAME.test(name) || typeof size !== "number" || !(size >= 0 && size < 2 ** 32)) {
        throw new MemoryR1Error(
          "MODEL_INTEGRITY",
          `the bundle's manifest.json lists ${JSON.stringify(name)} wrongly`,
        );
      }
      return { name, size, sha256: asSha256(entry?.sha256) };
    });
}

/** The shards that a `model.safetensors.index.json` lists, in order; `MODEL_INTEGRITY` where it is none. */
export function readIndex(name: string, index: Uint8Array): string[] {
  const { weight_map: map } = readJson(name, index) as { weight_map?: unknown };
  const shards = [...new Set(Object.values(typeof map === "object" && map !== null ? map : {}))].sort();
  if (shards.length === 0) {
    throw new MemoryR1Error("MODEL_INTEGRITY", `the model's ${name} lists no shards; get the model again`);
  }
  return shards.map((shard: unknown) => {
    if (typeof shard === "string" && NAME.test(shard) && shard.endsWith(".safetensors")) return shard;
    throw new MemoryR1Error("MODEL_INTEGRITY", `the model's ${name} lists ${JSON.stringify(shard)} wrongly`);
  });
}

function readJson(name: string, bytes: Uint8Array): object {
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return typeof value === "object" && value !== null ? value : {};
  } catch (error) {
    throw new MemoryR1Error("MODEL_INTEGRITY", `the bundle's ${name} is not JSON; get the bundle again`, {
      cause: error,
    });
  }
}
