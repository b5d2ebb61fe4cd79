package handlers

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/fanout"
)

// discard is an answer that goes nowhere.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header           { return d.header }
func (d *discard) WriteHeader(status int)        { d.status = status }
func (d *discard) Write(b []byte) (int, error)   { return len(b), nil }
func (*discard) SetReadDeadline(time.Time) error { return nil }

// BenchmarkPublish is what a publication costs from its request's being parsed
// to its answer's being handed over, with the memory log: net/http is not in it.
func BenchmarkPublish(b *testing.B) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	hub := fanout.NewHub(fanout.NewMemory(fanout.Retention{}), fanout.Options{Logger: quiet})
	handler := NewGateway(hub, Config{Logger: quiet, Limits: Limits{PublishRate: 1e9, NewRoomsRate: 1e9}}).Handler()
	for _, kind := range []string{"text", "JSON"} {
		body := strings.Repeat("x", 150)
		if kind == "JSON" {
			body = `{"text":"` + body + `"}`
		}
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			head := httptest.NewRequestWithContext(context.Background(), "POST", "http://127.0.0.1:8080/rooms/lobby/events", nil)
			head.RemoteAddr = "127.0.0.1:12345"
			head.Header.Set("Content-Type", "application/json")
			if kind == "text" {
				head.Header.Set("Content-Type", "text/plain; charset=utf-8")
			}
			head.ContentLength = int64(len(body))
			in := strings.NewReader(body)
			for b.Loop() {
				in.Reset(body)
				r := *head
				r.Body = io.NopCloser(in)
				w := &discard{header: http.Header{}}
				handler.ServeHTTP(w, &r)
				if w.status != http.StatusCreated {
					b.Fatalf("status %d", w.status)
				}
			}
		})
	}
}
