package handlers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/fanout"
)

func TestWhatIsPostedComesBack(t *testing.T) {
	g := newTestGateway(t, Config{})
	l := g.listen("/rooms/lobby/events")
	l.opened()
	for _, tt := range []struct{ contentType, query, body, event, data string }{
		{"", "", "hello", "", "data: hello\n"},
		{"application/x-www-form-urlencoded", "", "a=1&b", "", "data: a=1&b\n"},
		{"application/x-www-form-urlencoded", "", `{"a": 1}`, "", "data: {\"a\": 1}\n"},
		{"text/plain; charset=UTF-8", "?type=note", "a\r\nb\rc\nd", "event: note\n", "data: a\ndata: b\ndata: c\ndata: d\n"},
		{"text/plain", "", "end\n", "", "data: end\ndata: \n"},
		{"text/plain", "", "\n", "", "data: \ndata: \n"},
		{"text/plain", "", "", "", "data: \n"},
		{"text/plain", "", "a\nid: 9-9\n\ndata: evil", "", "data: a\ndata: id: 9-9\ndata: \ndata: data: evil\n"},
		{"text/plain", "", "\ufeffbom \u2028 \x00", "", "data: \ufeffbom \u2028 \x00\n"},
		{"application/json", "", "{\n \"a\": [1, 2]\n}", "", "data: {\ndata:  \"a\": [1, 2]\ndata: }\n"},
		{"application/json", "", `"text"`, "", "data: \"text\"\n"},
		{"application/cloudevents+json", "", `null`, "", "data: null\n"},
	} {
		a := g.do("POST", "/rooms/lobby/events"+tt.query, tt.body, "Content-Type", tt.contentType)
		if a.StatusCode != http.StatusCreated {
			t.Fatalf("%q: %s %s", tt.body, a.Status, a.body)
		}
		l.want(tt.event + tt.data + "id: " + a.json(t)["id"].(string) + "\n")
	}
}

func TestPagesCarryDataExactly(t *testing.T) {
	g := newTestGateway(t, Config{})
	g.publish("lobby", "a\r\nb\n", "Content-Type", "text/plain")
	g.publish("lobby", "{\"n\": 1.50,\n\"s\": \"<\\u2028>\"}", "Content-Type", "application/json", "Event-Type", "x.y")
	a := g.do("GET", "/rooms/lobby/events?limit=10", "")
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("a page is %s", got)
	}
	events := a.json(t)["events"].([]any)
	first, second := events[0].(map[string]any), events[1].(map[string]any)
	if first["data"] != "a\r\nb\n" || first["type"] != "message" || first["room"] != "lobby" || first["from"] != nil {
		t.Errorf("the first event is %v", first)
	}
	if second["type"] != "x.y" || !strings.Contains(a.body, `"data":{"n":1.50,"s":"<\u2028>"}`) {
		t.Errorf("the second event is %v in %s", second, a.body)
	}
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`).MatchString(first["at"].(string)) {
		t.Errorf("the time is %v", first["at"])
	}
}

func TestReceiptsTellWhatWasWritten(t *testing.T) {
	g := newTestGateway(t, Config{})
	a := g.do("POST", "/rooms/lobby/events?type=a", "x").json(t)
	if a["room"] != "lobby" || a["type"] != "a" || a["at"] == nil || !strings.HasSuffix(a["id"].(string), "-1") || len(a) != 4 {
		t.Errorf("the receipt is %v", a)
	}
	several := g.do("POST", "/events?room=a&room=b", "x")
	if several.StatusCode != 201 || len(several.json(t)["events"].([]any)) != 2 {
		t.Errorf("two rooms give %s %s", several.Status, several.body)
	}
	passing := g.do("POST", "/rooms/lobby/events?ephemeral=true", "x")
	if passing.StatusCode != 202 || passing.json(t)["id"] != nil {
		t.Errorf("an ephemeral event gives %s %s", passing.Status, passing.body)
	}
	if n := len(g.page("/rooms/lobby/events")["events"].([]any)); n != 1 {
		t.Errorf("%d events are kept, want 1", n)
	}
}

func TestABatchIsAllOrNothingAndInOrder(t *testing.T) {
	g := newTestGateway(t, Config{MaxBody: 100})
	ndjson := []string{"Content-Type", "application/x-ndjson"}
	a := g.do("POST", "/rooms/lobby/events?type=t", "{\"data\":\"a\\nb\"}\n\n{\"data\":{\"x\": 1},\"type\":\"u\"}\r\n{\"data\":null}", ndjson...)
	if a.StatusCode != 201 || len(a.json(t)["events"].([]any)) != 3 {
		t.Fatalf("a batch gives %s %s", a.Status, a.body)
	}
	events := g.page("/rooms/lobby/events")["events"].([]any)
	for i, want := range []string{"data:a\nb id", "data:map[x:1] id", "data:<nil> id"} {
		if got := fmt.Sprint(events[i]); !strings.Contains(got, want) {
			t.Errorf("event %d is %s", i, got)
		}
	}
	for body, want := range map[string]int{
		"":                        400,
		"\n\n":                    400,
		"{\"data\":1}\nnonsense":  400,
		"{\"data\":1}\n{\"x\":1}": 400,
		"{\"data\":1}\n{}":        400,
		"{\"data\":1,\"data\":2}": 400,
		"[1]":                     400,
		`{"data":1,"type":"Bad"}`: 400,
		`{"data":1,"type":1}`:     400,
		`{"data":1,"key":"a b"}`:  400,
		`{"data":"\ud800"}`:       400,
		"{\"data\":1,\"key\":\"k\"}\n{\"data\":2,\"key\":\"k\"}": 400,
		`{"data":"` + strings.Repeat("x", 101) + `"}`:            413,
		strings.Repeat("{\"data\":1}\n", 1001):                   413,
		`{"data":"` + strings.Repeat("x", 1<<20) + `"}`:          413,
	} {
		if a := g.do("POST", "/rooms/lobby/events", body, ndjson...); a.StatusCode != want {
			t.Errorf("%.40q gives %s, want %d: %s", body, a.Status, want, a.body)
		}
	}
	if n := len(g.page("/rooms/lobby/events")["events"].([]any)); n != 3 {
		t.Errorf("%d events after refusals, want 3", n)
	}
}

func TestAKeyIsAnsweredOnce(t *testing.T) {
	g := newTestGateway(t, Config{})
	first := g.do("POST", "/rooms/lobby/events", "x", "Idempotency-Key", "k-1")
	for _, key := range []string{"k-1", `"k-1"`} {
		again := g.do("POST", "/rooms/lobby/events", "x", "Idempotency-Key", key)
		if again.StatusCode != 200 || again.body != first.body || again.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("a retry gives %s %s, first was %s", again.Status, again.body, first.body)
		}
	}
	if a := g.do("POST", "/rooms/lobby/events", "y", "Idempotency-Key", "k-1"); a.StatusCode != 422 {
		t.Errorf("another body under the key gives %s", a.Status)
	}
	for _, bad := range []string{"a b", `"k`, strings.Repeat("k", 129), "é"} {
		if a := g.do("POST", "/rooms/lobby/events", "x", "Idempotency-Key", bad); a.StatusCode != 400 {
			t.Errorf("the key %.20q gives %s", bad, a.Status)
		}
	}
	batch := "{\"data\":1}\n{\"data\":2,\"key\":\"own\"}"
	one := g.do("POST", "/rooms/lobby/events", batch, "Content-Type", "application/x-ndjson", "Idempotency-Key", "b")
	two := g.do("POST", "/rooms/lobby/events", batch, "Content-Type", "application/x-ndjson", "Idempotency-Key", "b")
	if one.StatusCode != 201 || two.StatusCode != 200 || one.body != two.body {
		t.Errorf("a batch gives %s and %s", one.Status, two.Status)
	}
	if n := len(g.page("/rooms/lobby/events")["events"].([]any)); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
}

func TestBadRequestsChangeNothing(t *testing.T) {
	g := newTestGateway(t, Config{MaxBody: 1000})
	room := "/rooms/lobby/events"
	for _, tt := range []struct {
		method, path, body string
		status             int
		kind               string
		headers            []string
	}{
		{"POST", "/rooms/a%2Fb/events", "x", 400, "bad-room", nil},
		{"POST", "/rooms/a%00b/events", "x", 400, "bad-room", nil},
		{"POST", "/rooms/%0d%0aX:1/events", "x", 400, "bad-room", nil},
		{"POST", "/rooms/caf%C3%A9/events", "x", 400, "bad-room", nil},
		{"POST", "/rooms/%ff%fe/events", "x", 400, "bad-room", nil},
		{"POST", "/rooms/a{b}*/events", "x", 400, "bad-room", nil},
		{"POST", "/rooms/-a/events", "x", 400, "bad-room", nil},
		{"POST", "/rooms/@a/events", "x", 400, "bad-room", nil},
		{"POST", "/rooms/" + strings.Repeat("a", 129) + "/events", "x", 400, "bad-room", nil},
		{"POST", "/events", "x", 400, "bad-query", nil},
		{"POST", "/events?room=a&room=%20", "x", 400, "bad-room", nil},
		{"POST", room + "?type=sluice.open", "x", 400, "bad-type", nil},
		{"POST", room + "?type=Bad", "x", 400, "bad-type", nil},
		{"POST", room + "?type=a%0aid:1", "x", 400, "bad-type", nil},
		{"POST", room, "x", 400, "bad-type", []string{"Event-Type", "a b"}},
		{"POST", room + "?exclude=x", "x", 400, "bad-query", nil},
		{"POST", room + "?ephemeral=maybe", "x", 400, "bad-query", nil},
		{"POST", room + "?type=%zz", "x", 400, "bad-query", nil},
		{"POST", room, "\xff\xfe", 400, "bad-body", []string{"Content-Type", "text/plain"}},
		{"POST", room, "{", 400, "bad-body", []string{"Content-Type", "application/json"}},
		{"POST", room, "", 400, "bad-body", []string{"Content-Type", "application/json"}},
		{"POST", room, `{"a":1} x`, 400, "bad-body", []string{"Content-Type", "application/json"}},
		{"POST", room, `1 2`, 400, "bad-body", []string{"Content-Type", "application/json"}},
		{"POST", room, `{"a":1,"a":2}`, 400, "bad-body", []string{"Content-Type", "application/json"}},
		{"POST", room, `"\ud800"`, 400, "bad-body", []string{"Content-Type", "application/json"}},
		{"POST", room, `1e999`, 400, "bad-body", []string{"Content-Type", "application/json"}},
		{"POST", room, strings.Repeat("[", 65) + strings.Repeat("]", 65), 400, "bad-body", []string{"Content-Type", "application/json"}},
		{"POST", room, strings.Repeat("x", 1001), 413, "too-large", nil},
		{"POST", room, "x", 415, "unsupported-media-type", []string{"Content-Type", "application/octet-stream"}},
		{"POST", room, "x", 415, "unsupported-media-type", []string{"Content-Type", "multipart/form-data; boundary=x"}},
		{"POST", room, "x", 415, "unsupported-media-type", []string{"Content-Type", "text/plain; charset=latin1"}},
		{"POST", room, "x", 415, "unsupported-media-type", []string{"Content-Encoding", "gzip"}},
		{"POST", room, "x", 403, "forbidden", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}},
		{"GET", room, "x", 400, "unwanted-body", nil},
		{"DELETE", room, "x", 400, "unwanted-body", nil},
		{"GET", room + "?limit=0", "", 400, "bad-query", nil},
		{"GET", room + "?limit=x", "", 400, "bad-query", nil},
		{"GET", room + "?last=-1", "", 400, "bad-query", nil},
		{"GET", room + "?wait=soon", "", 400, "bad-query", nil},
		{"GET", room + "?types=A", "", 400, "bad-type", nil},
		{"GET", room + "?heartbeat=x", "", 400, "bad-query", nil},
		{"GET", room + "?limit=1&after=nonsense", "", 400, "bad-cursor", nil},
		{"GET", room + "?limit=1&after=e-99", "", 200, "", nil},
		{"GET", room + "?limit=1&before=e-99", "", 400, "bad-cursor", nil},
		{"GET", "/events?" + strings.Repeat("room=a&", 60), "", 200, "", []string{"Accept", "application/json"}},
		{"GET", "/events?" + manyRooms(51), "", 400, "too-many-rooms", nil},
		{"GET", "/nothing", "", 404, "not-found", nil},
		{"GET", "/rooms//events", "", 404, "not-found", nil},
		{"PUT", room, "", 405, "method-not-allowed", nil},
		{"GET", "/metrics", "", 404, "not-found", nil},
		{"GET", "/debug/pprof/", "", 404, "not-found", nil},
	} {
		a := g.do(tt.method, tt.path, tt.body, tt.headers...)
		if a.StatusCode != tt.status {
			t.Errorf("%s %.60s %.20q: %s, want %d: %.200s", tt.method, tt.path, tt.body, a.Status, tt.status, a.body)
			continue
		}
		if tt.status == 200 {
			continue
		}
		if got := a.json(t)["type"]; got != "urn:sluice:"+tt.kind || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %.60s: a problem %v of type %s, want %s", tt.method, tt.path, got, a.Header.Get("Content-Type"), tt.kind)
		}
	}
	if n := len(g.page(room)["events"].([]any)); n != 0 {
		t.Errorf("%d events were written", n)
	}
	if rooms := g.do("GET", "/rooms", "").json(t)["rooms"].([]any); len(rooms) != 0 {
		t.Errorf("rooms came about: %v", rooms)
	}
}

func TestAWrongMethodIsToldTheRightOnes(t *testing.T) {
	g := newTestGateway(t, Config{})
	for path, want := range map[string]string{"/rooms/lobby/events": "GET, HEAD, POST, DELETE", "/events": "GET, HEAD, POST", "/tickets": "POST"} {
		if allow := g.do("PUT", path, "").Header.Values("Allow"); len(allow) != 1 || allow[0] != want {
			t.Errorf("%s allows %q, want one line %q", path, allow, want)
		}
	}
}

func TestHeadIsAnsweredAsGetWithoutABody(t *testing.T) {
	g := newTestGateway(t, Config{})
	g.do("POST", "/rooms/lobby/events", "hello")
	for _, path := range []string{"/healthz", "/readyz", "/rooms", "/rooms/lobby", "/rooms/lobby/members", "/rooms/lobby/events?limit=1", "/events?room=lobby&room=news"} {
		get := http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}, "Cache-Control": {"no-store, no-transform"}}
		if !strings.Contains(path, "news") { // a stream has no end
			get = g.do("GET", path, "").Header
		}
		a := g.do("HEAD", path, "")
		if a.StatusCode != 200 || a.body != "" {
			t.Errorf("HEAD %s: %s and a body of %d bytes, want 200 and none", path, a.Status, len(a.body))
		}
		for _, name := range []string{"Content-Type", "Cache-Control"} {
			if a.Header.Get(name) != get.Get(name) {
				t.Errorf("HEAD %s: %s is %q, want %q", path, name, a.Header.Get(name), get.Get(name))
			}
		}
	}
	if streams := g.do("GET", "/rooms/lobby", "").json(t)["streams"]; streams != 0.0 {
		t.Errorf("HEAD has opened %v streams", streams)
	}
	if a := g.do("HEAD", "/rooms/-/events", ""); a.StatusCode != 400 {
		t.Errorf("HEAD of what is no room: %s, want 400", a.Status)
	}
}

func manyRooms(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "room=r%d&", i)
	}
	return b.String()
}

func TestStreamHeadersGetThroughProxies(t *testing.T) {
	g := newTestGateway(t, Config{})
	l := g.listen("/rooms/lobby/events")
	for name, want := range map[string]string{
		"Content-Type":           "text/event-stream; charset=utf-8",
		"Cache-Control":          "no-store, no-transform",
		"X-Accel-Buffering":      "no",
		"Content-Encoding":       "identity",
		"X-Content-Type-Options": "nosniff",
		"Referrer-Policy":        "no-referrer",
	} {
		if got := l.resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	first, err := l.in.ReadString('\n')
	if err != nil || !strings.HasPrefix(first, ": ") || len(first) < 2048 {
		t.Errorf("the stream begins with %d bytes of comment: %v", len(first), err)
	}
}

func TestCursorsComeInThreeWaysTheHeaderFirst(t *testing.T) {
	g := newTestGateway(t, Config{})
	first, second := g.publish("lobby", "1"), g.publish("lobby", "2")
	third := g.publish("lobby", "3")
	for _, tt := range []struct {
		query, header, next string
	}{
		{"?after=" + first, "", "data: 2\nid: " + second + "\n"},
		{"?lastEventId=" + second, "", "data: 3\nid: " + third + "\n"},
		{"?after=" + first + "&lastEventId=" + second, "", "data: 3\nid: " + third + "\n"},
		{"?after=" + second + "&lastEventId=" + second, first, "data: 2\nid: " + second + "\n"},
		{"?after=earliest", "", "data: 1\nid: " + first + "\n"},
		{"?last=1", "", "data: 3\nid: " + third + "\n"},
		{"?last=1&after=" + first, "", "data: 2\nid: " + second + "\n"},
	} {
		var headers []string
		if tt.header != "" {
			headers = []string{"Last-Event-ID", tt.header}
		}
		l := g.listen("/rooms/lobby/events"+tt.query, headers...)
		l.opened()
		l.want(tt.next)
		l.stop()
	}
	l := g.listen("/rooms/lobby/events", "Last-Event-ID", first, "Last-Event-ID", second)
	l.opened()
	if got := l.block(); !strings.Contains(got, `"reason":"bad_cursor"`) {
		t.Errorf("two cursors that differ give %q", got)
	}
}

func TestNDJSONIsTheSameStreamALineAnEvent(t *testing.T) {
	g := newTestGateway(t, Config{})
	g.publish("a", "one")
	l := g.listen("/events?room=a&room=b&last=1", "Accept", "application/x-ndjson")
	if got := l.resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("the type is %s", got)
	}
	g.publish("b", "two\nlines")
	var cursor string
	for _, want := range []string{"sluice.open", "one", "two\nlines"} {
		line, err := l.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var event struct {
			ID, Room, Type, Cursor string
			Data                   any
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if event.Type != want && event.Data != want {
			t.Errorf("got %s, want %s", line, want)
		}
		cursor = event.Cursor
	}
	if !strings.HasPrefix(cursor, "a=") || !strings.Contains(cursor, ",b=") {
		t.Errorf("the cursor is %q", cursor)
	}
	page := g.page("/events?room=a&room=b&after=" + cursor)
	if len(page["events"].([]any)) != 0 || page["next"] != cursor {
		t.Errorf("behind the cursor %s: %v", cursor, page)
	}
}

func TestPagesGoBothWays(t *testing.T) {
	g := newTestGateway(t, Config{})
	var ids []string
	for i := range 10 {
		ids = append(ids, g.publish("lobby", fmt.Sprint(i)))
	}
	texts := func(page map[string]any) string {
		var s []string
		for _, e := range page["events"].([]any) {
			s = append(s, e.(map[string]any)["data"].(string))
		}
		return strings.Join(s, " ")
	}
	newest := g.page("/rooms/lobby/events?limit=3")
	if texts(newest) != "7 8 9" || newest["next"] != ids[9] {
		t.Errorf("the newest page is %v", newest)
	}
	older := g.page("/rooms/lobby/events?limit=3&before=" + ids[7])
	if texts(older) != "4 5 6" || older["next"] != ids[6] {
		t.Errorf("the page before is %v", older)
	}
	if prev := g.page("/rooms/lobby/events?limit=3&before=" + older["prev"].(string)); texts(prev) != "1 2 3" {
		t.Errorf("the page before that is %v", prev)
	}
	if first := g.page("/rooms/lobby/events?limit=3&before=" + ids[1]); texts(first) != "0" || first["prev"] != nil {
		t.Errorf("the first page is %v", first)
	}
	none := g.page("/rooms/lobby/events?limit=3&before=earliest")
	if texts(none) != "" || none["prev"] != nil {
		t.Errorf("the page before everything is %v", none)
	}
	if all := g.page("/rooms/lobby/events?limit=3&after=" + none["next"].(string)); texts(all) != "0 1 2" || all["gap"] != nil {
		t.Errorf("it goes on with %v", all)
	}
	on := g.page("/rooms/lobby/events?limit=3&after=" + ids[4])
	if texts(on) != "5 6 7" || on["next"] != ids[7] || on["gap"] != nil {
		t.Errorf("the page after is %v", on)
	}
	all := g.page("/rooms/lobby/events?after=earliest")
	if texts(all) != "0 1 2 3 4 5 6 7 8 9" {
		t.Errorf("everything is %v", all)
	}
	for i := range 60 {
		g.publish("lobby", fmt.Sprint(10+i))
	}
	gap := g.page("/rooms/lobby/events?limit=1&after=" + ids[4])
	if texts(gap) != "20" || gap["gap"].(map[string]any)["reason"] != "trimmed" || gap["gap"].(map[string]any)["missed"] != 15.0 {
		t.Errorf("behind what was trimmed: %v", gap)
	}
}

func TestALongPollAnswersWhenThereIsSomething(t *testing.T) {
	g := newTestGateway(t, Config{})
	head := g.publish("lobby", "old")
	begun := time.Now()
	page := g.page("/rooms/lobby/events?wait=200ms&after=" + head)
	if len(page["events"].([]any)) != 0 || page["next"] != head || time.Since(begun) < 200*time.Millisecond {
		t.Errorf("a poll that saw nothing gives %v after %v", page, time.Since(begun))
	}
	done := make(chan map[string]any)
	go func() { done <- g.page("/rooms/lobby/events?wait=10s&after=" + head) }()
	for {
		if streams, _, _ := g.hub.Gauges(); streams == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	id := g.publish("lobby", "new")
	page = <-done
	if events := page["events"].([]any); len(events) != 1 || page["next"] != id {
		t.Errorf("the poll gives %v", page)
	}
	if page := g.page("/rooms/lobby/events?wait=10s&after=" + head); len(page["events"].([]any)) != 1 {
		t.Errorf("a poll behind the head gives %v", page)
	}
	if page := g.page("/rooms/lobby/events?wait=10s&after=zzz-1"); page["gap"] == nil || len(page["events"].([]any)) != 2 {
		t.Errorf("a poll of another history gives %v", page)
	}
	if a := g.do("GET", "/rooms/lobby/events?wait=1s&after=x", ""); a.StatusCode != 400 {
		t.Errorf("a poll with a bad cursor gives %s", a.Status)
	}
}

func TestFiltersAndExclusionHold(t *testing.T) {
	g := newTestGateway(t, Config{})
	mine := g.listen("/rooms/lobby/events?types=a,b")
	id := mine.opened()
	g.publish("lobby", "no")
	g.do("POST", "/rooms/lobby/events?type=a&exclude="+id, "mine")
	last := g.do("POST", "/rooms/lobby/events?type=b", "yes").json(t)["id"].(string)
	mine.want("event: b\ndata: yes\nid: " + last + "\n")
	if page := g.page("/rooms/lobby/events?types=b"); len(page["events"].([]any)) != 1 {
		t.Errorf("a page of a type is %v", page)
	}
}

func TestRoomsTellAboutThemselves(t *testing.T) {
	g := newTestGateway(t, Config{})
	if room := g.page("/rooms/lobby"); room["head"] != "0-0" || room["oldest"] != "0-0" || room["streams"] != 0.0 || room["room"] != "lobby" {
		t.Errorf("an empty room is %v", room)
	}
	g.listen("/rooms/lobby/events").opened()
	first, last := g.publish("lobby", "1"), g.publish("lobby", "2")
	if room := g.page("/rooms/lobby"); room["head"] != last || room["oldest"] != first || room["streams"] != 1.0 {
		t.Errorf("the room is %v", room)
	}
	if list := g.page("/rooms"); fmt.Sprint(list["rooms"]) != "[lobby]" || list["next"] != nil {
		t.Errorf("the list is %v", list)
	}
	if a := g.do("DELETE", "/rooms/lobby/events", "", "X-Forwarded-For", "1.2.3.4"); a.StatusCode != 403 {
		t.Errorf("purging for somebody else gives %s", a.Status)
	}
	if a := g.do("DELETE", "/rooms/lobby/events", ""); a.StatusCode != 200 {
		t.Errorf("purging gives %s", a.Status)
	}
	page := g.page("/rooms/lobby/events?after=" + first)
	if page["gap"].(map[string]any)["reason"] != "purged" || len(page["events"].([]any)) != 0 {
		t.Errorf("after the purge: %v", page)
	}
}

func TestADrainingGatewayTurnsStreamsAwayGently(t *testing.T) {
	g := newTestGateway(t, Config{})
	l := g.listen("/rooms/lobby/events")
	l.opened()
	if a := g.do("GET", "/readyz", ""); a.StatusCode != 200 {
		t.Errorf("ready is %s", a.Status)
	}
	g.g.Drain()
	g.hub.Drain(t.Context(), 0)
	if got := l.block(); !regexp.MustCompile(`^retry: \d+\nevent: sluice.bye\ndata: {"reason":"drain"}\n$`).MatchString(got) {
		t.Errorf("the goodbye is %q", got)
	}
	if a := g.do("GET", "/readyz", ""); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("ready is %s", a.Status)
	}
	if a := g.do("GET", "/healthz", ""); a.StatusCode != 200 {
		t.Errorf("healthy is %s", a.Status)
	}
	a := g.do("GET", "/rooms/lobby/events", "")
	if a.StatusCode != 200 || !regexp.MustCompile(`^retry: \d+\nevent: sluice.bye\ndata: {"reason":"drain"}\n\n$`).MatchString(a.body) {
		t.Errorf("a new stream gets %s %q", a.Status, a.body)
	}
	if a := g.do("POST", "/rooms/lobby/events", "x"); a.StatusCode != 201 {
		t.Errorf("a publication gets %s", a.Status)
	}
}

func TestAStreamEndsFromOutside(t *testing.T) {
	g := newTestGateway(t, Config{})
	l := g.listen("/rooms/lobby/events")
	id := l.opened()
	if a := g.do("POST", "/streams/"+id, ""); a.StatusCode != 204 {
		t.Fatalf("ending it gives %s %s", a.Status, a.body)
	}
	if _, err := l.in.ReadString('\n'); err == nil {
		t.Error("the stream goes on")
	}
	if a := g.do("DELETE", "/streams/nonsense", ""); a.StatusCode != 404 {
		t.Errorf("ending nonsense gives %s", a.Status)
	}
}

func TestFramingCloseEndsWithTheConnection(t *testing.T) {
	g := newTestGateway(t, Config{CloseFraming: true})
	l := g.listen("/rooms/lobby/events")
	if len(l.resp.TransferEncoding) > 0 || l.resp.ContentLength != -1 || !l.resp.Close {
		t.Errorf("framing is %v, %d, close %v", l.resp.TransferEncoding, l.resp.ContentLength, l.resp.Close)
	}
	l.opened()
	id := g.publish("lobby", "x")
	l.want("data: x\nid: " + id + "\n")
}

func TestPagesOfOtherOriginsMayDoWhatTheyAreAllowed(t *testing.T) {
	g := newTestGateway(t, Config{Origins: []string{"https://app.example"}})
	allowed := g.do("POST", "/rooms/lobby/events", "x", "Origin", "https://app.example", "Sec-Fetch-Site", "cross-site")
	if allowed.StatusCode != 201 || allowed.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("a page that may gets %s %v", allowed.Status, allowed.Header)
	}
	for _, origin := range []string{"https://evil.example", "https://app.example.evil.example", "https://x.app.example", "null", "http://app.example"} {
		a := g.do("POST", "/rooms/lobby/events", "x", "Origin", origin, "Sec-Fetch-Site", "cross-site")
		if a.StatusCode != 403 || a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("a page of %s gets %s", origin, a.Status)
		}
	}
	preflight := g.do("OPTIONS", "/rooms/lobby/events", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST")
	if preflight.StatusCode != 204 || !strings.Contains(preflight.Header.Get("Access-Control-Allow-Headers"), "last-event-id") {
		t.Errorf("the preflight gets %s %v", preflight.Status, preflight.Header)
	}
}

func FuzzSSEDataReadsBack(f *testing.F) {
	for _, s := range []string{"", "a", "a\r\nb", "\r", "\n\n", "a\rb\n", "id: 1", ": x", "\ufeff", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ToValidUTF8(s, "") != s {
			return
		}
		want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
		log := fanout.NewMemory(fanout.Retention{})
		if _, err := log.Append(t.Context(), "x", []fanout.Draft{{Data: []byte(s)}}); err != nil {
			t.Fatal(err)
		}
		history, err := log.Read(t.Context(), "x", 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		got, others := readEvent(string(fanout.AppendEvent(nil, &history.Events[0], fanout.Raw)))
		if got != want || others != 1 {
			t.Fatalf("%q reads back as %q, with %d other fields", s, got, others)
		}
		got, _ = readEvent(string(fanout.AppendEvent(nil, &history.Events[0], fanout.Envelope)))
		var envelope struct{ Data string }
		if err := json.Unmarshal([]byte(got), &envelope); err != nil || envelope.Data != s {
			t.Fatalf("%q reads back from its envelope as %q: %v", s, envelope.Data, err)
		}
	})
}

// readEvent is an event stream parser of its own, after the WHATWG's rules.
func readEvent(block string) (data string, others int) {
	var lines []string
	in := bufio.NewScanner(strings.NewReader(block))
	in.Buffer(nil, 1<<20)
	in.Split(func(b []byte, atEOF bool) (int, []byte, error) {
		for i, c := range b {
			switch {
			case c == '\n':
				return i + 1, b[:i], nil
			case c == '\r' && i+1 < len(b) && b[i+1] == '\n':
				return i + 2, b[:i], nil
			case c == '\r' && (i+1 < len(b) || atEOF):
				return i + 1, b[:i], nil
			}
		}
		return 0, nil, nil
	})
	for in.Scan() {
		name, value, _ := strings.Cut(in.Text(), ":")
		switch name {
		case "data":
			lines = append(lines, strings.TrimPrefix(value, " "))
		case "":
		default:
			others++
		}
	}
	return strings.Join(lines, "\n"), others
}
