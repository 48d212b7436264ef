import { existsSync } from "node:fs";
import { defineConfig } from "@playwright/test";

const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser"].find(
  (path) => path && existsSync(path),
);

// What a headless Chromium needs for WebGPU on its software adapter, and nothing from the network.
export const quiet = [
  "--headless=new",
  "--no-sandbox",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
  "--no-first-run",
  "--disable-dev-shm-usage",
];
export const softwareWebGpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

const launch = (args) => ({
  launchOptions: { executablePath, args, ignoreDefaultArgs: ["--headless", "--enable-unsafe-swiftshader"] },
});

export default defineConfig({
  testDir: "web",
  outputDir: "artifacts/playwright",
  reporter: [["list"]],
  workers: 1,
  retries: 0,
  timeout: 240_000,
  expect: { timeout: 60_000 },
  use: { baseURL: "http://localhost:5173/", trace: "retain-on-failure" },
  webServer: {
    command: "npm run --silent preview --workspace www",
    cwd: "..",
    url: "http://localhost:5173/",
    reuseExistingServer: !process.env.CI,
  },
  projects: [
    { name: "cpu", testIgnore: /webgpu/, use: launch(quiet) },
    { name: "webgpu", testMatch: /webgpu/, use: launch([...quiet, ...softwareWebGpu]) },
  ],
});
