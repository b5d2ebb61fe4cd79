package main

import (
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"sluice/fanout"
	"sluice/handlers"
	"sluice/static"
)

// TestProtocolHasEveryRequest: what is served is written down, and what is
// written down in its table is served.
func TestProtocolHasEveryRequest(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## Requests\n")
	table, _, found := strings.Cut(table, "\n## ")
	if !found {
		t.Fatal("docs/protocol.md has no list of requests")
	}
	written, seen := map[string]bool{}, map[string]bool{}
	for _, request := range regexp.MustCompile("`((?:GET|POST|DELETE) /[^`?]*)").FindAllStringSubmatch(table, -1) {
		written[request[1]] = true
	}
	for _, file := range regexp.MustCompile("`(/[a-z.-]+|/[a-z]+/…)`").FindAllStringSubmatch(table, -1) { // of a page
		written["GET "+file[1]] = true
	}

	log := fanout.NewMemory(fanout.Retention{})
	hub := fanout.NewHub(log, fanout.Options{Logger: slog.New(slog.DiscardHandler)})
	gateway := handlers.NewGateway(hub, handlers.Config{Logger: slog.New(slog.DiscardHandler), Pages: static.Handler(), PagePaths: static.Paths()})
	err = chi.Walk(gateway.Handler().(chi.Routes), func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		request := method + " " + path
		if folder := regexp.MustCompile(`^GET /[a-z]+/`).FindString(request); written[folder+"…"] {
			seen[folder+"…"] = true // all that is in it
			return nil
		}
		if method != http.MethodHead && !written[request] {
			t.Errorf("docs/protocol.md says nothing of %s", request)
		}
		delete(written, request)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for request := range written {
		if seen[request] {
			continue
		}
		t.Errorf("docs/protocol.md lists %s, and there is no such thing", request)
	}
}
