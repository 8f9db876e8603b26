#!/usr/bin/env bash
# The demonstration behind "make demo-anchored": starts both chains of the local network,
# puts data, has it anchored on both, proves it, asks the chains for the proof, and then
# rebuilds the ledger from Arweave alone. Fails if any of it is not so.
# Usage: demo-anchored.sh SCALE-BINARY DEVNET-BINARY
set -euo pipefail

usage='usage: demo-anchored.sh SCALE-BINARY DEVNET-BINARY'
bin=$(realpath "${1:?$usage}") devnet=$(realpath "${2:?$usage}")
work=$(mktemp -d)
chains=
finish() {
	if [ -n "$chains" ]; then
		kill "$chains" 2>/dev/null || true
		wait "$chains" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap finish EXIT

export SCALE_STORE=$work/store XDG_CACHE_HOME=$work/cache
scale() { "$bin" "$@"; }
step=0
say() { step=$((step + 1)); printf '\n%d. %s\n' "$step" "$*"; }
# show COMMAND...: prints a command with the paths short, and runs it.
exec 3>&1
show() { printf '$%s\n' "$(printf ' %s' "$@" | sed "s|$work/||g")" >&3; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# field NAME: a number or string out of a line of JSON.
field() { sed -E "s/.*\"$1\": ?\"?([^\",}]*).*/\1/"; }

say "Start a K2-like chain and an Arweave gateway on this machine, and wallets with money."
"$devnet" -slot 100ms -block 1s -out "$work/devnet" >"$work/devnet.log" 2>&1 &
chains=$!
until [ -e "$work/devnet/devnet.json" ]; do
	kill -0 "$chains" 2>/dev/null || { cat "$work/devnet.log" >&2; fail "the chains did not start; make deps installs what they need"; }
	sleep 0.1
done
chain() { grep "\"$1\"" "$work/devnet/devnet.json" | field "$1"; }
k2=$(chain k2_rpc) gateway=$(chain arweave_gateway)
echo "K2 at $k2, Arweave at $gateway"

say "Make a store and put something."
mkdir "$work/photos"
echo 'not really a photo' >"$work/photos/a.jpg"
seq 100000 >"$work/photos/numbers.txt"
show scale init --origin demo.example/anchored >"$work/log.vkey"
show scale put "$work/photos"

say "Configure both chains. What becomes public on Arweave, for ever, is listed first."
show scale anchor configure k2 --rpc "$k2" --wallet "$(chain k2_wallet)"
show scale anchor configure arweave --gateway "$gateway" --wallet "$(chain arweave_wallet)" --confirmations 3 --poll 500ms --yes

say "Anchor it, and wait until both anchors are final."
show scale anchor now --wait final --timeout 3m

say "Put more and anchor that too: the next extension holds only what is new."
echo 'another one' >"$work/photos/b.jpg"
show scale put "$work/photos"
show scale anchor now --wait final --timeout 3m >"$work/anchors"
cat "$work/anchors"
show scale anchor balance

say "Prove it. The proof carries the receipts of both chains."
show scale prove photos --anchored --anchors all -o "$work/photos.tlog-proof"

say "Verify it where there is nothing but the public key: the receipts are sound, the time is claimed."
mkdir "$work/elsewhere"
cd "$work/elsewhere"
unset SCALE_STORE
export XDG_DATA_HOME=$work/none HOME=$work/none
show scale verify ../photos.tlog-proof ../photos --key ../log.vkey

say "Ask the chains, at servers that the verifier names."
show scale verify ../photos.tlog-proof ../photos --key ../log.vkey --online --k2-rpc "$k2" --arweave-gateway "$gateway" \
	--confirmations 3 --anchors all | tee ../verdict
grep -q '^existed before .*K2 slot .*Arweave block' ../verdict || fail "nothing about when it existed"

say "Ask servers that cannot be reached: no verdict, exit code 8."
code=0
show scale verify ../photos.tlog-proof ../photos --key ../log.vkey --online --k2-rpc http://127.0.0.1:1 >/dev/null || code=$?
[ "$code" = 8 ] || fail "exit code $code instead of 8"

say "Lose the store, and rebuild the ledger from Arweave alone."
tx=$(awk '$1 == "arweave" { print $5 }' ../anchors)
rm -rf ../store
export SCALE_STORE=$work/restored
show scale restore --from-arweave "$tx" --key ../log.vkey --arweave-gateway "$gateway" --confirmations 3

say "It proves what it proved, and the data gives its blocks back."
show scale put --heal ../photos
show scale prove photos -o again.tlog-proof
show scale verify again.tlog-proof ../photos --key ../log.vkey --online --k2-rpc "$k2" --arweave-gateway "$gateway" --confirmations 3
show scale check --read-data

printf '\nAll of it held, in %d s.\n' "$SECONDS"
