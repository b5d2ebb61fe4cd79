package handlers

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/handlers/auth"
)

func memory() fanout.Log { return fanout.NewMemory(fanout.Retention{}) }

func TestOpenGatewayIsForEverybodyButAdministersFromItsMachineOnly(t *testing.T) {
	n := startNode(t, memory(), Config{})
	for _, c := range []struct {
		method, path string
		lines        []string
		want         int
	}{
		{"POST", "/rooms/lobby/events", nil, 201},
		{"POST", "/rooms/lobby/events", []string{bearer("anything")}, 201},
		{"GET", "/rooms/lobby/events?limit=1", nil, 200},
		{"GET", "/rooms/lobby", nil, 200},
		{"GET", "/rooms", nil, 200},
		{"GET", "/rooms", []string{"X-Forwarded-For: 203.0.113.9"}, 403},
		{"GET", "/rooms", []string{"Forwarded: for=203.0.113.9"}, 403},
		{"GET", "/rooms", []string{"Via: 1.1 proxy"}, 403},
		{"GET", "/rooms", []string{"X-Real-IP: 203.0.113.9"}, 403},
		{"DELETE", "/rooms/lobby/events", []string{"X-Forwarded-For: 127.0.0.1"}, 403},
		{"DELETE", "/rooms/lobby/events", nil, 200},
		{"POST", "/rooms/lobby/events", []string{"Host: evil.example"}, 403},
		{"POST", "/rooms/lobby/events", []string{"Host: localhost:8080"}, 201},
		{"POST", "/rooms/lobby/events", []string{"Host: [::1]:8080"}, 201},
		{"POST", "/rooms/lobby/events", []string{"Host: chat.example", "X-Forwarded-For: 203.0.113.9"}, 201},
		{"POST", "/tickets", nil, 404},
		{"POST", "/revocations", nil, 404},
		{"POST", "/streams/ABCDEFGHIJKLMNOPQRSTUVWXYZ/token", nil, 404},
	} {
		if got := n.ask(c.method, c.path, "", c.lines...); got.status != c.want {
			t.Errorf("%s %s with %q: %d %s, want %d", c.method, c.path, c.lines, got.status, got.body, c.want)
		}
	}
}

func TestTokenDecidesWhatARequestMayDo(t *testing.T) {
	cfg := withTokens(t)
	cfg.PublicSubscribe, _ = auth.ParsePatterns([]string{"news:*", "shut:*", "wall"})
	cfg.PublicPublish, _ = auth.ParsePatterns([]string{"wall"})
	yes, no := true, false
	cfg.Namespaces = map[string]Namespace{"shut": {PublicSubscribe: &no}, "box": {PublicPublish: &yes}}
	n := startNode(t, memory(), cfg)
	past := time.Now().Add(-time.Hour)
	tokens := map[string]string{
		"nobody":  "",
		"ann":     token(t, auth.Grant{}),
		"reader":  token(t, auth.Grant{Subject: "rea", Subscribe: []string{"a1"}}),
		"writer":  token(t, auth.Grant{Subject: "wri", Publish: []string{"a1"}}),
		"admin":   token(t, auth.Grant{Subject: "adm", Admin: true, Subscribe: []string{"none"}}),
		"expired": token(t, auth.Grant{IssuedAt: past, Expires: past.Add(time.Minute)}),
		"forged":  token(t, auth.Grant{}) + "A",
	}
	for _, c := range []struct {
		method, path string
		want         map[string]int
	}{
		{"POST", "/rooms/a1/events", map[string]int{"nobody": 401, "ann": 201, "reader": 403, "writer": 201, "admin": 403, "expired": 401, "forged": 401}},
		{"POST", "/events?room=a1&room=b1", map[string]int{"nobody": 401, "ann": 403, "reader": 403, "writer": 403, "expired": 401}},
		{"GET", "/rooms/a1/events?limit=1", map[string]int{"nobody": 401, "ann": 200, "reader": 200, "writer": 403, "admin": 403, "expired": 401, "forged": 401}},
		{"GET", "/rooms/b1/events?limit=1", map[string]int{"nobody": 401, "ann": 403, "reader": 403}},
		{"GET", "/rooms/a1/events?wait=0", map[string]int{"nobody": 401, "ann": 200, "writer": 403}},
		{"GET", "/events?room=a1&room=b1", map[string]int{"nobody": 401, "ann": 403, "reader": 403, "expired": 401}},
		{"GET", "/rooms/a1", map[string]int{"nobody": 401, "ann": 200, "reader": 200, "writer": 403}},
		{"GET", "/rooms", map[string]int{"nobody": 401, "ann": 403, "admin": 200, "expired": 401}},
		{"DELETE", "/rooms/a1/events", map[string]int{"nobody": 401, "ann": 403, "admin": 200}},
		{"POST", "/revocations", map[string]int{"nobody": 401, "ann": 403, "admin": 400}},
		{"POST", "/tickets", map[string]int{"nobody": 401, "ann": 201, "writer": 201, "expired": 401}},
		{"GET", "/rooms/news:x/events?limit=1", map[string]int{"nobody": 200, "ann": 200, "reader": 200, "expired": 401, "forged": 401}},
		{"POST", "/rooms/news:x/events", map[string]int{"nobody": 401, "ann": 403}},
		{"GET", "/rooms/shut:x/events?limit=1", map[string]int{"nobody": 401, "ann": 403}},
		{"POST", "/rooms/box:x/events", map[string]int{"nobody": 201, "ann": 201, "expired": 401}},
		{"GET", "/rooms/box:x/events?limit=1", map[string]int{"nobody": 401, "ann": 403}},
		{"POST", "/rooms/wall/events", map[string]int{"nobody": 201, "ann": 201, "expired": 401}},
		{"GET", "/healthz", map[string]int{"nobody": 200, "forged": 200}},
	} {
		for who, want := range c.want {
			var lines []string
			if tokens[who] != "" {
				lines = []string{bearer(tokens[who])}
			}
			if got := n.ask(c.method, c.path, "", lines...); got.status != want {
				t.Errorf("%s %s by %s: %d %s, want %d", c.method, c.path, who, got.status, got.body, want)
			}
		}
	}
}

func TestStreamsAreRefusedWithTheStatusAtWhichClientsStop(t *testing.T) {
	n := startNode(t, memory(), withTokens(t))
	for _, c := range []struct {
		line string
		want int
	}{
		{"X: y", 401},
		{bearer("x"), 401},
		{bearer(token(t, auth.Grant{Subscribe: []string{"b*"}})), 403},
		{bearer(token(t, auth.Grant{})), 200},
	} {
		for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
			if s := n.stream("/rooms/a1/events", c.line, "Accept: "+accept); s.status != c.want {
				t.Errorf("stream with %q: %d, want %d", c.line, s.status, c.want)
			}
		}
	}
}

func TestRefusalsLookAlike(t *testing.T) {
	n := startNode(t, memory(), withTokens(t))
	if got := n.ask("POST", "/rooms/b-there/events", "x", bearer(token(t, auth.Grant{Publish: []string{"b*"}}))); got.status != 201 {
		t.Fatal(got)
	}
	ann := bearer(token(t, auth.Grant{}))
	for _, path := range []string{"/rooms/%s", "/rooms/%s/events", "/rooms/%s/events?limit=1", "/rooms/%s/events?after=earliest", "/events?room=%s"} {
		there := n.ask("GET", strings.ReplaceAll(path, "%s", "b-there"), "", ann)
		nowhere := n.ask("GET", strings.ReplaceAll(path, "%s", "b-nowhere"), "", ann)
		if there.status != 403 || there.body != nowhere.body || there.status != nowhere.status {
			t.Errorf("%s: %v and %v", path, there, nowhere)
		}
	}
	first := n.ask("GET", "/rooms/a1", "")
	expired := token(t, auth.Grant{IssuedAt: time.Unix(1, 0), Expires: time.Unix(2, 0)})
	for _, line := range []string{"X: y", bearer(""), bearer("a.b.c"), bearer(expired), "Cookie: " + auth.Cookie + "=x"} {
		got := n.ask("GET", "/rooms/a1", "", line)
		if got.status != 401 || got.body != first.body || got.header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
			t.Errorf("with %q: %v, want it to look as without a token", line, got)
		}
	}
}

func TestSenderIsTheTokensSubject(t *testing.T) {
	n := startNode(t, memory(), withTokens(t))
	got := n.ask("POST", "/rooms/a1/events", `{"from":"admin","user":"admin","text":"hi"}`, bearer(token(t, auth.Grant{})), "Content-Type: application/json")
	if got.status != 201 {
		t.Fatal(got)
	}
	page := n.ask("GET", "/rooms/a1/events?limit=1", "", bearer(token(t, auth.Grant{Subject: "bob"})))
	if !strings.Contains(page.body, `"from":"ann"`) {
		t.Errorf("the page is %s, want the event to be from ann", page.body)
	}
}

func TestCookieIsATokenOfItsOwnOriginOnly(t *testing.T) {
	n := startNode(t, memory(), withTokens(t))
	cookie := "Cookie: " + auth.Cookie + "=" + token(t, auth.Grant{})
	own := "Origin: " + n.url
	for _, c := range []struct {
		method string
		lines  []string
		want   int
	}{
		{"GET", []string{cookie}, 200},
		{"POST", []string{cookie, own}, 201},
		{"POST", []string{cookie, "Sec-Fetch-Site: same-origin"}, 201},
		{"POST", []string{cookie}, 403},
		{"POST", []string{cookie, "Origin: null"}, 403},
		{"POST", []string{cookie, "Origin: https://evil.example"}, 403},
		{"POST", []string{cookie, "Sec-Fetch-Site: same-site"}, 403},
		{"POST", []string{cookie, "Sec-Fetch-Site: cross-site", "Content-Type: text/plain"}, 403},
		{"POST", []string{bearer(token(t, auth.Grant{})), cookie}, 201},
		{"POST", []string{bearer("x"), cookie, own}, 401},
		{"POST", []string{cookie, "Cookie: " + auth.Cookie + "=other", own}, 401},
	} {
		if got := n.ask(c.method, "/rooms/a1/events?limit=1", "", c.lines...); got.status != c.want {
			t.Errorf("%s with %q: %d %s, want %d", c.method, c.lines, got.status, got.body, c.want)
		}
	}
}

func TestKeysOutOfReachAreNoVerdict(t *testing.T) {
	v, err := auth.New(auth.Config{JWKSURL: "http://127.0.0.1:1/jwks"})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	n := startNode(t, memory(), Config{Verifier: v})
	line := bearer(token(t, auth.Grant{}))
	if got := n.ask("POST", "/rooms/a1/events", "x", line); got.status != 503 || got.kind() != "no-keys" || got.header.Get("Retry-After") == "" {
		t.Errorf("a publication is answered by %v, want 503", got)
	}
	if got := n.ask("GET", "/readyz", ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("ready: %v", got)
	}
	if reason := n.stream("/rooms/a1/events", line).ended(); reason != "overload" {
		t.Errorf("a stream ends for %q, want overload", reason)
	}
}
