package handlers

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/fanout/redistest"
	"sluice/handlers/auth"
	"sluice/handlers/limit"
)

// counted gives how often clients of the node were told of a problem.
func (n *liveNode) counted(kind string) (count int64) {
	n.gateway.problems.each(func(k string, c int64) {
		if k == kind {
			count = c
		}
	})
	return count
}

// wantRefused says that a stream was refused by a limit, in the way that brings
// clients back.
func wantRefused(t *testing.T, s *sse, n *liveNode, kind string) {
	t.Helper()
	b, ok := s.next()
	retry, err := strconv.Atoi(b.retry)
	if s.status != 200 || !ok || b.name != "sluice.bye" || b.data != `{"reason":"overload"}` || err != nil || retry < 7000 {
		t.Errorf("a stream beyond the limit: %d %+v; want 200 and a goodbye with a long retry", s.status, b)
	}
	if _, ok := s.next(); ok {
		t.Error("it goes on after the goodbye")
	}
	if n.counted(kind) == 0 {
		t.Errorf("%s was not counted", kind)
	}
}

func TestStreamsAreLimited(t *testing.T) {
	one, two := auth.Grant{}, auth.Grant{Subject: "bob"}
	for _, c := range []struct {
		name   string
		limits Limits
		grants []auth.Grant // of streams that are had
		then   auth.Grant   // of the one that is not
		other  *auth.Grant  // of one that is, still
		kind   string
	}{
		{"node", Limits{Streams: 2}, []auth.Grant{one, two}, one, nil, "too-many-streams"},
		{"address", Limits{StreamsPerAddress: 2}, []auth.Grant{one, two}, one, nil, "too-many-streams-of-address"},
		{"subject", Limits{StreamsPerSubject: 2}, []auth.Grant{one, one}, one, &two, "too-many-streams-of-subject"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := withTokens(t)
			cfg.Limits = c.limits
			n := startNode(t, memory(), cfg)
			var open []*sse
			for _, g := range c.grants {
				s := n.stream("/rooms/a1/events", bearer(token(t, g)))
				s.opened()
				open = append(open, s)
			}
			wantRefused(t, n.stream("/rooms/a1/events", bearer(token(t, c.then))), n, c.kind)
			poll := n.ask("GET", "/rooms/a1/events?wait=1", "", bearer(token(t, c.then)))
			if poll.status != 429 || poll.kind() != c.kind || poll.header.Get("Retry-After") == "" {
				t.Errorf("a long poll beyond the limit: %v", poll)
			}
			if c.other != nil {
				n.stream("/rooms/a1/events", bearer(token(t, *c.other))).opened()
			}
			open[0].cancel()
			n.await("the place to be free", func() bool {
				s := n.stream("/rooms/a1/events", bearer(token(t, c.then)))
				b, ok := s.next()
				return ok && b.name == "sluice.open"
			})
		})
	}
}

func TestAddressIsTheClientsBehindAProxy(t *testing.T) {
	trusted, err := limit.ParseTrusted([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t, memory(), Config{TrustedProxies: trusted, Limits: Limits{StreamsPerAddress: 1}})
	from := func(address string) *sse { return n.stream("/rooms/a1/events", "X-Forwarded-For: "+address) }
	from("2001:db8::1").opened()
	from("2001:db8:0:1::1").opened()
	from("192.0.2.1").opened()
	wantRefused(t, from("2001:db8::ffff"), n, "too-many-streams-of-address")
	wantRefused(t, from("203.0.113.5, 192.0.2.1"), n, "too-many-streams-of-address")
}

func TestPlacesAreGivenBackWhateverHappens(t *testing.T) {
	cfg := withTokens(t)
	cfg.Limits = Limits{Streams: 3}
	n := startNode(t, memory(), cfg)
	line := bearer(token(t, auth.Grant{}))
	for range 5 {
		s := n.stream("/rooms/a1/events", line)
		s.opened()
		s.cancel()
		n.ask("GET", "/rooms/a1/events?wait=0", "", line)
		n.ask("GET", "/rooms/a1/events?wait=0&after=e1-99", "", line)
		n.stream("/rooms/a1/events?ticket=AAAAAAAAAAAAAAAAAAAAAAAAAA").ended()
		n.await("all places to be free", func() bool { return n.gateway.limits.streams.Total() == 0 })
	}
	n.gateway.Drain()
	n.stream("/rooms/a1/events", line).ended()
	if got := n.gateway.limits.streams.Total() + n.gateway.limits.bySubject.Total() + n.gateway.limits.byAddress.Total(); got != 0 {
		t.Errorf("%d places are held of no stream", got)
	}
}

func TestPublishingIsLimited(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits Limits
		path   func(i int) string
		kind   string
		other  string // where the same one may go on, or
		who    string // who else may
	}{
		{"subject", Limits{PublishRate: 0.1, PublishBurst: 3}, func(int) string { return "/rooms/a1/events" }, "publish-rate", "", "bob"},
		{"room", Limits{RoomRate: 0.1, RoomBurst: 3}, func(int) string { return "/rooms/a1/events" }, "room-rate", "/rooms/a2/events", ""},
		{"new rooms", Limits{NewRoomsRate: 3}, func(i int) string { return fmt.Sprintf("/rooms/a%d/events", i) }, "new-rooms-rate", "/rooms/a0/events", "bob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := withTokens(t)
			cfg.Limits = c.limits
			n := startNode(t, memory(), cfg)
			ann, bob := bearer(token(t, auth.Grant{})), bearer(token(t, auth.Grant{Subject: "bob"}))
			var got reply
			had := 0
			for i := range 6 {
				if got = n.ask("POST", c.path(i), "x", ann); got.status != 201 {
					break
				}
				had++
			}
			wait, err := strconv.Atoi(got.header.Get("Retry-After"))
			if had != 3 || got.status != 429 || got.kind() != c.kind || err != nil || wait < 1 {
				t.Errorf("%d events went through, then %v; want 3, then 429 for %s", had, got, c.kind)
			}
			if n.counted(c.kind) != 1 {
				t.Errorf("%s was counted %d times, want once", c.kind, n.counted(c.kind))
			}
			if c.other != "" {
				if got := n.ask("POST", c.other, "x", ann); got.status != 201 {
					t.Errorf("elsewhere: %v", got)
				}
			}
			if c.who != "" {
				if got := n.ask("POST", "/rooms/a1/events", "x", bob); got.status != 201 {
					t.Errorf("somebody else: %v", got)
				}
			}
		})
	}
}

func TestBatchCountsEachOfItsEvents(t *testing.T) {
	n := startNode(t, memory(), Config{Limits: Limits{PublishRate: 0.1, PublishBurst: 10}})
	batch := strings.Repeat(`{"data":1}`+"\n", 5)
	for i, want := range []int{201, 201, 429} {
		if got := n.ask("POST", "/rooms/a1/events", batch, "Content-Type: application/x-ndjson"); got.status != want {
			t.Errorf("batch %d: %v, want %d", i, got, want)
		}
	}
	if got := n.ask("POST", "/events?room=a1&room=a2", "x"); got.status != 429 {
		t.Errorf("one for two rooms: %v", got)
	}
}

func TestNewRoomsOfStreamsAreLimited(t *testing.T) {
	n := startNode(t, memory(), Config{Limits: Limits{NewRoomsRate: 2}})
	for i := range 2 {
		n.stream(fmt.Sprintf("/rooms/a%d/events", i)).opened()
	}
	wantRefused(t, n.stream("/rooms/a2/events"), n, "new-rooms-rate")
	n.stream("/rooms/a1/events").opened()
}

func TestRoomsOfAStreamAreLimited(t *testing.T) {
	n := startNode(t, memory(), Config{MaxRooms: 3})
	rooms := "/events?room=a1&room=a2&room=a3"
	n.stream(rooms).opened()
	for _, c := range []struct{ method, path string }{{"GET", rooms + "&room=a4"}, {"POST", rooms + "&room=a4"}} {
		if got := n.ask(c.method, c.path, ""); got.status != 400 || got.kind() != "too-many-rooms" {
			t.Errorf("%s %s: %v", c.method, c.path, got)
		}
	}
	if n.counted("too-many-rooms") != 2 {
		t.Error("it was not counted")
	}
}

func TestNodesCountTogether(t *testing.T) {
	server := redistest.Start(t)
	cfg := Config{Limits: Limits{PublishRate: 0.1, PublishBurst: 60}}
	a, b := startNode(t, openRedis(t, server.URL()), cfg), startNode(t, openRedis(t, server.URL()), cfg)
	batch := strings.Repeat(`{"data":1}`+"\n", 55)
	if got := a.ask("POST", "/rooms/a1/events", batch, "Content-Type: application/x-ndjson"); got.status != 201 {
		t.Fatal(got)
	}
	// b gives out a little of its own, and learns with it what a gave out.
	tries := 0
	b.await("the other node to know", func() bool {
		tries++
		return b.ask("POST", "/rooms/a1/events", "x").status == 429
	})
	if tries > 30 {
		t.Errorf("the other node gave out %d, want about 5", tries)
	}
}

func TestPublishingFarFromTheLimitCostsNoRoundTrip(t *testing.T) {
	server := redistest.Start(t)
	n := startNode(t, openRedis(t, server.URL()), Config{Limits: Limits{PublishRate: 100, PublishBurst: 200}})
	publish := func() {
		if got := n.ask("POST", "/rooms/a1/events", "x"); got.status != 201 {
			t.Fatal(got)
		}
	}
	publish() // which has the server learn the script
	n.await("the node to have looked at its server", func() bool { return commands(t, server)["config|get"] > 0 })
	before := commands(t, server)
	for range 4 {
		publish()
	}
	if got := commands(t, server)["evalsha"] - before["evalsha"]; got < 4 || got > 5 { // a node that has just connected checks its rights once
		t.Errorf("4 publications took %d scripts", got)
	}
}

// commands counts what a server was asked, but for what every node asks all the time.
func commands(t *testing.T, server *redistest.Server) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for name, text := range server.Info("commandstats") {
		calls, _, _ := strings.Cut(strings.TrimPrefix(text, "calls="), ",")
		n, err := strconv.Atoi(calls)
		if err != nil {
			t.Fatalf("%s: %q", name, text)
		}
		counts[strings.TrimPrefix(name, "cmdstat_")] = n
	}
	return counts
}

func TestLastDescriptorsAreKept(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// This process has more open by now than such a limit leaves to clients.
	guarded := limit.NewDescriptors(ln, 8)
	srv := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(guarded) }()
	defer func() { _ = srv.Close(); <-done }()
	var held []net.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for len(held) < 20 {
		c, err := net.Dial("tcp", ln.Addr().String())
		var served []byte
		if err == nil {
			held = append(held, c)
			_, _ = fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
			served, err = io.ReadAll(c)
		}
		if err != nil || len(served) == 0 {
			if guarded.Refused() == 0 {
				t.Error("a connection was turned away and not counted")
			}
			return
		}
	}
	t.Errorf("20 connections were served by a process that may have 8 descriptors")
}

func TestSharedBucketsSurviveALogOutOfReach(t *testing.T) {
	shared := limit.NewShared("x", limit.RateOptions{PerSecond: 1, Burst: 10})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for range 10 {
		if ok, _ := shared.Allow("k", 1); !ok {
			t.Fatal("refused within the burst")
		}
	}
	shared.Run(ctx, outOfReach{})
	if ok, _ := shared.Allow("k", 1); ok {
		t.Error("allowed beyond the burst")
	}
}

type outOfReach struct{}

func (outOfReach) Spend(context.Context, []fanout.Spending) ([]time.Duration, error) {
	return nil, fanout.ErrUnavailable
}
