// Package e2e holds no code but tests: of the whole, as people run it.
//
//	sluice serve, built with the race detector, on real ports   node_test.go
//	a real Redis, from package redistest
//	a real Caddy with the project's Caddyfile                   caddy_test.go
//	a real Chromium with the demo page                          browser_test.go
//	curl, sluice tail and sluice send                           commands_test.go
//	what docs/examples has for people to copy                   examples_test.go
//
// Most of them come down to one question: does every client see what was
// acknowledged, all of it, once and in order, whatever breaks meanwhile?
// Publishers write down in a ledger what they were told (ledger_test.go,
// publisher_test.go), readers check each event against its forerunner as they
// go and their whole record against the ledger in the end (reader_test.go).
// They understand the wire by a parser of their own (wire_test.go), which
// shares no line with the gateway and forgives nothing.
//
// What a test needs and does not find makes it fail and say how to install it.
package e2e
