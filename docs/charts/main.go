// Command charts draws what docs/performance.json and docs/growth.json hold: the
// tables of docs/performance.md, between its markers, and the bars of docs/charts/*.svg.
// Run it in the project's root, after the figures have changed:
//
//	go run ./docs/charts
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// run is one measurement, as the load generator wrote it.
type run struct {
	Peer       string             `json:"peer"`
	Scenario   string             `json:"scenario"`
	PerSecond  float64            `json:"deliveries_per_s"`
	Publishes  float64            `json:"publish_per_s"`
	Seconds    float64            `json:"seconds"`
	Missing    int                `json:"missing"`
	Gaps       int                `json:"gaps"`
	Latency    map[string]float64 `json:"latency_ms"`
	CPU        map[string]float64 `json:"cpu_s"`
	PerDeliver map[string]float64 `json:"cpu_us_per_delivery"`
	PerPublish map[string]float64 `json:"cpu_us_per_publish"`
	Memory     map[string]float64 `json:"pss_bytes_per_conn"`
}

// column is a figure that a scenario is about.
type column struct {
	title string
	digit int
	of    func(r run) float64
}

func of(pick func(r run) map[string]float64, part string) func(run) float64 {
	return func(r run) float64 { return pick(r)[part] }
}

func delivery(r run) map[string]float64 { return r.PerDeliver }
func publish(r run) map[string]float64  { return r.PerPublish }
func memory(r run) map[string]float64   { return r.Memory }
func cpu(r run) map[string]float64      { return r.CPU }
func latency(r run) map[string]float64  { return r.Latency }

var (
	perDelivery = column{"CPU a delivery, µs", 2, of(delivery, "server")}
	redisToo    = column{"and in Redis", 2, of(delivery, "redis")}
	perSecond   = column{"deliveries a second", 0, func(r run) float64 { return r.PerSecond }}
	p99         = column{"p99, ms", 1, of(latency, "p99")}
)

// scenarios are in the order of the page; the first column is drawn.
var scenarios = []struct {
	name    string
	title   string
	columns []column
}{
	{"S1", "One room of 1000, 50 events a second", []column{perDelivery, redisToo, p99}},
	{"S1flat", "The same, as fast as it is delivered", []column{perDelivery, redisToo, perSecond}},
	{"S2", "1000 rooms of 5, 2000 events a second", []column{perDelivery, redisToo, p99}},
	{"S3", "10,000 idle streams", []column{{"bytes a stream", 0, of(memory, "server")}}},
	{"S4", "64 publishers flat out, 100 rooms of 1", []column{
		{"CPU a publication, µs", 1, of(publish, "server")}, {"and in Redis", 1, of(publish, "redis")},
		{"publications a second", 0, func(r run) float64 { return r.Publishes }},
	}},
	{"S5", "100 rooms of 10, 200 events a second", []column{perDelivery, redisToo, p99}},
	{"S6", "2000 streams resume 100 missed events at once", []column{
		{"seconds", 2, func(r run) float64 { return r.Seconds }}, {"CPU, s", 2, of(cpu, "server")}, {"and in Redis", 2, of(cpu, "redis")},
	}},
	{"S7", "A room of 100, one of which stops reading; 200 events of 8 kB a second", []column{p99, perDelivery}},
}

// row is a server's medians in a scenario.
type row struct {
	peer   string
	ours   bool
	runs   int
	values []float64
}

func main() {
	if err := errors.Join(draw("docs"), drawGrowth("docs")); err != nil {
		fmt.Fprintln(os.Stderr, "charts:", err)
		os.Exit(1)
	}
}

func draw(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "performance.json"))
	if err != nil {
		return err
	}
	var runs []run
	if err := json.Unmarshal(text, &runs); err != nil {
		return fmt.Errorf("reading the figures: %w", err)
	}
	var tables bytes.Buffer
	for _, s := range scenarios {
		rows := medians(runs, s.name, s.columns)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&tables, "\n### %s: %s\n\n![%s](charts/%s.svg)\n\n", s.name, s.title, s.columns[0].title, s.name)
		table(&tables, s.columns, rows)
		picture := chart(s.name+": "+s.title, s.columns[0], rows)
		if err := os.WriteFile(filepath.Join(dir, "charts", s.name+".svg"), picture, 0o644); err != nil {
			return err
		}
	}
	return between(filepath.Join(dir, "performance.md"), "tables", tables.String())
}

// medians gives a row for each server, in the order in which they were first measured.
func medians(runs []run, scenario string, columns []column) []row {
	var rows []row
	for _, first := range runs {
		if first.Scenario != scenario || slices.ContainsFunc(rows, func(r row) bool { return r.peer == first.Peer }) {
			continue
		}
		all := slices.DeleteFunc(slices.Clone(runs), func(r run) bool { return r.Scenario != scenario || r.Peer != first.Peer })
		r := row{peer: first.Peer, ours: strings.HasPrefix(first.Peer, "sluice"), runs: len(all)}
		for _, c := range columns {
			r.values = append(r.values, median(all, c.of))
		}
		rows = append(rows, r)
	}
	return rows
}

// median is the middle of a figure of some measurements.
func median[M any](of []M, figure func(M) float64) float64 {
	var all []float64
	for _, m := range of {
		all = append(all, figure(m))
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

func table(w *bytes.Buffer, columns []column, rows []row) {
	w.WriteString("| server |")
	for _, c := range columns {
		w.WriteString(" " + c.title + " |")
	}
	w.WriteString(" runs |\n|---|" + strings.Repeat("---:|", len(columns)+1) + "\n")
	for _, r := range rows {
		fmt.Fprintf(w, "| %s |", r.peer)
		for i, c := range columns {
			fmt.Fprintf(w, " %.*f |", c.digit, r.values[i])
		}
		fmt.Fprintf(w, " %d |\n", r.runs)
	}
}

// chart draws a bar for each server.
func chart(title string, c column, rows []row) []byte {
	const left, width, height = 150, 420, 24
	longest := 0.0
	for _, r := range rows {
		longest = max(longest, r.values[0])
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="680" height="%d" font-family="sans-serif" font-size="13">`+"\n", 60+height*len(rows))
	b.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	fmt.Fprintf(&b, `<text x="10" y="20" font-weight="bold">%s</text><text x="10" y="40" fill="#555">%s</text>`+"\n", html.EscapeString(title), html.EscapeString(c.title))
	for i, r := range rows {
		y, colour := 52+height*i, "#9aa5b1"
		if r.ours {
			colour = "#1f6feb"
		}
		bar := r.values[0] / max(longest, 1e-9) * width
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%.1f" height="16" fill="%s"/><text x="%.1f" y="%d">%.*f</text>`+"\n",
			left-8, y+13, html.EscapeString(r.peer), left, y, bar, colour, left+bar+6, y+13, c.digit, r.values[0])
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// between puts text between the markers of a page that have a name.
func between(file, name, text string) error {
	begin, end := "<!-- "+name+" -->", "<!-- end of "+name+" -->"
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		return fmt.Errorf("%s has lost its markers", file)
	}
	return os.WriteFile(file, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644)
}
