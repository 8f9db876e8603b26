#!/usr/bin/env bash
# Builds the peers that are Go modules into the directory $1, each from a module of its own
# so that nothing of one weighs on another, or on SCALE. Then says which peers are there,
# and fails if one that bench needs is missing.
set -euo pipefail
dir=$1
export GOFLAGS=-buildvcs=false
failed=

# build NAME MODULE VERSION PACKAGE: unless that version is there.
build() {
	if go version -m "$dir/$1" 2>/dev/null | awk -v m="$2" -v v="$3" '($1 == "mod" || $1 == "dep") && $2 == m && $3 == v { found = 1 } END { exit !found }'; then
		return
	fi
	echo "building $1 $3"
	mkdir -p "$dir/build-$1"
	# A part of an "or" runs on after errors, whatever "set -e" says.
	(
		cd "$dir/build-$1" &&
			{ [ -e go.mod ] || go mod init peer; } &&
			go get -tool "$4@$3" &&
			go build -o "$dir/$1" "$4"
	) >"$dir/build-$1.log" 2>&1 || { rm -f "$dir/$1"; tail -n 5 "$dir/build-$1.log" >&2; }
}

# there NAME COMMAND...: what it says that it is.
there() {
	local name=$1 said
	shift
	if said=$("$@" 2>/dev/null); then
		printf '  %-8s %s\n' "$name" "${said%%$'\n'*}"
	else
		printf '  %-8s MISSING\n' "$name"
		failed=1
	fi
}

mkdir -p "$dir"
build restic github.com/restic/restic v0.19.1 github.com/restic/restic/cmd/restic
build kopia github.com/kopia/kopia v0.22.3 github.com/kopia/kopia
build ipfs github.com/ipfs/kubo v0.43.0 github.com/ipfs/kubo/cmd/ipfs
there restic "$dir/restic" version
there kopia env KOPIA_CHECK_FOR_UPDATES=false "$dir/kopia" --version
there ipfs "$dir/ipfs" version
there borg borg --version
there casync casync --version
there zstd zstd --version
there openssl openssl version
if command -v desync >/dev/null; then
	printf '  %-8s %s\n' desync "$(command -v desync)"
else
	printf '  %-8s %s\n' desync "not in the PATH, left out"
fi
[ -z "$failed" ] || { echo 'a peer is MISSING, and nothing is compared without it' >&2; exit 1; }
