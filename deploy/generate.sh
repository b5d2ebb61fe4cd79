#!/bin/sh
# Makes what packages hold besides the program: completions for shells, and the
# manual page.
#
#	deploy/generate.sh DIR RELEASE
set -eu
cd "$(dirname "$0")/.."
dir=${1:?where to?} release=${2:?of which release?}

tmp=$(mktemp -d)
trap 'rm -r "$tmp"' EXIT
go build -trimpath -ldflags "-X main.release=$release" -o "$tmp/sluice" ./cmd/sluice
mkdir -p "$dir"
for shell in bash zsh fish; do
	"$tmp/sluice" completion "$shell" >"$dir/sluice.$shell"
done
"$tmp/sluice" man | gzip -9n >"$dir/sluice.1.gz"
