#!/usr/bin/env bash
# Everything that must hold, in one command:
#
#	./test.sh                  all of it
#	FUZZTIME=1m ./test.sh      with longer fuzzing, of each target
#	CI=true ./test.sh          no result from the cache
#
# The tests run real programs: Redis, Sentinel, Chromium, nginx, HAProxy, curl,
# Python, Caddy, TypeScript, systemd-analyze, shells, and axe-core, which looks at
# the pages for what keeps people from using them. What is missing is installed,
# on Debian as root; otherwise this says what to type. Caddy, staticcheck and the
# npm packages go to a cache of their own.
set -euo pipefail
cd "$(dirname "$0")"

caddy=v2.11.9
staticcheck=v0.8.2
axe=4.14.1
fuzztime=${FUZZTIME:-3s}
typescript=7.0.2
react=19.3.0 # its types
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sluice
bin=$cache/bin
export PATH="$bin:$cache/npm/node_modules/.bin:$PATH:/usr/sbin:/sbin" # Debian has the servers there

times=()

# step runs a command under a title and remembers how long it took.
step() {
	local title=$1 began=$SECONDS
	shift
	printf '\n== %s\n' "$title"
	"$@"
	times+=("$(printf '%5d s  %s' $((SECONDS - began)) "$title")")
}

fail() {
	printf 'test.sh: %s\n' "$*" >&2
	exit 1
}

# packages prints the Debian packages of the programs that are missing.
packages() {
	local pair
	for pair in redis-server:redis-server redis-sentinel:redis-sentinel chromium:chromium \
		curl:curl nginx:nginx-light haproxy:haproxy jq:jq gcc:gcc systemd-analyze:systemd \
		python3:python3 npm:npm script:bsdutils zsh:zsh fish:fish mandoc:mandoc groff:groff-base; do
		command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
	done
	# The race detector links with the C library.
	[[ -e /usr/include/stdlib.h ]] || echo libc6-dev
}

programs() {
	command -v go >/dev/null || fail "Go is missing; go.mod says which version is needed"
	local missing
	missing=$(packages | paste -sd ' ')
	if [[ -n $missing ]]; then
		local install="apt-get install -y --no-install-recommends $missing"
		if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
			fail "some programs are missing; on Debian: sudo apt-get update && sudo $install"
		fi
		export DEBIAN_FRONTEND=noninteractive
		apt-get update -q
		$install
	fi
	tool caddy github.com/caddyserver/caddy/v2 cmd/caddy "$caddy"
	tool staticcheck honnef.co/go/tools cmd/staticcheck "$staticcheck"
	modules "axe-core@$axe" "typescript@$typescript" "@types/react@$react"
}

# modules installs npm packages for the tests unless these very ones are there.
modules() {
	[[ $(cat "$cache/npm/installed" 2>/dev/null) != "$*" ]] || return 0
	npm install --silent --prefix "$cache/npm" --no-audit --no-fund --ignore-scripts "$@" ||
		fail "some npm packages are missing; install them: npm install --prefix $cache/npm $*"
	echo "$*" >"$cache/npm/installed"
}

# tool installs a Go program unless that version of it is there.
tool() {
	local name=$1 module=$2 path=$3 version=$4 made
	# What it was made from; some builds cannot tell their version themselves.
	made=$(go version -m "$(command -v "$name")" 2>/dev/null || true)
	[[ $made != *$'\tmod\t'"$module"$'\t'"$version"$'\t'* ]] || return 0
	GOBIN=$bin go install "$module/$path@$version" || fail "$name is missing; install it: go install $module/$path@$version"
}

formatted() {
	local files
	files=$(gofmt -l .)
	[[ -z $files ]] || fail "gofmt would change: $files"
}

# arrows: cmd -> handlers -> fanout, and never back.
arrows() {
	local list
	list=$(go list -f '{{$p := .ImportPath}}
		{{- range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}
		{{- range .TestImports}}{{$p}} {{.}} test{{"\n"}}{{end}}
		{{- range .XTestImports}}{{$p}} {{.}} test{{"\n"}}{{end}}' ./...)
	awk '
		function part(path) { split(path, piece, "/"); return piece[1] == "sluice" ? piece[2] : path }
		function wrong(why) { print $1 " imports " $2 ": " why; bad = 1 }
		NF < 2 { next }
		{ from = part($1); to = part($2) }
		from == "static" && $3 == "test" && to != "cmd" { next } # its tests run a gateway
		to == "cmd" && from != "cmd" { wrong("nothing imports cmd") }
		to == "static" && from != "static" && from != "cmd" { wrong("only cmd imports static") }
		to == "handlers" && from != "handlers" && from != "cmd" { wrong("fanout and static know no handlers") }
		to == "fanout" && from == "static" { wrong("static is files") }
		$3 != "test" && from == "fanout" && to == "net/http" { wrong("fanout knows no HTTP") }
		$3 != "test" && from == "handlers" && to ~ /go-redis/ { wrong("handlers know no Redis") }
		END { exit bad }
	' <<<"$list" || fail "imports go cmd -> handlers -> fanout, and static is imported by cmd only"
}

# tests: one package after the other, since several of them measure time. In a
# package those that mostly wait run beside each other, more than there are processors.
tests() {
	local fresh=()
	[[ ${CI:-} != true ]] || fresh=(-count=1)
	go build -race ./...
	go test -race -p 1 -parallel 4 -timeout 10m "${fresh[@]}" ./...
}

# fuzzing: one target a processor at a time.
fuzzing() {
	local found
	found=$(grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort)
	[[ -n $found ]] || fail "there is no fuzz target"
	export fuzztime
	export -f fuzz
	sed 's/:func / /' <<<"$found" | xargs -P "$(nproc)" -L 1 bash -c 'fuzz "$(dirname "$0")" "$1"'
}

# fuzz runs one target. Where the end of its time meets a worker that is just
# starting an input, go test sometimes reports the deadline itself as a failure;
# a finding always names the input that it wrote, so only that one fails here.
fuzz() {
	local output
	if output=$(go test -run '^$' -fuzz "^$2\$" -fuzztime "$fuzztime" -parallel 1 "$1" 2>&1) ||
		{ grep -q '^ *context deadline exceeded$' <<<"$output" && ! grep -q 'Failing input' <<<"$output"; }; then
		printf '%s %s: %s\n' "$1" "$2" "$(grep '^fuzz: ' <<<"$output" | tail -n 1)"
	else
		printf '%s %s: a finding\n%s\n' "$1" "$2" "$output"
		return 1
	fi
}

began=$SECONDS
step "programs that the tests need" programs
step "gofmt" formatted
step "go mod tidy" go mod tidy -diff
step "go vet" go vet ./...
step "staticcheck" staticcheck ./...
step "imports" arrows
step "fuzzing, $fuzztime each" fuzzing
step "tests, with the race detector" tests

printf '\n== all is well, after %d s\n' $((SECONDS - began))
printf '%s\n' "${times[@]}"
