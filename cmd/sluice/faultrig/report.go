package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
	Seed         uint64   `json:"seed"`
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

// record is a whole run, as it is written down.
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

// markdown is the table that the documentation shows.
func (r *record) markdown() string {
	var b strings.Builder
	all := r.total()
	fmt.Fprintf(&b, "On %s, with %s on %d CPUs: %d faults, %d events acknowledged, %d delivered.\n", r.Made.Format(time.DateOnly), r.Go, r.CPUs, all.Injected, all.Acknowledged, all.Delivered)
	b.WriteString("Each row can be had again by `go run ./cmd/sluice/faultrig -run '^NAME$' -seed SEED`, all of them by\n`go run ./cmd/sluice/faultrig`; `-list` says what each does.\n\n")
	b.WriteString("| scenario | Redis | what was done | how often | acknowledged | delivered | lost | doubled | reordered | altered | gaps unexplained | gaps explained | lost by Redis, and told | seed | remarks |\n")
	b.WriteString("|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|\n")
	for _, res := range r.Results {
		res.row(&b, fmt.Sprint(res.Seed))
	}
	all.row(&b, "")
	return b.String()
}

func (r *result) row(w io.Writer, seed string) {
	note := r.Note
	if r.Other > 0 {
		note = strings.TrimPrefix(note+fmt.Sprintf(", **%d other promises broken**", r.Other), ", ")
	}
	fmt.Fprintf(w, "| `%s` | %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s | %s |\n", r.Name, r.On, r.Fault, r.Injected,
		r.Acknowledged, r.Delivered, r.Lost, r.Doubled, r.Reordered, r.Altered, r.Unexplained, r.Explained, r.LostByRedis, seed, note)
}

// The lines in a file between which the table stands.
const (
	tableBegins = "<!-- faultrig: the table below is written by go run ./cmd/sluice/faultrig -report -->\n"
	tableEnds   = "<!-- faultrig: end -->\n"
)

// writeMarkdown writes the table into a file: where the marks are, if it has
// them, else behind its end.
func (r *record) writeMarkdown(name string) error {
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	table := tableBegins + "\n" + r.markdown() + "\n" + tableEnds
	before, rest, begins := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	switch {
	case begins && ends:
		table = before + table + after
	case len(text) > 0:
		table = string(text) + "\n" + table
	}
	return os.WriteFile(name, []byte(table), 0o644)
}
