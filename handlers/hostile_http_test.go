package handlers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/fanout/redistest"
	"sluice/handlers/auth"
)

// S15: of one request there is one answer, and nothing of a body is ever taken
// for a request.
func TestS15NoRequestInsideAnother(t *testing.T) {
	n, _ := hostileNode(t, withTokens(t))
	all := bearer(token(t, auth.Grant{Publish: []string{"*"}, Subscribe: []string{"*"}}))
	inner := "POST /rooms/smuggled/events HTTP/1.1\r\nHost: 127.0.0.1\r\n" + all + "\r\nContent-Length: 1\r\n\r\nx"
	open := func(method string, lines ...string) string {
		return head(method, "/rooms/a1/events", append([]string{all}, lines...)...)
	}
	for _, c := range []struct {
		name, request string
		status        int // of the one answer; 0: whatever it is
	}{
		{"CL and TE", open("POST", fmt.Sprintf("Content-Length: %d", len(inner)+5), "Transfer-Encoding: chunked") + "\r\n0\r\n\r\n" + inner, 0},
		{"two CLs", open("POST", "Content-Length: 0", fmt.Sprintf("Content-Length: %d", len(inner))) + "\r\n" + inner, 400},
		{"CL with a sign", open("POST", "Content-Length: +5") + "\r\n" + inner, 400},
		{"TE that is none", open("POST", "Transfer-Encoding: xchunked") + "\r\n0\r\n\r\n" + inner, 501},
		{"two TEs", open("POST", "Transfer-Encoding: chunked", "Transfer-Encoding: identity") + "\r\n0\r\n\r\n" + inner, 0},
		{"a space before the colon", open("POST", "Content-Length : 0") + "\r\n" + inner, 400},
		{"GET with a body", open("GET", fmt.Sprintf("Content-Length: %d", len(inner))) + "\r\n" + inner, 400},
		{"GET with chunks", open("GET", "Transfer-Encoding: chunked") + "\r\n0\r\n\r\n" + inner, 400},
		{"DELETE with a body", open("DELETE", fmt.Sprintf("Content-Length: %d", len(inner))) + "\r\n" + inner, 400},
		{"no Host", "POST /rooms/a1/events HTTP/1.1\r\n" + all + "\r\nContent-Length: 0\r\n\r\n" + inner, 400},
		{"two Hosts", open("POST", "Host: b", "Content-Length: 0") + "\r\n" + inner, 400},
		{"a long chunk extension", open("POST", "Transfer-Encoding: chunked") + "\r\n1;" + strings.Repeat("x", 20<<10) + "\r\nx\r\n0\r\n\r\n", 0},
		{"a chunk that lies", open("POST", "Transfer-Encoding: chunked") + "\r\nfffffffffffffffff\r\n" + inner, 0},
		{"an unread body", head("POST", "/rooms/a1/events", fmt.Sprintf("Content-Length: %d", len(inner))) + "\r\n" + inner, 401},
		{"HTTP/0.9", "GET /rooms/a1/events\r\n\r\n", 400},
		{"HTTP/2 without a proxy", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
		{"a NUL in the head", "GET /rooms/a1 HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := responses(t, n.raw(c.request, 300*time.Millisecond), "POST")
			if len(got) > 1 || c.status != 0 && (len(got) == 0 || got[0].status != c.status) {
				t.Errorf("answers: %.600v; want one with %d", got, c.status)
			}
		})
	}
	if got := n.ask("GET", "/rooms/smuggled", "", all); !strings.Contains(got.body, `"head":"0-0"`) {
		t.Errorf("a request inside another was taken for one: %s", got.body)
	}
}

// S16: who is slow is waited for as long as there is patience, and no longer.
func TestS16SlowClientsAreCutOff(t *testing.T) {
	cfg := Config{BodyTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond, MaxBody: 1 << 20}
	n := startNode(t, memory(), cfg)
	long := func(size int) string { // a head of that size
		h := get("/rooms/a1", "X: ")
		return strings.Replace(h, "X: ", "X: "+strings.Repeat("x", size-len(h)), 1)
	}
	for name, c := range map[string]struct {
		request string
		most    time.Duration
		want    string
	}{
		"a head of 16 KiB":             {long(16 << 10), 2 * time.Second, "200"},
		"a head of 16 KiB and a byte":  {long(16<<10 + 1), 2 * time.Second, "431"},
		"a head that does not end":     {"GET / HTTP/1.1\r\nHost: a\r\n", 6 * time.Second, ""},
		"a body that does not come":    {head("POST", "/rooms/a1/events", "Content-Length: 5") + "\r\n", 2 * time.Second, "400"},
		"a body that nobody reads":     {head("POST", "/nowhere", "Content-Length: 5") + "\r\n", 2 * time.Second, "404"},
		"chunks that do not come":      {head("POST", "/rooms/a1/events", "Transfer-Encoding: chunked") + "\r\n5\r\nab", 2 * time.Second, "400"},
		"a head of 2 MB":               {head("GET", "/", "X: "+strings.Repeat("x", 2<<20)) + "\r\n", 2 * time.Second, "431"},
		"ten thousand header lines":    {head("GET", "/", strings.Repeat("X: y\r\n", 10000)) + "\r\n", 2 * time.Second, "431"},
		"a path of 100 KB":             {get("/" + strings.Repeat("a", 100<<10)), 2 * time.Second, "431"},
		"a body that promises 100 MB":  {head("POST", "/rooms/a1/events", "Content-Length: 104857600") + "\r\n" + strings.Repeat("x", 2<<20), 3 * time.Second, "413"},
		"a body of 100 MB, in chunks":  {head("POST", "/rooms/a1/events", "Transfer-Encoding: chunked") + "\r\n" + strings.Repeat("10000\r\n"+strings.Repeat("x", 1<<16)+"\r\n", 40), 3 * time.Second, "413"},
		"a ticket's body that is slow": {head("POST", "/streams/ABCDEFGHIJKLMNOPQRSTUVWXYZ/token", "Content-Length: 5") + "\r\n", 2 * time.Second, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			got := n.raw(c.request, 10*time.Second)
			if took := time.Since(begun); took > c.most {
				t.Errorf("the connection was held for %v, want %v at most", took, c.most)
			}
			if !strings.HasPrefix(got, "HTTP/1.1 "+c.want) && !(c.want == "" && got == "") && !(got == "" && len(c.request) > 1<<20) {
				t.Errorf("the answer is %.100q, want %s", got, c.want)
			}
		})
	}
}

// S16: a reader that takes nothing is ended, and delays nobody.
func TestS16ReaderThatTakesNothingIsEnded(t *testing.T) {
	t.Parallel() // it mostly waits
	n := startNode(t, memory(), Config{WriteTimeout: 500 * time.Millisecond, MaxBody: 1 << 20})
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := io.WriteString(conn, head("GET", "/rooms/a1/events")+"\r\n"); err != nil {
		t.Fatal(err)
	}
	good := n.stream("/rooms/a1/events")
	good.opened()
	body := strings.Repeat("x", 1<<20)
	for i := 0; i < 40 && n.gateway.limits.streams.Total() > 1 || i < 5; i++ {
		if got := n.ask("POST", "/rooms/a1/events", body); got.status != 201 {
			t.Fatal(got)
		}
		if b := good.want(""); len(b.data) != len(body) {
			t.Fatalf("the good stream shows %d bytes", len(b.data))
		}
	}
	n.await("the slow reader's stream to end", func() bool { return n.gateway.limits.streams.Total() == 1 })
}

// S17: bodies that are bombs.
func TestS17BombsAreRefused(t *testing.T) {
	n, server := hostileNode(t, withTokens(t))
	ann := bearer(token(t, auth.Grant{}))
	var keys strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&keys, `"k%d":1,`, i)
	}
	gzip := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
	kind := "Content-Type: application/json"
	unwritten(t, server, func() {
		for name, c := range map[string]struct {
			body   string
			lines  []string
			status int
		}{
			"10 MB":                  {`"` + strings.Repeat("x", 10<<20) + `"`, []string{kind}, 413},
			"64 KiB and a byte":      {strings.Repeat("x", 64<<10+1), nil, 413},
			"10^4 deep":              {strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), []string{kind}, 400},
			"10^6 deep":              {strings.Repeat("[", 1_000_000), []string{kind}, 413},
			"65 deep":                {strings.Repeat("[", 65) + strings.Repeat("]", 65), []string{kind}, 400},
			"gzip":                   {gzip, []string{kind, "Content-Encoding: gzip"}, 415},
			"gzip twice":             {gzip, []string{"Content-Encoding: gzip, gzip"}, 415},
			"gzip behind identity":   {"x", []string{"Content-Encoding: identity", "Content-Encoding: gzip"}, 415},
			"text, and JSON":         {"{", []string{"Content-Type: text/plain", kind}, 415},
			"gzip unsaid":            {gzip, []string{kind}, 400},
			"many names, one twice":  {"{" + keys.String()[:60_000] + `":0}`, []string{kind}, 413},
			"names twice":            {`{"a":1,"a":2}`, []string{kind}, 400},
			"names twice, escaped":   {`{"a":1,"\u0061":2}`, []string{kind}, 400},
			"something behind":       {`{} {}`, []string{kind}, 400},
			"a number too large":     {`1e999`, []string{kind}, 400},
			"a number not JSON's":    {`[NaN]`, []string{kind}, 400},
			"a comma too many":       {`[1,]`, []string{kind}, 400},
			"nothing":                {``, []string{kind}, 400},
			"an image":               {"\x89PNG", []string{"Content-Type: image/png"}, 415},
			"a type that is none":    {"x", []string{"Content-Type: ;;"}, 415},
			"UTF-16":                 {"x", []string{"Content-Type: text/plain; charset=utf-16"}, 415},
			"multipart":              {"--x--", []string{"Content-Type: multipart/form-data; boundary=x"}, 415},
			"a batch of 1001":        {strings.Repeat(`{"data":1}`+"\n", 1001), []string{"Content-Type: application/x-ndjson"}, 413},
			"a batch of over 1 MiB":  {strings.Repeat(`{"data":"`+strings.Repeat("x", 2000)+"\"}\n", 600), []string{"Content-Type: application/x-ndjson"}, 413},
			"a batch, line 2 broken": {"{\"data\":1}\n{\"data\"", []string{"Content-Type: application/x-ndjson"}, 400},
			"a batch, too much":      {`{"data":1,"from":"admin"}`, []string{"Content-Type: application/x-ndjson"}, 400},
		} {
			got := responses(t, n.raw(post("/rooms/a1/events", c.body, append(c.lines, ann)...), 2*time.Second), "POST")
			if c.status == 413 && len(got) == 0 {
				continue // the gateway closed before all was sent, and the kernel threw the answer away
			}
			if len(got) != 1 || got[0].status != c.status && !(name == "many names, one twice" && got[0].status == 400) {
				t.Errorf("%s: %.300v, want %d", name, got, c.status)
			}
		}
	})
}

// S22: a leave, or anything else about a stream, takes its id, which nobody can guess.
func TestS22StreamsAreLeftByThoseWhoKnowThem(t *testing.T) {
	n := startNode(t, memory(), Config{})
	s, other := n.stream("/rooms/a1/events"), n.stream("/rooms/a1/events")
	id, _ := s.opened()
	otherID, _ := other.opened()
	if id == otherID {
		t.Fatal("two streams have one id")
	}
	for _, guess := range []string{"x", "*", strings.ToLower(id), id[:25], id + "A", "%00", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"} {
		if got := n.once(head("DELETE", "/streams/"+guess, "Connection: close") + "\r\n"); got.status != 404 && got.status != 204 {
			t.Errorf("%s: %v", guess, got)
		}
	}
	if got := n.once(head("DELETE", "/streams/"+id, "Connection: close") + "\r\n"); got.status != 204 {
		t.Errorf("leaving: %v", got)
	}
	if reason := s.ended(); reason != "" {
		t.Errorf("the stream that left was told %q", reason)
	}
	if got := n.ask("POST", "/rooms/a1/events", "x"); got.status != 201 {
		t.Fatal(got)
	}
	other.want("")
}

// S23: what is for operators is not on the public listener.
func TestS23OperationsAreNotPublic(t *testing.T) {
	cfg := withTokens(t)
	n := startNode(t, memory(), cfg)
	admin := bearer(token(t, auth.Grant{Admin: true}))
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/debug/gc", "/metrics/", "//metrics", "/%6detrics"} {
		for _, line := range []string{"X: y", admin} {
			if got := n.once(get(path, line)); got.status != 404 || strings.Contains(got.body, "go_") {
				t.Errorf("%s: %v, want 404", path, got)
			}
		}
	}
	// Nor do metrics name rooms or people.
	n.ask("POST", "/rooms/a-very-special-room/events", "x", bearer(token(t, auth.Grant{Subject: "a-very-special-person"})))
	rec := &recorded{header: http.Header{}}
	req, _ := http.NewRequest("GET", "/metrics", nil)
	n.gateway.AdminHandler().ServeHTTP(rec, req)
	if !strings.Contains(rec.body.String(), "sluice_published_events_total 1") || strings.Contains(rec.body.String(), "special") {
		t.Errorf("metrics: %.500s", rec.body.String())
	}
}

type recorded struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorded) Header() http.Header         { return r.header }
func (r *recorded) WriteHeader(int)             {}
func (r *recorded) Write(p []byte) (int, error) { return r.body.Write(p) }

// S31: a key belongs to its subject and room.
func TestS31KeysOfOthersTellNothing(t *testing.T) {
	eachLog(t, func(t *testing.T, nodes int, open func() fanout.Log) {
		a, b := startNodes(t, nodes, open, withTokens(t))
		ann, bob := bearer(token(t, auth.Grant{})), bearer(token(t, auth.Grant{Subject: "bob"}))
		key := "Idempotency-Key: the-key"
		first := a.ask("POST", "/rooms/a1/events", "ann's", ann, key)
		for _, c := range []struct {
			n          *liveNode
			path, body string
			line       string
			want       int
		}{
			{b, "/rooms/a1/events", "ann's", bob, 201},
			{b, "/rooms/a2/events", "ann's", ann, 201},
			{b, "/rooms/a1/events", "ann's", ann, 200},
			{a, "/rooms/a1/events", "another", ann, 422},
			{a, "/rooms/a1/events", "another", bob, 422},
		} {
			got := c.n.ask("POST", c.path, c.body, c.line, key)
			if got.status != c.want || c.want == 201 && got.body == first.body || c.want == 200 && got.body != first.body {
				t.Errorf("%s with %q: %v, want %d", c.path, c.body, got, c.want)
			}
		}
	})
}

// S32: errors of ours say nothing of what is behind.
func TestS32ErrorsTellNothingOfTheInside(t *testing.T) {
	server := redistest.Start(t)
	n := startNode(t, openRedis(t, server.URL()), Config{})
	address := strings.TrimPrefix(server.URL(), "redis://")
	server.Kill()
	var got reply
	n.await("the gateway to notice", func() bool {
		got = n.ask("POST", "/rooms/a1/events", "x")
		return got.status == 503
	})
	for _, path := range []string{"/rooms/a1", "/rooms/a1/events?limit=1", "/rooms", "/readyz"} {
		text := got.body + n.ask("GET", path, "").body
		for _, inside := range []string{address, "127.0.0.1", "redis", "dial", "goroutine", ".go:", "EVALSHA", "lua"} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(inside)) {
				t.Errorf("%s shows %q: %s", path, inside, text)
			}
		}
	}
}

// S32: a panic is one request's failure. The log says where, not what.
func TestS32PanicIsAnErrorOfOneRequest(t *testing.T) {
	const secret = "s3cr3t-of-the-request"
	for _, thrown := range []any{secret, errors.New(secret), []string{secret}} {
		n := startNode(t, memory(), Config{PagePaths: []string{"/boom"}, Pages: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(thrown) })})
		got := n.once(get("/boom"))
		if got.status != 500 || got.header.Get("Content-Type") != "application/problem+json" || got.kind() != "internal" {
			t.Errorf("a panic is answered by %v", got)
		}
		if strings.Contains(got.body+n.logged.String(), secret) {
			t.Errorf("the secret is shown: %v, log:\n%s", got, n.logged)
		}
		if !strings.Contains(n.logged.String(), "a handler panicked") || !strings.Contains(n.logged.String(), "TestS32Panic") {
			t.Errorf("the log does not say where:\n%s", n.logged)
		}
		if n.counted("panic") != 1 {
			t.Error("it was not counted")
		}
	}
}

func TestPanicInTheMiddleBreaksTheConnection(t *testing.T) {
	n := startNode(t, memory(), Config{PagePaths: []string{"/boom"}, Pages: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		panic("boom")
	})})
	got := n.raw(get("/boom"), time.Second)
	if strings.HasSuffix(got, "0\r\n\r\n") || !strings.Contains(got, "half") {
		t.Errorf("it came as %q, which looks whole", got)
	}
}
