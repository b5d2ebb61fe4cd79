package handlers

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/fanout"
)

// FuzzPostBody: a body is published as it is, or refused with a problem and
// nothing written. What is taken for JSON is JSON that every reader
// understands alike.
func FuzzPostBody(f *testing.F) {
	kinds := []string{"", "text/plain", "application/json", "application/x-ndjson", "application/x-www-form-urlencoded", "application/problem+json", "text/html; charset=utf-8", "image/png", ";"}
	for i := range kinds {
		for _, body := range []string{"", "hi", "{}", `{"a":1,"a":2}`, `"\ud800"`, "\xff", "[1e999]", strings.Repeat("[", 70), `{"data":1}` + "\n" + `{"data":"x","type":"a","key":"k"}`, "{} {}"} {
			f.Add([]byte(body), uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, kind uint8) {
		log := fanout.NewMemory(fanout.Retention{})
		g := NewGateway(fanout.NewHub(log, fanout.Options{}), Config{MaxBody: 4 << 10, Logger: slog.New(slog.DiscardHandler)})
		r := httptest.NewRequest(http.MethodPost, "/rooms/lobby/events", strings.NewReader(string(body)))
		if media := kinds[int(kind)%len(kinds)]; media != "" {
			r.Header.Set("Content-Type", media)
		}
		w := httptest.NewRecorder()
		g.Handler().ServeHTTP(w, r)
		history, err := log.Read(t.Context(), "lobby", 0, 2000)
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusCreated {
			var p struct{ Type, Title string }
			if w.Code < 400 || w.Code >= 500 || json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Title == "" || history.Head != 0 {
				t.Fatalf("%q: %d %s, and %d events", body, w.Code, w.Body, history.Head)
			}
			return
		}
		if !utf8.Valid(body) || history.Head == 0 {
			t.Fatalf("%q was taken, with %d events", body, history.Head)
		}
		for i := range history.Events {
			e := &history.Events[i]
			if e.JSON && !json.Valid(e.Data) || !utf8.Valid(e.Data) || !fanout.ValidType(e.Type) || e.From != "" || int64(len(e.Data)) > 4<<10 {
				t.Fatalf("%q was published as %+v", body, e)
			}
			if !json.Valid(fanout.AppendEnvelope(nil, e)) {
				t.Fatalf("%q has the envelope %s", body, fanout.AppendEnvelope(nil, e))
			}
		}
		if r.Header.Get("Content-Type") != "application/x-ndjson" && (history.Head != 1 || string(history.Events[0].Data) != string(body)) {
			t.Fatalf("%q was published as %q", body, history.Events[0].Data)
		}
	})
}

// FuzzTarget: whatever a request line asks for is answered, and never by a
// failure of ours.
func FuzzTarget(f *testing.F) {
	for _, target := range []string{"/", "/rooms/a/events?limit=1", "/rooms/%2e%2e/events?limit=1", "/events?room=a&room=b&limit=1", "/rooms/a/events?wait=0&after=%00", "/streams/x", "/%zz", "//", "/rooms//", "/events?room=%ff&limit=1"} {
		f.Add(target, "GET", "e1-1")
		f.Add(target, "POST", "")
		f.Add(target, "DELETE", "x")
	}
	hub := fanout.NewHub(fanout.NewMemory(fanout.Retention{}), fanout.Options{Logger: slog.New(slog.DiscardHandler)})
	g := NewGateway(hub, Config{Logger: slog.New(slog.DiscardHandler)})
	g.Drain() // so that streams end at once
	h := g.Handler()
	f.Fuzz(func(t *testing.T, target, method, cursor string) {
		r, err := http.NewRequest(method, "http://127.0.0.1"+target, http.NoBody)
		if err != nil || !strings.HasPrefix(target, "/") || strings.ContainsAny(cursor, "\r\n\x00") || strings.Contains(target, "wait") {
			t.Skip()
		}
		r.RemoteAddr = "192.0.2.1:1"
		r.Header.Set("Last-Event-ID", cursor)
		w := httptest.NewRecorder()
		h.ServeHTTP(flushed{w}, r)
		if w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
			t.Fatalf("%s %q with %q: %d %s", method, target, cursor, w.Code, w.Body)
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%s %q: %d as %q", method, target, w.Code, w.Header().Get("Content-Type"))
		}
	})
}
