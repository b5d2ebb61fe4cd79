package e2e

import (
	"net/http"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// TestADrainingNodeAnswersAndASecondSignalEndsIt: while its streams are sent
// away, others are told to come back, requests are answered, and balancers are
// told not to send more. Whoever cannot wait sends another signal.
func TestADrainingNodeAnswersAndASecondSignalEndsIt(t *testing.T) {
	t.Parallel() // it mostly waits
	const drain = 2 * time.Minute
	n := startNode(t, "", "--drain="+drain.String())
	client := newClient()
	defer client.CloseIdleConnections()
	lobby := n.url + "/rooms/lobby/events"
	for range 4 { // whose last ends at three fifths of the drain
		listen(t, client, lobby)
	}
	n.proc.signal(t, syscall.SIGTERM)
	n.awaitReady(http.StatusServiceUnavailable)

	if whole := get(t, client, lobby); !regexp.MustCompile(`^retry: \d+\nevent: sluice.bye\ndata: {"reason":"drain"}\n\n$`).MatchString(whole) {
		t.Errorf("a new stream is %q; want a time to come back, a goodbye, and the end", whole)
	}
	post(t, client, lobby, "text/plain", "still", http.StatusCreated)
	if !n.proc.running() {
		t.Fatal("the node has ended with streams open")
	}

	told := time.Now()
	n.proc.signal(t, syscall.SIGTERM)
	select {
	case <-n.proc.done:
	case <-time.After(patience):
	}
	if n.proc.running() || time.Since(told) > drain/4 {
		t.Errorf("%v after a second signal the node still ran", time.Since(told))
	}
}

// TestANodeWithoutStreamsListensOnUntilBalancersKnow: one that is told to end
// answers for a while that it is not ready, although nobody keeps it, and takes
// what is sent to it meanwhile. Someone at a terminal does not wait for that.
func TestANodeWithoutStreamsListensOnUntilBalancersKnow(t *testing.T) {
	t.Parallel() // it mostly waits
	const drain = 8 * time.Second
	n := startNode(t, "", "--drain="+drain.String())
	client := newClient()
	defer client.CloseIdleConnections()
	told := time.Now()
	n.proc.signal(t, syscall.SIGTERM)
	n.awaitReady(http.StatusServiceUnavailable)
	post(t, client, n.url+"/rooms/lobby/events", "text/plain", "late", http.StatusCreated)
	n.proc.wait(t, 0)
	if took := time.Since(told); took < drain/4 || took > drain {
		t.Errorf("the node has ended after %v; want from %v to %v", took, drain/4, drain)
	}

	n = startNode(t, "", "--drain=1h")
	n.proc.signal(t, syscall.SIGINT)
	n.proc.wait(t, 0)
}
