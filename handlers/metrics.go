package handlers

import (
	"bufio"
	"net"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice/fanout"
)

// metrics is what an operator is told of a node. Most of it is counted where
// it happens and read when it is asked for (Collect); what has to be observed
// as it happens is here. No label names a room or a user.
type metrics struct {
	publish  prometheus.Histogram
	delivery prometheus.Histogram
	requests *prometheus.CounterVec

	reloads    *prometheus.CounterVec
	reloadFine prometheus.Gauge
}

func newMetrics(stats *fanout.Stats) *metrics {
	m := &metrics{
		publish:  newDurations("sluice_publish_duration_seconds", "From a publication that was received whole to its being in the log."),
		delivery: newDurations("sluice_delivery_latency_seconds", "From an event's time to when this node has written it; once for streams that are served together."),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_requests_total", Help: "Requests on the public listener, by the class of the answer's status; aborted: there was none.",
		}, []string{"method", "route", "status"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_reloads_total", Help: "Times that the node was told to read its configuration again.",
		}, []string{"result"}),
		reloadFine: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_reload_successful", Help: "1 unless the newest reload changed nothing, since something was wrong.",
		}),
	}
	m.reloads.WithLabelValues(reloadOK)
	m.reloads.WithLabelValues(reloadFailed)
	m.reloadFine.Set(1)
	stats.ObserveDelivery(func(took time.Duration) { m.delivery.Observe(took.Seconds()) })
	return m
}

// The results of a reload.
const (
	reloadOK     = "ok"
	reloadFailed = "failed"
)

func (m *metrics) reloaded(ok bool) {
	result, fine := reloadFailed, 0.0
	if ok {
		result, fine = reloadOK, 1
	}
	m.reloads.WithLabelValues(result).Inc()
	m.reloadFine.Set(fine)
}

// newDurations gives a histogram in both of Prometheus's forms, native and
// with fixed buckets: a server that does not take the one takes the other.
func newDurations(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help,
		Buckets:                         []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	})
}

// register adds everything that there is to know of the gateway and its process.
func (g *Gateway) register(registry *prometheus.Registry) {
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{g}, g.metrics.publish, g.metrics.delivery, g.metrics.requests, g.metrics.reloads, g.metrics.reloadFine,
	)
}

// counting counts requests once their answer begins: that of a stream may
// never end here.
func (g *Gateway) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &countedWriter{ResponseWriter: w, requests: g.metrics.requests, r: r}
		begun, returned := time.Now(), false
		defer func() {
			if returned {
				c.count(http.StatusOK) // which is what net/http makes of silence
			} else {
				c.count(aborted)
			}
			g.logRequest(c, time.Since(begun))
		}()
		next.ServeHTTP(c, r)
		returned = true
	})
}

// countedWriter counts a request by the first status that is written. It
// belongs to the request's goroutine.
type countedWriter struct {
	http.ResponseWriter
	requests *prometheus.CounterVec
	r        *http.Request
	counted  bool
	status   int    // that was counted
	taken    bool   // the connection was taken over
	problem  string // that the client was told; "" if none
}

// aborted is the status of a request without an answer.
const aborted = 0

var statusClasses = [...]string{0: "aborted", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}

func (c *countedWriter) count(status int) {
	if !c.counted {
		c.counted, c.status = true, status
		c.requests.WithLabelValues(methodOf(c.r), routeOf(c.r), statusClasses[status/100]).Inc()
	}
}

// WriteHeader implements http.ResponseWriter.
func (c *countedWriter) WriteHeader(status int) {
	if status >= 200 && status < 600 {
		c.count(status)
	}
	c.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (c *countedWriter) Write(b []byte) (int, error) {
	c.count(http.StatusOK)
	return c.ResponseWriter.Write(b)
}

// FlushError sends what was written. http.ResponseController prefers it to Flush.
func (c *countedWriter) FlushError() error {
	c.count(http.StatusOK)
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (c *countedWriter) Flush() { _ = c.FlushError() }

// Hijack implements http.Hijacker: whoever takes the connection over is about
// to answer with a stream.
func (c *countedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err == nil {
		c.count(http.StatusOK)
		c.taken = true
	}
	return conn, buffered, err
}

// Unwrap is for http.ResponseController.
func (c *countedWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// routeOf gives the pattern that a request met: there are only so many.
func routeOf(r *http.Request) string {
	if rc := chi.RouteContext(r.Context()); rc != nil {
		if pattern := rc.RoutePattern(); pattern != "" {
			return pattern
		}
	}
	return "other"
}

// methodOf gives the method, if it is one that we serve: clients may make up any.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "other"
}

// collector reads the counters when they are asked for.
type collector struct{ g *Gateway }

func newDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descBuild     = newDesc("sluice_build_info", "1, with the version of this node.", "version")
	descStreams   = newDesc("sluice_streams", "Streams that are open.")
	descWaiting   = newDesc("sluice_streams_waiting", "Streams that wait for their client to take something, or for older events from the log.")
	descRooms     = newDesc("sluice_rooms", "Rooms that are open on this node.")
	descRing      = newDesc("sluice_ring_bytes", "Memory that the rooms' rings take, about.")
	descUp        = newDesc("sluice_log_up", "1 while the log can be reached.")
	descDraining  = newDesc("sluice_draining", "1 since the node was told to end.")
	descPublished = newDesc("sluice_published_events_total", "Events that clients of this node published.")
	descTaken     = newDesc("sluice_published_bytes_total", "Bytes of their data.")
	descBacklog   = newDesc("sluice_backlog_events", "Events that streams have yet to take.")
	descResumes   = newDesc("sluice_resumes_total", "Cursors with which streams began, by where what they had missed was found.", "from")
	descMembers   = newDesc("sluice_members", "Users who are in rooms through this node, counted in each room.")
	descJoins     = newDesc("sluice_member_joins_total", "Users who entered a room through this node.")
	descLeaves    = newDesc("sluice_member_leaves_total", "Users who left a room through this node, or did not come back in time.")
	descDelivered = newDesc("sluice_delivered_events_total", "Events written to streams.")
	descBytes     = newDesc("sluice_delivered_bytes_total", "Bytes written to streams.")
	descCatchUps  = newDesc("sluice_catchup_reads_total", "Reads of the log by which rooms caught up.")
	descPages     = newDesc("sluice_page_reads_total", "Reads of the log for streams further back than the ring.")
	descHoles     = newDesc("sluice_holes_total", "Events whose number did not follow, so that the room caught up.")
	descMissed    = newDesc("sluice_overlooked_total", "Silent rooms that had missed an event.")
	descLosses    = newDesc("sluice_subscription_losses_total", "Times that the subscription was lost.")
	descGaps      = newDesc("sluice_gaps_total", "Gaps that streams were told of.", "reason")
	descEnded     = newDesc("sluice_streams_ended_total", "Streams that ended.", "reason")
	descRefused   = newDesc("sluice_connections_refused_total", "Connections turned away since few file descriptors were left.")
	descProblems  = newDesc("sluice_problems_total", "Requests that were refused or failed.", "problem")
	descLimits    = newDesc("sluice_limits_hit_total", "Requests that a limit refused.", "limit")
	descServers   = newDesc("sluice_redis_servers", "Redis servers that hold rooms.")
	descServersUp = newDesc("sluice_redis_servers_up", "Of them, those whose messages come.")
	descSessions  = newDesc("sluice_redis_sessions_total", "Subscriptions to Redis that were begun.")
	descCanary    = newDesc("sluice_redis_canary_seconds", "What the newest message that the node sent itself took through Redis.")
	descRejected  = newDesc("sluice_redis_rejected_messages_total", "Messages on our channels that nobody of ours sent.")
)

// limitProblems are the problems that are limits.
var limitProblems = []*problem{
	errPublishRate, errRoomRate, errNewRooms, errStreams, errStreamsAddress, errStreamsSubject,
}

// sink is where metrics go that are read at this moment.
type sink chan<- prometheus.Metric

func (ch sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (ch sink) counter(d *prometheus.Desc, n int64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (ch sink) flag(d *prometheus.Desc, on bool) {
	v := 0.0
	if on {
		v = 1
	}
	ch.gauge(d, v)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.collectHub(ch)
	c.collectLinks(ch)
	sink := sink(ch)
	sink.gauge(descBuild, 1, c.g.cfg().Version)
	sink.flag(descDraining, c.g.draining.Load())
	if guarded := c.g.refused.Load(); guarded != nil {
		sink.counter(descRefused, guarded.Refused())
	}
	hits := map[string]int64{}
	c.g.problems.each(func(kind string, n int64) {
		hits[kind] = n
		sink.counter(descProblems, n, kind)
	})
	for _, p := range limitProblems {
		sink.counter(descLimits, hits[p.kind], p.kind)
	}
}

func (c *collector) collectHub(sink sink) {
	hub := c.g.hub
	stats := hub.Stats()
	streams, rooms, ring := hub.Gauges()
	sink.gauge(descStreams, float64(streams))
	sink.gauge(descWaiting, float64(stats.Waiting.Load()))
	sink.gauge(descRooms, float64(rooms))
	sink.gauge(descRing, float64(ring))
	sink.flag(descUp, hub.DownSince().IsZero())
	sink.counter(descPublished, stats.Published.Load())
	sink.counter(descTaken, stats.Taken.Load())
	sink.gauge(descBacklog, float64(hub.Backlog()))
	sink.counter(descResumes, stats.FromRing.Load(), "ring")
	sink.counter(descResumes, stats.FromLog.Load(), "log")
	sink.gauge(descMembers, float64(hub.MembersHere()))
	sink.counter(descJoins, stats.Joined.Load())
	sink.counter(descLeaves, stats.Left.Load())
	sink.counter(descDelivered, stats.Delivered.Load())
	sink.counter(descBytes, stats.Bytes.Load())
	sink.counter(descCatchUps, stats.CatchUps.Load())
	sink.counter(descPages, stats.PagesRead.Load())
	sink.counter(descHoles, stats.Holes.Load())
	sink.counter(descMissed, stats.Overlooked.Load())
	sink.counter(descLosses, stats.Losses.Load())
	stats.EachGap(func(reason fanout.Reason, n int64) { sink.counter(descGaps, n, string(reason)) })
	stats.EachEnd(func(reason fanout.ByeReason, n int64) { sink.counter(descEnded, n, string(reason)) })
}

// linked is a log that is reached over a network.
type linked interface{ Links() fanout.Links }

func (c *collector) collectLinks(sink sink) {
	log, ok := c.g.hub.Log().(linked)
	if !ok {
		return
	}
	links := log.Links()
	sink.gauge(descServers, float64(links.Servers))
	sink.gauge(descServersUp, float64(links.Up))
	sink.counter(descSessions, links.Sessions)
	sink.gauge(descCanary, links.Canary.Seconds())
	sink.counter(descRejected, links.Rejected)
}
