#!/bin/sh
# Runs every fuzz target from its seeds: fuzz/run.sh SECONDS, which is the time for each target.
# What crashes a target is copied to fuzz/crashes/<target>/, where tests/it/fuzz_replay.rs finds it; the script then fails.
set -eu

seconds=${1:?usage: fuzz/run.sh SECONDS}
cd "$(dirname "$0")/.."

if cargo +nightly --version >/dev/null 2>&1; then
    toolchain=+nightly
else
    # Without a sanitizer, stable needs no more than to be allowed the coverage flags.
    toolchain=
    export RUSTC_BOOTSTRAP=1
fi

failed=0
for target in process sequence short_way config ftp front stored; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    started=$(mktemp)
    # The seeds are read only; new inputs go to the corpus.
    # shellcheck disable=SC2086 # an empty toolchain is no argument
    cargo $toolchain fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -max_len=4096 || {
        failed=1
        mkdir -p "fuzz/crashes/$target"
        # Out-of-time and out-of-memory inputs are findings, too.
        find "fuzz/artifacts/$target" -type f -newer "$started" -exec cp {} "fuzz/crashes/$target/" \;
        echo "fuzz/run.sh: $target failed: see fuzz/crashes/$target/" >&2
    }
    rm -f "$started"
done
exit "$failed"
