package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
)

// result is what came of one scenario.
type result struct {
	Name         string   `json:"name"`
	Row          string   `json:"row"`
	Fault        string   `json:"fault"`
	On           string   `json:"on"`
	Clients      int      `json:"clients"`
	Injected     int      `json:"injected"`
	Acknowledged int      `json:"acknowledged"`
	Delivered    int      `json:"delivered"`
	Retried      int      `json:"retried"`    // requests that publishers had to send again
	Reconnects   int      `json:"reconnects"` // streams that were resumed
	Lost         int      `json:"lost"`
	Doubled      int      `json:"doubled"`
	Reordered    int      `json:"reordered"`
	Altered      int      `json:"altered"`
	Explained    int      `json:"gaps_explained"`
	Unexplained  int      `json:"gaps_unexplained"`
	LostByRedis  int      `json:"lost_by_redis"` // acknowledged, lost by Redis, and told of
	Other        int      `json:"other"`
	Seconds      float64  `json:"seconds"`
	Note         string   `json:"note,omitempty"`
	Wrong        []string `json:"wrong,omitempty"`
}

// passed says that everything is 0 that must be.
func (r *result) passed() bool {
	return r.Lost+r.Doubled+r.Reordered+r.Altered+r.Unexplained+r.Other == 0
}

// line is the verdict in one line.
func (r *result) line() string {
	word := "ok  "
	if !r.passed() {
		word = "FAIL"
	}
	s := fmt.Sprintf("%s %-28s %5d faults, %6d acknowledged, %7d delivered: lost=%d doubled=%d reordered=%d altered=%d unexplained=%d other=%d; gaps explained=%d, lost by Redis=%d (%.0f s)",
		word, r.Name, r.Injected, r.Acknowledged, r.Delivered, r.Lost, r.Doubled, r.Reordered, r.Altered, r.Unexplained, r.Other, r.Explained, r.LostByRedis, r.Seconds)
	if r.Note != "" {
		s += "; " + r.Note
	}
	for _, w := range r.Wrong {
		s += "\n       " + w
	}
	return s
}

// run is a whole run, as it is written down.
type record struct {
	Made    time.Time `json:"made"`
	Seed    uint64    `json:"seed"`
	Scale   float64   `json:"scale"`
	Go      string    `json:"go"`
	CPUs    int       `json:"cpus"`
	Results []*result `json:"results"`
}

func newRecord(cfg config) *record {
	return &record{Made: time.Now().UTC().Truncate(time.Second), Seed: cfg.seed, Scale: cfg.scale, Go: runtime.Version(), CPUs: runtime.NumCPU()}
}

// merge takes over results of an earlier run that this one does not have.
func (r *record) merge(earlier *record) {
	mine := map[string]*result{}
	for _, res := range r.Results {
		mine[res.Name] = res
	}
	var all []*result
	for _, s := range scenarios() {
		if res := mine[s.name]; res != nil {
			all = append(all, res)
			continue
		}
		for _, res := range earlier.Results {
			if res.Name == s.name {
				all = append(all, res)
			}
		}
	}
	r.Results = all
}

// total adds all results up.
func (r *record) total() result {
	t := result{Name: "all"}
	for _, res := range r.Results {
		t.Injected += res.Injected
		t.Acknowledged += res.Acknowledged
		t.Delivered += res.Delivered
		t.Lost += res.Lost
		t.Doubled += res.Doubled
		t.Reordered += res.Reordered
		t.Altered += res.Altered
		t.Explained += res.Explained
		t.Unexplained += res.Unexplained
		t.LostByRedis += res.LostByRedis
		t.Other += res.Other
		t.Seconds += res.Seconds
	}
	return t
}

func (r *record) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeMarkdown writes the table that the documentation shows.
func (r *record) writeMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s with %s on %d CPUs, seed %d. Each row can be had again with\n`go run ./cmd/sluice/faultrig -run '^NAME$' -seed %d`; all of them with `go run ./cmd/sluice/faultrig`.\n\n",
		r.Made.Format(time.DateOnly), r.Go, r.CPUs, r.Seed, r.Seed)
	b.WriteString("| scenario | Redis | what was done | how often | acknowledged | delivered | lost | doubled | reordered | altered | gaps unexplained | gaps explained | lost by Redis, and told | remarks |\n")
	b.WriteString("|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n")
	row := func(res *result) {
		note := res.Note
		if res.Other > 0 {
			note = strings.TrimPrefix(note+fmt.Sprintf(", **%d other promises broken**", res.Other), ", ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s |\n", res.Name, res.On, res.Fault, res.Injected,
			res.Acknowledged, res.Delivered, res.Lost, res.Doubled, res.Reordered, res.Altered, res.Unexplained, res.Explained, res.LostByRedis, note)
	}
	for _, res := range r.Results {
		row(res)
	}
	all := r.total()
	row(&all)
	_, err := io.WriteString(w, b.String())
	return err
}
