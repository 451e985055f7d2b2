#!/usr/bin/env bash
# Builds a static program, which runs on any Linux of this machine's kind: packaging/musl.sh
# Needs the standard library of Rust for musl, and musl-gcc (Debian: musl-tools) for the two parts that are C.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(uname -m)-unknown-linux-musl
cannot() { echo "no static build: $1" >&2; exit 1; }
[ "$(uname -s)" = Linux ] || cannot "musl is for Linux"
[ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ] ||
    cannot "$(rustc --version) has no standard library for $target: rustup target add $target"
command -v musl-gcc >/dev/null || cannot "there is no musl-gcc: apt-get install musl-tools"
env "CC_${target//-/_}=musl-gcc" cargo build --locked --release -p hobnob --target "$target"
built=${CARGO_TARGET_DIR:-target}/$target/release/hobnob
"$built" --version
! ldd "$built" 2>/dev/null | grep '=>' || cannot "$built wants libraries of the system"
ls -l "$built"
