package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// history is what a room's log holds in the end.
type history struct {
	oldest uint64 // number of events[0]
	events []event
}

// head is the position of the newest event.
func (h *history) head() place {
	if len(h.events) == 0 {
		return place{}
	}
	return h.events[len(h.events)-1].at
}

// holds says whether a position is one of this history.
func (h *history) holds(p place) bool {
	e, ok := h.event(p.seq)
	return ok && e.at == p
}

func (h *history) event(seq uint64) (event, bool) {
	if seq < h.oldest || seq >= h.oldest+uint64(len(h.events)) {
		return event{}, false
	}
	return h.events[seq-h.oldest], true
}

// history reads all that a room's log holds, by pages, from any node.
func (r *rig) history(ctx context.Context, room string) (*history, error) {
	h := &history{oldest: 1}
	for cursor := "earliest"; ; {
		page, err := r.page(ctx, room, cursor)
		if err != nil {
			return nil, err
		}
		if page.Gap != nil && len(h.events) > 0 {
			return nil, fmt.Errorf("a page of %s has a gap", room)
		}
		for _, e := range page.Events {
			at, err := parsePlace(e.ID)
			if err != nil {
				return nil, err
			}
			if n := len(h.events); n > 0 && at.seq != h.events[n-1].at.seq+1 {
				return nil, fmt.Errorf("in a page of %s, %v follows %v", room, at, h.events[n-1].at)
			}
			if len(h.events) == 0 {
				h.oldest = at.seq
			}
			h.events = append(h.events, event{at, sum([]byte(e.Data))})
		}
		if len(page.Events) == 0 {
			return h, nil
		}
		cursor = page.Next
	}
}

type page struct {
	Events []struct{ ID, Data string }
	Next   string
	Gap    *gap
}

// page asks one node after the other until one answers.
func (r *rig) page(ctx context.Context, room, cursor string) (p page, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for i := 0; ; i++ {
		target := r.nodes[i%len(r.nodes)].url() + "/rooms/" + room + "/events?" + url.Values{"after": {cursor}, "limit": {"1000"}}.Encode()
		if err = r.getJSON(ctx, target, &p); err == nil {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return page{}, fmt.Errorf("reading %s: %w", room, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (r *rig) getJSON(ctx context.Context, target string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// judge holds what everybody was told against the rooms' logs.
type judge struct {
	*verdict
	lossy    bool // Redis may have lost what was acknowledged
	trimming bool // rooms keep less than was published
	logs     map[string]*history

	known       map[string]map[place]uint64 // what anybody was told of a position
	lostByRedis int                         // acknowledged, and not in the log
	explained   int                         // gaps that had to be
}

func newJudge(v *verdict, s *scenario, logs map[string]*history) *judge {
	return &judge{verdict: v, lossy: s.lossy, trimming: s.trimming, logs: logs, known: map[string]map[place]uint64{}}
}

// agree notes what somebody was told of a position; all must be told the same.
func (j *judge) agree(room string, e event, who string) {
	if j.known[room] == nil {
		j.known[room] = map[place]uint64{}
	}
	was, ok := j.known[room][e.at]
	if ok && was != e.sum {
		j.wrong(altered, "%s: %s was told of another event at %v than others", room, who, e.at)
	}
	j.known[room][e.at] = e.sum
}

// acknowledged compares what publishers were told with the logs.
func (j *judge) acknowledged(rooms map[string][]event) {
	for _, room := range slices.Sorted(maps.Keys(j.logs)) {
		log := j.logs[room]
		if log.oldest != 1 && !j.trimming {
			j.wrong(other, "%s: the log begins with number %d", room, log.oldest)
		}
		places := map[uint64]place{}
		for _, e := range log.events {
			j.agree(room, e, "the log")
			if twin, ok := places[e.sum]; ok {
				j.wrong(doubled, "%s: one event stands at %v and at %v", room, twin, e.at)
			}
			places[e.sum] = e.at
		}
		told := map[uint64]bool{}
		for _, e := range rooms[room] {
			j.agree(room, e, "its publisher")
			told[e.sum] = true
			switch {
			case log.holds(e.at) || j.trimming && e.at.seq < log.oldest:
			case j.lossy:
				j.lostByRedis++
			default:
				j.wrong(lost, "%s: %v was acknowledged, and the log does not have it", room, e.at)
			}
		}
		for _, e := range log.events {
			if !told[e.sum] {
				j.wrong(other, "%s: %v was never acknowledged to anybody", room, e.at)
			}
		}
	}
}

// checker compares what a client takes the room to be, after all that it was
// told, with the log. from is where it began.
func (j *judge) checker(c *checker) {
	log := j.logs[c.room]
	if log == nil {
		return
	}
	at, base := c.begun, c.begun.seq
	view := map[uint64]event{}
	skipped := map[uint64]bool{}
	for _, n := range c.story {
		if n.gap == nil {
			j.agree(c.room, n.event, c.name)
			view[n.at.seq] = n.event
			at = n.at
			continue
		}
		j.gap(c, log, at, n, view)
		for seq := n.at.seq + 1; seq <= at.seq; seq++ {
			delete(view, seq) // it knows now that these are void
		}
		for seq := at.seq + 1; seq <= n.at.seq; seq++ {
			skipped[seq] = true // and that it will not see these
		}
		if n.gap.Reason == "new_history" {
			clear(view)
			clear(skipped)
			base = n.at.seq
		}
		at, base = n.at, min(base, n.at.seq)
	}
	for _, e := range log.events {
		if e.at.seq <= base || skipped[e.at.seq] {
			continue
		}
		got, ok := view[e.at.seq]
		switch {
		case !ok:
			j.wrong(lost, "%s never got %v, and is at %v", c, e.at, at)
		case got.at != e.at:
			j.wrong(lost, "%s takes number %d for %v; it is %v, and nobody told it", c, e.at.seq, got.at, e.at)
		case got.sum != e.sum:
			j.wrong(altered, "%s got something else as %v", c, e.at)
		}
	}
	if newest := log.head().seq; at.seq > newest && !j.trimming {
		j.wrong(lost, "%s is at %v, where the log ends with %d, and nobody told it", c, at, newest)
	}
}

// gap says whether a client had to be told of a gap where it was.
func (j *judge) gap(c *checker, log *history, at place, n note, view map[uint64]event) {
	why := ""
	_, still := view[n.at.seq+1]
	switch g := n.gap; {
	case g.Room != c.room || g.After == nil || *g.After != at.String():
		why = "it tells of another place"
	case g.Reason == "truncated" && (log.holds(at) || n.at.seq >= at.seq):
		why = "nothing was lost"
	case g.Reason == "truncated" && still && log.holds(view[n.at.seq+1].at):
		why = "it goes further back than what was lost"
	case g.Reason == "new_history" && (log.holds(at) || at.seq == 0):
		why = "the history is the one it had"
	case g.Reason == "trimmed" || g.Reason == "outage":
		if !j.trimming || n.at.seq <= at.seq || g.Missed != nil && *g.Missed != int64(n.at.seq-at.seq) {
			why = "the log keeps what comes next"
		}
	case g.Reason == "truncated" || g.Reason == "new_history":
		if !j.lossy {
			why = "Redis lost nothing"
		}
	default:
		why = "nothing here is a reason for it"
	}
	if why != "" {
		j.wrong(unexplained, "%s, at %v, was told of a gap (%s) to %v: %s", c, at, n.gap.Reason, n.at, why)
		return
	}
	j.explained++
}
