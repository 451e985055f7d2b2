#!/usr/bin/env bash
# Counts what the hot path costs a server, in instructions, against what is written down in crates/proto/hot-path.txt: fails
# where one of them is more than 15 % higher, or is on one side alone. tests/instructions.sh [--record]
#   --record  writes down what is counted now
# Instructions are the same on a busy machine, and nearly the same from one machine to another: valgrind pretends to a
# processor with AES-NI and AVX2, and without what came later, wherever there is at least that. Another compiler counts
# otherwise; so the figures are written down again with it.
set -euo pipefail
cd "$(dirname "$0")/.."
figures=crates/proto/hot-path.txt
cannot() {
    echo "instructions are not counted: $1" >&2
    [ -n "${HOBNOB_REQUIRE_ALL-}" ] && exit 1
    exit 0
}
case "${1-}" in '' | --record) ;; *) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;; esac
[ "$(uname -sm)" = "Linux x86_64" ] || cannot "the figures are of x86-64 on Linux, and this is $(uname -sm)"
command -v valgrind >/dev/null || cannot "there is no valgrind: apt-get install valgrind"
# The profile of what is released, and no other flags, whatever else is set.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS
for name in "${!CARGO_PROFILE_RELEASE_@}"; do unset "$name"; done
cargo build --locked --release -p hobnob-sim --example hot_path
program=${CARGO_TARGET_DIR:-target}/release/examples/hot_path
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# instructions TAPE TURNS: of a server that takes so many turns.
instructions() {
    valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null "$program" replay "$1" "$2" 2>&1 |
        sed -n 's/.*I *refs: *//p' | tr -d ,
}

for scene in room cluster; do
    "$program" record "$work/$scene" "$scene" | while read -r name first last units; do
        before=$(instructions "$work/$scene" "$first") after=$(instructions "$work/$scene" "$last")
        echo "$name $(((after - before) / units))"
    done
done >"$work/now"

[ -s "$work/now" ] || { echo "nothing was counted" >&2; exit 1; }
compiler=$(rustc --version | cut -d' ' -f1,2)
recorded=$(sed -n 's/^#.* with \(rustc [0-9][^ ]*[0-9a-z]\)\.$/\1/p' "$figures" 2>/dev/null || true)
unit() { case "$1" in line | burst) echo delivery ;; quiet) echo second ;; esac }
bad=
while read -r name now; do
    was=$(awk -v name="$name" '$1 == name { print $2 }' "$figures" 2>/dev/null || true)
    percent=$((100 * now / ${was:-$now}))
    echo "$name: $now instructions a $(unit "$name"), ${was:+$percent % of the }${was:-none} that are written down"
    if [ -z "$was" ] || [ "$percent" -gt 115 ]; then bad="$bad $name"; fi
    if [ "$percent" -lt 85 ]; then echo "  15 % less: tests/instructions.sh --record"; fi
done <"$work/now"
if [ "${1-}" = --record ]; then
    {
        echo "# What a server does for a delivery of one line to 100 people, of a burst of 20 lines to them, and in a quiet second"
        echo "# among five servers: instructions, counted by tests/instructions.sh --record with $compiler."
        cat "$work/now"
    } >"$figures"
    exit
fi
missing=
while read -r name _; do
    grep -q "^$name " "$work/now" || missing="$missing $name"
done < <(grep '^[a-z]' "$figures")
if [ -n "$bad$missing" ]; then
    [ -z "$bad" ] || echo "over 15 % more than is written down, or not written down:$bad. docs/performance.md says how to see where they go." >&2
    [ -z "$missing" ] || echo "written down, and not counted:$missing." >&2
    if [ "$compiler" != "$recorded" ]; then
        echo "This is $compiler, and they were written down with ${recorded:-a compiler that is not named}: if nothing else" \
            "has changed, tests/instructions.sh --record" >&2
    fi
    exit 1
fi
