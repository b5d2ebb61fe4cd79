//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// crowdResult is what was seen of many clients in one room. Sizes are bytes.
type crowdResult struct {
	Kind      string  `json:"kind"` // "crowd"
	Streams   int     `json:"streams"`
	Nodes     int     `json:"nodes"`
	Crowds    int     `json:"client_processes"`
	Payload   int     `json:"payload"`
	Heartbeat float64 `json:"heartbeat_s"`

	ConnectSeconds float64 `json:"connect_s"`
	NodeEmpty      int64   `json:"node_empty_bytes"` // before anybody connected; PSS, as all but node_rss
	Node           int64   `json:"node_bytes"`       // with all streams open
	NodeRSS        int64   `json:"node_rss_bytes"`
	Stream         int64   `json:"stream_bytes"`  // by which the nodes grew, for each stream
	Client         int64   `json:"client_bytes"`  // of the clients' processes, for each stream
	Kernel         int64   `json:"kernel_bytes"`  // by which the kernel's objects grew, both ends, for each stream
	Machine        int64   `json:"machine_bytes"` // all of that together

	HeartbeatCPU float64 `json:"heartbeat_cpu_us"` // of the nodes, for each heartbeat
	Messages     []told  `json:"messages"`
	P50          float64 `json:"p50_ms"` // of deliveries, in the worst of the clients' processes
	P99          float64 `json:"p99_ms"`

	Moved        int64   `json:"moved"` // streams of the node that was killed
	MovedSeconds float64 `json:"moved_s"`

	Errors map[string]int64 `json:"errors,omitempty"` // of connections, which the kill brings about

	Sent      uint32 `json:"sent"`
	Delivered int64  `json:"delivered"`
	Lost      int64  `json:"lost"`
	Doubled   int64  `json:"doubled"`
	Reordered int64  `json:"reordered"`
	Corrupt   int64  `json:"corrupt"`
	Announced int64  `json:"announced"` // as missed, by the gateway itself
}

// told is a message to all.
type told struct {
	Answered float64 `json:"answered_s"`      // from the POST to its answer
	Seconds  float64 `json:"seconds"`         // from the POST to the last delivery
	CPU      float64 `json:"cpu_us"`          // of the nodes, for each delivery
	RedisCPU float64 `json:"and_in_redis_us"` // likewise
}

// writeText implements result.
func (r *crowdResult) writeText(w io.Writer) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s"+format+"\n", append([]any{name}, args...)...)
	}
	line("streams", "%d on %d nodes, from %d client processes", r.Streams, r.Nodes, r.Crowds)
	line("connected", "in %.1f s: %.0f a second", r.ConnectSeconds, float64(r.Streams)/max(r.ConnectSeconds, 1e-9))
	line("a stream", "%d bytes of a node, %d of the kernel (both ends), %d of a client", r.Stream, r.Kernel, r.Client)
	line("a node", "%s, %s when empty (RSS %s)", size(r.Node), size(r.NodeEmpty), size(r.NodeRSS))
	line("machine", "%s for all of it", size(r.Machine))
	line("heartbeat", "%.1f µs of CPU", r.HeartbeatCPU)
	for _, t := range r.Messages {
		line("to all", "answered after %.3f s, the last has it after %.3f s; CPU a delivery %.2f µs, and in Redis %.3f", t.Answered, t.Seconds, t.CPU, t.RedisCPU)
	}
	if r.Moved > 0 {
		line("node killed", "its %d streams are back elsewhere after %.1f s", r.Moved, r.MovedSeconds)
	}
	for _, text := range slices.Sorted(maps.Keys(r.Errors)) {
		line("", "%d x %s", r.Errors[text], text)
	}
	if r.Sent > 0 {
		line("verdict", "%d messages, %d deliveries: %d lost, %d doubled, %d reordered, %d corrupt", r.Sent, r.Delivered, r.Lost, r.Doubled, r.Reordered, r.Corrupt)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// growthResult is what a load cost. CPU is without what the same nodes and
// Redis took when nothing was published.
type growthResult struct {
	Kind  string `json:"kind"` // "growth"
	Axis  string `json:"axis"`
	Value int    `json:"value"`
	load

	Events     int64   `json:"events"`
	Deliveries int64   `json:"deliveries"`
	IdleCPU    float64 `json:"idle_cpu_ms_per_s"` // of the nodes and Redis
	CPU        float64 `json:"cpu_us"`            // of the nodes, for each delivery
	RedisCPU   float64 `json:"and_in_redis_us"`
	EventCPU   float64 `json:"event_cpu_us"` // of both, for each event
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Faultless  bool    `json:"faultless"`
}

// load is what was published to whom.
type load struct {
	Streams int     `json:"streams"`
	Rooms   int     `json:"rooms"`
	Rate    float64 `json:"rate"` // events a second
	Payload int     `json:"payload"`
	Nodes   int     `json:"nodes"`
}

// writeText implements result.
func (r *growthResult) writeText(w io.Writer) error {
	verdict := "nothing lost, doubled or reordered"
	if !r.Faultless {
		verdict = "FAULTS"
	}
	_, err := fmt.Fprintf(w, "%-8s %6d: CPU a delivery %7.2f µs, and in Redis %6.2f; an event %8.1f; idle %.1f ms/s; p50 %.1f ms, p99 %.1f; %s\n",
		r.Axis, r.Value, r.CPU, r.RedisCPU, r.EventCPU, r.IdleCPU, r.P50, r.P99, verdict)
	return err
}

// axes are the ways in which a load grows. What does not grow stays small
// enough for two cores.
var axes = []struct {
	name  string
	loads []load
}{
	// The streams stay, and so do the deliveries of a second; each room has an
	// event every ten seconds.
	{"rooms", each([]int{1, 10, 100, 1000, 10_000}, func(n int) load { return load{10_000, n, float64(n) / 10, 150, 1} })},
	{"rate", each([]int{10, 30, 100, 300}, func(n int) load { return load{1000, 10, float64(n), 150, 1} })},
	{"payload", each([]int{100, 1000, 10_000, 60_000}, func(n int) load { return load{1000, 10, 20, n, 1} })},
	{"nodes", each([]int{1, 2, 4}, func(n int) load { return load{2000, 10, 20, 150, n} })},
}

func each(values []int, of func(int) load) (loads []load) {
	for n := range slices.Values(values) {
		loads = append(loads, of(n))
	}
	return loads
}
