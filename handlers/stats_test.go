package handlers

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/fanout"
	"sluice/fanout/redistest"
	"sluice/handlers/auth"
)

const statsPath = "/rooms/@stats/events"

// nextSummary waits for the next report on a stream, whichever node's it is.
func (s *sse) nextSummary() summary {
	s.t.Helper()
	b := s.want("stats")
	var got summary
	if err := json.Unmarshal([]byte(b.data), &got); err != nil {
		s.t.Fatalf("%s: %v", b.data, err)
	}
	if b.id != "" {
		s.t.Errorf("a report has the id %q, though no log keeps it", b.id)
	}
	return got
}

// awaitSummary waits for a report that f takes.
func (s *sse) awaitSummary(what string, f func(summary) bool) summary {
	s.t.Helper()
	var got summary
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if got = s.nextSummary(); f(got) {
			return got
		}
	}
	s.t.Fatalf("no report with %s; the last one is %+v", what, got)
	return got
}

func TestOnlyThoseWhoMayAdministerReadTheReports(t *testing.T) {
	open := startNode(t, memory(), Config{})
	cfg := withTokens(t)
	cfg.PublicSubscribe, _ = auth.ParsePatterns([]string{"*"})
	closed := startNode(t, memory(), cfg)
	admin := bearer(token(t, auth.Grant{Subject: "adm", Admin: true, Subscribe: []string{"none"}}))
	screen := bearer(token(t, auth.Grant{Subject: "wall", Subscribe: []string{"@stats"}}))
	ann := bearer(token(t, auth.Grant{Subscribe: []string{"*"}}))
	for _, c := range []struct {
		node *liveNode
		line string
		want int
	}{
		{open, "X: y", 200},
		{open, "X-Forwarded-For: 203.0.113.9", 403},
		{open, "Via: 1.1 proxy", 403},
		{closed, "X: y", 401},
		{closed, bearer("forged"), 401},
		{closed, ann, 403},
		{closed, screen, 200},
		{closed, admin, 200},
	} {
		for _, path := range []string{statsPath, "/events?room=@stats", statsPath + "?limit=1", "/rooms/%40stats/events"} {
			if s := c.node.stream(path, c.line); s.status != c.want {
				t.Errorf("%s with %q: %d, want %d", path, c.line, s.status, c.want)
			}
		}
	}
	// What is refused looks as any other room does.
	mine, other := closed.ask("GET", statsPath, "", bearer(token(t, auth.Grant{}))), closed.ask("GET", "/rooms/@stats/events?limit=1", "", ann)
	if like := closed.ask("POST", "/rooms/b1/events", "x", bearer(token(t, auth.Grant{}))); mine.body != like.body || other.body != like.body {
		t.Errorf("the refusals %s and %s differ from %s", mine.body, other.body, like.body)
	}
	// An administrator of rooms may not read them all.
	if got := closed.ask("GET", "/events?room=@stats&room=@other", "", admin); got.status != 400 {
		t.Errorf("another room of ours: %d, want 400", got.status)
	}
}

func TestNobodyPublishesReports(t *testing.T) {
	open, closed := startNode(t, memory(), Config{}), startNode(t, memory(), withTokens(t))
	admin := bearer(token(t, auth.Grant{Admin: true, Subscribe: []string{"@*"}, Publish: []string{"@*", "*"}}))
	for _, c := range []struct{ method, path string }{
		{"POST", statsPath},
		{"POST", statsPath + "?ephemeral=true"},
		{"POST", "/events?room=@stats"},
		{"POST", "/events?room=lobby&room=@stats"},
		{"DELETE", statsPath},
		{"GET", "/rooms/@stats/members"},
	} {
		body := ""
		if c.method == "POST" {
			body = "x"
		}
		if got := open.ask(c.method, c.path, body); got.kind() != "bad-room" {
			t.Errorf("%s %s in an open gateway: %d %s", c.method, c.path, got.status, got.kind())
		}
		if got := closed.ask(c.method, c.path, body, admin); got.kind() != "bad-room" {
			t.Errorf("%s %s with every right: %d %s", c.method, c.path, got.status, got.kind())
		}
	}
}

func TestATicketOpensTheReports(t *testing.T) {
	t.Parallel() // it mostly waits
	n := startNode(t, memory(), withTokens(t))
	for _, body := range []string{`{"rooms":["@stats"]}`, `{}`} {
		sold := n.ask("POST", "/tickets", body, bearer(token(t, auth.Grant{Subject: "adm", Admin: true, Subscribe: []string{"none"}})))
		s := n.stream(statsPath + "?ticket=" + sold.member(t, "ticket"))
		s.opened()
		s.nextSummary()
	}
	if got := n.ask("POST", "/tickets", `{"rooms":["@stats"]}`, bearer(token(t, auth.Grant{}))); got.status != http.StatusForbidden {
		t.Errorf("a ticket without the right: %d", got.status)
	}
	plain := n.ask("POST", "/tickets", `{}`, bearer(token(t, auth.Grant{})))
	if s := n.stream(statsPath + "?ticket=" + plain.member(t, "ticket")); s.status != http.StatusForbidden {
		t.Errorf("a ticket of somebody else opens the reports: %d", s.status)
	}
}

func TestAReportTellsWhatTheNodeDoes(t *testing.T) {
	t.Parallel() // it mostly waits
	n := startNode(t, memory(), Config{Node: "one", Version: "v1", Limits: Limits{PublishRate: 0.1, PublishBurst: 12}})
	n.stream("/rooms/lobby/events?presence=ann").opened()
	n.stream("/rooms/lobby/events?presence=bob").opened()
	n.stream("/rooms/quiet/events").opened()
	s := n.stream(statsPath)
	s.opened()
	first := s.awaitSummary("members", func(r summary) bool { return r.Members == 2 })
	if first.Node.Name != "one" || first.Node.Version != "v1" || first.Node.ID == "" || first.State != "serving" {
		t.Errorf("the node is %+v, its state %q", first.Node, first.State)
	}
	if _, err := time.Parse(time.RFC3339, first.Node.Started); err != nil {
		t.Error(err)
	}
	if first.Streams != 4 || first.Rooms != 3 || first.Redis != nil || first.Memory == 0 || first.Published.Total != 0 {
		t.Errorf("with four streams in three rooms, in memory, nothing published: %+v", first)
	}
	for range 10 {
		n.ask("POST", "/rooms/lobby/events", "x")
	}
	n.ask("POST", "/rooms/lobby/events", strings.Repeat(`{"data":"x"}`+"\n", 20), "Content-Type: application/x-ndjson")
	n.stream("/rooms/lobby/events?after=nowhere").want("sluice.open")
	next := s.awaitSummary("the publications", func(r summary) bool { return r.Published.Total == 10 && len(r.Gaps) > 0 })
	if next.Delivered.Total < 20 || next.Bytes.Total <= first.Bytes.Total {
		t.Errorf("ten events to two streams: %+v", next)
	}
	if next.Limits["publish-rate"] != 1 || next.Gaps["bad_cursor"] != 1 {
		t.Errorf("limits %v and gaps %v, want one of each", next.Limits, next.Gaps)
	}
	i := slices.IndexFunc(next.Busiest, func(r busyRoom) bool { return r.Room == "lobby" })
	if i != 0 || next.Busiest[i].Streams < 2 || next.Busiest[i].Members != 2 {
		t.Errorf("the busiest rooms are %+v, want the lobby first, with two members", next.Busiest)
	}
	if slices.ContainsFunc(next.Busiest, func(r busyRoom) bool { return r.Room == fanout.StatsRoom }) {
		t.Errorf("the reports' own room is among the busiest: %+v", next.Busiest)
	}
}

func TestReportsHaveRatesAndLatenciesOfTheirSecond(t *testing.T) {
	t.Parallel() // it mostly waits
	n := startNode(t, memory(), Config{})
	n.stream("/rooms/lobby/events").opened()
	s := n.stream(statsPath)
	s.opened()
	s.nextSummary()
	before := n.gateway.tally()
	for range 20 {
		n.ask("POST", "/rooms/lobby/events", "x")
	}
	got := s.awaitSummary("publications", func(r summary) bool { return r.Published.Rate > 0 })
	if got.PublishLatency.Count == 0 || got.PublishLatency.P50 <= 0 || got.PublishLatency.P99 < got.PublishLatency.P50 {
		t.Errorf("publishing took %+v", got.PublishLatency)
	}
	if len(got.Busiest) == 0 || got.Busiest[0].Room != "lobby" || got.Busiest[0].Rate <= 0 {
		t.Errorf("the busiest rooms are %+v", got.Busiest)
	}
	n.await("the deliveries to be counted", func() bool { return n.gateway.tally().delivered >= before.delivered+20 })
	s.awaitSummary("a quiet second", func(r summary) bool { return r.Published.Rate == 0 && r.PublishLatency.Count == 0 })
}

func TestAllNodesReportToAViewerOnAnyOfThem(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	a := startNode(t, openRedis(t, server.URL()), Config{Node: "a"})
	b := startNode(t, openRedis(t, server.URL()), Config{Node: "b"})
	if a.hub.Watched(t.Context()) || b.hub.Watched(t.Context()) {
		t.Fatal("somebody watches before anybody does")
	}
	s := a.stream(statsPath)
	s.opened()
	seen := map[string]summary{}
	s.awaitSummary("both nodes", func(r summary) bool { seen[r.Node.Name] = r; return len(seen) == 2 })
	for name, r := range seen {
		if r.Redis == nil || r.Redis.Up != 1 || r.Redis.DownSince != nil {
			t.Errorf("node %s has the link %+v", name, r.Redis)
		}
	}
	if seen["a"].Node.ID == seen["b"].Node.ID {
		t.Error("the nodes have one id")
	}

	// An outage keeps the other node's from coming, but not one's own.
	server.Kill()
	down := s.awaitOwn("a", func(r summary) bool { return r.Redis.DownSince != nil })
	if down.Node.Name != "a" {
		t.Errorf("node %s says that Redis is down", down.Node.Name)
	}
	server.Restart()
	s.awaitOwn("b", func(r summary) bool { return r.Redis.DownSince == nil })
}

// awaitOwn waits for a report of one node, passing over what else the stream shows.
func (s *sse) awaitOwn(node string, f func(summary) bool) summary {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		b, ok := s.next()
		var got summary
		if ok && b.name == "stats" && json.Unmarshal([]byte(b.data), &got) == nil && got.Node.Name == node && f(got) {
			return got
		}
	}
	s.t.Fatalf("no such report of node %s", node)
	return summary{}
}

func TestQuantilesAreThoseOfTheLastSecond(t *testing.T) {
	h := newDurations("sluice_test_seconds", "A test.")
	if s := spreadOf(h); s.quantile(.5) != 0 {
		t.Errorf("of nothing, half takes %v", s.quantile(.5))
	}
	for range 1000 {
		h.Observe(10)
	}
	before := spreadOf(h)
	for i := range 1000 {
		h.Observe(float64(i+1) / 1000)
	}
	s := spreadOf(h).since(before)
	if s.count != 1000 {
		t.Fatalf("%d were observed, want 1000", s.count)
	}
	for q, want := range map[float64]float64{.001: .001, .5: .5, .99: .99, 1: 1} {
		if got := s.quantile(q); got < want/1.1 || got > want*1.1 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	h.Observe(0)
	if got := spreadOf(h).since(spreadOf(h)); got.count != 0 || got.quantile(.99) != 0 {
		t.Errorf("of nothing new: %+v", got)
	}
	if got := spreadOf(prometheus.NewHistogram(prometheus.HistogramOpts{Name: "plain", Help: "x"})); got.quantile(.5) != 0 {
		t.Errorf("without native buckets: %+v", got)
	}
}
