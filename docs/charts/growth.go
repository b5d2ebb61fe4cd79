package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// grown is one measurement of how things grow, as `go run ./cmd/sluice/scale
// -add docs/growth.json` wrote it: of a crowd, or along an axis.
type grown struct {
	Kind  string `json:"kind"`
	Axis  string `json:"axis"`
	Value int    `json:"value"`

	Streams   int     `json:"streams"`
	Nodes     int     `json:"nodes"`
	Stream    float64 `json:"stream_bytes"`
	Kernel    float64 `json:"kernel_bytes"`
	Machine   float64 `json:"machine_bytes"`
	Connect   float64 `json:"connect_s"`
	Heartbeat float64 `json:"heartbeat_cpu_us"`
	Messages  []struct {
		Seconds  float64 `json:"seconds"`
		CPU      float64 `json:"cpu_us"`
		RedisCPU float64 `json:"and_in_redis_us"`
	} `json:"messages"`
	Moved        float64 `json:"moved"`
	MovedSeconds float64 `json:"moved_s"`
	Delivered    float64 `json:"delivered"`
	Lost         float64 `json:"lost"`

	CPU      float64 `json:"cpu_us"`
	RedisCPU float64 `json:"and_in_redis_us"`
	EventCPU float64 `json:"event_cpu_us"`
	IdleCPU  float64 `json:"idle_cpu_ms_per_s"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
}

// figure is a column of what has grown.
type figure struct {
	title string
	digit int
	of    func(g grown) float64
}

// best is the least of a crowd's messages: the others met more of what else the
// machine had to do.
func best(of func(i int, g grown) float64) func(grown) float64 {
	return func(g grown) float64 {
		var all []float64
		for i := range g.Messages {
			all = append(all, of(i, g))
		}
		if len(all) == 0 {
			return 0
		}
		return slices.Min(all)
	}
}

var crowdFigures = []figure{
	{"bytes a stream in the node", 0, func(g grown) float64 { return g.Stream }},
	{"in the kernel, both ends", 0, func(g grown) float64 { return g.Kernel }},
	{"nodes", 0, func(g grown) float64 { return float64(g.Nodes) }},
	{"all together, GiB", 2, func(g grown) float64 { return g.Machine / (1 << 30) }},
	{"connected, s", 1, func(g grown) float64 { return g.Connect }},
	{"CPU a heartbeat, µs", 1, func(g grown) float64 { return g.Heartbeat }},
	{"CPU a delivery, µs", 1, best(func(i int, g grown) float64 { return g.Messages[i].CPU + g.Messages[i].RedisCPU })},
	{"POST to last delivery, s", 2, best(func(i int, g grown) float64 { return g.Messages[i].Seconds })},
	{"streams of the killed node", 0, func(g grown) float64 { return g.Moved }},
	{"back elsewhere, s", 1, func(g grown) float64 { return g.MovedSeconds }},
	{"deliveries", 0, func(g grown) float64 { return g.Delivered }},
	{"lost", 0, func(g grown) float64 { return g.Lost }},
}

var growthFigures = []figure{
	{"CPU a delivery, µs", 1, func(g grown) float64 { return g.CPU }},
	{"and in Redis", 1, func(g grown) float64 { return g.RedisCPU }},
	{"CPU an event, µs, Redis included", 0, func(g grown) float64 { return g.EventCPU }},
	{"idle, ms of CPU a second", 1, func(g grown) float64 { return g.IdleCPU }},
	{"p50, ms", 1, func(g grown) float64 { return g.P50 }},
	{"p99, ms", 1, func(g grown) float64 { return g.P99 }},
}

// growths are in the order of the page; the drawn column is the one named.
var growths = []struct {
	name, title, drawn string
	is                 func(g grown) bool
	value              func(g grown) int
	figures            []figure
}{
	{"streams", "Streams, in one room; each is sent every message, and a node is killed", "bytes a stream in the node", func(g grown) bool { return g.Kind == "crowd" }, func(g grown) int { return g.Streams }, crowdFigures},
	{"rooms", "Rooms: 10,000 streams, 1000 deliveries a second, whatever the number of rooms", "CPU an event, µs, Redis included", isAxis("rooms"), value, growthFigures},
	{"rate", "Events a second: 1000 streams in 10 rooms", "CPU a delivery, µs", isAxis("rate"), value, growthFigures},
	{"payload", "Bytes of an event: 1000 streams in 10 rooms, 20 events a second", "CPU a delivery, µs", isAxis("payload"), value, growthFigures},
	{"nodes", "Nodes: 2000 streams in 10 rooms, 20 events a second", "CPU a delivery, µs", isAxis("nodes"), value, growthFigures},
}

func isAxis(name string) func(grown) bool {
	return func(g grown) bool { return g.Kind == "growth" && g.Axis == name }
}

func value(g grown) int { return g.Value }

// drawGrowth draws what docs/growth.json holds, into the page as well.
func drawGrowth(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "growth.json"))
	if err != nil {
		return err
	}
	var all []grown
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("reading how it grows: %w", err)
	}
	var tables bytes.Buffer
	for _, way := range growths {
		by := map[int][]grown{}
		for _, g := range all {
			if way.is(g) {
				by[way.value(g)] = append(by[way.value(g)], g)
			}
		}
		if len(by) == 0 {
			continue
		}
		fmt.Fprintf(&tables, "\n### %s\n\n![%s](charts/growth-%s.svg)\n\n", way.title, way.drawn, way.name)
		drawn := growthTable(&tables, way.name, way.figures, by, way.drawn)
		picture := chart(way.title, column{title: way.drawn, digit: drawn.digit}, drawn.rows)
		if err := os.WriteFile(filepath.Join(dir, "charts", "growth-"+way.name+".svg"), picture, 0o644); err != nil {
			return err
		}
	}
	return between(filepath.Join(dir, "performance.md"), "growth", tables.String())
}

// bars are the column of a table that is drawn.
type bars struct {
	digit int
	rows  []row
}

// growthTable prints the medians for each value, and gives the drawn column.
func growthTable(w *bytes.Buffer, name string, figures []figure, by map[int][]grown, drawn string) (b bars) {
	values := make([]int, 0, len(by))
	for v := range by {
		values = append(values, v)
	}
	slices.Sort(values)
	fmt.Fprintf(w, "| %s |", name)
	for _, f := range figures {
		fmt.Fprintf(w, " %s |", f.title)
	}
	w.WriteString(" runs |\n|---:|")
	for range figures {
		w.WriteString("---:|")
	}
	w.WriteString("---:|\n")
	for _, v := range values {
		fmt.Fprintf(w, "| %d |", v)
		for _, f := range figures {
			m := median(by[v], f.of)
			fmt.Fprintf(w, " %.*f |", f.digit, m)
			if f.title == drawn {
				b.digit = f.digit
				b.rows = append(b.rows, row{peer: strconv.Itoa(v), ours: true, values: []float64{m}})
			}
		}
		fmt.Fprintf(w, " %d |\n", len(by[v]))
	}
	return b
}
