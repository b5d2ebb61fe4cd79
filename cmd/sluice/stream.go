package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/r3labs/sse/v2"
)

// This file reads one stream, once. The reader is r3labs's client; around it stands what
// that leaves open:
//
//	response -> blockReader (whole blocks only, watched for silence) -> r3labs -> handle
//
// The client hands out what it has of an event when the connection dies inside it, makes an
// event of a comment once it has seen an id, tells a clean end by returning nothing, and
// leaves the coming back to its caller. So blockReader lets through only blocks that have
// ended and hold more than comments. What handle sees is therefore whole, and its id may be
// trusted as a cursor; an event without an id of its own carries the last one seen, which
// does not move a cursor either.

// maxBlock bounds what one event may take on the wire.
const maxBlock = 16 << 20

// streamEvent is one event as it came over the wire.
type streamEvent struct {
	name   string // empty for a plain message
	cursor string // where to go on after this event; empty if no id has been seen
	data   []byte // owned by the event
	retry  string // the field of that name; empty if there was none
}

// Reasons why a stream ended, besides the network's and refusals.
var (
	errNoContent = errors.New("the gateway says that there is nothing more to come")
	errSilent    = errors.New("no sign of life for two and a half heartbeats")
	errBigBlock  = fmt.Errorf("an event of more than %s", size(maxBlock))
	errNoStream  = errors.New("what answered is not a gateway's stream; is --url right?")
)

// silenceAtFirst is what a stream may take until sluice.open says how often its heart beats:
// two and a half of the usual 15 s.
const silenceAtFirst = 37500 * time.Millisecond

// read opens the stream at u, going on from cursor if that is not empty, and calls handle
// with each event, in order, one at a time. It blocks until the stream ends, ctx ends or
// handle returns an error, which it then returns. A stream that ended cleanly is no error.
func (g *gateway) read(ctx context.Context, u *url.URL, cursor string, handle func(streamEvent) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	watch := newWatchdog(silenceAtFirst, func() { end(errSilent) })
	defer watch.rest()

	client := sse.NewClient(u.String(), sse.ClientMaxBufferSize(maxBlock+4096))
	client.Connection = &http.Client{
		Transport:     wholeBlocks{base: g.http.Transport, watch: watch},
		CheckRedirect: g.http.CheckRedirect,
	}
	client.ReconnectStrategy = never{}
	client.ResponseValidator = isStream
	if g.token != "" {
		client.Headers["Authorization"] = "Bearer " + g.token
	}
	if cursor != "" {
		client.LastEventID.Store([]byte(cursor))
	}
	err := client.SubscribeWithContext(ctx, "", func(m *sse.Event) {
		if ctx.Err() != nil {
			return // the client had read ahead; what nobody handles comes again
		}
		e := streamEvent{name: string(m.Event), cursor: string(m.ID), data: m.Data, retry: string(m.Retry)}
		if e.name == "sluice.open" {
			watch.allow(silence(e.data))
		}
		if err := handle(e); err != nil {
			end(err)
		}
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// silence is how long a stream may say nothing, given the data of its sluice.open. A
// gateway that sends no heartbeats may be silent for ever: 0.
func silence(open []byte) time.Duration {
	var data struct{ Heartbeat *float64 }
	if json.Unmarshal(open, &data) != nil || data.Heartbeat == nil {
		return silenceAtFirst
	}
	seconds := min(max(*data.Heartbeat, 0), 3600)
	return time.Duration(2.5 * seconds * float64(time.Second))
}

// isStream lets the client go on with a response, or ends it with the reason why not.
func isStream(_ *sse.Client, resp *http.Response) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == "text/event-stream" {
		return nil
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return errNoStream
	case http.StatusNoContent:
		return errNoContent
	}
	return refused(resp)
}

// never is the client's reconnect strategy: it cannot know when coming back makes sense.
type never struct{}

func (never) NextBackOff() time.Duration { return -1 }
func (never) Reset()                     {}

// wholeBlocks puts a blockReader around the bodies of streams.
type wholeBlocks struct {
	base  http.RoundTripper
	watch *watchdog
}

func (t wholeBlocks) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusOK {
		resp.Body = &blockReader{src: resp.Body, watch: t.watch, in: make([]byte, 16<<10)}
	}
	return resp, err
}

// blockReader passes a stream on in whole blocks, without comments and with every line
// ended by LF. What stands behind the last blank line when the stream ends is dropped.
type blockReader struct {
	src   io.ReadCloser
	watch *watchdog
	in    []byte // where src is read into
	block []byte // the block that has not ended yet
	line  int    // where in block its last line begins
	cr    bool   // the last byte was a CR: an LF belongs to it
	ready []byte // blocks that have ended and were not passed on yet
	err   error  // why src ended
}

// Close closes the response.
func (b *blockReader) Close() error { return b.src.Close() }

// Read blocks until a block has ended, or the stream.
func (b *blockReader) Read(p []byte) (int, error) {
	for len(b.ready) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.watch.wait()
		n, err := b.src.Read(b.in)
		b.watch.rest()
		b.err = err
		b.ready = b.ready[:0]
		b.feed(b.in[:n])
	}
	n := copy(p, b.ready)
	b.ready = b.ready[n:]
	return n, nil
}

func (b *blockReader) feed(bytes []byte) {
	for _, c := range bytes {
		second := c == '\n' && b.cr
		b.cr = c == '\r'
		switch {
		case second:
		case c == '\n' || c == '\r':
			b.endLine()
		case len(b.block) >= maxBlock:
			b.err = errBigBlock
			return
		default:
			b.block = append(b.block, c)
		}
	}
}

func (b *blockReader) endLine() {
	switch {
	case len(b.block) > b.line && b.block[b.line] == ':':
		b.block = b.block[:b.line]
	case len(b.block) > b.line:
		b.block = append(b.block, '\n')
		b.line = len(b.block)
	case len(b.block) > 0:
		b.ready = append(append(b.ready, b.block...), '\n')
		b.block, b.line = b.block[:0], 0
	}
}

// watchdog calls bite once nothing has come for too long. Only the time spent waiting for
// bytes counts: while a slow handler works, nobody listens.
type watchdog struct {
	mu      sync.Mutex // guards the fields below
	limit   time.Duration
	waiting bool
	timer   *time.Timer
}

func newWatchdog(limit time.Duration, bite func()) *watchdog {
	w := &watchdog{limit: limit, timer: time.AfterFunc(time.Hour, bite)}
	w.timer.Stop()
	return w
}

// wait begins to count.
func (w *watchdog) wait() { w.change(func() { w.waiting = true }) }

// rest stops counting, since something came or since nobody listens any more.
func (w *watchdog) rest() { w.change(func() { w.waiting = false }) }

// allow changes the limit, also of a wait that has begun; 0 is no limit.
func (w *watchdog) allow(limit time.Duration) { w.change(func() { w.limit = limit }) }

func (w *watchdog) change(how func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	how()
	w.timer.Stop()
	if w.waiting && w.limit > 0 {
		w.timer.Reset(w.limit)
	}
}

// follower comes back to a stream for as long as it makes sense.
type follower struct {
	gw     *gateway
	target func(cursor string) *url.URL // where the stream is, given the cursor to go on from
	handle func(streamEvent) error      // the cursor moves when it returns nil
	lost   func(why error, wait time.Duration)

	cursor   string        // behind the last event handled
	retry    time.Duration // what the gateway last asked us to wait
	failures int           // in a row
	opened   bool          // at least one stream was opened: --url is right
}

// Without a word from the gateway, a client waits this long, and never longer than that
// after failures of its own. A gateway may ask for more.
const (
	firstRetry = time.Second
	mostRetry  = 30 * time.Second
	askedRetry = 10 * time.Minute
)

// run follows until ctx ends or the gateway has nothing more (nil), or until going on is
// pointless: the error says why.
func (f *follower) run(ctx context.Context) error {
	f.retry = firstRetry
	for {
		asked := false
		err := f.gw.read(ctx, f.target(f.cursor), f.cursor, func(e streamEvent) error {
			asked = f.heed(e) || asked
			if err := f.handle(e); err != nil {
				return handlerError{err}
			}
			f.cursor = e.cursor
			return nil
		})
		if ctx.Err() != nil || errors.Is(err, errNoContent) {
			return nil
		}
		var own handlerError
		if errors.As(err, &own) {
			return own.error
		}
		if err != nil && f.pointless(err) {
			return f.gw.plainly(err)
		}
		wait := f.wait(err, asked)
		f.lost(err, wait)
		if sleep(ctx, wait) != nil {
			return nil
		}
	}
}

// heed takes from an event what concerns the coming back; it says whether the gateway
// asked for a time to wait.
func (f *follower) heed(e streamEvent) bool {
	if e.name == "sluice.open" {
		f.opened = true
		f.failures = 0
	}
	ms, err := strconv.ParseUint(strings.TrimSpace(e.retry), 10, 31)
	if err != nil {
		return false
	}
	f.retry = min(time.Duration(ms)*time.Millisecond, askedRetry)
	return true
}

// handlerError tells the handler's errors from the stream's.
type handlerError struct{ error }

// pointless says that the same request would fare no better. What looks like a wrong
// address ends only a follower that never got through: later it is a proxy's bad moment.
func (f *follower) pointless(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return !r.temporary() && (r.status != http.StatusNotFound || !f.opened)
	}
	return errors.Is(err, errBigBlock) || !f.opened && (errors.Is(err, errNoStream) || hopeless(err))
}

// wait is how long to stay away: at least what the gateway asked for, spread a little; more
// with every failure that it had no say in.
func (f *follower) wait(err error, asked bool) time.Duration {
	var r *refusal
	if errors.As(err, &r) && r.retryAfter > 0 {
		f.failures++
		return min(r.retryAfter, askedRetry) + backoff(0, firstRetry, firstRetry)
	}
	if asked {
		f.failures = 0
		return f.retry + backoff(0, f.retry/4, f.retry/4)
	}
	f.failures++
	return max(f.retry, backoff(f.failures, max(f.retry, 100*time.Millisecond), max(f.retry, mostRetry)))
}
