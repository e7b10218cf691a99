#!/bin/sh
# Runs every fuzz target from its seeds: fuzz/run.sh SECONDS, the time for each target; 0 builds the
# targets alone. As many targets run at a time as the machine has processors. An input that crashes a target is copied to
# fuzz/crashes/<target>/, where tests/it/fuzz_replay.rs finds it; the script then fails.
set -eu

seconds=${1:?usage: fuzz/run.sh SECONDS}
cd "$(dirname "$0")/.."

if cargo +nightly --version >/dev/null 2>&1; then
    toolchain=+nightly
else
    # Without a sanitizer, stable only has to be allowed the coverage flags.
    toolchain=
    export RUSTC_BOOTSTRAP=1
fi

# shellcheck disable=SC2086 # an empty toolchain is no argument
cargo $toolchain fuzz build --sanitizer none
[ "$seconds" -gt 0 ] || exit 0

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Runs one target. Prints the end of its output; the whole output if it fails.
run() {
    target=$1
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    touch "$logs/$target.started"
    # The seeds are read only; new inputs go to the corpus.
    # shellcheck disable=SC2086 # an empty toolchain is no argument
    if cargo $toolchain fuzz run --sanitizer none "$target" \
        "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -max_len=4096 >"$logs/$target" 2>&1; then
        echo "$target: $(tail -n 1 "$logs/$target")"
        touch "$logs/$target.passed"
    else
        mkdir -p "fuzz/crashes/$target"
        # Inputs that exceed the time or the memory are findings, too.
        find "fuzz/artifacts/$target" -type f -newer "$logs/$target.started" \
            -exec cp {} "fuzz/crashes/$target/" \;
        cat "$logs/$target"
        echo "fuzz/run.sh: $target failed: see fuzz/crashes/$target/" >&2
    fi
}

# Each of these loops takes every nth target.
targets=$(cargo fuzz list)
loops=$(nproc)
loop=0
while [ "$loop" -lt "$loops" ]; do
    (
        place=0
        for target in $targets; do
            [ $((place % loops)) -ne "$loop" ] || run "$target"
            place=$((place + 1))
        done
    ) &
    loop=$((loop + 1))
done
wait
for target in $targets; do
    [ -e "$logs/$target.passed" ]
done
