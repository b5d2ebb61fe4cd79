package doctor

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// watch opens streams in all ways at once, publishes some events, and sees
// what comes when. It says whether what answers is a gateway.
func (x *examination) watch(ctx context.Context) bool {
	for _, v := range x.variants() {
		p := x.listen(ctx, v, x.room, nil, nil)
		defer p.close()
		x.streams = append(x.streams, p)
	}
	x.awaitOpening(ctx)
	if !x.accepted() {
		x.figures(nil)
		return false
	}
	streams, err := x.count(ctx, x.room)
	if err != nil {
		streams = -1
	}
	sent, published := x.publishSome(ctx)
	x.awaitEvents(ctx, len(sent))
	x.figures(sent)
	x.choose(len(sent))
	x.judgeOpening(streams, sent)
	x.found(published)
	if len(sent) > 0 {
		x.judgeDelays(ctx, sent)
	}
	x.judgeSharing()
	return true
}

func (x *examination) variants() []*variant {
	all := []*variant{
		{name: "HTTP/1.1", proto: http1},
		{name: "HTTP/1.1, gzip offered", proto: http1, gzip: true},
	}
	if x.http2 {
		all = append(all,
			&variant{name: "HTTP/2", proto: http2},
			&variant{name: "HTTP/2, gzip offered", proto: http2, gzip: true})
	}
	return append(all, &variant{name: "NDJSON instead of SSE", proto: any1or2, ndjson: true})
}

// awaitOpening gives all streams the time for their opening event.
func (x *examination) awaitOpening(ctx context.Context) {
	x.tell("awaiting the opening events", 0, x.pace.opening)
	until := time.Now().Add(x.pace.opening)
	for _, p := range x.streams {
		p.await(ctx, time.Until(until), opened)
	}
}

// accepted says whether any stream request was accepted, or at least not
// refused; if not, it says why.
func (x *examination) accepted() bool {
	var refused observed
	for _, p := range x.streams {
		if p.ndjson {
			continue // a help for judging the others
		}
		o := p.look()
		kind, _, _ := mime.ParseMediaType(o.header.Get("Content-Type"))
		switch {
		case o.status == 0 && o.ended == 0, o.opening > 0:
			return true
		case o.status == http.StatusOK && o.bye == "" && kind == "text/event-stream":
			return true
		}
		if refused.status == 0 {
			refused = o
		}
	}
	x.refused(refused)
	return false
}

// refused explains why there is no stream.
func (x *examination) refused(o observed) {
	f := Finding{
		Check: "stream", Level: Bad,
		Seen:    fmt.Sprintf("status %d, %s", o.status, o.header.Get("Content-Type")),
		Means:   "there are no streams on this way",
		Do:      "check that the address is a gateway's, and that the proxy passes /rooms/ on to it",
		Figures: map[string]any{"status": o.status},
	}
	switch {
	case o.status == 0:
		f.Seen = "no answer to a stream request"
		if o.err != nil {
			f.Seen += ": " + reason(o.err)
		}
	case o.status == http.StatusUnauthorized, o.status == http.StatusForbidden:
		f.Means = "the gateway wants a token with the right to read " + x.room
		f.Do = "give one with --token; it needs `subscribe` and `publish` for doctor-*"
	case o.bye != "":
		f.Seen = "the gateway ended the stream at once: " + o.bye
		f.Means = "the gateway has reached a limit, or is about to stop"
		f.Do = "look at its --max-streams and --max-streams-per-ip, or try again later"
	}
	x.found(f)
}

// publishSome publishes events one after the other. It returns when each was
// sent, up to the first that was not taken, and what there is to say about it.
func (x *examination) publishSome(ctx context.Context) (sent []time.Time, f Finding) {
	var times []time.Duration
	for n := range x.pace.events {
		x.tell("publishing events", time.Duration(n)*x.pace.gap, time.Duration(x.pace.events)*x.pace.gap)
		a, err := x.publish(ctx, x.room, x.text(n), nil)
		if err != nil || a.status/100 != 2 {
			return sent, cannotPublish(a, err)
		}
		id := jsonString(a.body, "id")
		x.ids = append(x.ids, id)
		sent = append(sent, a.sent)
		times = append(times, a.took)
		sleep(ctx, x.pace.gap)
	}
	x.mayPost = true
	slices.Sort(times)
	x.posting = times[len(times)/2]
	return sent, Finding{
		Check: "publish", Level: OK,
		Seen:    fmt.Sprintf("%d events taken, each answered after %s (median)", len(sent), ms(times[len(times)/2])),
		Means:   "POST works on this way",
		Figures: map[string]any{"answer_ms": millis(times[len(times)/2])},
	}
}

func cannotPublish(a *answer, err error) Finding {
	f := Finding{Check: "publish", Level: Bad, Means: "clients cannot publish on this way", Do: "let the proxy pass POST on to the gateway"}
	switch {
	case err != nil:
		f.Seen = reason(err)
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		f.Level = Warn
		f.Seen = a.String()
		f.Means = "we may not publish, so delays of events and the cursor are not looked at"
		f.Do = "give a token with --token that may publish to doctor-*"
	default:
		f.Seen = a.String()
	}
	return f
}

// awaitEvents waits until every stream has all events, or had its time.
func (x *examination) awaitEvents(ctx context.Context, events int) {
	began := time.Now()
	for _, p := range x.streams {
		for n := range events {
			x.tell("awaiting the events", time.Since(began), x.pace.patience)
			p.await(ctx, x.pace.patience-time.Since(began), got(n))
		}
		if events == 0 {
			p.await(ctx, x.pace.patience-time.Since(began), opened)
		}
	}
}

// figures puts what the streams have shown into the report.
func (x *examination) figures(sent []time.Time) {
	for _, p := range x.streams {
		o := p.look()
		f := StreamFigures{
			Way: p.name, Status: o.status, HTTP: o.proto, Padding: o.padding,
			HeadMS: figure(o.head), OpenMS: figure(o.opening),
			DelaysMS: []*float64{}, Headers: signs(o.header),
		}
		for n, at := range sent {
			var delay *float64
			if a := o.arrival(n); a != nil {
				delay = figure(a.at.Sub(at))
			}
			f.DelaysMS = append(f.DelaysMS, delay)
		}
		if o.ended > 0 {
			f.Error = p.end(&o)
		}
		x.report.Streams = append(x.report.Streams, f)
		if x.product.name == "" {
			x.product = identify(o.header)
		}
	}
}

func figure(d time.Duration) *float64 {
	if d == 0 {
		return nil
	}
	v := millis(d)
	return &v
}

// end says how a stream ended.
func (p *probe) end(o *observed) string {
	switch {
	case o.bye != "":
		return "the gateway said sluice.bye: " + o.bye
	case o.err != nil:
		return reason(o.err)
	}
	return "the response ended"
}

// judgeOpening looks at how soon streams begin.
func (x *examination) judgeOpening(streams int, sent []time.Time) {
	f := Finding{Check: "opening", Level: OK, Means: "clients know at once that the stream works", Figures: map[string]any{}}
	limit := x.pace.soon + 4*x.rtt
	var seen []string
	for _, p := range x.streams {
		o := p.look()
		f.Figures[p.name] = figure(o.opening)
		switch {
		case o.opening > 0 && o.opening <= limit:
			seen = append(seen, p.name+": "+ms(o.opening))
		case p.ndjson && o.opening == 0:
			seen = append(seen, p.name+": never")
		case o.opening > 0 && o.opening <= x.pace.opening:
			seen = append(seen, p.name+": "+ms(o.opening)+", which is late")
			f.Level = worse(f.Level, Warn)
		case o.opening > 0:
			seen = append(seen, p.name+": only after "+ms(o.opening))
			f.Level = Bad
		default:
			seen = append(seen, p.name+": never; "+p.silence(&o))
			f.Level = Bad
		}
	}
	f.Seen = strings.Join(seen, "; ")
	if f.Level == Bad && streams > 0 {
		f.Seen += fmt.Sprintf("; the gateway has %d streams open here, so it is the answers that do not arrive", streams)
	}
	switch {
	case f.Level == Bad:
		f.Means = "a client that waits for its opening event gives the stream up and polls"
		f.Do = x.openingAdvice(limit)
	case f.Level == Warn && x.allPrompt(sent):
		f.Means = "streams work, and begin late; what comes then is not held back, so the way is slow, or far"
		f.Do = "nothing, if the way cannot be faster; with the gateway's --padding 0 a stream begins with 2 KiB less"
	case f.Level == Warn:
		f.Means = "streams work, but clients wait for them to begin"
		f.Do = x.openingAdvice(limit)
	}
	x.found(f)
}

// allPrompt says whether every stream had all events as fast as the way allows.
func (x *examination) allPrompt(sent []time.Time) bool {
	return len(sent) > 0 && !slices.ContainsFunc(x.streams, func(p *probe) bool { return !x.prompt(p.delays(sent)) })
}

// openingAdvice says what to do about streams that do not begin in time.
func (x *examination) openingAdvice(limit time.Duration) string {
	for _, p := range x.streams {
		if o := p.look(); !p.gzip && !p.ndjson && (o.opening == 0 || o.opening > limit) {
			return x.product.advice(buffers)
		}
	}
	return x.product.advice(compress)
}

// silence says what did come of a stream without an opening event.
func (p *probe) silence(o *observed) string {
	switch {
	case o.status != 0 && o.status != http.StatusOK:
		return fmt.Sprintf("status %d", o.status)
	case o.ended > 0:
		return p.end(o)
	case o.head == 0:
		return "not even headers"
	case o.bytes == 0:
		return fmt.Sprintf("headers after %s and nothing else", ms(o.head))
	}
	return fmt.Sprintf("headers after %s, then %d bytes", ms(o.head), o.bytes)
}

// judgeSharing looks for a cache that gives one stream to several clients.
func (x *examination) judgeSharing() {
	seen := map[string]string{}
	for _, p := range x.streams {
		o := p.look()
		if o.stream == "" {
			continue
		}
		if other, ok := seen[o.stream]; ok {
			x.found(Finding{
				Check: "sharing", Level: Bad,
				Seen:  fmt.Sprintf("%q and %q were given one and the same stream", other, p.name),
				Means: "a cache serves several clients from one response: private events reach strangers",
				Do:    "let the cache obey Cache-Control: no-store, or take the gateway out of caching",
			})
			return
		}
		seen[o.stream] = p.name
	}
	if len(seen) > 1 {
		x.found(Finding{
			Check: "sharing", Level: OK, Seen: fmt.Sprintf("%d requests, %d different streams", len(seen), len(seen)),
			Means: "no cache shares streams between clients",
		})
	}
}

// choose picks the way that later steps open streams: one that brought
// everything, as browsers ask if possible.
func (x *examination) choose(events int) {
	for _, p := range x.streams {
		o := p.look()
		if p.ndjson || o.opening == 0 || len(o.arrivals) < events {
			continue
		}
		if x.best == nil || !x.best.gzip && p.gzip {
			x.best = p.variant
		}
	}
}

func worse(a, b Level) Level {
	if a == Bad || b == Bad {
		return Bad
	}
	if a == Warn || b == Warn {
		return Warn
	}
	return OK
}

// ephemeral is the query of a publication that nobody has to keep.
func ephemeral() url.Values { return url.Values{"ephemeral": {"true"}} }
