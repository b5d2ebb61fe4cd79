package handlers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/fanout/redistest"
	"sluice/handlers/auth"
)

// S12: secrets are in nothing that the gateway writes.
func TestS12SecretsAreNeverWritten(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "redis-s3cr3t")
	cfg := withTokens(t)
	cfg.LogRequests = LogAllRequests
	n := startNode(t, openRedis(t, server.URL()), cfg)
	if !strings.Contains(server.URL(), "redis-s3cr3t") {
		t.Fatal("the server has no password")
	}
	good := token(t, auth.Grant{Publish: []string{"a*"}, Subscribe: []string{"a*"}})
	bad := good[:len(good)-4] + "AAAA"
	code := n.ticketOf("")
	secrets := []string{tsSecret, "redis-s3cr3t", good, bad, code, "MARKER", good[strings.LastIndex(good, ".")+1:]}
	var answers []string
	for _, token := range []string{good, bad} {
		for _, request := range []string{
			get("/rooms/a1/events?limit=1", bearer(token)), post("/rooms/a1/events", `{"MARKER":`, bearer(token), "Content-Type: application/json"),
			get("/rooms/a1/events?access_token=" + token), post("/streams/ABCDEFGHIJKLMNOPQRSTUVWXYZ/token", `{"token":"`+token+`"}`),
			get("/rooms/MARKER%20/events", bearer(token)), get("/rooms/a1/events?limit=MARKER", bearer(token)), get("/MARKER", "User-Agent: MARKER"),
			get("/rooms/a1/events", "Cookie: "+auth.Cookie+"="+token), post("/rooms/a1/events?type=MARKER", "x", bearer(token)),
			get("/rooms/a1/events?limit=1&after=MARKER", bearer(token)), post("/rooms/a1/events", "x", bearer(token), "Idempotency-Key: MARKER MARKER"),
		} {
			answers = append(answers, n.raw(request, 100*time.Millisecond))
		}
	}
	n.stream("/rooms/a1/events?ticket=" + code).opened()
	answers = append(answers, n.ask("GET", "/rooms/a1/events?ticket="+code, "").body)
	server.Kill()
	n.await("the outage to be noticed", func() bool {
		got := n.ask("POST", "/rooms/a1/events", "x", bearer(good))
		answers = append(answers, got.body)
		return got.status == 503
	})
	n.ask("POST", "/tickets", "", bearer(good))
	for _, text := range append(answers, n.logged.String()) {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%.12q… is in %.300q", secret, text)
			}
		}
	}
	for what, line := range map[string]string{
		"a refused token": "token refused", "a refused request": `"status":401`, "a stream": `"stream":true`, "a failure": `"problem":"unavailable"`,
	} {
		if !strings.Contains(n.logged.String(), line) {
			t.Errorf("%s leaves no trace in the log", what)
		}
	}
}

// S13: pages of other origins cannot post to a gateway, with or without cookies.
func TestS13PagesElsewhereCannotPost(t *testing.T) {
	n := startNode(t, memory(), Config{Origins: []string{"https://app.example"}})
	for _, c := range []struct {
		lines []string
		want  int
	}{
		{nil, 201}, // no browser
		{[]string{"Origin: " + n.url}, 201},
		{[]string{"Origin: https://app.example", "Sec-Fetch-Site: cross-site"}, 201},
		{[]string{"Origin: https://evil.example"}, 403},
		{[]string{"Origin: null"}, 403},
		{[]string{"Origin: https://evil.app.example"}, 403},
		{[]string{"Origin: http://app.example"}, 403},
		{[]string{"Origin: https://app.example.evil.example"}, 403},
		{[]string{"Sec-Fetch-Site: cross-site"}, 403},
		{[]string{"Sec-Fetch-Site: same-site", "Origin: https://sibling.example"}, 403},
		{[]string{"Origin: https://evil.example", "Content-Type: text/plain"}, 403},
		{[]string{"Origin: https://evil.example", "Content-Type: application/x-www-form-urlencoded"}, 403},
	} {
		for _, request := range [][2]string{{"POST", "/rooms/a1/events"}, {"POST", "/events?room=a1"}} {
			if got := n.ask(request[0], request[1], "x=y", c.lines...); got.status != c.want {
				t.Errorf("%s %s with %q: %v, want %d", request[0], request[1], c.lines, got, c.want)
			}
		}
		if c.want != 403 {
			continue
		}
		for _, request := range [][2]string{{"DELETE", "/rooms/a1/events"}, {"DELETE", "/streams/ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, {"POST", "/streams/ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, {"POST", "/tickets"}, {"POST", "/revocations"}} {
			if got := n.ask(request[0], request[1], "", c.lines...); got.status != 403 {
				t.Errorf("%s %s with %q: %v, want 403", request[0], request[1], c.lines, got)
			}
		}
	}
}

// S14: other origins read nothing unless they are named, exactly.
func TestS14OriginsAreExact(t *testing.T) {
	n := startNode(t, memory(), Config{Origins: []string{"https://app.example", "https://good.example:8443"}})
	for _, c := range []struct {
		origin  string
		allowed bool
	}{
		{"https://app.example", true}, {"https://good.example:8443", true},
		{"https://evil.example", false}, {"https://app.example.evil", false}, {"https://good.example", false}, {"http://app.example", false},
		{"https://good.app.example", false}, {"null", false}, {"https://APP.example", false}, {"https://app.example/", false}, {"*", false}, {"", false},
	} {
		for _, method := range []string{"GET", "OPTIONS"} {
			lines := []string{"Access-Control-Request-Method: POST"}
			if c.origin != "" {
				lines = append(lines, "Origin: "+c.origin)
			}
			got := n.ask(method, "/rooms/a1/events?limit=1", "", lines...)
			allowed := got.header.Get("Access-Control-Allow-Origin")
			if c.allowed && (allowed != c.origin || got.header.Get("Access-Control-Allow-Credentials") != "true") || !c.allowed && allowed != "" {
				t.Errorf("%s from %q: Access-Control-Allow-Origin %q", method, c.origin, allowed)
			}
			if !slices.Contains(got.header.Values("Vary"), "Origin") {
				t.Errorf("%s from %q lacks Vary: Origin", method, c.origin)
			}
			if method == "OPTIONS" && c.allowed && (got.status != 204 || !strings.Contains(got.header.Get("Access-Control-Allow-Headers"), "last-event-id")) {
				t.Errorf("a preflight from %q: %v", c.origin, got)
			}
		}
	}
	s := n.stream("/rooms/a1/events", "Origin: https://app.example")
	if s.opened(); s.header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Error("a stream is not for the origin that is allowed")
	}
}

// S19: subscribing writes nothing, and what it costs goes away with the streams.
func TestS19SubscribingWritesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	n, server := hostileNode(t, withTokens(t))
	line := bearer(token(t, auth.Grant{Subscribe: []string{"*"}}))
	unwritten(t, server, func() {
		for i := range 20 {
			s := n.stream(fmt.Sprintf("/events?room=x%d&room=y%d", i, i), line)
			s.opened()
			s.cancel()
		}
	})
	if _, rooms, _ := n.hub.Gauges(); rooms != 40 {
		t.Errorf("%d rooms are open, want 40", rooms)
	}
	n.await("the rooms to be closed", func() bool { _, rooms, _ := n.hub.Gauges(); return rooms == 0 })
}

// S20: rooms that nobody uses go away.
func TestS20RoomsGoAway(t *testing.T) {
	server := redistest.Start(t)
	log, err := fanout.OpenRedis(fanout.RedisOptions{URL: server.URL(), Logger: slog.New(slog.DiscardHandler), Keep: fanout.Retention{Age: 10 * time.Second, Keys: 10 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	drafts := []fanout.Draft{{Type: "message", Data: []byte("x"), Key: "k"}}
	for i := range 100 {
		if _, err := log.Append(t.Context(), fmt.Sprintf("r%d", i), drafts); err != nil {
			t.Fatal(err)
		}
	}
	if n := server.Client().DBSize(t.Context()).Val(); n < 300 {
		t.Fatalf("there are %d keys", n)
	}
	keys, err := server.Client().Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if ttl := server.Client().PTTL(t.Context(), key).Val(); ttl <= 0 && ttl != -2 || ttl > 2*time.Minute {
			t.Errorf("%s lives for %v", key, ttl)
		}
	}
}

// S26: a log line is a line, whatever came.
func TestS26LogLinesAreWhole(t *testing.T) {
	for name, handler := range map[string]func(w io.Writer) slog.Handler{
		"json": func(w io.Writer) slog.Handler {
			return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
		"text": func(w io.Writer) slog.Handler {
			return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var logged output
			cfg := withTokens(t)
			cfg.Logger = slog.New(handler(&logged))
			hub := fanout.NewHub(memory(), fanout.Options{})
			g := NewGateway(hub, cfg)
			kid, _ := json.Marshal("x\n\x1b[2J level=ERROR " + strings.Repeat("k", 5000))
			hostile := encode(`{"alg":"HS256","kid":`+string(kid)+`}`) + "." + encode(`{}`) + ".AAAA"
			for _, line := range []string{hostile, encode("{\"alg\":\"none\\n\x1b[2J\"}") + "." + encode(`{}`) + ".", "\u2028.\u202e."} {
				req, err := http.NewRequest("GET", "/rooms/a1", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+line)
				g.Handler().ServeHTTP(&recorded{header: http.Header{}}, req)
			}
			text := logged.String()
			for line := range strings.Lines(text) {
				if len(line) > 1000 || !strings.Contains(line, "token refused") {
					t.Errorf("a line of the log: %.300q", line)
				}
			}
			if strings.Count(text, "\n") != 3 || strings.ContainsAny(text, "\x1b\r\u2028\u202e") {
				t.Errorf("the log is %q, want three clean lines", text)
			}
		})
	}
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// S28: a user of Redis who may do what is documented, and no more, is enough.
func TestS28DocumentedRightsAreEnough(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	rules := "on >pw ~sluice:* &sluice:* +@read +@write +@pubsub -@dangerous +eval +evalsha +eval_ro +evalsha_ro +script|load +script|exists +info +time +ping +wait +hello +client|setname"
	args := []any{"ACL", "SETUSER", "gateway"}
	for _, rule := range strings.Fields(rules) {
		args = append(args, rule)
	}
	server.Do(args...)
	url := strings.Replace(server.URL(), "redis://", "redis://gateway:pw@", 1)
	cfg := withTokens(t)
	cfg.Limits = Limits{PublishRate: 100, PublishBurst: 20, RoomRate: 1}
	a, b := startNode(t, openRedis(t, url), cfg), startNode(t, openRedis(t, url), cfg)
	s := b.stream("/rooms/a1/events?ticket=" + a.ticketOf(""))
	s.opened()
	ann := bearer(token(t, auth.Grant{}))
	if got := a.ask("POST", "/rooms/a1/events", "x", ann, "Idempotency-Key: k"); got.status != 201 {
		t.Fatal(got)
	}
	s.want("")
	admin := bearer(token(t, auth.Grant{Subject: "adm", Admin: true}))
	for _, request := range [][2]string{{"GET", "/rooms/a1/events?limit=1"}, {"GET", "/rooms/a1"}} {
		if got := a.ask(request[0], request[1], "", ann); got.status != 200 {
			t.Errorf("%s: %v", request, got)
		}
	}
	for _, request := range [][2]string{{"GET", "/rooms"}, {"DELETE", "/rooms/a1/events"}} {
		if got := a.ask(request[0], request[1], "", admin); got.status != 200 {
			t.Errorf("%s: %v", request, got)
		}
	}
	if got := a.ask("POST", "/revocations", `{"subject":"ann"}`, admin); got.status != 200 {
		t.Errorf("revoking: %v", got)
	}
	if reason := s.ended(); reason != "revoked" {
		t.Errorf("the stream ended for %q", reason)
	}
	if _, err := a.hub.Log().Spend(t.Context(), []fanout.Spending{{Key: "x", Cost: time.Second, Most: time.Minute}}); err != nil {
		t.Error(err)
	}
	if strings.Contains(a.logged.String()+b.logged.String(), "does not let us") {
		t.Errorf("the log complains: %s", a.logged)
	}
}

// S30: streams of an HTTP/2 connection are bounded, one that stalls holds up
// nobody, and a reset gives back what it held.
func TestS30HTTP2IsBounded(t *testing.T) {
	hub := fanout.NewHub(memory(), fanout.Options{Logger: slog.New(slog.DiscardHandler)})
	g := NewGateway(hub, Config{WriteTimeout: 2 * time.Second, Logger: slog.New(slog.DiscardHandler), MaxBody: 1 << 20})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(g.Handler(), slog.New(slog.DiscardHandler))
	var conns atomic.Int32
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = hub.Run(ctx) })
	tasks.Go(func() { _ = srv.ServeTLS(ln, "", "") })
	defer tasks.Wait()
	defer cancel()
	defer func() { _ = srv.Close() }()

	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	base := "https://" + ln.Addr().String()
	do := func(ctx context.Context, method, path, body string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body == "" {
			req.Body, req.ContentLength = http.NoBody, 0
		}
		return transport.RoundTrip(req)
	}
	res, err := do(ctx, "GET", "/healthz", "")
	if err != nil || res.ProtoMajor != 2 {
		t.Fatalf("%v, %v", res, err)
	}
	_ = res.Body.Close()
	// More than a hundred at a time need another connection.
	inTime, stop := context.WithTimeout(ctx, 10*time.Second)
	open := 0
	for range 150 {
		res, err := do(inTime, "GET", "/rooms/a1/events", "")
		if err != nil {
			break
		}
		defer res.Body.Close()
		open++
	}
	stop()
	if open != 150 || conns.Load() != 2 {
		t.Errorf("%d streams were open on %d connections, want 150 on 2", open, conns.Load())
	}
	// One that reads nothing, and a flood of those that give up at once.
	stalled, err := do(ctx, "GET", "/rooms/a1/events", "")
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Body.Close()
	for range 500 {
		ctx, cancel := context.WithCancel(ctx)
		if res, err := do(ctx, "GET", "/rooms/a1/events", ""); err == nil {
			_ = res.Body.Close()
		}
		cancel()
	}
	body := strings.Repeat("x", 1<<20)
	for range 10 {
		begun := time.Now()
		res, err := do(ctx, "POST", "/rooms/a1/events", body)
		if err != nil || res.StatusCode != 201 || time.Since(begun) > 3*time.Second {
			t.Fatalf("publishing beside a stalled stream: %v, %v after %v", res, err, time.Since(begun))
		}
		_ = res.Body.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); g.limits.streams.Total() > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d streams are held", g.limits.streams.Total())
		}
		time.Sleep(time.Millisecond) // between looks at what tells nobody of itself
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
