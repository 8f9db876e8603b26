#!/usr/bin/env bash
# Builds restic into the directory $1, from a module of its own so that nothing of it
# weighs on this one.
set -euo pipefail
dir=$1
version=v0.18.1
[ "$("$dir/restic" version 2>/dev/null | cut -d ' ' -f 2)" = "${version#v}" ] && exit 0
mkdir -p "$dir/build"
cd "$dir/build"
export GOFLAGS=-buildvcs=false
[ -e go.mod ] || go mod init peers 2>/dev/null
go get -tool "github.com/restic/restic/cmd/restic@$version"
go build -o "$dir/restic" github.com/restic/restic/cmd/restic
"$dir/restic" version
