// What a page downloads: raw, in gzip and in brotli. Fails over the limit of 2 MiB in brotli.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const LIMIT = 2 * 1024 * 1024;
const root = new URL("../pkg/", import.meta.url);
const brotli = (bytes) =>
  brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: 11,
      [constants.BROTLI_PARAM_LGWIN]: 24,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });

const files = ["wasm", "dist"].flatMap((folder) =>
  readdirSync(new URL(`${folder}/`, root), { recursive: true })
    .map((name) => `${folder}/${name}`)
    .filter((name) => /\.(wasm|js)$/.test(name) && statSync(new URL(name, root)).isFile()),
);
let total = 0;
for (const name of files) {
  const bytes = readFileSync(new URL(name, root));
  const packed = brotli(bytes).length;
  total += packed;
  if (bytes.length > 20_000) {
    console.log(
      `${name}: ${bytes.length} raw, ${gzipSync(bytes, { level: 9 }).length} gzip, ${packed} brotli`,
    );
  }
}
console.log(`${files.length} files: ${total} bytes in brotli, of at most ${LIMIT}`);
if (total > LIMIT) process.exit(1);
