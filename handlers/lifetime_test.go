package handlers

import (
	"testing"
	"time"

	"sluice/fanout"
	"sluice/handlers/auth"
)

func TestStreamEndsWithItsToken(t *testing.T) {
	t.Parallel() // it mostly waits
	n := startNode(t, memory(), withTokens(t))
	until := time.Now().Add(2 * time.Second)
	short := bearer(token(t, auth.Grant{Expires: until}))
	s := n.stream("/rooms/a1/events", short)
	_, cursor := s.opened()
	s.want("sluice.expiring")
	if reason := s.ended(); reason != "token_expired" {
		t.Errorf("it ended for %q", reason)
	}
	if late := time.Since(until); late > 5*time.Second {
		t.Errorf("it ended %v after its token", late)
	}
	if got := n.ask("GET", "/rooms/a1/events", "", short, "Last-Event-ID: "+cursor); got.status != 401 {
		t.Errorf("coming back with the same token: %v, want 401", got)
	}
}

func TestFreshTokenRenewsAStreamFromAnyNode(t *testing.T) {
	t.Parallel() // it mostly waits
	eachLog(t, func(t *testing.T, nodes int, open func() fanout.Log) {
		cfg := withTokens(t)
		cfg.PublicSubscribe, _ = auth.ParsePatterns([]string{"wall"})
		a, b := startNodes(t, nodes, open, cfg)
		first := time.Now().Add(3 * time.Second)
		s := a.stream("/rooms/a1/events", bearer(token(t, auth.Grant{Expires: first})))
		id, _ := s.opened()
		s.want("sluice.expiring")
		renew := func(n *liveNode, id, token string) reply {
			t.Helper()
			return n.ask("POST", "/streams/"+id+"/token", `{"token":"`+token+`"}`, "Content-Type: application/json")
		}
		nowhere := "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
		for what, c := range map[string]struct {
			got  reply
			want int
		}{
			"somebody else's token": {renew(b, id, token(t, auth.Grant{Subject: "bob"})), 404},
			"a token for less":      {renew(b, id, token(t, auth.Grant{Subscribe: []string{"a2"}})), 403},
			"a bad token":           {renew(b, id, "x"), 401},
			"no token":              {b.ask("POST", "/streams/"+id+"/token", ""), 401},
			"another stream":        {renew(b, nowhere, token(t, auth.Grant{})), 404},
			"no stream's id":        {renew(b, "x", token(t, auth.Grant{})), 404},
			"another member":        {b.ask("POST", "/streams/"+id+"/token", `{"tokens":"x"}`), 400},
			"a large body":          {renew(b, id, string(make([]byte, 20<<10))), 413},
		} {
			if c.got.status != c.want {
				t.Errorf("%s: %v, want %d", what, c.got, c.want)
			}
		}
		later := time.Now().Add(time.Hour).Truncate(time.Second)
		got := renew(b, id, token(t, auth.Grant{Expires: later}))
		if got.status != 200 || got.member(t, "expires") != later.UTC().Format("2006-01-02T15:04:05.000Z") {
			t.Errorf("a fresh token: %v", got)
		}
		<-time.After(time.Until(first.Add(1500 * time.Millisecond))) // when it would have ended
		if got := b.ask("POST", "/rooms/a1/events", "still here", bearer(token(t, auth.Grant{}))); got.status != 201 {
			t.Fatal(got)
		}
		if got := s.want(""); got.data != "still here" {
			t.Errorf("the stream shows %+v", got)
		}
	})
}

func TestRevokedSubjectIsOutOnAllNodes(t *testing.T) {
	t.Parallel() // it mostly waits
	eachLog(t, func(t *testing.T, nodes int, open func() fanout.Log) {
		a, b := startNodes(t, nodes, open, withTokens(t))
		admin := bearer(token(t, auth.Grant{Subject: "adm", Admin: true}))
		old := bearer(token(t, auth.Grant{}))
		ticket := "/rooms/a1/events?ticket=" + a.ticketOf("")
		bob := a.stream("/rooms/a1/events", bearer(token(t, auth.Grant{Subject: "bob"})))
		bob.opened()
		var streams []*sse
		for _, n := range []*liveNode{a, b} {
			s := n.stream("/rooms/a1/events", old)
			s.opened()
			streams = append(streams, s)
		}
		asked := time.Now()
		if got := a.ask("POST", "/revocations", `{"subject":"ann"}`, admin); got.status != 200 || got.member(t, "subject") != "ann" {
			t.Fatal(got)
		}
		for _, s := range streams {
			if reason := s.ended(); reason != "revoked" {
				t.Errorf("the stream ended for %q", reason)
			}
		}
		if d := time.Since(asked); d > 2*time.Second {
			t.Errorf("that took %v, want 2 s at most", d)
		}
		for _, n := range []*liveNode{a, b} {
			if got := n.ask("GET", "/rooms/a1/events", "", old); got.status != 204 || got.body != "" {
				t.Errorf("a stream with an old token: %v, want 204", got)
			}
			if got := n.ask("GET", ticket, ""); got.status != 204 {
				t.Errorf("a stream with an old ticket: %v, want 204", got)
			}
			for _, path := range []string{"/rooms/a1/events?limit=1", "/rooms/a1"} {
				if got := n.ask("GET", path, "", old); got.status != 401 || got.kind() != "unauthorized" {
					t.Errorf("%s with an old token: %v, want 401", path, got)
				}
			}
			if got := n.ask("POST", "/rooms/a1/events", "x", old); got.status != 401 {
				t.Errorf("publishing with an old token: %v, want 401", got)
			}
			fresh := bearer(token(t, auth.Grant{IssuedAt: time.Now().Add(2 * time.Second)}))
			if got := n.ask("POST", "/rooms/a1/events", "x", fresh); got.status != 201 {
				t.Errorf("publishing with a fresh token: %v, want 201", got)
			}
		}
		if got := bob.want(""); got.data != "x" {
			t.Errorf("bob's stream shows %+v", got)
		}
		// A node that starts later knows it, too.
		if nodes > 1 {
			if got := startNode(t, open(), withTokens(t)).ask("POST", "/rooms/a1/events", "x", old); got.status != 401 {
				t.Errorf("on a new node: %v, want 401", got)
			}
		}
		for _, body := range []string{``, `{}`, `{"subject":""}`, `{"subject":"a\nb"}`, `{"subject":5}`, `{"subject":"x","more":1}`} {
			if got := a.ask("POST", "/revocations", body, admin); got.status != 400 {
				t.Errorf("revoking %s: %v, want 400", body, got)
			}
		}
	})
}

func TestTokenThatDoesNotSayWhenItWasIssuedIsAsOldAsAny(t *testing.T) {
	rv := newRevocations(fanout.NewMemory(fanout.Retention{}), func(string, time.Time) {})
	ctx := t.Context()
	if err := rv.check(ctx, auth.Claims{Subject: "ann"}); err != nil {
		t.Fatalf("before anything was revoked: %v", err)
	}
	at, err := rv.store.Mark(ctx, revocationList, "ann", keepRevocations)
	if err != nil {
		t.Fatal(err)
	}
	if err := rv.poll(ctx); err != nil {
		t.Fatal(err)
	}
	second := at.Truncate(time.Second)
	for issued, want := range map[time.Time]error{
		{}: errRevoked, second.Add(-time.Hour): errRevoked, second: errRevoked, second.Add(time.Second): nil,
	} {
		if got := rv.check(ctx, auth.Claims{Subject: "ann", IssuedAt: issued}); got != want {
			t.Errorf("issued at %v: %v, want %v", issued, got, want)
		}
	}
	if err := rv.check(ctx, auth.Claims{Subject: "bob"}); err != nil {
		t.Errorf("bob: %v", err)
	}
}
