package handlers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/fanout/redistest"
	"sluice/handlers/auth"
)

// tsSecret signs the tokens of these tests.
const tsSecret = "a secret of thirty-two bytes, or more"

// output collects a log.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// liveNode is a node of a gateway, on a real socket.
type liveNode struct {
	t       *testing.T
	url     string
	addr    string
	hub     *fanout.Hub
	gateway *Gateway
	logged  *output
	client  *http.Client
}

// startNode runs a node for the length of the test.
func startNode(t *testing.T, log fanout.Log, cfg Config) *liveNode {
	t.Helper()
	n := &liveNode{t: t, logged: &output{}}
	logger := slog.New(slog.NewJSONHandler(n.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Logger = logger
	if cfg.Padding == 0 {
		cfg.Padding = -1
	}
	n.hub = fanout.NewHub(log, fanout.Options{Logger: logger})
	n.gateway = NewGateway(n.hub, cfg)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	n.url = "http://" + n.addr
	srv := NewServer(n.gateway.Handler(), logger)
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = n.hub.Run(ctx) })
	tasks.Go(func() { n.gateway.Run(ctx) })
	tasks.Go(func() { _ = srv.Serve(ln) })
	transport := &http.Transport{}
	n.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = srv.Close()
		cancel()
		tasks.Wait()
	})
	n.await("the log to be up", func() bool { return n.hub.DownSince().IsZero() })
	return n
}

func (n *liveNode) await(what string, f func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(deadline) {
			n.t.Fatalf("after 10 s still not %s", what)
		}
		time.Sleep(time.Millisecond) // between looks at what tells nobody of itself
	}
}

// eachLog runs f with either log. open gives a log for one more node; all of
// them share what they keep, on Redis; in memory there is one node.
func eachLog(t *testing.T, f func(t *testing.T, nodes int, open func() fanout.Log)) {
	t.Run("Memory", func(t *testing.T) {
		f(t, 1, func() fanout.Log { return fanout.NewMemory(fanout.Retention{}) })
	})
	t.Run("Redis", func(t *testing.T) {
		server := redistest.Start(t)
		f(t, 2, func() fanout.Log { return openRedis(t, server.URL()) })
	})
}

func openRedis(t *testing.T, url string) *fanout.Redis {
	t.Helper()
	r, err := fanout.OpenRedis(fanout.RedisOptions{URL: url, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// startNodes runs as many nodes as f of eachLog may, but at least two names.
func startNodes(t *testing.T, nodes int, open func() fanout.Log, cfg Config) (a, b *liveNode) {
	t.Helper()
	a = startNode(t, open(), cfg)
	if nodes == 1 {
		return a, a
	}
	return a, startNode(t, open(), cfg)
}

// withTokens is a configuration of a gateway with tokens.
func withTokens(t testing.TB) Config {
	t.Helper()
	v, err := auth.New(auth.Config{Keys: auth.Keys{Secrets: [][]byte{[]byte(tsSecret)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return Config{Verifier: v}
}

// token makes one of ann's for every room that begins with a, unless g says
// otherwise.
func token(t testing.TB, g auth.Grant) string {
	t.Helper()
	s, err := auth.SecretSigner([]byte(tsSecret))
	if err != nil {
		t.Fatal(err)
	}
	if g.Subject == "" {
		g.Subject = "ann"
	}
	if g.Subscribe == nil && g.Publish == nil {
		g.Subscribe, g.Publish = []string{"a*"}, []string{"a*"}
	}
	if g.IssuedAt.IsZero() {
		g.IssuedAt = time.Now().Add(-time.Minute)
	}
	if g.Expires.IsZero() {
		g.Expires = time.Now().Add(time.Hour)
	}
	text, err := s.Sign(g)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// reply is a whole response.
type reply struct {
	status int
	header http.Header
	body   string
}

// kind is the last part of a problem's type.
func (a reply) kind() string {
	var p struct{ Type string }
	_ = json.Unmarshal([]byte(a.body), &p)
	return strings.TrimPrefix(p.Type, "urn:sluice:")
}

func (a reply) member(t *testing.T, name string) string {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal([]byte(a.body), &members); err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
	text, _ := members[name].(string)
	return text
}

// ask sends a request; header lines are "Name: value".
func (n *liveNode) ask(method, path, body string, lines ...string) reply {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	res := n.send(ctx, method, path, body, lines...)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{res.StatusCode, res.Header, string(text)}
}

func (n *liveNode) send(ctx context.Context, method, path, body string, lines ...string) *http.Response {
	n.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, n.url+path, reader)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Add(name, value)
	}
	res, err := n.client.Do(req)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// sseBlock is one event of a stream; comments are left out.
type sseBlock struct{ id, name, data, retry string }

// sse is a stream that a client reads, by a parser of its own: nothing here
// knows how the gateway writes.
type sse struct {
	t      *testing.T
	status int
	header http.Header
	cancel context.CancelFunc
	blocks chan sseBlock // closed at the end of the stream
}

// stream opens a stream and reads it until the test ends.
func (n *liveNode) stream(path string, lines ...string) *sse {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	res := n.send(ctx, http.MethodGet, path, "", lines...)
	s := &sse{t: n.t, status: res.StatusCode, header: res.Header, cancel: cancel, blocks: make(chan sseBlock, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(s.blocks)
		defer res.Body.Close()
		readBlocks(res.Body, func(b sseBlock) { s.blocks <- b })
	}()
	n.t.Cleanup(func() { cancel(); <-done })
	return s
}

func readBlocks(r io.Reader, each func(sseBlock)) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	var b sseBlock
	var data []string
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if b != (sseBlock{}) || data != nil {
				b.data = strings.Join(data, "\n")
				each(b)
			}
			b, data = sseBlock{}, nil
		case field == "id":
			b.id = value
		case field == "event":
			b.name = value
		case field == "data":
			data = append(data, value)
		case field == "retry":
			b.retry = value
		}
	}
}

// next waits for the next event. ok is false at the end of the stream.
func (s *sse) next() (b sseBlock, ok bool) {
	s.t.Helper()
	select {
	case b, ok = <-s.blocks:
		return b, ok
	case <-time.After(10 * time.Second):
		s.t.Fatal("after 10 s still no event")
		return b, false
	}
}

// want waits for the next event, which must have this name ("" for a message).
func (s *sse) want(name string) sseBlock {
	s.t.Helper()
	b, ok := s.next()
	if !ok || b.name != name {
		s.t.Fatalf("the stream shows %+v (%v), want a %q", b, ok, name)
	}
	return b
}

// opened waits for sluice.open and gives the stream's id and cursor.
func (s *sse) opened() (id, cursor string) {
	s.t.Helper()
	if s.status != http.StatusOK {
		s.t.Fatalf("the stream's status is %d", s.status)
	}
	b := s.want("sluice.open")
	var open struct{ Stream string }
	if err := json.Unmarshal([]byte(b.data), &open); err != nil || !fanout.ValidStreamID(open.Stream) {
		s.t.Fatalf("sluice.open has %q: %v", b.data, err)
	}
	return open.Stream, b.id
}

// ended waits for the end, and gives the reason of the goodbye, if there was one.
func (s *sse) ended() (reason string) {
	s.t.Helper()
	for {
		b, ok := s.next()
		if !ok {
			return reason
		}
		if b.name == "sluice.bye" {
			var bye struct{ Reason string }
			_ = json.Unmarshal([]byte(b.data), &bye)
			reason = bye.Reason
		}
	}
}
