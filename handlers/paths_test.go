package handlers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/fanout"
)

// A path is a way by which streams reach their clients. All are held to the
// same tests.
type path struct {
	name  string
	tls   bool
	proto string // of the requests
	close bool   // close framing
}

var paths = []path{
	{name: "taken over", proto: "HTTP/1.1"},
	{name: "taken over, unchunked", proto: "HTTP/1.1", close: true},
	{name: "HTTP/1.0", proto: "HTTP/1.0"},
	{name: "HTTP/2", tls: true},
}

func onEveryPath(t *testing.T, test func(t *testing.T, p path)) {
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) { test(t, p) })
	}
}

// setup is what a test wants to be different.
type setup struct {
	hub    fanout.Options
	keep   fanout.Retention
	config Config
	sndbuf int // of the connections
}

// testNode is a gateway on a memory log whose link can be cut.
type testNode struct {
	*httptest.Server
	t       *testing.T
	path    path
	hub     *fanout.Hub
	gateway *Gateway
	log     *cuttable
}

// cuttable is a memory log that can pretend to be out of reach.
type cuttable struct {
	*fanout.Memory
	fed  chan struct{}
	feed fanout.Feed
	down atomic.Pointer[time.Time]
}

func (c *cuttable) Run(ctx context.Context, feed fanout.Feed) error {
	c.feed = feed
	close(c.fed)
	return c.Memory.Run(ctx, feed)
}

func (c *cuttable) DownSince(string) time.Time {
	if t := c.down.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

func (c *cuttable) link(up bool) {
	if now := time.Now(); up {
		c.down.Store(nil)
	} else {
		c.down.Store(&now)
	}
	c.feed.Link()
}

func newTestNode(t *testing.T, p path, s setup) *testNode {
	t.Helper()
	s.hub.Keep, s.config.CloseFraming = s.keep, p.close
	log := &cuttable{Memory: fanout.NewMemory(s.keep), fed: make(chan struct{})}
	n := &testNode{t: t, path: p, hub: fanout.NewHub(log, s.hub), log: log}
	n.gateway = NewGateway(n.hub, s.config)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = n.hub.Run(ctx) })
	<-log.fed
	n.Server = httptest.NewUnstartedServer(n.gateway.Handler())
	if s.sndbuf > 0 {
		setBuffer(t, n.Server.Listener, s.sndbuf)
	}
	if p.tls {
		n.EnableHTTP2 = true
		n.StartTLS()
	} else {
		n.Start()
	}
	t.Cleanup(func() {
		drainCtx, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		n.hub.Drain(drainCtx, 0)
		cancel()
		run.Wait()
		n.CloseClientConnections()
		n.Close()
	})
	return n
}

// setBuffer sets the send buffer of the connections that a listener accepts.
func setBuffer(t *testing.T, ln net.Listener, bytes int) {
	t.Helper()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, bytes)
	}); err != nil {
		t.Fatal(err)
	}
}

// testStream is a client's end of a stream.
type testStream struct {
	t      *testing.T
	header http.Header
	conn   net.Conn // not for HTTP/2
	body   io.ReadCloser
	r      *bufio.Reader
	id     string // the last one seen
	opened block
}

// block is an event as a client gets it, or, with only a comment, a heartbeat.
type block struct {
	name, data, id, comment string
}

// open opens a stream and reads its first event.
func (n *testNode) open(target string, headers ...string) *testStream {
	n.t.Helper()
	s := n.request(target, "", headers...)
	s.opened = s.next()
	if s.opened.name != "sluice.open" {
		n.t.Fatalf("the first event is %q", s.opened)
	}
	return s
}

// request sends a GET and reads the head of the response. What is behind goes
// out with it.
func (n *testNode) request(target, behind string, headers ...string) *testStream {
	n.t.Helper()
	s := &testStream{t: n.t}
	if n.path.tls {
		ctx, cancel := context.WithCancel(context.Background())
		n.t.Cleanup(cancel)
		r, err := http.NewRequestWithContext(ctx, "GET", n.URL+target, nil)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		resp, err := n.Client().Do(r)
		if err != nil {
			n.t.Fatal(err)
		}
		s.accept(resp)
		return s
	}
	conn, err := net.Dial("tcp", n.Listener.Addr().String())
	if err != nil {
		n.t.Fatal(err)
	}
	s.conn = conn
	n.t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "GET %s %s\r\nHost: test\r\n", target, n.path.proto)
	for _, h := range headers {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	fmt.Fprintf(conn, "\r\n%s", behind)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	s.accept(resp)
	return s
}

func (s *testStream) accept(resp *http.Response) {
	s.t.Helper()
	s.header, s.body, s.r = resp.Header, resp.Body, bufio.NewReader(resp.Body)
	if resp.StatusCode != 200 {
		s.t.Fatalf("status %d", resp.StatusCode)
	}
}

func (s *testStream) hangUp() {
	if s.conn != nil {
		_ = s.conn.Close()
		return
	}
	_ = s.body.Close()
}

// patience bounds how long a test waits for anything.
const patience = 20 * time.Second

// line reads a line, or says why there is none.
func (s *testStream) line() (string, error) {
	stop := time.AfterFunc(patience, s.hangUp)
	defer stop.Stop()
	line, err := s.r.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (s *testStream) read() (block, error) {
	var b block
	var lines []string
	for {
		line, err := s.line()
		if err != nil {
			return b, err
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			b.data = strings.Join(lines, "\n")
			return b, nil
		case name == "":
			b.comment = ":" + value
		case name == "event":
			b.name = value
		case name == "data":
			lines = append(lines, value)
		case name == "id":
			b.id, s.id = value, value
		}
	}
}

// next reads the next event, or heartbeat.
func (s *testStream) next() block {
	s.t.Helper()
	b, err := s.read()
	if err != nil {
		s.t.Fatalf("reading a stream behind %q: %v", s.id, err)
	}
	return b
}

// nextEvent reads the next event that is no heartbeat.
func (s *testStream) nextEvent() block {
	s.t.Helper()
	for {
		if b := s.next(); b.name != "" || b.data != "" {
			return b
		}
	}
}

// wantNumbers reads events with the data from … to, and checks that their
// positions are consecutive.
func (s *testStream) wantNumbers(from, to int) {
	s.t.Helper()
	for i := from; i <= to; i++ {
		b := s.nextEvent()
		data, _, _ := strings.Cut(b.data, " ")
		if data != fmt.Sprint(i) || !strings.HasSuffix(b.id, fmt.Sprintf("-%d", i)) {
			s.t.Fatalf("got event %.40q with id %q, want %d", b.data, b.id, i)
		}
	}
}

// wantEnd reads on to the end of the stream, which is to be a clean one, and
// gives the last event.
func (s *testStream) wantEnd() block {
	s.t.Helper()
	var last block
	for {
		b, err := s.read()
		if err == io.EOF {
			return last
		}
		if err != nil {
			s.t.Fatalf("the stream ended with %v", err)
		}
		last = b
	}
}

// publish appends an event.
func (n *testNode) publish(room, data string, change ...func(*fanout.Draft)) {
	n.t.Helper()
	d := fanout.Draft{Data: []byte(data)}
	for _, f := range change {
		f(&d)
	}
	if _, err := n.hub.Append(context.Background(), room, []fanout.Draft{d}); err != nil {
		n.t.Fatal(err)
	}
}

// publishNumbers appends the events from … to, each with so much behind its number.
func (n *testNode) publishNumbers(room string, from, to int, behind string) {
	n.t.Helper()
	for i := from; i <= to; i++ {
		n.publish(room, fmt.Sprint(i)+behind)
	}
}

// await waits until something is so.
func (n *testNode) await(what string, so func() bool) time.Duration {
	n.t.Helper()
	begun := time.Now()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for ; !so(); <-ticker.C {
		if time.Since(begun) > patience {
			n.t.Fatalf("waited in vain: %s", what)
		}
	}
	return time.Since(begun)
}

func (n *testNode) streams() int {
	streams, _, _ := n.hub.Gauges()
	return streams
}

func (n *testNode) ended(reason fanout.ByeReason) (count int64) {
	n.hub.Stats().EachEnd(func(r fanout.ByeReason, n int64) {
		if r == reason {
			count = n
		}
	})
	return count
}
