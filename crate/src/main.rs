//! The command `memory-r1`.

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    memory_r1::cli::main()
}

#[cfg(target_arch = "wasm32")]
fn main() {}
