// Command faultrig breaks a real gateway in every way that a machine allows,
// and counts what its clients missed.
//
//	publishers ──> nodes ──> Redis      nodes are processes, Redis is real, and
//	checkers   <── nodes <── Redis      TCP proxies stand in front of either
//
// A scenario (scenarios_*.go) is a set-up, a load and the faults that befall it
// meanwhile. Publishers send each event until it is acknowledged, with one
// Idempotency-Key (publisher.go). Checkers are clients that write down every
// position, payload and gap they are shown, and come back whenever a stream
// ends (checker.go). When the faults are over, what each checker believes the
// room to be is held against the room's log (judge.go). The verdict has one line
// a scenario:
//
//	lost         acknowledged and not shown, and the client was not told
//	doubled      shown, or appended, twice
//	reordered    shown behind a later one
//	altered      one position, two events
//	unexplained  a gap that need not have been
//	other        anything else that is promised and did not happen
//
// All of these must be 0. What Redis itself lost after it was acknowledged, as
// a failover may, is counted apart: of that, each client which could have seen
// it must have been told, by a gap that the judge finds to be right.
//
//	go run ./cmd/sluice/faultrig -list
//	go run ./cmd/sluice/faultrig                   # all of them, some 15 minutes
//	go run ./cmd/sluice/faultrig -run '^chaos' -seed 42
//	go run ./cmd/sluice/faultrig -json docs/measured/faults.json -markdown docs/measured/faults.md
//
// The chaos scenarios draw their faults from the seed, which is printed; the
// same seed gives the same faults at the same times. redis-server 7.0 or newer
// must be installed. The tests of this package are a short form of the same.
package main
