package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync"
	"time"

	"sluice/cmd/sluice/internal/eventstream"
)

// variant is one way in which clients open streams.
type variant struct {
	name   string
	proto  protocol
	gzip   bool // offer compression, as browsers do
	ndjson bool // the same events, but not as text/event-stream
}

// arrival is one of our events on a stream.
type arrival struct {
	number int
	at     time.Time
}

// observed is what a stream has shown so far.
type observed struct {
	asked    time.Time
	head     time.Duration // 0: not yet
	first    time.Duration // first byte of the body
	opening  time.Duration // the opening event
	status   int
	proto    string
	header   http.Header
	id       string // of the opening event
	stream   string // its unguessable name
	beat     time.Duration
	padding  int
	arrivals []arrival
	alive    []time.Time // comments and beats, after the opening
	gap      string      // reason of the first gap
	bye      string
	bytes    int64
	ended    time.Duration // 0: not yet
	err      error         // why; nil: cleanly
}

// probe is one stream under observation. A goroutine of its own reads it until
// close.
type probe struct {
	*variant
	room   string
	tag    string
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex // guards the fields below
	seen    observed
	changed chan struct{} // closed and replaced when seen has changed
}

// listen opens a stream of room; query and header may carry a cursor. The
// caller must close it.
func (x *examination) listen(ctx context.Context, v *variant, room string, query url.Values, header http.Header) *probe {
	ctx, cancel := context.WithCancel(ctx)
	p := &probe{variant: v, room: room, tag: x.tag, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	h := http.Header{"Accept": {"text/event-stream"}, "Cache-Control": {"no-cache"}}
	if v.ndjson {
		h.Set("Accept", "application/x-ndjson")
	}
	if v.gzip {
		h.Set("Accept-Encoding", "gzip")
	}
	for name, values := range header {
		h[name] = values
	}
	r, err := x.request(ctx, call{method: http.MethodGet, path: []string{"rooms", room, "events"}, query: query, header: h})
	p.seen.asked = time.Now()
	go func() {
		defer close(p.done)
		if err == nil {
			err = p.read(x.client[v.proto], r)
		}
		p.note(func(o *observed) { o.ended, o.err = time.Since(o.asked), err })
	}()
	return p
}

// close ends the stream and waits for its reader. It may be called twice.
func (p *probe) close() {
	p.cancel()
	<-p.done
}

// look returns what was seen until now.
func (p *probe) look() observed {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.seen
	o.arrivals = o.arrivals[:len(o.arrivals):len(o.arrivals)]
	o.alive = o.alive[:len(o.alive):len(o.alive)]
	return o
}

func (p *probe) note(change func(*observed)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.seen)
	close(p.changed)
	p.changed = make(chan struct{})
}

// await waits until cond holds, the stream has ended, or limit is over. It
// says whether cond holds.
func (p *probe) await(ctx context.Context, limit time.Duration, cond func(*observed) bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		p.mu.Lock()
		holds, ended, changed := cond(&p.seen), p.seen.ended > 0, p.changed
		p.mu.Unlock()
		if holds || ended {
			return holds
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case <-changed:
		}
	}
}

// opened is a condition for await.
func opened(o *observed) bool { return o.opening > 0 || o.bye != "" }

// got returns the condition that our event n has come.
func got(n int) func(*observed) bool {
	return func(o *observed) bool { return o.arrival(n) != nil }
}

func (o *observed) arrival(n int) *arrival {
	for i := range o.arrivals {
		if o.arrivals[i].number == n {
			return &o.arrivals[i]
		}
	}
	return nil
}

// read carries out r and takes in the stream until it ends.
func (p *probe) read(c *http.Client, r *http.Request) error {
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotFirstResponseByte: func() { p.note(func(o *observed) { o.head = time.Since(o.asked) }) },
	}))
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	p.note(func(o *observed) {
		o.status, o.header, o.proto = resp.StatusCode, resp.Header, resp.Proto
		if o.head == 0 { // some ways of HTTP/2 have no such moment
			o.head = time.Since(o.asked)
		}
	})
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	body := io.Reader(&watched{resp.Body, p})
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return err
		}
	}
	if p.ndjson {
		return p.readLines(body)
	}
	return p.readEvents(body)
}

// watched notes each byte of a body as it comes, before it is unpacked.
type watched struct {
	io.Reader
	p *probe
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if n > 0 {
		w.p.note(func(o *observed) {
			o.bytes += int64(n)
			if o.first == 0 {
				o.first = time.Since(o.asked)
			}
		})
	}
	return n, err
}

func (p *probe) readEvents(body io.Reader) error {
	var d eventstream.Decoder
	buf := make([]byte, 16<<10)
	for {
		n, err := body.Read(buf)
		if bad := d.Feed(buf[:n], p); bad != nil {
			return bad
		}
		if err != nil {
			return clean(err)
		}
	}
}

// readLines takes in a stream of one JSON envelope a line.
func (p *probe) readLines(body io.Reader) error {
	var line []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := body.Read(buf)
		line = append(line, buf[:n]...)
		for {
			one, rest, whole := bytes.Cut(line, []byte{'\n'})
			if !whole {
				break
			}
			p.envelope(one)
			line = rest
		}
		if len(line) > eventstream.MaxBlock {
			return eventstream.ErrTooLong
		}
		if err != nil {
			return clean(err)
		}
	}
}

func clean(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (p *probe) envelope(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		p.Comment(len(line))
		return
	}
	var v struct {
		ID, Type string
		Data     json.RawMessage
	}
	if json.Unmarshal(line, &v) == nil {
		p.Event(eventstream.Event{Type: []byte(v.Type), ID: []byte(v.ID), Data: v.Data})
	}
}

// Event implements eventstream.Sink.
func (p *probe) Event(e eventstream.Event) {
	now := time.Now()
	p.note(func(o *observed) {
		switch string(e.Type) {
		case "sluice.open":
			var v struct {
				Stream    string
				Heartbeat float64
			}
			json.Unmarshal(e.Data, &v) // what it does not say stays empty
			o.opening, o.id, o.stream = now.Sub(o.asked), string(e.ID), v.Stream
			o.beat = time.Duration(v.Heartbeat * float64(time.Second))
		case "sluice.gap":
			o.gap = reasonOf(e.Data)
		case "sluice.bye":
			o.bye = reasonOf(e.Data)
		case "sluice.beat":
			o.alive = append(o.alive, now)
		default:
			if n, ok := ours(p.tag, e.Data); ok {
				o.arrivals = append(o.arrivals, arrival{n, now})
			}
		}
	})
}

// Comment implements eventstream.Sink.
func (p *probe) Comment(size int) {
	now := time.Now()
	p.note(func(o *observed) {
		if o.opening == 0 {
			o.padding += size
			return
		}
		o.alive = append(o.alive, now)
	})
}

// Retry implements eventstream.Sink.
func (p *probe) Retry(int) {}

func reasonOf(data []byte) string {
	var v struct{ Reason string }
	if json.Unmarshal(data, &v) != nil || v.Reason == "" {
		return "no reason"
	}
	return v.Reason
}

// text is what event number n of this examination says.
func (x *examination) text(n int) string { return x.tag + "/" + strconv.Itoa(n) + "." }

// ours finds the number of an event of the examination tag in its data.
func ours(tag string, data []byte) (n int, ok bool) {
	_, rest, found := bytes.Cut(data, []byte(tag+"/"))
	digits, _, ends := bytes.Cut(rest, []byte{'.'})
	if !found || !ends {
		return 0, false
	}
	n, err := strconv.Atoi(string(digits))
	return n, err == nil
}
