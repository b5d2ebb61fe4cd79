package handlers

import (
	"net/http"
	"net/http/pprof"
	"runtime/debug"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// AdminHandler is everything that the operator's listener serves. It knows no
// access control: keep it on loopback, or behind something that does.
func (g *Gateway) AdminHandler() http.Handler {
	registry := prometheus.NewRegistry()
	g.register(registry)
	r := chi.NewRouter()
	r.Use(secureHeaders)
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	r.Get("/healthz", g.healthy)
	r.Get("/readyz", g.answering(g.ready))
	r.HandleFunc("/debug/pprof/*", pprof.Index)
	r.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	r.HandleFunc("/debug/pprof/profile", pprof.Profile)
	r.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	r.HandleFunc("/debug/pprof/trace", pprof.Trace)
	r.Post("/debug/gc", func(w http.ResponseWriter, _ *http.Request) {
		debug.FreeOSMemory() // before memory is measured
		w.WriteHeader(http.StatusNoContent)
	})
	return r
}
