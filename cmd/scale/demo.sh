#!/usr/bin/env bash
# The demonstration behind "make demo": puts the source tree of the installed Go
# toolchain into a temporary store, gets it back, proves parts of it, verifies the
# proofs where there is nothing but the log's public key, and is refused for one
# changed byte. Fails if any of it is not so. Usage: demo.sh SCALE-BINARY
set -euo pipefail

bin=$(realpath "${1:?usage: demo.sh SCALE-BINARY}")
tree=$(realpath "$(go env GOROOT)/src")
work=$(mktemp -d)
# Directories come back with their own permissions, which may keep them from being removed.
trap 'rm -rf "$work" 2>/dev/null || { chmod -R u+rwX "$work" && rm -rf "$work"; }' EXIT

export SCALE_STORE=$work/store XDG_CACHE_HOME=$work/cache
scale() { "$bin" "$@"; }

step=0
say() { step=$((step + 1)); printf '\n%d. %s\n' "$step" "$*"; }
# show COMMAND...: prints a command with the paths short, and runs it.
exec 3>&1
show() { printf '$%s\n' "$(printf ' %s' "$@" | sed "s|$work/||g")" >&3; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# field NAME: a number or string out of a line of JSON.
field() { sed -E "s/.*\"$1\":\"?([^\",}]*).*/\1/"; }
size() { stat -c %s "$1"; }
mb() { awk -v n="$1" 'BEGIN { printf "%.1f MB", n / 1e6 }'; }

say "Make a store. It prints the log's public key, all that a verifier needs."
vkey=$(show scale init --origin demo.example/scale)
echo "$vkey"

say "Put $tree."
put=$(show scale put "$tree" --name go-src --json)
files=$(field files <<<"$put") cid=$(field cid <<<"$put")
printf '%s\n%d files, %s, %s stored, in %.1f s\n' "$cid" "$files" \
	"$(mb "$(field size <<<"$put")")" "$(mb "$(field stored_bytes <<<"$put")")" "$(field seconds <<<"$put")"
[ "$files" -ge 5000 ] || fail "only $files files were stored, at least 5000 were to be"

say "Put it again: nothing is stored, and the ledger does not grow."
put=$(show scale put "$tree" --name go-src --json)
printf 'unchanged: %s, new bytes: %s\n' "$(field unchanged <<<"$put")" "$(field new_bytes <<<"$put")"
[ "$(field unchanged <<<"$put")" = true ] || fail "the same tree was recorded twice"

say "List the store, and what is in the dataset."
show scale ls
show scale ls go-src >"$work/list"
sed -n '1,3p' "$work/list"
echo "... $(wc -l <"$work/list") names"

say "Get it back and compare every file."
show scale get go-src -o "$work/back"
show diff -r --no-dereference "$tree" "$work/back"
echo "no difference"

say "Prove one file, and a range of bytes of another."
largest=$(cd "$tree" && find . -name '*.go' -type f -printf '%s %P\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
mkdir "$work/elsewhere"
show scale prove go-src/fmt/print.go -o "$work/elsewhere/file.tlog-proof"
show scale prove "go-src/$largest" --range 100K:110K -o "$work/elsewhere/range.tlog-proof" --data "$work/elsewhere/range.bin"
cp "$tree/fmt/print.go" "$work/elsewhere/"
echo "the proofs take $(size "$work/elsewhere/file.tlog-proof") and $(size "$work/elsewhere/range.tlog-proof") bytes; the range is of a file of $(size "$tree/$largest")"

say "Verify both in a directory without a store, with nothing but the public key."
cd "$work/elsewhere"
unset SCALE_STORE
export XDG_DATA_HOME=$work/none HOME=$work/none
show scale verify file.tlog-proof print.go --key "$vkey"
show scale verify range.tlog-proof range.bin --key "$vkey"
[ ! -e "$work/none" ] || fail "verifying made a store"

say "Change one byte: verification refuses, and says why."
# refused COMMAND...: the command must exit with 4, "verification refused".
refused() {
	local code=0
	show "$@" || code=$?
	[ "$code" = 4 ] || fail "exit code $code instead of 4"
	echo "refused: exit code 4"
}
# flip FILE OFFSET: changes one bit there.
flip() {
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
flip print.go 1000
refused scale verify file.tlog-proof print.go --key "$vkey" 2>&1
flip range.bin 5000
refused scale verify range.tlog-proof range.bin --key "$vkey" 2>&1

say "Have the store recompute everything that it holds."
SCALE_STORE=$work/store show scale check --read-data

printf '\nAll of it held, in %d s.\n' "$SECONDS"
