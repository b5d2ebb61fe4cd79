package handlers

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/fanout"
	"sluice/handlers/auth"
)

// ticketOf buys a ticket with a token of ann's.
func (n *liveNode) ticketOf(rooms string) string {
	n.t.Helper()
	got := n.ask("POST", "/tickets", rooms, bearer(token(n.t, auth.Grant{})), "Content-Type: application/json")
	if got.status != 201 || len(got.member(n.t, "ticket")) != 26 {
		n.t.Fatalf("a ticket is %v", got)
	}
	if at, err := time.Parse(time.RFC3339, got.member(n.t, "expires")); err != nil || time.Until(at) > 31*time.Second || time.Until(at) < 20*time.Second {
		n.t.Fatalf("a ticket expires at %q, want 30 s from now", got.member(n.t, "expires"))
	}
	return got.member(n.t, "ticket")
}

func TestTicketOpensOneStreamOnAnyNode(t *testing.T) {
	eachLog(t, func(t *testing.T, nodes int, open func() fanout.Log) {
		a, b := startNodes(t, nodes, open, withTokens(t))
		path := "/rooms/a1/events?ticket=" + a.ticketOf(`{"rooms":["a1"]}`)
		s := b.stream(path)
		s.opened()
		for _, n := range []*liveNode{a, b} {
			if again := n.ask("GET", path, ""); again.status != 401 || again.kind() != "unauthorized" {
				t.Errorf("the ticket's second use: %v, want 401", again)
			}
			if again := n.ask("GET", path+"&last=5", ""); again.status != 401 {
				t.Errorf("the ticket's second use without a cursor: %v, want 401", again)
			}
		}
		if got := a.ask("POST", "/rooms/a1/events", "x", bearer(token(t, auth.Grant{}))); got.status != 201 {
			t.Fatal(got)
		}
		if got := s.want(""); got.data != "x" {
			t.Errorf("the stream shows %+v", got)
		}
	})
}

func TestTicketReopensItsStreamAndEndsItElsewhere(t *testing.T) {
	eachLog(t, func(t *testing.T, nodes int, open func() fanout.Log) {
		a, b := startNodes(t, nodes, open, withTokens(t))
		path := "/rooms/a1/events?ticket=" + a.ticketOf("")
		first := a.stream(path)
		id, cursor := first.opened()
		for turn, n := range []*liveNode{b, a, b} {
			second := n.stream(path, "Last-Event-ID: "+cursor)
			if again, _ := second.opened(); again != id {
				t.Fatalf("turn %d has the id %s, want %s as before", turn, again, id)
			}
			if reason := first.ended(); reason != "" {
				t.Errorf("turn %d: the stream before says goodbye for %q, want it to end silently", turn, reason)
			}
			first = second
		}
		for _, other := range []string{"/rooms/a2/events?after=" + cursor, "/events?room=a1&room=a2&lastEventId=" + cursor} {
			if got := a.ask("GET", other+"&ticket="+strings.SplitAfter(path, "ticket=")[1], ""); got.status != 401 {
				t.Errorf("the ticket opens %s: %v", other, got)
			}
		}
		if got := a.ask("POST", "/rooms/a1/events", "x", bearer(token(t, auth.Grant{}))); got.status != 201 {
			t.Fatal(got)
		}
		if got := first.want(""); got.data != "x" {
			t.Errorf("the last turn shows %+v", got)
		}
	})
}

func TestOfManyUsesOfATicketOneGoesThrough(t *testing.T) {
	eachLog(t, func(t *testing.T, nodes int, open func() fanout.Log) {
		a, b := startNodes(t, nodes, open, withTokens(t))
		path := "/rooms/a1/events?ticket=" + a.ticketOf("")
		var opened, refused atomic.Int32
		var tasks sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 20 {
			tasks.Go(func() {
				n := a
				if i%2 == 1 {
					n = b
				}
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, n.url+path, nil)
				res, err := n.client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				switch res.StatusCode {
				case 200:
					opened.Add(1)
				case 401:
					refused.Add(1)
				}
			})
		}
		tasks.Wait()
		if opened.Load() != 1 || refused.Load() != 19 {
			t.Errorf("%d opened, %d refused; want 1 and 19", opened.Load(), refused.Load())
		}
	})
}

func TestTicketOpensWhatItsTokenMayRead(t *testing.T) {
	n := startNode(t, memory(), withTokens(t))
	for _, c := range []struct {
		rooms, path string
		sell, open  int
	}{
		{`{"rooms":["a1"]}`, "/rooms/a1/events", 201, 200},
		{`{"rooms":["a1"]}`, "/rooms/a2/events", 201, 403},
		{`{"rooms":["a1","a2"]}`, "/events?room=a2&room=a1", 201, 200},
		{``, "/rooms/a2/events", 201, 200},
		{``, "/rooms/b1/events", 201, 403},
		{`{"rooms":["b1"]}`, "", 403, 0},
		{`{"rooms":["a1","b1"]}`, "", 403, 0},
		{`{"rooms":["no room"]}`, "", 400, 0},
		{`{"room":"a1"}`, "", 400, 0},
		{`[]`, "", 400, 0},
	} {
		got := n.ask("POST", "/tickets", c.rooms, bearer(token(t, auth.Grant{})), "Content-Type: application/json")
		if got.status != c.sell {
			t.Errorf("a ticket for %s: %v, want %d", c.rooms, got, c.sell)
		}
		if got.status != 201 || c.sell != 201 {
			continue
		}
		sep := "?"
		if strings.Contains(c.path, "?") {
			sep = "&"
		}
		if s := n.stream(c.path + sep + "ticket=" + got.member(t, "ticket")); s.status != c.open {
			t.Errorf("%s with a ticket for %s: %d, want %d", c.path, c.rooms, s.status, c.open)
		}
	}
	for _, bad := range []string{"", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAA", strings.Repeat("A", 10000)} {
		if got := n.ask("GET", "/rooms/a1/events?ticket="+bad, ""); got.status != 401 {
			t.Errorf("the ticket %.30q: %v, want 401", bad, got)
		}
	}
	// It is good for streams only.
	for _, path := range []string{"/rooms/a1/events?limit=1&ticket=", "/rooms/a1?ticket="} {
		if got := n.ask("GET", path+n.ticketOf(""), ""); got.status != 401 {
			t.Errorf("%s: %v, want 401", path, got)
		}
	}
	if got := n.ask("POST", "/rooms/a1/events?ticket="+n.ticketOf(""), "x"); got.status != 401 {
		t.Errorf("publishing with a ticket: %v, want 401", got)
	}
}

func TestStrictTicketNeverReopens(t *testing.T) {
	cfg := withTokens(t)
	cfg.StrictTickets = true
	n := startNode(t, memory(), cfg)
	path := "/rooms/a1/events?ticket=" + n.ticketOf("")
	s := n.stream(path)
	_, cursor := s.opened()
	if got := n.ask("GET", path, "", "Last-Event-ID: "+cursor); got.status != 401 {
		t.Errorf("reopening: %v, want 401", got)
	}
}

func TestExcludedStreamStaysSoAfterReopening(t *testing.T) {
	n := startNode(t, memory(), withTokens(t))
	path := "/rooms/a1/events?ticket=" + n.ticketOf("")
	first := n.stream(path)
	id, cursor := first.opened()
	first.cancel()
	first.ended()
	ann := bearer(token(t, auth.Grant{}))
	for _, p := range []string{"/rooms/a1/events?exclude=" + id, "/rooms/a1/events"} {
		if got := n.ask("POST", p, p, ann); got.status != 201 {
			t.Fatal(got)
		}
	}
	second := n.stream(path, "Last-Event-ID: "+cursor)
	second.opened()
	if got := second.want(""); got.data != "/rooms/a1/events" {
		t.Errorf("the stream shows %q, which was to be kept from it", got.data)
	}
}

// flushed is a ResponseWriter in memory that streams can be written to.
type flushed struct{ *httptest.ResponseRecorder }

func (flushed) SetWriteDeadline(time.Time) error { return nil }

// inBubble runs f with a gateway whose time is the bubble's.
func inBubble(t *testing.T, cfg Config, f func(t *testing.T, get func(path string, stay time.Duration, lines ...string) *httptest.ResponseRecorder, g *Gateway)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		hub := fanout.NewHub(memory(), fanout.Options{})
		g := NewGateway(hub, cfg)
		var tasks sync.WaitGroup
		tasks.Go(func() { _ = hub.Run(ctx) })
		tasks.Go(func() { g.Run(ctx) })
		h := g.Handler()
		get := func(path string, stay time.Duration, lines ...string) *httptest.ResponseRecorder {
			method, path, _ := strings.Cut(path, " ")
			ctx, cancel := context.WithTimeout(ctx, stay)
			defer cancel()
			r := httptest.NewRequestWithContext(ctx, method, path, nil)
			for _, line := range lines {
				name, value, _ := strings.Cut(line, ": ")
				r.Header.Set(name, value)
			}
			rec := httptest.NewRecorder()
			func() {
				defer func() { _ = recover() }() // how a handler breaks a connection
				h.ServeHTTP(flushed{rec}, r)
			}()
			return rec
		}
		f(t, get, g)
		cancel()
		tasks.Wait()
	})
}

func TestTicketsHaveTheirTimes(t *testing.T) {
	cfg := withTokens(t)
	inBubble(t, cfg, func(t *testing.T, get func(string, time.Duration, ...string) *httptest.ResponseRecorder, g *Gateway) {
		buy := func(g auth.Grant) string {
			t.Helper()
			rec := get("POST /tickets", time.Second, bearer(token(t, g)))
			return "GET /rooms/a1/events?after=latest&ticket=" + reply{body: rec.Body.String()}.member(t, "ticket")
		}
		status := func(path string, stay time.Duration, want int) {
			t.Helper()
			if rec := get(path, stay); rec.Code != want {
				t.Errorf("%d, want %d", rec.Code, want)
			}
		}
		late := buy(auth.Grant{Expires: time.Now().Add(24 * time.Hour)})
		time.Sleep(ticketFresh + time.Second)
		status(late, time.Second, 401)

		good := buy(auth.Grant{Expires: time.Now().Add(24 * time.Hour)})
		time.Sleep(ticketFresh - time.Second)
		status(good, 20*time.Minute, 200) // longer than a record lives untouched
		time.Sleep(ticketReopen - 10*time.Second)
		status(good, time.Minute, 200)
		time.Sleep(ticketReopen + 10*time.Second)
		status(good, time.Second, 401)

		// The stream ends with its token, and the ticket does, too.
		short := buy(auth.Grant{Expires: time.Now().Add(time.Minute)})
		begun := time.Now()
		if rec := get(short, time.Hour); rec.Code != 200 || !strings.Contains(rec.Body.String(), "token_expired") {
			t.Errorf("the stream of a minute: %d %q", rec.Code, rec.Body)
		}
		if d := time.Since(begun); d < time.Minute || d > 65*time.Second {
			t.Errorf("the stream lasted %v, want a minute", d)
		}
		status(short, time.Second, 401)
		time.Sleep(10 * time.Second)
		g.tickets.mu.Lock()
		defer g.tickets.mu.Unlock()
		if n := len(g.tickets.open); n != 0 {
			t.Errorf("%d tickets are held of no stream", n)
		}
	})
}

func TestTicketLivesAsLongAsTheRenewedToken(t *testing.T) {
	t.Parallel() // it mostly waits
	n := startNode(t, memory(), withTokens(t))
	got := n.ask("POST", "/tickets", "", bearer(token(t, auth.Grant{Expires: time.Now().Add(4 * time.Second)})))
	path := "/rooms/a1/events?ticket=" + got.member(t, "ticket")
	first := n.stream(path)
	id, cursor := first.opened()
	first.want("sluice.expiring")
	fresh := token(t, auth.Grant{Expires: time.Now().Add(time.Hour)})
	if got := n.ask("POST", "/streams/"+id+"/token", `{"token":"`+fresh+`"}`); got.status != 200 {
		t.Fatal(got)
	}
	n.await("the ticket to follow", func() bool {
		held, err := n.gateway.loadTicket(t.Context(), ticketKeyOf(strings.SplitAfter(path, "ticket=")[1]))
		return err == nil && held.ttl(time.Hour) > time.Minute
	})
	second := n.stream(path, "Last-Event-ID: "+cursor)
	if again, _ := second.opened(); again != id {
		t.Errorf("the stream reopened as %s, want %s", again, id)
	}
}

func TestTicketsAreNotReadFromTheStore(t *testing.T) {
	eachLog(t, func(t *testing.T, nodes int, open func() fanout.Log) {
		a, _ := startNodes(t, nodes, open, withTokens(t))
		code := a.ticketOf("")
		key := ticketKeyOf(code)
		record, err := a.hub.Log().Load(t.Context(), key)
		if err != nil || record == nil {
			t.Fatalf("the record is %q, %v", record, err)
		}
		if strings.Contains(key+string(record), code) {
			t.Error("the store shows the ticket")
		}
	})
}
