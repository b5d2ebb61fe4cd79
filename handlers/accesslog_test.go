package handlers

import (
	"strings"
	"testing"
)

// requestsLogged counts the lines of requests.
func requestsLogged(n *liveNode) int { return strings.Count(n.logged.String(), `"msg":"request"`) }

func TestARequestHasOneLineIfThatIsWanted(t *testing.T) {
	n := startNode(t, memory(), Config{MaxBody: 10})
	ask := func(times int) {
		for range times {
			n.ask("POST", "/rooms/a1/events", "x")
		}
	}
	ask(5)
	if got := requestsLogged(n); got != 0 {
		t.Errorf("%d requests are logged though nobody has asked for it", got)
	}

	n.gateway.Reload(Config{MaxBody: 10, LogRequests: LogAllRequests})
	ask(5)
	n.ask("POST", "/rooms/a1/events", "more than ten bytes")
	n.ask("GET", "/no/such/path", "")
	n.stream("/rooms/a1/events").opened()
	n.await("a line for each request", func() bool { return requestsLogged(n) == 8 })
	for _, want := range []string{
		`"method":"POST","route":"/rooms/{room}/events","status":201,`, `"status":413,`, `"problem":"too-large"`,
		`"method":"GET","route":"other","status":404,`, `"client":"127.0.0.1","stream":true`,
	} {
		if !strings.Contains(n.logged.String(), want) {
			t.Errorf("no line of a request has %s", want)
		}
	}

	n.gateway.Reload(Config{MaxBody: 10, LogRequests: LogSomeRequests})
	before := requestsLogged(n)
	ask(2 * someRequests)
	n.await("a line for some requests", func() bool { return requestsLogged(n) >= before+2 })
	if got := requestsLogged(n) - before; got != 2 {
		t.Errorf("of %d requests %d are logged, want 2", 2*someRequests, got)
	}
}
