package handlers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/fanout/redistest"
	"sluice/handlers/auth"
)

// The tests of this file and of hostile_http_test.go and hostile_more_test.go send bytes to a socket, as
// somebody does who keeps to no rule, and look at what comes back; docs/security.md
// lists them by threat. What must not happen is that anything is written: the
// server's counts of commands tell.

// raw sends bytes on a connection of its own and gives all that comes back
// until the gateway closes it, or for as long as patience lasts once something came.
func (n *liveNode) raw(request string, patience time.Duration) string {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, request) }() // which the gateway may not read to its end
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	first := make([]byte, 1)
	if k, _ := conn.Read(first); k == 0 {
		return ""
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	rest, _ := io.ReadAll(conn)
	return string(first) + string(rest)
}

// rawUntil is raw for a stream: it hangs up when the answer has the words.
func (n *liveNode) rawUntil(request string, words string) string {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.WriteString(conn, request) }()
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	var got []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(got), words) {
		k, err := conn.Read(buf)
		got = append(got, buf[:k]...)
		if err != nil {
			break
		}
	}
	return string(got)
}

// responses takes what came back apart; a stream that goes on is cut off.
func responses(t *testing.T, text, method string) []reply {
	t.Helper()
	var list []reply
	r := bufio.NewReader(strings.NewReader(text))
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return list
		}
		body, err := io.ReadAll(res.Body)
		list = append(list, reply{res.StatusCode, res.Header, string(body)})
		if err != nil {
			return list
		}
	}
}

// once sends a request that must have exactly one answer.
func (n *liveNode) once(request string) reply {
	n.t.Helper()
	method, _, _ := strings.Cut(request, " ")
	got := responses(n.t, n.raw(request, 500*time.Millisecond), method)
	if len(got) != 1 {
		n.t.Fatalf("%.200q has %d answers: %.500v", request, len(got), got)
	}
	return got[0]
}

// writes counts the commands by which events, rooms, or anything of the
// gateway's is written; a node's own heartbeat is a PUBLISH.
func writes(t *testing.T, server *redistest.Server) int {
	t.Helper()
	total := 0
	for name, n := range commands(t, server) {
		switch name {
		case "evalsha", "eval", "xadd", "set", "hset", "zadd", "del", "incr", "pexpire", "spublish":
			total += n
		}
	}
	return total
}

// hostileNode is a node with tokens on Redis, where nobody must write.
func hostileNode(t *testing.T, cfg Config) (*liveNode, *redistest.Server) {
	t.Helper()
	server := redistest.Start(t)
	n := startNode(t, openRedis(t, server.URL()), cfg)
	if got := n.ask("POST", "/rooms/warm/events", "x", bearer(token(t, auth.Grant{Subject: "w", Publish: []string{"*"}}))); got.status != 201 {
		t.Fatal(got)
	}
	n.await("the node to have looked at its server", func() bool { return commands(t, server)["config|get"] > 0 })
	return n, server
}

// unwritten runs f and sees that it wrote nothing.
func unwritten(t *testing.T, server *redistest.Server, f func()) {
	t.Helper()
	before := writes(t, server)
	f()
	if after := writes(t, server); after != before {
		t.Errorf("%d commands wrote something", after-before)
	}
}

func head(method, path string, lines ...string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + strings.Join(append(lines, ""), "\r\n")
}

func get(path string, lines ...string) string {
	return head("GET", path, append(lines, "Connection: close")...) + "\r\n"
}

func post(path, body string, lines ...string) string {
	lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)), "Connection: close")
	return head("POST", path, lines...) + "\r\n" + body
}

// injections are what breaks the framing of event streams, logs or headers if
// it gets through.
var injections = []string{
	"a\nid: 9-9", "a\revent: x", "a\r\n\r\ndata: evil", "\n\n", "\x00", "a\u2028b", "a\u2029b", "\ufeffa", "\xff\xfe", "a\x1b[2J", "a\u202eb", "a\x7f", "a b",
}

// S1: what is posted comes back as it was, line by line, and breaks out of nothing.
func TestS01DataCannotForgeFields(t *testing.T) {
	n := startNode(t, memory(), Config{})
	s := n.stream("/rooms/a1/events")
	s.opened()
	type posted struct{ body, kind string }
	var want []posted
	add := func(body, kind string) { want = append(want, posted{body, kind}) }
	for _, text := range injections {
		add(text, "text/plain")
		quoted, _ := json.Marshal(text)
		add(string(quoted), "application/json")
		add("{\n\"a\":\r\n"+string(quoted)+"}", "application/json")
	}
	add("data: x\n\nevent: sluice.bye\ndata: {}\n\n", "text/plain")
	add(":comment\nretry: 1\nid: 5-5", "text/plain")
	seq := 0
	for _, p := range want {
		got := n.once(post("/rooms/a1/events", p.body, "Content-Type: "+p.kind))
		if bytes.ContainsRune([]byte(p.body), 0xfffd) || !validUTF8(p.body) {
			if got.status != 400 {
				t.Errorf("%q: %v, want 400", p.body, got)
			}
			continue
		}
		if got.status != 201 && p.kind == "application/json" && got.status == 400 {
			continue // not JSON, then
		}
		if got.status != 201 {
			t.Fatalf("%q as %s: %v", p.body, p.kind, got)
		}
		seq++
		b := s.want("")
		if b.data != lines(p.body) || !strings.HasSuffix(b.id, fmt.Sprintf("-%d", seq)) || b.retry != "" {
			t.Errorf("%q came as %+v", p.body, b)
		}
	}
	for _, body := range []string{`"\ud800"`, `{"a":"\udc00x"}`, "\"\xed\xa0\x80\"", "\"\xff\""} {
		if got := n.once(post("/rooms/a1/events", body, "Content-Type: application/json")); got.status != 400 || got.kind() != "bad-body" {
			t.Errorf("%q: %v, want 400", body, got)
		}
	}
}

func validUTF8(s string) bool { return strings.ToValidUTF8(s, "") == s }

// lines is a text as an event stream gives it back: its line breaks are \n.
func lines(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// S2, S3: names of events, keys and ids have a form of their own; the sender is
// never taken from a body (TestSenderIsTheTokensSubject).
func TestS02NamesAndKeysHaveAForm(t *testing.T) {
	n, server := hostileNode(t, withTokens(t))
	ann := bearer(token(t, auth.Grant{}))
	unwritten(t, server, func() {
		for _, text := range append(slices.Clone(injections), "", "A", "1a", "a b", strings.Repeat("a", 65), "sluice.bye", "sluice.open", "sluice.") {
			escaped := escape(text)
			if got := n.once(post("/rooms/a1/events?type="+escaped, "x", ann)); got.status != 400 || got.kind() != "bad-type" {
				t.Errorf("type %q in the query: %v, want 400", text, got)
			}
			if got := n.once(post("/rooms/a1/events?exclude="+escaped+"x", "x", ann)); got.status != 400 {
				t.Errorf("exclude %q: %v, want 400", text, got)
			}
			if strings.ContainsAny(text, "\r\n\x00") || text == "" {
				continue // ends the header, or is net/http's to refuse
			}
			if got := n.once(post("/rooms/a1/events", "x", ann, "Event-Type: "+text)); got.status != 400 {
				t.Errorf("type %q in the header: %v, want 400", text, got)
			}
			if validKey(text) {
				continue
			}
			if got := n.once(post("/rooms/a1/events", "x", ann, "Idempotency-Key: "+text)); got.status != 400 {
				t.Errorf("key %q: %v, want 400", text, got)
			}
		}
		for _, key := range []string{strings.Repeat("k", 129), `"a`, `""`, "a\r\nIdempotency-Key: b"} {
			if got := n.once(post("/rooms/a1/events", "x", ann, "Idempotency-Key: "+key)); got.status != 400 || got.kind() != "bad-key" {
				t.Errorf("key %q: %v, want 400", key, got)
			}
		}
		if got := n.once(post("/rooms/a1/events?type=a&type=b", "x", ann)); got.status != 400 {
			t.Errorf("two types: %v", got)
		}
	})
}

func TestS03OurEventsCannotBePublished(t *testing.T) {
	n, server := hostileNode(t, withTokens(t))
	ann := bearer(token(t, auth.Grant{}))
	unwritten(t, server, func() {
		for _, name := range []string{"sluice.open", "sluice.gap", "sluice.bye", "sluice.join", "sluice.leave", "sluice.degraded", "sluice.beat", "sluice.x"} {
			batch := fmt.Sprintf(`{"data":1,"type":%q}`, name)
			for _, request := range []string{
				post("/rooms/a1/events?type="+name, "x", ann),
				post("/rooms/a1/events?ephemeral=true", "x", ann, "Event-Type: "+name),
				post("/rooms/a1/events", batch, ann, "Content-Type: application/x-ndjson"),
			} {
				if got := n.once(request); got.status != 400 || got.kind() != "bad-type" {
					t.Errorf("%s: %v, want 400", name, got)
				}
			}
		}
	})
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}

// S4: cursors that lead nowhere cost a gap, and nothing else.
func TestS04CursorsThatLeadNowhere(t *testing.T) {
	t.Parallel() // it mostly waits
	n, server := hostileNode(t, withTokens(t))
	before := writes(t, server)
	line := bearer(token(t, auth.Grant{Subscribe: []string{"*"}}))
	bad := []string{
		strings.Repeat("9", 9000), "9223372036854775808", "-1", "1e9", "e1-", "e1-0x1", "e1--1", "e1-01", "e1-1 ", "e1-99999999999999999",
		"é", "\xe9", "a1=e1-1,a1=e1-2", "a1=e1-1,", "=,=", "e1-1,e1-2", "*", "(1", "e1-1\x7f", "E1-1", "e1-1;e1-2", strings.Repeat("a", 17) + "-1",
	}
	for _, cursor := range bad {
		for _, request := range []string{
			get("/rooms/warm/events", line, "Last-Event-ID: "+cursor),
			get("/rooms/warm/events?lastEventId="+escape(cursor), line),
			get("/rooms/warm/events?after="+escape(cursor), line),
		} {
			got := n.rawUntil(request, `"reason":"bad_cursor"`)
			if len(cursor) > 8<<10 && strings.Contains(got, " 431 ") {
				continue // what is escaped is longer than any head may be
			}
			if strings.Contains(request, cursor) && (strings.HasPrefix(got, "HTTP/1.1 400") && strings.HasSuffix(cursor, "\x7f") || strings.HasSuffix(cursor, " ") && strings.Contains(got, "new_history")) {
				continue // the first is no header at all, and of the second the space is not a part
			}
			if !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, `"reason":"bad_cursor"`) || strings.Count(got, "sluice.gap") != 1 {
				t.Errorf("the cursor %.40q: %.300q, want one gap", cursor, got)
			}
		}
		if len(cursor) < 2000 {
			if got := n.once(get("/rooms/warm/events?limit=1&after="+escape(cursor), line)); got.status != 400 {
				t.Errorf("a page after %.40q: %v, want 400", cursor, got)
			}
		}
	}
	head := n.ask("GET", "/rooms/warm", "", line).member(t, "head")
	epoch, _, _ := strings.Cut(head, "-")
	for _, c := range []struct{ name, lines, want string }{
		{"two headers that differ", "Last-Event-ID: " + head + "\r\nLast-Event-ID: " + epoch + "-0", `"reason":"bad_cursor"`},
		{"two that are the same", "Last-Event-ID: " + head + "\r\nLast-Event-ID: " + head, "sluice.open"},
		{"a folded one", "Last-Event-ID: " + epoch + "-\r\n 1", `"reason":"bad_cursor"`},
		{"a number to come", "Last-Event-ID: " + epoch + "-7777", `"reason":"bad_cursor"`},
		{"an epoch nobody knows", "Last-Event-ID: zzz-1", `"reason":"new_history"`},
		{"another room's", "Last-Event-ID: other=" + head, "sluice.open"},
	} {
		got := n.rawUntil(get("/rooms/warm/events", line, c.lines), c.want)
		if !strings.HasPrefix(got, "HTTP/1.1 200") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %.300q, want %s", c.name, got, c.want)
		}
	}
	for _, c := range []string{"Last-Event-ID: e1\x00-1", "Last-Event-ID: e1\r-1"} {
		if got := n.raw(get("/rooms/warm/events", line, c), 150*time.Millisecond); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%q: %.100q, want 400", c, got)
		}
	}
	if got := n.once(get("/rooms/warm/events?limit=1&after="+head, line, "Last-Event-ID: "+epoch+"-0")); got.status != 200 || !strings.Contains(got.body, epoch+"-1") {
		t.Errorf("header and query: %v, want the header to win", got)
	}
	if after := writes(t, server); after != before {
		t.Errorf("cursors wrote %d times", after-before)
	}
}

// S5, S6: a room's name is one of a small alphabet, decoded once.
func TestS05RoomsHaveNames(t *testing.T) {
	n, server := hostileNode(t, withTokens(t))
	all := bearer(token(t, auth.Grant{Subscribe: []string{"*"}, Publish: []string{"*"}, Admin: true}))
	names := []string{
		"a%2Fb", "a%2fb", "a%00b", "%0d%0aX:1", "%2e%2e", "..", ".", "caf%C3%A9", "cafe%CC%81", "%ff%fe", "a%7Bb%7D*", "a{b}*", "%E2%80%A8", "%D1%80%D0%B0%D1%83", "a%E2%80%8Db",
		"%E2%80%AEa", strings.Repeat("a", 129), strings.Repeat("a", 300), "-a", "_a", "%2Da", "a%20b", "a+b", "a%252Fb", "%40a", "@a", "x%7D", "%7B", "*", "a:s:%7Bb%7D", "a%5Cb", "a%3Fb", "a%23b",
	}
	unwritten(t, server, func() {
		for _, name := range names {
			for _, request := range []string{
				get("/rooms/"+name+"/events?limit=1", all), get("/rooms/"+name+"/events", all), get("/rooms/"+name, all),
				post("/rooms/"+name+"/events", "x", all), head("DELETE", "/rooms/"+name+"/events", all, "Connection: close") + "\r\n",
				get("/events?room="+strings.ReplaceAll(name, "+", "%2B"), all), post("/events?room=a1&room="+strings.ReplaceAll(name, "+", "%2B"), "x", all),
			} {
				got := n.once(request)
				if got.status != 400 && got.status != 404 || strings.Contains(got.body, "café") || got.header.Get("X") != "" {
					t.Errorf("%.80q: %v, want 400", request, got)
				}
			}
		}
		for _, path := range []string{"/rooms//events", "/rooms/a1//events", "//rooms/a1/events", "/rooms/../rooms/a1/events", "/./rooms/a1", "/rooms/a1/../b1/events", "/rooms/a1/events/", "/rooms/%", "/rooms/%zz/events", "rooms", "*", "/rooms/a1/events;x"} {
			got := responses(t, n.raw(get(path, all), 300*time.Millisecond), "GET")
			if len(got) != 1 || got[0].status < 300 || got[0].status >= 500 || got[0].status == 301 && !strings.HasPrefix(got[0].header.Get("Location"), "/") {
				t.Errorf("%s: %v, want a refusal", path, got)
			}
		}
	})
	for _, name := range []string{"a", "A9_.:@~-", strings.Repeat("a", 128), "%61", "a%3Ab"} {
		if got := n.once(post("/rooms/"+name+"/events", "x", all)); got.status != 201 {
			t.Errorf("%s: %v, want 201", name, got)
		}
	}
}

// S6: each key that the gateway writes has the whole room as its hash tag.
func TestS06KeysOfARoomShareOneTag(t *testing.T) {
	n, server := hostileNode(t, withTokens(t))
	all := bearer(token(t, auth.Grant{Publish: []string{"*"}}))
	rooms := []string{"x:m", "a:s:b", "A9_.:@~-", "a"}
	for _, room := range rooms {
		if got := n.once(post("/rooms/"+room+"/events", "x", all, "Idempotency-Key: k1")); got.status != 201 {
			t.Fatal(got)
		}
	}
	keys, err := server.Client().Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if strings.HasSuffix(key, ":check") {
			continue // by which a node tries what it may do
		}
		_, rest, _ := strings.Cut(key, "{")
		tag, _, ok := strings.Cut(rest, "}")
		if !strings.HasPrefix(key, "sluice:") || strings.Count(key, "{") != 1 || !ok || tag != "warm" && !slices.Contains(rooms, tag) {
			t.Errorf("there is a key %q", key)
		}
		if ttl := server.Client().PTTL(t.Context(), key).Val(); ttl <= 0 {
			t.Errorf("%q lives for ever", key)
		}
	}
}

// S7: a payload that looks like Redis' own protocol stays a payload.
func TestS07PayloadsAreNoProtocol(t *testing.T) {
	server := redistest.Start(t)
	a, b := startNode(t, openRedis(t, server.URL()), Config{}), startNode(t, openRedis(t, server.URL()), Config{})
	mine, other := a.stream("/rooms/a1/events"), a.stream("/rooms/b1/events")
	mine.opened()
	other.opened()
	forged := "aaaa\r\n*3\r\n$7\r\nmessage\r\n$15\r\nsluice:ch:{b1}\r\n$6\r\nFORGED\r\n"
	for i := range 50 {
		body := strings.Repeat("x", i*100) + forged
		if got := b.once(post("/rooms/a1/events", body, "Content-Type: text/plain")); got.status != 201 {
			t.Fatal(got)
		}
		if got := mine.want(""); got.data != lines(body) {
			t.Fatalf("it came as %q", got.data)
		}
	}
	if got := b.once(post("/rooms/b1/events", "the first")); got.status != 201 {
		t.Fatal(got)
	}
	if got := other.want(""); got.data != "the first" {
		t.Errorf("the other room shows %q", got.data)
	}
}

// S8: a hostile token is refused before anything else happens. What makes a
// token hostile is told in handlers/auth; here it comes over the wire.
func TestS08HostileTokensReachNothing(t *testing.T) {
	n, server := hostileNode(t, withTokens(t))
	good := token(t, auth.Grant{Publish: []string{"*"}, Subscribe: []string{"*"}})
	parts := strings.Split(good, ".")
	none := "eyJhbGciOiJub25lIn0." + parts[1] + "."
	tokens := []string{
		"", ".", "..", "a.b.c", none, good + "A", good + "=", good + ".x.y", parts[0] + "." + parts[1] + ".", parts[0] + ". " + parts[1] + "." + parts[2],
		strings.Repeat("a", 9000), strings.ReplaceAll(good, ".", "\t"), token(t, auth.Grant{Expires: time.Now().Add(-time.Minute), IssuedAt: time.Now().Add(-time.Hour)}),
	}
	first := n.once(get("/rooms/a1", bearer("x")))
	unwritten(t, server, func() {
		for _, token := range tokens {
			for _, line := range []string{bearer(token), "Cookie: " + auth.Cookie + "=" + token, "authorization: bearer " + token + "\r\nAuthorization: Bearer " + good} {
				for _, request := range []string{post("/rooms/a1/events", "x", line, "Origin: http://127.0.0.1"), get("/rooms/a1/events", line)} {
					got := n.once(request)
					if got.status != 401 || got.body != first.body || got.header.Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
						t.Errorf("%.60q: %v, want 401", line, got)
					}
				}
			}
		}
		if got := n.once(post("/rooms/a1/events?access_token="+good, "x")); got.status != 401 {
			t.Errorf("a token in the URL: %v", got)
		}
		if got := n.once(post("/rooms/a1/events", "x", "Authorization: Bearer "+strings.Repeat("a", 64<<10))); got.status != 431 {
			t.Errorf("a token of 64 KiB: %v, want 431", got)
		}
	})
}
