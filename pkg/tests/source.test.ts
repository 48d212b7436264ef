import { describe, expect, it } from "vitest";
import { folderOf, readSource } from "../src/models/source.js";
import type { HubOptions } from "../src/types.js";

const hub = (model: string, options?: HubOptions) => {
  const source = readSource(model, options);
  if (source.kind !== "hub" && source.kind !== "url") throw new Error(source.kind);
  return folderOf(source);
};
const codeOf = (work: () => unknown): unknown => {
  try {
    work();
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
  return undefined;
};

describe("a model's name", () => {
  it("of the form owner/name is a repository of the hub", () => {
    expect(hub("Qwen/Qwen2.5-0.5B-Instruct")).toEqual({
      model: "Qwen/Qwen2.5-0.5B-Instruct",
      base: "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct/resolve/main/",
      raw: "https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct/raw/main/",
      token: null,
      fixed: false,
    });
  });

  it("may have a revision: a branch, a tag, a commit", () => {
    expect(hub("a/b@main").model).toBe("a/b");
    expect(hub("a/b@v1.0")).toMatchObject({
      model: "a/b@v1.0",
      base: "https://huggingface.co/a/b/resolve/v1.0/",
      fixed: false,
    });
    expect(hub("a/b@refs/pr/1").base).toBe("https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/");
    expect(hub(`a/b@${"0a".repeat(20)}`).fixed).toBe(true);
    for (const wrong of ["a/b@", "a/b@../x", "a/b@a b", "a/b@a\nb", `a/b@${"a".repeat(300)}`]) {
      expect(codeOf(() => readSource(wrong))).toBe("INVALID_ARGUMENT");
    }
  });

  it("of another form is nano or a URL", () => {
    expect(readSource("nano")).toEqual({ kind: "nano" });
    expect(hub("https://a.example/b").base).toBe("https://a.example/b/");
    expect(hub("https://a.example/b/?v=1#x").base).toBe("https://a.example/b/");
    for (const wrong of ["nothing", "a/b/c", "./a/b", "/a/b", "../a", "a/..", ""]) {
      expect(codeOf(() => readSource(wrong))).toBe("INVALID_ARGUMENT");
    }
  });

  it("is looked up at another endpoint, with a token", () => {
    expect(hub("a/b", { endpoint: "http://127.0.0.1:8080/hub/", token: "hf_x" })).toEqual({
      model: "a/b",
      base: "http://127.0.0.1:8080/hub/a/b/resolve/main/",
      raw: "http://127.0.0.1:8080/hub/a/b/raw/main/",
      token: "hf_x",
      fixed: false,
    });
    expect(hub("a/b", { endpoint: new URL("https://mirror.example") }).base).toBe(
      "https://mirror.example/a/b/resolve/main/",
    );
    const wrong = [
      "hub",
      { endpoint: "ftp://a.example" },
      { endpoint: "https://me:secret@a.example" },
      { endpoint: "nowhere" },
      { token: 7 },
      { token: "" },
      { token: "two words" },
      { token: "a\nb" },
    ];
    for (const options of wrong) {
      expect(codeOf(() => readSource("nano", options as never))).toBe("INVALID_ARGUMENT");
    }
  });

  it("that is wrong does not show the token in the sentence", () => {
    expect(() => readSource("a/b", { token: "hf_secret\n" })).toThrow(/^hub\.token must be a string/);
  });
});
