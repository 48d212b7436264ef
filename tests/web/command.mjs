// The command line, for the tests that compare it with the page.
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const binary = process.env.MEMORY_R1_BIN ?? `${root}target/native/release/memory-r1`;

/** Runs `memory-r1 ...args` from the repository's root; gives its standard output. */
export function memoryR1(...args) {
  return execFileSync(binary, args, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "pipe"],
  });
}
