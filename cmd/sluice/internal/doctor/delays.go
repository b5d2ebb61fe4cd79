package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// delays is how long the events took to one stream.
type delays struct {
	*probe
	took    []time.Duration // of those that came, sorted
	missing int
	packed  string // Content-Encoding that something on the way applied
}

func (p *probe) delays(sent []time.Time) delays {
	o := p.look()
	d := delays{probe: p}
	for n, at := range sent {
		a := o.arrival(n)
		if a == nil {
			d.missing++
			continue
		}
		d.took = append(d.took, a.at.Sub(at))
	}
	slices.Sort(d.took)
	if e := o.header.Get("Content-Encoding"); e != "" && e != "identity" {
		d.packed = e
	}
	return d
}

func (d delays) median() time.Duration {
	if len(d.took) == 0 {
		return 0
	}
	return d.took[len(d.took)/2]
}

func (d delays) String() string {
	text := d.name + ": "
	switch {
	case len(d.took) == 0:
		text += "no event came"
	case d.missing > 0:
		text += fmt.Sprintf("%d of %d events came, after %s to %s", len(d.took), len(d.took)+d.missing, ms(d.took[0]), ms(d.took[len(d.took)-1]))
	default:
		text += fmt.Sprintf("%s (%s at worst)", ms(d.median()), ms(d.took[len(d.took)-1]))
	}
	if d.packed != "" {
		text += ", packed with " + d.packed + " on the way"
	}
	return text
}

// prompt says whether events came as fast as the way allows. What their POSTs
// took as well, on a slow machine or network, holds no stream back; and where
// that is long, it is not always as long.
func (x *examination) prompt(d delays) bool {
	way := max(x.rtt, x.posting)
	return d.missing == 0 && d.median()-way <= max(x.pace.prompt, way/4)
}

// judgeDelays says whether events are held back, by whom if that can be told,
// and where.
func (x *examination) judgeDelays(ctx context.Context, sent []time.Time) {
	var plain, packed, lines delayList
	for _, p := range x.streams {
		d := p.delays(sent)
		switch {
		case p.ndjson:
			lines = append(lines, d)
		case p.gzip:
			packed = append(packed, d)
		default:
			plain = append(plain, d)
		}
	}
	f := Finding{
		Check: "prompt", Level: OK, Means: "nothing holds events back", Figures: map[string]any{},
		Seen: fmt.Sprintf("event published to event received: %s (the round trip is %s)", append(plain, packed...), ms(x.rtt)),
	}
	for _, d := range append(plain, packed...) {
		f.Figures[d.name] = map[string]any{"median_ms": millis(d.median()), "missing": d.missing}
	}
	plainBad, packedBad := x.held(plain), x.held(packed)
	switch {
	case len(plainBad) == 0 && len(packedBad) == 0:
		if len(packed) > 0 && packed[0].packed != "" {
			f.Means += ", not even what compresses on the way"
		}
	case len(plainBad) == 0:
		f.Level = Bad
		f.Means = "events are held back only where compression is offered, as every browser does: something on the way compresses the stream and does not flush"
		f.Do = x.product.advice(compress)
	default:
		f.Level = Bad
		x.blame(ctx, &f, plain, plainBad, lines)
	}
	x.found(f)
}

// blame says what holds events back on streams that offer no compression.
func (x *examination) blame(ctx context.Context, f *Finding, all, bad, lines delayList) {
	if x.looksLikeHAProxy(bad) {
		f.Means = "each event waits about 200 ms, as HAProxy does it with chunks over HTTP/1.1"
		if len(bad) < len(all) {
			f.Means += "; over HTTP/2 none does"
		}
		x.product = haproxy()
		f.Do = x.product.advice(buffers)
		return
	}
	if bad.missing() == 0 {
		f.Means = "something on the way collects bytes for a while before it passes them on"
		f.Do = x.product.advice(buffers)
		return
	}
	f.Means = "something on the way collects the response, and passes it on when it is full or over"
	if len(bad) < len(all) {
		f.Means = "something on the way collects the response of some clients only"
	}
	if name := x.product.name; name != "" {
		f.Means += "; " + name + " is there"
	}
	f.Do = x.product.advice(buffers)
	if len(lines) > 0 && len(x.held(lines)) == 0 {
		f.Means += "; the same stream as application/x-ndjson is prompt, so it is its type, text/event-stream, that is held"
		f.Do = strings.TrimSuffix(f.Do, pollUntilThen) + "; until then clients can read the stream with fetch() and Accept: application/x-ndjson"
	}
	x.sizeUp(ctx, f, bad[0].probe)
}

// looksLikeHAProxy: 200 ms, every time, over HTTP/1.1. What comes on top of
// that is the machine's, so the event that was fastest tells.
func (x *examination) looksLikeHAProxy(bad delayList) bool {
	for _, d := range bad {
		if d.proto == http2 || len(d.took) == 0 || d.missing > 0 {
			return false
		}
		if extra := d.took[0] - x.rtt; extra < 150*time.Millisecond || extra > 350*time.Millisecond {
			return false
		}
	}
	return x.product.name == "" || x.product.name == "HAProxy"
}

const (
	fillerSize  = 16 << 10
	fillerParts = 16
	settling    = 50 * time.Millisecond // for what a full buffer lets go
)

// sizeUp finds out how much what holds p back wants, and whether it is
// content once it has had that.
func (x *examination) sizeUp(ctx context.Context, f *Finding, p *probe) {
	before := p.look()
	if before.ended > 0 {
		return
	}
	parts := x.fill(ctx, p, before.bytes)
	if parts == 0 {
		return
	}
	size := parts * fillerSize >> 10
	if parts > fillerParts {
		f.Seen += fmt.Sprintf("; %d KiB more did not move it", fillerParts*fillerSize>>10)
		return
	}
	o := p.look()
	f.Seen += fmt.Sprintf("; after %d KiB more, %d bytes came at once", size, o.bytes-before.bytes)
	f.Figures["buffer_kib"] = size
	if !x.promptNow(ctx, p) {
		return
	}
	f.Seen += ", and from then on events came promptly"
	f.Means += "; only the beginning of a response is held"
	f.Do += fmt.Sprintf("; or start the gateway with --padding %dKiB, which each stream then sends first", size+fillerSize>>10)
}

// fill publishes filler until something comes out at p. It says how many parts
// that took: more than fillerParts if nothing came, 0 if we could not go on.
func (x *examination) fill(ctx context.Context, p *probe, before int64) (parts int) {
	filler := strings.Repeat("filler", fillerSize/6+1)[:fillerSize]
	for n := range fillerParts {
		x.tell("looking for the size of the buffer", 0, 0)
		a, err := x.publish(ctx, x.room, filler, ephemeral())
		if err != nil || a.status/100 != 2 {
			return 0
		}
		if p.await(ctx, 2*x.rtt+settling, func(o *observed) bool { return o.bytes > before }) {
			return n + 1
		}
	}
	return fillerParts + 1
}

// promptNow says whether one more event comes to p soon.
func (x *examination) promptNow(ctx context.Context, p *probe) bool {
	n := len(x.ids) // of an event that nobody resumes from
	a, err := x.publish(ctx, x.room, x.text(n), ephemeral())
	return err == nil && a.status/100 == 2 && p.await(ctx, x.pace.soon+2*x.rtt, got(n))
}

// delayList is the delays of several streams.
type delayList []delays

func (l delayList) String() string {
	parts := make([]string, len(l))
	for i, d := range l {
		parts[i] = d.String()
	}
	return strings.Join(parts, "; ")
}

func (l delayList) missing() (n int) {
	for _, d := range l {
		n += d.missing
	}
	return n
}

// held are those of l that were not prompt.
func (x *examination) held(l delayList) (bad delayList) {
	for _, d := range l {
		if !x.prompt(d) {
			bad = append(bad, d)
		}
	}
	return bad
}
