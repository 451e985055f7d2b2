#!/usr/bin/env bash
# Breaks a real cluster again and again, and checks after each time that nothing that was stored is lost, shown twice or in
# another order. tests/chaos.sh [--cycles N] [--seed S] [--results FILE] [--resume]
#   --cycles N      so many cycles in all (default 20)
#   --seed S        draws the same faults as another run with that seed
#   --results FILE  a JSON object for each cycle (default target/chaos.jsonl; begun anew without --resume)
#   --resume        goes on where the results end, with their seed
# As root on Linux servers are on machines of their own (network namespaces), and cables are cut too.
set -euo pipefail
cd "$(dirname "$0")/.."
cycles=20 seed=$$ results=${CARGO_TARGET_DIR:-target}/chaos.jsonl resume=
while [ $# -gt 0 ]; do
    case "$1" in
        --cycles) cycles=$2; shift 2 ;;
        --seed) seed=$2; shift 2 ;;
        --results) results=$2; shift 2 ;;
        --resume) resume=1; shift ;;
        *) sed -n '2,9s/^# //p' "$0" >&2; exit 2 ;;
    esac
done
mkdir -p "$(dirname "$results")"
done=0
if [ -n "$resume" ] && [ -s "$results" ]; then
    done=$(wc -l <"$results")
    seed=$(sed -n '1s/.*"seed":\([0-9]*\).*/\1/p' "$results")
else
    : >"$results"
fi
echo "seed $seed, $done of $cycles cycles done, results in $results"
code=0
if [ "$done" -lt "$cycles" ]; then
    HOBNOB_TEST_SEED=$seed HOBNOB_CHAOS_FROM=$((done + 1)) HOBNOB_CHAOS_CYCLES=$((cycles - done)) \
        HOBNOB_CHAOS_RESULTS=$(realpath "$results") \
        cargo test --locked ${HOBNOB_CHAOS_PROFILE---release} -p hobnob --test chaos -- --nocapture whatever_happens || code=$?
fi
sum() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$results" | awk '{ all += $1 } END { print all + 0 }'; }
longest=$(sed -n 's/.*"longest_ms":\([0-9]*\).*/\1/p' "$results" | sort -n | tail -1)
bad=$(grep -c '"good":false' "$results" || true)
echo "$(wc -l <"$results") cycles, $(sum said) messages, $(sum stored) stored, $(sum lost) lost, $(sum doubled) doubled," \
    "$bad failed; the longest time without word ${longest:-0} ms"
[ "$code" = 0 ] && [ "$bad" = 0 ]
