package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// gateway is a small honest gateway: the part of the contract that an
// examination touches, and nothing that tells it from the real one there.
type gateway struct {
	heartbeat time.Duration
	maxBody   int    // of one event; 64 KiB if zero
	token     string // that may do everything; empty: open
	readOnly  bool   // the token may not publish

	mu    sync.Mutex // guards the fields below
	rooms map[string]*room
	names int // of streams
}

type room struct {
	log     []event
	streams map[chan event]struct{}
}

type event struct {
	seq  int // 0: ephemeral
	data string
}

const epoch = "5p3k9m2x7q1zb"

func position(seq int) string { return fmt.Sprintf("%s-%d", epoch, seq) }

func (g *gateway) room(name string) *room {
	if g.rooms == nil {
		g.rooms = map[string]*room{}
	}
	if g.rooms[name] == nil {
		g.rooms[name] = &room{streams: map[chan event]struct{}{}}
	}
	return g.rooms[name]
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/healthz":
		fmt.Fprintln(w, "ok")
	case path[0] != "rooms" || len(path) < 2:
		problem(w, http.StatusNotFound)
	case g.token != "" && r.Header.Get("Authorization") != "Bearer "+g.token:
		problem(w, http.StatusUnauthorized)
	case len(path) == 2:
		g.mu.Lock()
		defer g.mu.Unlock()
		answerJSON(w, http.StatusOK, map[string]any{"room": path[1], "streams": len(g.room(path[1]).streams)})
	case r.Method == http.MethodPost:
		g.publish(w, r, path[1])
	case strings.Contains(r.Header.Get("Accept"), "application/json"):
		g.page(w, r, path[1])
	default:
		g.stream(w, r, path[1])
	}
}

func problem(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	detail := map[int]string{http.StatusForbidden: "You may only read."}[status]
	fmt.Fprintf(w, `{"status":%d,"detail":%q}`, status, detail)
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (g *gateway) publish(w http.ResponseWriter, r *http.Request, name string) {
	if g.readOnly {
		problem(w, http.StatusForbidden)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		problem(w, http.StatusBadRequest)
		return
	}
	bodies := []string{string(body)}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-ndjson") {
		bodies = strings.Split(strings.TrimSpace(string(body)), "\n")
	}
	for _, b := range bodies {
		limit := g.maxBody
		if limit == 0 {
			limit = 64 << 10
		}
		if len(b) > limit {
			problem(w, http.StatusRequestEntityTooLarge)
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	in := g.room(name)
	for _, b := range bodies {
		e := event{data: b}
		if r.URL.Query().Get("ephemeral") != "true" {
			e.seq = len(in.log) + 1
			in.log = append(in.log, e)
		}
		for s := range in.streams {
			select {
			case s <- e:
			default: // far behind; no examination is
			}
		}
	}
	if r.URL.Query().Get("ephemeral") == "true" {
		answerJSON(w, http.StatusAccepted, map[string]any{"room": name})
		return
	}
	answerJSON(w, http.StatusCreated, map[string]any{"id": position(len(in.log)), "room": name})
}

// cursor reads where a request wants to go on; bad says that it asks for what
// leads nowhere.
func (g *gateway) cursor(r *http.Request, head int) (seq int, given, bad bool) {
	for _, c := range []string{r.Header.Get("Last-Event-ID"), r.URL.Query().Get("lastEventId"), r.URL.Query().Get("after")} {
		switch {
		case c == "":
			continue
		case c == "latest":
			return head, true, false
		}
		tail, ok := strings.CutPrefix(c, epoch+"-")
		n, err := strconv.Atoi(tail)
		return n, true, !ok || err != nil || n > head
	}
	return head, false, false
}

// enter subscribes to a room, and returns what lies behind the cursor.
func (g *gateway) enter(r *http.Request, name string, buffer int) (s chan event, missed []event, at int, bad bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	in := g.room(name)
	at, _, bad = g.cursor(r, len(in.log))
	if bad {
		at = len(in.log)
	}
	s = make(chan event, buffer)
	in.streams[s] = struct{}{}
	return s, in.log[at:], at, bad
}

func (g *gateway) leave(name string, s chan event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.rooms[name].streams, s)
}

func envelope(name string, e event) map[string]any {
	v := map[string]any{"room": name, "type": "message", "data": e.data}
	if e.seq > 0 {
		v["id"] = position(e.seq)
	}
	return v
}

func (g *gateway) page(w http.ResponseWriter, r *http.Request, name string) {
	s, missed, _, bad := g.enter(r, name, 100)
	g.leave(name, s)
	if bad {
		problem(w, http.StatusBadRequest)
		return
	}
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	if len(missed) == 0 && wait > 0 {
		missed = g.poll(r, name, wait)
	} else if _, given, _ := g.cursor(r, 0); !given {
		g.mu.Lock()
		missed = g.room(name).log
		g.mu.Unlock()
	}
	events := []map[string]any{}
	for _, e := range missed {
		events = append(events, envelope(name, e))
	}
	answerJSON(w, http.StatusOK, map[string]any{"events": events, "next": position(0)})
}

func (g *gateway) poll(r *http.Request, name string, wait time.Duration) []event {
	s, missed, _, _ := g.enter(r, name, 100)
	defer g.leave(name, s)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for len(missed) == 0 {
		select {
		case e := <-s:
			missed = append(missed, e)
		case <-timer.C:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
	return missed
}

func (g *gateway) stream(w http.ResponseWriter, r *http.Request, name string) {
	s, missed, at, bad := g.enter(r, name, 1000)
	defer g.leave(name, s)
	g.mu.Lock()
	g.names++
	open := fmt.Sprintf(`{"stream":"s%d","heartbeat":%g}`, g.names, g.heartbeat.Seconds())
	g.mu.Unlock()

	write := sse
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set("Content-Encoding", "identity")
	if r.Header.Get("Accept") == "application/x-ndjson" {
		write = ndjson(name)
		h.Set("Content-Type", "application/x-ndjson")
	} else {
		fmt.Fprintf(w, ":%s\n", strings.Repeat(" ", 2048))
	}
	write(w, "sluice.open", position(at), open)
	if bad {
		write(w, "sluice.gap", position(at), `{"reason":"bad_cursor"}`)
	}
	for _, e := range missed {
		write(w, "", position(e.seq), e.data)
	}
	rc := http.NewResponseController(w)
	beat := time.NewTicker(g.heartbeat)
	defer beat.Stop()
	for rc.Flush() == nil {
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			io.WriteString(w, ":\n\n")
		case e := <-s:
			id := ""
			if e.seq > 0 {
				id = position(e.seq)
			}
			write(w, "", id, e.data)
		}
	}
}

func sse(w io.Writer, kind, id, data string) {
	if kind != "" {
		fmt.Fprintf(w, "event: %s\n", kind)
	}
	fmt.Fprintf(w, "data: %s\n", data)
	if id != "" {
		fmt.Fprintf(w, "id: %s\n", id)
	}
	fmt.Fprintln(w)
}

func ndjson(room string) func(w io.Writer, kind, id, data string) {
	return func(w io.Writer, kind, id, data string) {
		v := map[string]any{"type": "message", "id": id, "room": room, "data": data}
		if kind != "" {
			v["type"], v["data"] = kind, json.RawMessage(data)
		}
		json.NewEncoder(w).Encode(v)
	}
}

// serve starts h; configure, if not nil, changes the server before.
func serve(t *testing.T, h http.Handler, configure func(*httptest.Server)) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if configure != nil {
		configure(srv)
	}
	if srv.TLS == nil {
		srv.Start()
	} else {
		srv.StartTLS()
	}
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv
}

// hurry is the pace of tests.
func hurry() pace {
	return pace{
		opening: time.Second, soon: time.Second, patience: 1500 * time.Millisecond,
		events: 4, gap: 20 * time.Millisecond, prompt: 120 * time.Millisecond,
		leaving: 500 * time.Millisecond, silent: 700 * time.Millisecond, poll: 300 * time.Millisecond,
	}
}

// beat is the heartbeat of gateways in tests.
const beat = 50 * time.Millisecond

// examine runs an examination of url in a hurry.
func examine(t *testing.T, url string, change func(*Options)) *Report {
	t.Helper()
	o := Options{URL: parse(t, url), Idle: 1500 * time.Millisecond, pace: hurry()}
	if change != nil {
		change(&o)
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, f := range r.Findings {
				t.Log(f)
			}
			t.Log(r.Summary())
		}
	})
	return r
}

// want checks that a finding is there with its level and, in any of its texts,
// some words.
func want(t *testing.T, r *Report, check string, level Level, words ...string) {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check != check {
			continue
		}
		if f.Level != level {
			t.Errorf("%s is %s, want %s", check, f.Level, level)
		}
		for _, w := range words {
			if !strings.Contains(f.Seen+"\n"+f.Means+"\n"+f.Do, w) {
				t.Errorf("%s says nothing of %q", check, w)
			}
		}
		return
	}
	t.Errorf("there is no finding about %s", check)
}

// wantGood checks that all went well, apart from the findings named.
func wantGood(t *testing.T, r *Report, but ...string) {
	t.Helper()
	if !r.Good {
		t.Error("the way is not good")
	}
	for _, f := range r.Findings {
		if f.Level != OK && !contains(but, f.Check) {
			t.Errorf("%s is %s", f.Check, f.Level)
		}
	}
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}
