package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// form is how a reader wants its stream.
type form int

const (
	raw form = iota
	enveloped
	ndjson
)

// way is how a reader's cursor travels; the gateway takes all three.
type way int

const (
	inHeader      way = iota // as browsers do it
	inLastEventID            // as their polyfills do
	inAfter
)

// reader is one client with one stream. It checks that each event follows the
// one before, keeps a digest of all, and comes back with its cursor whenever the
// stream ends, until it has seen the end of each of its rooms.
//
// Its own goroutine is the only one that touches it, until that has ended.
type reader struct {
	*trial
	name   string
	as     form
	rooms  []string
	begin  url.Values // how the first stream begins
	way    way
	bases  []string // gateways, one after the other when a stream ends
	obeys  bool     // comes back when it was told to, as browsers do; else at once
	hangUp int      // leaves by itself after so many events, and comes back; 0: never

	cursor string
	at     map[string]place // of the last event seen of each room
	first  map[string]int64 // number of the first event to be seen
	seen   map[string][]uint64
	ended  map[string]bool
	told   map[string]bool // of an outage, and of its end
	retry  time.Duration   // when to come back
}

// errHungUp ends a stream that the reader left.
var errHungUp = errors.New("hung up")

// newReader makes a reader ready to run.
func newReader(tr *trial, r *reader) *reader {
	r.trial, r.seen, r.ended, r.told = tr, map[string][]uint64{}, map[string]bool{}, map[string]bool{}
	return r
}

// run follows until the end of all rooms, or of ctx.
func (r *reader) run(ctx context.Context) {
	for attempt := 0; len(r.ended) < len(r.rooms); attempt++ {
		err := r.follow(ctx, r.bases[attempt%len(r.bases)])
		var bad *malformed
		switch {
		case ctx.Err() != nil:
			r.verdict.wrong(lost, "%s never saw the end; it is at %s", r, r.cursor)
			return
		case errors.As(err, &bad):
			r.verdict.wrong(strange, "%s: %v", r, err)
			return
		case err != nil && !errors.Is(err, errHungUp):
			r.pause(ctx)
		}
	}
}

// pause waits for a moment, lest a dead node be asked all the time.
func (r *reader) pause(ctx context.Context) {
	wait := 20 * time.Millisecond
	if r.obeys {
		wait = r.retry
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

func (r *reader) String() string {
	return fmt.Sprintf("%s (form %d, cursor way %d, rooms %v)", r.name, r.as, r.way, r.rooms)
}

// request is how this reader asks for its stream.
func (r *reader) request(ctx context.Context, base string) (*http.Request, error) {
	query := url.Values{}
	maps.Copy(query, r.begin)
	target := base + "/events"
	if len(r.rooms) == 1 {
		target = base + "/rooms/" + r.rooms[0] + "/events"
	} else {
		query["room"] = r.rooms
	}
	if r.as == enveloped {
		query.Set("envelope", "true")
	}
	switch {
	case r.cursor != "" && r.way == inLastEventID:
		query.Set("lastEventId", r.cursor)
	case r.cursor != "" && r.way == inAfter:
		query.Set("after", r.cursor)
		query.Del("last")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", r.contentType())
	if r.cursor != "" && r.way == inHeader {
		req.Header.Set("Last-Event-ID", r.cursor)
	}
	return req, nil
}

func (r *reader) contentType() string {
	if r.as == ndjson {
		return "application/x-ndjson"
	}
	return "text/event-stream"
}

// follow reads one stream to its end, and says why it ended.
func (r *reader) follow(ctx context.Context, base string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := r.request(ctx, base)
	if err != nil {
		return &malformed{err.Error()}
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(got, r.contentType()) {
		return &malformed{fmt.Sprintf("a stream was answered by %s, %q; a browser would never ask again", resp.Status, got)}
	}
	if got := resp.Header.Get("Content-Encoding"); got != "identity" && got != "" {
		return &malformed{fmt.Sprintf("the stream is encoded as %q", got)}
	}
	r.tally.add(resp.Proto, 1)
	if r.as == ndjson {
		return r.readAll(jsonLines{bufio.NewReader(resp.Body)})
	}
	return r.readAll(eventStream{bufio.NewReader(resp.Body)})
}

func (r *reader) readAll(stream blocks) error {
	for n := 0; len(r.ended) < len(r.rooms); n++ {
		b, err := stream.next()
		if err != nil {
			return err
		}
		if (n == 0) != (b.event == "sluice.open") && (n != 0 || b.event != "sluice.bye") {
			return &malformed{fmt.Sprintf("block %d is %+v", n, b)}
		}
		if err := r.take(b, n == 0); err != nil {
			return err
		}
		if r.hangUp > 0 && n >= r.hangUp {
			return errHungUp
		}
	}
	return nil
}

// take deals with one block.
func (r *reader) take(b block, first bool) error {
	r.retry = cmp.Or(b.retry, r.retry)
	switch b.event {
	case "sluice.open":
		return r.opened(b)
	case "sluice.gap":
		r.verdict.wrong(strange, "%s was told of a gap: %s", r, b.data)
		at, err := parseCursor(b.id, r.rooms)
		r.at, r.cursor = at, b.id
		return err
	case "sluice.bye":
		if first {
			r.tally.add("turned away", 1)
		} else {
			r.tally.add("bye", 1)
		}
		return nil
	case "sluice.degraded", "sluice.restored":
		if !r.told[b.event] {
			r.told[b.event] = true
			r.tally.add(b.event, 1)
		}
		return nil
	case "sluice.beat":
		return nil
	}
	if strings.HasPrefix(b.event, "sluice.") {
		return &malformed{fmt.Sprintf("an unknown event of the gateway's own: %+v", b)}
	}
	return r.event(b)
}

// opened checks where a stream begins: where this reader was, if it was.
func (r *reader) opened(b block) error {
	at, err := parseCursor(b.id, r.rooms)
	if err != nil {
		return err
	}
	if r.at == nil {
		r.at, r.cursor, r.first = at, b.id, map[string]int64{}
		for room, p := range at {
			r.first[room] = p.seq + 1
		}
		r.tally.add("opened", 1)
		return nil
	}
	r.tally.add("resumed", 1)
	r.returns.add()
	for room, p := range at {
		if was := r.at[room]; p.seq != was.seq || p.epoch != was.epoch && p.seq != 0 {
			return &malformed{fmt.Sprintf("resumed %s at %v after having been at %v", room, p, was)}
		}
	}
	return nil
}

// event checks that an event is the next one, and keeps its digest.
func (r *reader) event(b block) error {
	room, id, sum, err := r.identify(b)
	if err != nil {
		return err
	}
	p, err := parsePlace(id)
	if err != nil {
		return err
	}
	was, ok := r.at[room]
	if !ok {
		return &malformed{fmt.Sprintf("an event of %s: %+v", room, b)}
	}
	switch {
	case p.seq == was.seq:
		r.verdict.wrong(doubled, "%s got %s of %s twice", r, id, room)
	case p.seq < was.seq:
		r.verdict.wrong(reordered, "%s got %s of %s after %d", r, id, room, was.seq)
	case p.seq > was.seq+1:
		r.verdict.wrongBy(lost, p.seq-was.seq-1, "%s got %s of %s after %d", r, id, room, was.seq)
	}
	r.at[room], r.cursor = p, b.id
	r.seen[room] = append(r.seen[room], sum)
	if b.event == last {
		r.ended[room] = true
	}
	return r.checkCursor(b)
}

// identify tells which event a block is, and its digest.
func (r *reader) identify(b block) (room, id string, sum uint64, err error) {
	if r.as == raw {
		return r.rooms[0], b.id, rawDigest(b.id, b.event, b.data), nil
	}
	var e envelope
	if err := json.Unmarshal([]byte(b.data), &e); err != nil {
		return "", "", 0, &malformed{fmt.Sprintf("the envelope %q: %v", b.data, err)}
	}
	if e.Type != b.event {
		return "", "", 0, &malformed{fmt.Sprintf("the envelope %q in an event %q", b.data, b.event)}
	}
	data, err := readData(e.Data)
	if err != nil {
		return "", "", 0, &malformed{fmt.Sprintf("the data in the envelope %q: %v", b.data, err)}
	}
	return e.Room, e.ID, envelopeDigest(e.ID, e.Type, e.At, data), nil
}

// checkCursor checks that the cursor says of all rooms where the reader is.
func (r *reader) checkCursor(b block) error {
	at, err := parseCursor(b.id, r.rooms)
	if err != nil {
		return err
	}
	for room, p := range at {
		if was := r.at[room]; p.seq != was.seq || p.epoch != was.epoch && p.seq != 0 {
			return &malformed{fmt.Sprintf("the cursor %s, but %s is at %v", b.id, room, was)}
		}
	}
	return nil
}

// audit compares what the reader saw with what was acknowledged, and says how
// many events that were.
func (r *reader) audit() (events int) {
	for _, room := range slices.Sorted(maps.Keys(r.seen)) {
		for i, sum := range r.seen[room] {
			seq := r.first[room] + int64(i)
			e, ok := r.ledger.entry(room, seq)
			want := e.envelope
			if r.as == raw {
				want = e.raw
			}
			switch {
			case !ok:
				r.verdict.wrong(strange, "%s saw number %d of %s, which nobody was told of", r, seq, room)
			case sum != want:
				r.verdict.wrong(altered, "%s saw number %d of %s, but not what was acknowledged as %s", r, seq, room, e.id)
			}
		}
		if got, want := r.first[room]-1+int64(len(r.seen[room])), r.ledger.length(room); got != want {
			r.verdict.wrong(strange, "%s saw %s up to %d of %d", r, room, got, want)
		}
		events += len(r.seen[room])
	}
	return events
}
