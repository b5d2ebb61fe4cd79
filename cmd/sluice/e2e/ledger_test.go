package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// place is where an event stands: the epoch and the number of a position.
type place struct {
	epoch string
	seq   int64
}

func parsePlace(id string) (place, error) {
	epoch, digits, ok := strings.Cut(id, "-")
	seq, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || epoch == "" || seq < 0 {
		return place{}, &malformed{fmt.Sprintf("%q is not a position", id)}
	}
	return place{epoch, seq}, nil
}

// parseCursor reads what a client is to hand back for some rooms.
func parseCursor(cursor string, rooms []string) (map[string]place, error) {
	at := make(map[string]place)
	for part := range strings.SplitSeq(cursor, ",") {
		room, id, ok := strings.Cut(part, "=")
		if !ok {
			room, id = rooms[0], part
		}
		p, err := parsePlace(id)
		if err != nil {
			return nil, err
		}
		at[room] = p
	}
	if len(at) != len(rooms) || len(rooms) > 1 && !strings.Contains(cursor, "=") {
		return nil, &malformed{fmt.Sprintf("the cursor %q is not one of %d rooms", cursor, len(rooms))}
	}
	return at, nil
}

// message is something to publish.
type message struct {
	kind string // type of the event
	data string
	json bool
}

// last is the type of the event that ends a room's story, and its readers.
const last = "the-end"

// messageOf makes messages that differ from each other, and that the wires have
// to carry in different ways.
func messageOf(publisher string, n int) message {
	name := fmt.Sprintf("%s/%d", publisher, n)
	switch n % 5 {
	case 0:
		return message{kind: "message", data: name + " says hello"}
	case 1: // every way to end a line, blank lines, and a line break at the end
		return message{kind: "message", data: " " + name + "\nLF\rCR\r\nCRLF\n\n\r\r\nend\n"}
	case 2: // white space that only raw streams keep
		return message{kind: "message", json: true, data: fmt.Sprintf("{\n  \"name\": %q,\t\"text\":\"é ✓ \\u2028 <b> \u2029\"\n}", name)}
	case 3: // what would forge an event, were it not escaped
		return message{kind: "note", data: name + "\nid: 1-1\n\nevent: sluice.gap\ndata: {}\u2028\x00\ufeff"}
	}
	return message{kind: "move.made", json: true, data: fmt.Sprintf("{\"name\":%q,\"path\":%q}", name, strings.Repeat("→", 300))}
}

// The digests of an event as the two kinds of wire carry it: two events with
// the same are the same.
func rawDigest(id, kind, data string) uint64 {
	return digest("raw", id, kind, data)
}

func envelopeDigest(id, kind, at, data string) uint64 {
	return digest("envelope", id, kind, at, data)
}

var seed = maphash.MakeSeed()

func digest(parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, part := range parts {
		maphash.WriteComparable(&h, len(part))
		h.WriteString(part)
	}
	return h.Sum64()
}

// lineBreaks makes of every kind of line break the one that SSE has.
var lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// onRawWire is what a raw stream makes of the data.
func (m message) onRawWire() string { return lineBreaks.Replace(m.data) }

// inEnvelope is what an envelope makes of the data, once its JSON is read.
func (m message) inEnvelope() string {
	if !m.json {
		return "text " + m.data
	}
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(m.data)); err != nil {
		panic(err) // messageOf makes JSON
	}
	return "json " + b.String()
}

// readData is inEnvelope's counterpart on the reader's side.
func readData(data json.RawMessage) (string, error) {
	if !bytes.HasPrefix(data, []byte(`"`)) {
		return "json " + string(data), nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return "", err
	}
	return "text " + text, nil
}

// ledger is what the gateway has acknowledged: which event stands where.
type ledger struct {
	mu    sync.Mutex // guards the field below
	rooms map[string]map[int64]entry
}

type entry struct {
	id            string
	raw, envelope uint64
}

func newLedger() *ledger { return &ledger{rooms: map[string]map[int64]entry{}} }

// acknowledge writes down what a publisher was told of a message. It may be
// told the same again, and nothing else.
func (l *ledger) acknowledge(r receipt, m message) error {
	at, err := parsePlace(r.ID)
	if err != nil {
		return err
	}
	e := entry{
		id:       r.ID,
		raw:      rawDigest(r.ID, m.kind, m.onRawWire()),
		envelope: envelopeDigest(r.ID, m.kind, r.At, m.inEnvelope()),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rooms[r.Room] == nil {
		l.rooms[r.Room] = map[int64]entry{}
	}
	if there, ok := l.rooms[r.Room][at.seq]; ok && there != e {
		return fmt.Errorf("%s of %s was acknowledged for two events (the other is %s)", r.ID, r.Room, there.id)
	}
	l.rooms[r.Room][at.seq] = e
	return nil
}

// check says what is wrong with the rooms as a whole: numbers that nobody was
// given, which would be events that nobody meant to publish.
func (l *ledger) check(v *verdict) (events int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, room := range slices.Sorted(maps.Keys(l.rooms)) {
		entries := l.rooms[room]
		events += len(entries)
		for seq := int64(1); seq <= int64(len(entries)); seq++ {
			if _, ok := entries[seq]; !ok {
				v.wrong(strange, "%s: %d events were acknowledged, and none of them is number %d", room, len(entries), seq)
			}
		}
	}
	return events
}

// entry is what is known of a number; ok is false if nothing was acknowledged.
func (l *ledger) entry(room string, seq int64) (e entry, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok = l.rooms[room][seq]
	return e, ok
}

// length is how many events of a room were acknowledged.
func (l *ledger) length(room string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.rooms[room]))
}

// fault is a kind of thing that must not happen.
type fault int

const (
	lost fault = iota
	doubled
	reordered
	altered
	strange // anything else
	faults
)

// verdict counts what must not happen and keeps the first few cases in words.
type verdict struct {
	spoken chan struct{} // closed when something was wrong

	mu    sync.Mutex // guards the fields below
	count [faults]int64
	words []string
}

func newVerdict() *verdict { return &verdict{spoken: make(chan struct{})} }

func (v *verdict) wrong(f fault, format string, args ...any) { v.wrongBy(f, 1, format, args...) }

func (v *verdict) wrongBy(f fault, n int64, format string, args ...any) {
	const kept = 20
	v.mu.Lock()
	defer v.mu.Unlock()
	v.count[f] += n
	if len(v.words) == 0 {
		close(v.spoken)
	}
	if len(v.words) < kept {
		v.words = append(v.words, fmt.Sprintf(format, args...))
	}
}

// report fails the test if anything was wrong, and says in one line how it went.
func (v *verdict) report(t *testing.T, what string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	line := fmt.Sprintf("%s: %d lost, %d doubled, %d reordered, %d altered, %d other faults",
		what, v.count[lost], v.count[doubled], v.count[reordered], v.count[altered], v.count[strange])
	if len(v.words) > 0 {
		t.Fatalf("%s; the first were:\n%s", line, strings.Join(v.words, "\n"))
	}
	t.Log(line)
}

// tally counts what happens, by name, and tells who waits for a number.
type tally struct {
	mu      sync.Mutex // guards the fields below
	counts  map[string]int
	changed chan struct{}
}

func newTally() *tally { return &tally{counts: map[string]int{}, changed: make(chan struct{})} }

func (c *tally) add(name string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[name] += n
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *tally) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[name]
}

// await waits until a count is at least n; not longer than stop and ctx allow.
func (c *tally) await(ctx context.Context, stop <-chan struct{}, name string, n int) error {
	for {
		c.mu.Lock()
		got, changed := c.counts[name], c.changed
		c.mu.Unlock()
		if got >= n {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-stop:
		case <-ctx.Done():
		}
		return fmt.Errorf("gave up waiting for %q %d times; it was %d times", name, n, got)
	}
}
