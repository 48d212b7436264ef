import { defineConfig } from "vite";

export default defineConfig({
  // Relative addresses: the built page works from any folder of any server.
  base: "./",
  build: { target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
  // The package brings its worker and its wasm by `new URL(…, import.meta.url)`.
  optimizeDeps: { exclude: ["memory-r1"] },
});
