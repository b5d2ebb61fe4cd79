package bench

import (
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

// hub is a small but whole gateway: rooms with a log, streams that resume, and
// a place to put faults in.
type hub struct {
	// deliver says what a stream gets instead of event n of its room, counted
	// from 1; nil: just that. It is called for each stream.
	deliver func(n int, data string) []string
	// take says with which status a POST is answered, and whether the event is
	// taken; nil: 201 and yes.
	take func(n int) (status int, taken bool)
	// limit ends a stream after so many events; 0: never.
	limit int
	// refuse says how many requests for a stream are answered by sluice.bye.
	refuse int
	// head is the status of a stream request; nil: 200.
	head func() int

	mu    sync.Mutex // guards the fields below
	rooms map[string]*hubRoom
	posts int
	opens int
}

type hubRoom struct {
	log    []string
	change chan struct{} // closed and replaced at each append
}

func (h *hub) room(name string) *hubRoom {
	if h.rooms == nil {
		h.rooms = map[string]*hubRoom{}
	}
	r := h.rooms[name]
	if r == nil {
		r = &hubRoom{change: make(chan struct{})}
		h.rooms[name] = r
	}
	return r
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.Split(strings.TrimPrefix(r.URL.Path, "/rooms/"), "/")[0]
	if r.Method == http.MethodPost {
		h.publish(w, r, name)
		return
	}
	h.stream(w, r, name)
}

func (h *hub) publish(w http.ResponseWriter, r *http.Request, name string) {
	body, _ := io.ReadAll(r.Body)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.posts++
	status, taken := 201, true
	if h.take != nil {
		status, taken = h.take(h.posts)
	}
	if taken {
		room := h.room(name)
		room.log = append(room.log, string(body))
		close(room.change)
		room.change = make(chan struct{})
	}
	w.WriteHeader(status)
	fmt.Fprintln(w, `{"id":"x"}`)
}

func (h *hub) stream(w http.ResponseWriter, r *http.Request, name string) {
	h.mu.Lock()
	room := h.room(name)
	at := len(room.log)
	h.opens++
	refused := h.opens <= h.refuse
	h.mu.Unlock()
	if h.head != nil {
		if status := h.head(); status != 200 {
			w.WriteHeader(status)
			return
		}
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		at, _ = strconv.Atoi(id)
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	if refused {
		fmt.Fprint(w, "retry: 100\nevent: sluice.bye\ndata: {\"reason\": \"overload\"}\n\n")
		return
	}
	fmt.Fprintf(w, ":%s\nretry: 10\nevent: sluice.open\ndata: {}\nid: %d\n\n", strings.Repeat("p", 2048), at)
	rc := http.NewResponseController(w)
	rc.Flush()
	for sent := 0; ; {
		h.mu.Lock()
		fresh, change := room.log[at:], room.change
		h.mu.Unlock()
		for _, data := range fresh {
			at++
			out := []string{data}
			if h.deliver != nil {
				out = h.deliver(at, data)
			}
			for _, d := range out {
				fmt.Fprintf(w, "data: %s\nid: %d\n\n", d, at)
			}
			if sent++; h.limit > 0 && sent == h.limit {
				return
			}
		}
		rc.Flush()
		select {
		case <-r.Context().Done():
			return
		case <-change:
		}
	}
}

// start serves h; secure: by TLS.
func (h *hub) start(t *testing.T, secure bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv
}

// config measures srv shortly.
func config(srv *httptest.Server) Config {
	return Config{
		Subscribe: srv.URL + "/rooms/{room}/events",
		Publish:   srv.URL + "/rooms/{room}/events",
		Streams:   6, Rooms: 2, Publishers: 2, Rate: 400, Payload: 100,
		Duration: 250 * time.Millisecond,
		Grace:    250 * time.Millisecond,
		Patience: 5 * time.Second,
	}
}
