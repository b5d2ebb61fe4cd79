package handlers

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/fanout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testGateway is a gateway on a memory log, behind a real socket.
type testGateway struct {
	*httptest.Server
	t   *testing.T
	hub *fanout.Hub
	g   *Gateway
}

func newTestGateway(t *testing.T, cfg Config) *testGateway {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.Logger = quiet
	keep := fanout.Retention{Events: 50}
	hub := fanout.NewHub(fanout.NewMemory(keep), fanout.Options{Keep: keep, Logger: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = hub.Run(ctx) })
	g := NewGateway(hub, cfg)
	server := httptest.NewServer(g.Handler())
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		cancel()
		tasks.Wait()
	})
	return &testGateway{Server: server, t: t, hub: hub, g: g}
}

// answer is a response that was read whole.
type answer struct {
	*http.Response
	body string
}

// do sends a request; headers come in pairs.
func (g *testGateway) do(method, path, body string, headers ...string) answer {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.URL+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := g.Client().Do(req)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp, string(text)}
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("the answer is no JSON object: %v: %s", err, a.body)
	}
	return v
}

// publish posts a text and gives the event's id.
func (g *testGateway) publish(room, text string, headers ...string) string {
	g.t.Helper()
	a := g.do("POST", "/rooms/"+room+"/events", text, headers...)
	if a.StatusCode != http.StatusCreated {
		g.t.Fatalf("publishing: %s: %s", a.Status, a.body)
	}
	id, _ := a.json(g.t)["id"].(string)
	return id
}

func (g *testGateway) page(query string) map[string]any {
	g.t.Helper()
	a := g.do("GET", query, "", "Accept", "application/json")
	if a.StatusCode != http.StatusOK {
		g.t.Fatalf("GET %s: %s: %s", query, a.Status, a.body)
	}
	return a.json(g.t)
}

// listener reads an open stream, line by line.
type listener struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Reader
	stop context.CancelFunc
}

func (g *testGateway) listen(path string, headers ...string) *listener {
	g.t.Helper()
	ctx, stop := context.WithTimeout(g.t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", g.URL+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := g.Client().Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { stop(); _ = resp.Body.Close() })
	return &listener{t: g.t, resp: resp, in: bufio.NewReader(resp.Body), stop: stop}
}

// block reads up to the next blank line, and leaves comments out.
func (l *listener) block() string {
	l.t.Helper()
	var b strings.Builder
	for {
		line, err := l.in.ReadString('\n')
		if err != nil {
			l.t.Fatalf("the stream ended with %v behind %q", err, b.String())
		}
		if line == "\n" && b.Len() > 0 {
			return b.String()
		}
		if line != "\n" && !strings.HasPrefix(line, ":") {
			b.WriteString(line)
		}
	}
}

// opened skips the opening and gives the stream's id.
func (l *listener) opened() (stream string) {
	l.t.Helper()
	block := l.block()
	_, data, ok := strings.Cut(block, "event: sluice.open\ndata: ")
	if !ok {
		l.t.Fatalf("the stream opens with %q", block)
	}
	var open struct{ Stream string }
	data, _, _ = strings.Cut(data, "\n")
	if err := json.Unmarshal([]byte(data), &open); err != nil {
		l.t.Fatal(err)
	}
	return open.Stream
}

func (l *listener) want(block string) {
	l.t.Helper()
	if got := l.block(); got != block {
		l.t.Errorf("the stream brings\n%q\nwant\n%q", got, block)
	}
}
