package handlers

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"math"
	runtimemetrics "runtime/metrics"
	"time"

	"sluice/fanout"
)

const (
	reportEvery = time.Second
	busiest     = 10 // rooms that are named by their events, and as many by their streams
)

// summary is what a node tells of itself each second, to those who watch
// (fanout.StatsRoom). docs/protocol.md documents it.
type summary struct {
	Node    nodeInfo `json:"node"`
	At      string   `json:"at"`
	State   string   `json:"state"`
	Streams int      `json:"streams"`
	Waiting int64    `json:"waiting"`
	Rooms   int      `json:"rooms"`
	Members int      `json:"members"`

	Published traffic `json:"published"`
	Delivered traffic `json:"delivered"`
	Bytes     traffic `json:"bytes"`

	PublishLatency  latency `json:"publish_ms"`
	DeliveryLatency latency `json:"delivery_ms"`

	Redis    *redisInfo       `json:"redis"`
	Gaps     map[string]int64 `json:"gaps"`
	CatchUps int64            `json:"catch_ups"`
	Pages    int64            `json:"page_reads"`
	Holes    int64            `json:"holes"`
	Limits   map[string]int64 `json:"limits"`
	Memory   uint64           `json:"memory"`
	Ring     int64            `json:"ring"`
	Busiest  []busyRoom       `json:"busiest"`
}

// nodeInfo says which node it is. The id is that of its process, since a name
// may be given twice.
type nodeInfo struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Started string `json:"started"`
}

func newNodeInfo(cfg *Config) nodeInfo {
	return nodeInfo{
		ID: rand.Text(), Name: cfg.Node, Version: cfg.Version,
		Started: string(fanout.AppendTime(nil, time.Now().UnixMilli())),
	}
}

// traffic is a count since the node's start, and how fast it grows.
type traffic struct {
	Total int64   `json:"total"`
	Rate  float64 `json:"rate"` // a second
}

// latency is how long things took in the last second, in milliseconds.
type latency struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
}

// redisInfo is how the node's link to Redis fares.
type redisInfo struct {
	Servers   int     `json:"servers"`
	Up        int     `json:"up"`
	Sessions  int64   `json:"sessions"`
	Lag       float64 `json:"lag_ms"`
	DownSince *string `json:"down_since"`
}

// busyRoom is a room with much to do on the node.
type busyRoom struct {
	Room    string  `json:"room"`
	Rate    float64 `json:"rate"`
	Streams int     `json:"streams"`
	Members int     `json:"members"`
}

// tally is where the counters stand at a moment. All of them are kept for the
// metrics anyway.
type tally struct {
	at                          time.Time
	published, delivered, bytes int64
	publish, delivery           spread
}

func (g *Gateway) tally() tally {
	stats := g.hub.Stats()
	return tally{
		at: time.Now(), published: stats.Published.Load(), delivered: stats.Delivered.Load(), bytes: stats.Bytes.Load(),
		publish: spreadOf(g.metrics.publish), delivery: spreadOf(g.metrics.delivery),
	}
}

// tellStats reports how the node does, while somebody on any node watches,
// until ctx ends; then, with its last word, that it has ended. While nobody
// does it reads its counters each second and tells nobody.
func (g *Gateway) tellStats(ctx context.Context) {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	before, watched := g.tally(), false
	for {
		select {
		case <-ticker.C:
			now := g.tally()
			if watched = g.hub.Watched(ctx); watched {
				g.hub.Report(ctx, g.summary(before, now, g.state()).encode())
			}
			before = now
		case <-ctx.Done():
			if watched {
				g.hub.Report(context.WithoutCancel(ctx), g.summary(before, g.tally(), "ended").encode())
			}
			return
		}
	}
}

func (g *Gateway) state() string {
	if g.draining.Load() {
		return "draining"
	}
	return "serving"
}

// summary says how the node does, from two tallies and what it is asked now.
func (g *Gateway) summary(before, now tally, state string) *summary {
	seconds := now.at.Sub(before.at).Seconds()
	stats := g.hub.Stats()
	s := &summary{
		Node: g.node, At: string(fanout.AppendTime(nil, now.at.UnixMilli())), State: state,
		Waiting:         stats.Waiting.Load(),
		Published:       traffic{now.published, rate(now.published-before.published, seconds)},
		Delivered:       traffic{now.delivered, rate(now.delivered-before.delivered, seconds)},
		Bytes:           traffic{now.bytes, rate(now.bytes-before.bytes, seconds)},
		PublishLatency:  latencyOf(now.publish.since(before.publish)),
		DeliveryLatency: latencyOf(now.delivery.since(before.delivery)),
		Redis:           g.redisInfo(),
		Gaps:            map[string]int64{}, Limits: map[string]int64{}, Busiest: []busyRoom{},
		CatchUps: stats.CatchUps.Load(), Pages: stats.PagesRead.Load(), Holes: stats.Holes.Load(),
		Memory: memoryInUse(),
	}
	s.Streams, s.Rooms, s.Ring = g.hub.Gauges()
	stats.EachGap(func(reason fanout.Reason, n int64) {
		if n > 0 {
			s.Gaps[string(reason)] = n
		}
	})
	g.problems.each(func(kind string, n int64) {
		if isLimit(kind) {
			s.Limits[kind] = n
		}
	})
	survey := g.hub.Survey(busiest)
	s.Members = survey.Members
	for _, a := range survey.Busiest {
		s.Busiest = append(s.Busiest, busyRoom{a.Room, rate(int64(a.Events), seconds), a.Streams, a.Members})
	}
	return s
}

func (s *summary) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("handlers: a summary cannot be written: " + err.Error()) // all its fields can
	}
	return b
}

func (g *Gateway) redisInfo() *redisInfo {
	log, ok := g.hub.Log().(linked)
	if !ok {
		return nil
	}
	links := log.Links()
	info := &redisInfo{Servers: links.Servers, Up: links.Up, Sessions: links.Sessions, Lag: milliseconds(links.Canary.Seconds())}
	if down := g.hub.DownSince(); !down.IsZero() {
		since := string(fanout.AppendTime(nil, down.UnixMilli()))
		info.DownSince = &since
	}
	return info
}

// isLimit says whether a kind of problem is that of a limit.
func isLimit(kind string) bool {
	for _, p := range limitProblems {
		if p.kind == kind {
			return true
		}
	}
	return false
}

func latencyOf(s spread) latency {
	return latency{Count: s.count, P50: milliseconds(s.quantile(.5)), P99: milliseconds(s.quantile(.99))}
}

// milliseconds gives seconds as milliseconds, in thousandths, which is more
// than anybody reads.
func milliseconds(seconds float64) float64 { return math.Round(seconds*1e6) / 1e3 }

// rate is n a second, in tenths.
func rate(n int64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return math.Round(10*float64(n)/seconds) / 10
}

// memoryInUse is what the process has of the system's memory for Go, less what
// it has given back. Reading it stops nobody.
func memoryInUse() uint64 {
	samples := []runtimemetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	runtimemetrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
