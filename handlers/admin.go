package handlers

import (
	"net/http"
	"net/http/pprof"
	"runtime/debug"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/fanout"
)

// AdminHandler is everything that the operator's listener serves. It knows no
// access control: keep it on loopback, or behind something that does.
func (g *Gateway) AdminHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{g})
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

// collector reads the counters when they are asked for. No label names a room
// or a user.
type collector struct{ g *Gateway }

var (
	descStreams   = prometheus.NewDesc("sluice_streams", "Streams that are open.", nil, nil)
	descRooms     = prometheus.NewDesc("sluice_rooms", "Rooms that are open on this node.", nil, nil)
	descRing      = prometheus.NewDesc("sluice_ring_bytes", "Memory that the rooms' rings take, about.", nil, nil)
	descUp        = prometheus.NewDesc("sluice_log_up", "1 while the log can be reached.", nil, nil)
	descPublished = prometheus.NewDesc("sluice_published_events_total", "Events that clients of this node published.", nil, nil)
	descDelivered = prometheus.NewDesc("sluice_delivered_events_total", "Events written to streams.", nil, nil)
	descBytes     = prometheus.NewDesc("sluice_delivered_bytes_total", "Bytes written to streams.", nil, nil)
	descCatchUps  = prometheus.NewDesc("sluice_catchup_reads_total", "Reads of the log by which rooms caught up.", nil, nil)
	descPages     = prometheus.NewDesc("sluice_page_reads_total", "Reads of the log for streams further back than the ring.", nil, nil)
	descHoles     = prometheus.NewDesc("sluice_holes_total", "Events whose number did not follow, so that the room caught up.", nil, nil)
	descMissed    = prometheus.NewDesc("sluice_overlooked_total", "Silent rooms that had missed an event.", nil, nil)
	descLosses    = prometheus.NewDesc("sluice_subscription_losses_total", "Times that the subscription was lost.", nil, nil)
	descGaps      = prometheus.NewDesc("sluice_gaps_total", "Gaps that streams were told of.", []string{"reason"}, nil)
	descEnded     = prometheus.NewDesc("sluice_streams_ended_total", "Streams that ended.", []string{"reason"}, nil)
	descRefused   = prometheus.NewDesc("sluice_connections_refused_total", "Connections turned away since few file descriptors were left.", nil, nil)
	descProblems  = prometheus.NewDesc("sluice_problems_total", "Requests that were refused or failed.", []string{"problem"}, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	counter := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	streams, rooms, ring := c.g.hub.Gauges()
	gauge(descStreams, float64(streams))
	gauge(descRooms, float64(rooms))
	gauge(descRing, float64(ring))
	up := 1.0
	if !c.g.hub.DownSince().IsZero() {
		up = 0
	}
	gauge(descUp, up)
	stats := c.g.hub.Stats()
	counter(descPublished, stats.Published.Load())
	counter(descDelivered, stats.Delivered.Load())
	counter(descBytes, stats.Bytes.Load())
	counter(descCatchUps, stats.CatchUps.Load())
	counter(descPages, stats.PagesRead.Load())
	counter(descHoles, stats.Holes.Load())
	counter(descMissed, stats.Overlooked.Load())
	counter(descLosses, stats.Losses.Load())
	stats.EachGap(func(reason fanout.Reason, n int64) { counter(descGaps, n, string(reason)) })
	stats.EachEnd(func(reason fanout.ByeReason, n int64) { counter(descEnded, n, string(reason)) })
	if guarded := c.g.refused.Load(); guarded != nil {
		counter(descRefused, guarded.Refused())
	}
	c.g.problems.each(func(kind string, n int64) { counter(descProblems, n, kind) })
}
