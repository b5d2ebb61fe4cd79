package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// testGateway is a small gateway that keeps its promises: positions without holes, resumption
// by cursor, answers by idempotency key. What it does wrong, it was told to do.
type testGateway struct {
	*httptest.Server
	heartbeat float64 // what sluice.open says, in seconds
	retry     int     // milliseconds, in the block of sluice.open

	mu          sync.Mutex // guards the fields below
	changed     chan struct{}
	rooms       map[string][]testEvent
	byKey       map[string]testEvent
	streamPlans []streamPlan // of the next streams; then all goes well
	postPlans   []postPlan   // of the next POSTs; likewise
	streams     []seenRequest
	posts       []seenRequest
	closed      bool // ends streams
}

type testEvent struct {
	id, room, kind, from string
	data                 json.RawMessage
	ephemeral            bool
}

// streamPlan is how a stream goes wrong.
type streamPlan struct {
	status     int    // instead of a stream
	kind, body string // with it
	header     string // "Name: value" besides
	drain      bool   // sluice.bye with a retry, and the end
	raw        string // these bytes behind sluice.open, and the end
	silent     bool   // sluice.open, then nothing until the client goes

	cut   bool // after so many events, in the block of the next one at that byte,
	after int
	at    int
	abort bool // by breaking the connection, or else by a clean end
}

// postPlan is how a POST goes wrong.
type postPlan struct {
	status     int
	retryAfter string
	detail     string
	location   string
	lose       bool // publish, then break the connection instead of answering
	drop       bool // break the connection without publishing
}

type seenRequest struct {
	method, path, kind, key, cursor string
	query                           map[string][]string
	auth                            string
	body                            []byte
	at                              time.Time
}

func newTestGateway(t *testing.T) *testGateway {
	g := &testGateway{
		heartbeat: 15,
		retry:     1,
		changed:   make(chan struct{}),
		rooms:     map[string][]testEvent{},
		byKey:     map[string]testEvent{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rooms/{room}/events", func(w http.ResponseWriter, r *http.Request) { g.stream(w, r, []string{r.PathValue("room")}) })
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) { g.stream(w, r, r.URL.Query()["room"]) })
	mux.HandleFunc("POST /rooms/{room}/events", g.post)
	g.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		g.change(func() { g.closed = true })
		g.Close()
	})
	return g
}

// change runs f under the lock and wakes every stream.
func (g *testGateway) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *testGateway) planStreams(plans ...streamPlan) {
	g.change(func() { g.streamPlans = append(g.streamPlans, plans...) })
}

func (g *testGateway) planPosts(plans ...postPlan) {
	g.change(func() { g.postPlans = append(g.postPlans, plans...) })
}

// publish appends an event whose data is this JSON.
func (g *testGateway) publish(room, data string) {
	g.change(func() {
		g.appendLocked(testEvent{room: room, kind: "message", from: "ann", data: json.RawMessage(data)})
	})
}

func (g *testGateway) appendLocked(e testEvent) testEvent {
	if !e.ephemeral {
		seq := 1
		for _, kept := range g.rooms[e.room] {
			if !kept.ephemeral {
				seq++
			}
		}
		e.id = fmt.Sprintf("e1-%d", seq)
	}
	g.rooms[e.room] = append(g.rooms[e.room], e)
	return e
}

// events answers what was published to a room.
func (g *testGateway) events(room string) []testEvent {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]testEvent(nil), g.rooms[room]...)
}

func (g *testGateway) seenStreams() []seenRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]seenRequest(nil), g.streams...)
}

func (g *testGateway) seenPosts() []seenRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]seenRequest(nil), g.posts...)
}

// await waits until ok says so; it is asked again after every change.
func (g *testGateway) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		g.mu.Lock()
		done, changed := ok(), g.changed
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("after 10 s still no %s", what)
		}
	}
}

func see(r *http.Request) seenRequest {
	body, _ := io.ReadAll(r.Body)
	return seenRequest{
		method: r.Method, path: r.URL.Path, kind: r.Header.Get("Content-Type"),
		key: r.Header.Get("Idempotency-Key"), cursor: r.Header.Get("Last-Event-ID"),
		query: r.URL.Query(), auth: r.Header.Get("Authorization"), body: body, at: time.Now(),
	}
}

func (g *testGateway) stream(w http.ResponseWriter, r *http.Request, rooms []string) {
	var plan streamPlan
	seen := see(r)
	g.change(func() {
		g.streams = append(g.streams, seen)
		if len(g.streamPlans) > 0 {
			plan, g.streamPlans = g.streamPlans[0], g.streamPlans[1:]
		}
	})
	if name, value, ok := strings.Cut(plan.header, ": "); ok {
		w.Header().Set(name, value)
	}
	if plan.status != 0 {
		w.Header().Set("Content-Type", plan.kind)
		w.WriteHeader(plan.status)
		io.WriteString(w, plan.body)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	if plan.drain {
		io.WriteString(w, "retry: 300\nevent: sluice.bye\ndata: {\"reason\":\"drain\"}\n\n")
		return
	}
	g.serveStream(w, r, rooms, plan)
}

func (g *testGateway) serveStream(w http.ResponseWriter, r *http.Request, rooms []string, plan streamPlan) {
	at := g.start(r, rooms)
	write := func(s string) { io.WriteString(w, s); w.(http.Flusher).Flush() }
	write(fmt.Sprintf(":%s\n\nretry: %d\nevent: sluice.open\ndata: {\"stream\":\"s\",\"heartbeat\":%g}\nid: %s\n\n",
		strings.Repeat(" ", 2048), g.retry, g.heartbeat, cursorOf(at, rooms)))
	if plan.raw != "" {
		write(plan.raw)
		return
	}
	if plan.silent {
		<-r.Context().Done()
		return
	}
	for sent := 0; ; sent++ {
		block, ok := g.nextBlock(r, at, rooms)
		if !ok {
			return
		}
		if plan.cut && sent == plan.after {
			write(block[:plan.at%len(block)])
			if plan.abort {
				panic(http.ErrAbortHandler)
			}
			return
		}
		write(block + ":\n\n") // comments everywhere: they must not show
	}
}

// start is how many events of each room lie before the stream.
func (g *testGateway) start(r *http.Request, rooms []string) map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	cursor := r.Header.Get("Last-Event-ID")
	if cursor == "" {
		cursor = r.URL.Query().Get("after")
	}
	at := map[string]int{}
	for _, room := range rooms {
		at[room] = len(g.rooms[room])
		if last, err := strconv.Atoi(r.URL.Query().Get("last")); err == nil && cursor == "" {
			at[room] = max(0, at[room]-last)
		}
		position := cursor
		for _, part := range strings.Split(cursor, ",") {
			if name, p, ok := strings.Cut(part, "="); ok && name == room {
				position = p
			}
		}
		if cursor == "earliest" {
			position = "e1-0"
		}
		if seq, ok := strings.CutPrefix(position, "e1-"); ok {
			n, _ := strconv.Atoi(seq)
			at[room] = g.behindLocked(room, n)
		}
	}
	return at
}

// behindLocked is the index behind the event with that number.
func (g *testGateway) behindLocked(room string, seq int) int {
	for i, e := range g.rooms[room] {
		if e.ephemeral {
			continue
		}
		if seq == 0 {
			return i
		}
		seq--
	}
	return len(g.rooms[room])
}

// nextBlock waits for the next event of any room and prints it, its id last.
func (g *testGateway) nextBlock(r *http.Request, at map[string]int, rooms []string) (string, bool) {
	for {
		g.mu.Lock()
		changed, closed := g.changed, g.closed
		for _, room := range rooms {
			if i := at[room]; i < len(g.rooms[room]) {
				e := g.rooms[room][i]
				at[room]++
				block := e.block(func() string { return g.cursorLocked(at, rooms) })
				g.mu.Unlock()
				return block, true
			}
		}
		g.mu.Unlock()
		if closed {
			return "", false
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return "", false
		}
	}
}

func (e testEvent) block(cursor func() string) string {
	var b strings.Builder
	if e.kind != "message" {
		fmt.Fprintf(&b, "event: %s\n", e.kind)
	}
	if strings.HasPrefix(e.kind, "sluice.") {
		fmt.Fprintf(&b, "data: %s\n", e.data)
	} else {
		fmt.Fprintf(&b, "data: %s\n", e.envelope())
	}
	if !e.ephemeral {
		fmt.Fprintf(&b, "id: %s\n", cursor())
	}
	return b.String() + "\n"
}

func (e testEvent) envelope() string {
	text, err := json.Marshal(struct {
		ID   string          `json:"id,omitempty"`
		Room string          `json:"room"`
		Type string          `json:"type"`
		From string          `json:"from,omitempty"`
		At   string          `json:"at"`
		Data json.RawMessage `json:"data"`
	}{e.id, e.room, e.kind, e.from, "2026-11-21T20:39:00.123Z", json.RawMessage("null")})
	if err != nil {
		panic(err)
	}
	// Not by Marshal, which would rewrite it.
	return strings.TrimSuffix(string(text), "null}") + string(e.data) + "}"
}

func (g *testGateway) cursorLocked(at map[string]int, rooms []string) string {
	seq := map[string]int{}
	for _, room := range rooms {
		for _, e := range g.rooms[room][:at[room]] {
			if !e.ephemeral {
				seq[room]++
			}
		}
	}
	return cursorOf(seq, rooms)
}

func cursorOf(seq map[string]int, rooms []string) string {
	if len(rooms) == 1 {
		return fmt.Sprintf("e1-%d", seq[rooms[0]])
	}
	parts := make([]string, len(rooms))
	for i, room := range rooms {
		parts[i] = fmt.Sprintf("%s=e1-%d", room, seq[room])
	}
	return strings.Join(parts, ",")
}

func (g *testGateway) post(w http.ResponseWriter, r *http.Request) {
	var plan postPlan
	seen := see(r)
	g.change(func() {
		g.posts = append(g.posts, seen)
		if len(g.postPlans) > 0 {
			plan, g.postPlans = g.postPlans[0], g.postPlans[1:]
		}
	})
	switch {
	case plan.drop:
		panic(http.ErrAbortHandler)
	case plan.location != "":
		http.Redirect(w, r, plan.location, plan.status)
		return
	case plan.status != 0:
		if plan.retryAfter != "" {
			w.Header().Set("Retry-After", plan.retryAfter)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(plan.status)
		fmt.Fprintf(w, `{"type":"about:blank","title":"no","status":%d,"detail":%q}`, plan.status, plan.detail)
		return
	}
	status, answer := g.publishRequest(r, seen)
	if plan.lose {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, answer)
}

func (g *testGateway) publishRequest(r *http.Request, seen seenRequest) (status int, answer string) {
	room, ephemeral := r.PathValue("room"), r.URL.Query().Get("ephemeral") == "true"
	if seen.kind != "application/x-ndjson" {
		e := testEvent{room: room, kind: "message", data: seen.body, ephemeral: ephemeral}
		if kind := r.URL.Query().Get("type"); kind != "" {
			e.kind = kind
		}
		if seen.kind != "application/json" {
			e.data, _ = json.Marshal(string(seen.body))
		}
		e = g.once(seen.key, e)
		if ephemeral {
			return http.StatusAccepted, "{}"
		}
		return http.StatusCreated, e.envelope()
	}
	var answers []string
	lines := bufio.NewScanner(bytes.NewReader(seen.body))
	lines.Buffer(nil, batchBytes+1)
	for lines.Scan() {
		var l struct {
			Data json.RawMessage
			Type string
			Key  string
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return http.StatusBadRequest, err.Error()
		}
		e := testEvent{room: room, kind: "message", data: l.Data, ephemeral: ephemeral}
		if l.Type != "" {
			e.kind = l.Type
		}
		answers = append(answers, g.once(l.Key, e).envelope())
	}
	if len(answers) > batchLines || len(seen.body) > batchBytes {
		return http.StatusRequestEntityTooLarge, ""
	}
	return http.StatusCreated, `{"events":[` + strings.Join(answers, ",") + `]}`
}

// once publishes unless an event with that key was published.
func (g *testGateway) once(key string, e testEvent) testEvent {
	g.change(func() {
		if known, ok := g.byKey[key]; ok && key != "" {
			e = known
			return
		}
		e = g.appendLocked(e)
		g.byKey[key] = e
	})
	return e
}
