package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// wait does, at the same time, all that needs patience: it holds silent
// streams, leaves others, and polls where nothing happens.
func (x *examination) wait(ctx context.Context) {
	var tasks sync.WaitGroup
	var idle, poll *Finding
	var busy, silent leave
	if x.Quick {
		x.notDone("idle", "--quick")
	} else {
		tasks.Go(func() { idle = x.idle(ctx) })
		tasks.Go(func() { poll = x.silentPoll(ctx) })
		tasks.Go(func() { silent = x.leave(ctx, "silent", x.pace.silent) })
	}
	tasks.Go(func() { busy = x.leave(ctx, "busy", x.pace.leaving) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		tasks.Wait()
	}()
	x.countDown(done)
	for _, f := range []*Finding{x.judgeLeaving(busy, silent), idle, poll} {
		if f != nil {
			x.found(*f)
		}
	}
}

// countDown tells how the waiting goes on until done is closed.
func (x *examination) countDown(done <-chan struct{}) {
	began := time.Now()
	stage, total := "watching whether the gateway notices who left", x.pace.leaving
	if !x.Quick {
		stage, total = "holding silent streams", x.Idle
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		x.tell(stage, time.Since(began), total)
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

// idle holds streams on which nothing happens.
func (x *examination) idle(ctx context.Context) *Finding {
	if x.best == nil {
		return nil
	}
	var held []*probe
	for _, s := range x.streams {
		if o := s.look(); o.opening > 0 && !s.gzip && !s.ndjson {
			p := x.listen(ctx, s.variant, x.room+"-idle", nil, nil)
			defer p.close()
			held = append(held, p)
		}
	}
	began := time.Now()
	for _, p := range held {
		p.await(ctx, x.Idle-time.Since(began), func(o *observed) bool { return false })
	}
	return x.judgeIdle(held)
}

func (x *examination) judgeIdle(held []*probe) *Finding {
	f := &Finding{Check: "idle", Level: OK, Means: "heartbeats keep streams alive", Figures: map[string]any{}}
	var seen []string
	for _, p := range held {
		o := p.look()
		text, level := x.stillness(p, &o)
		seen = append(seen, p.name+": "+text)
		f.Level = worse(f.Level, level)
		figures := map[string]any{"held_s": round(min(o.ended, x.Idle).Seconds()), "cut": o.ended > 0, "heartbeats": len(o.alive), "heartbeat_s": o.beat.Seconds()}
		if o.ended == 0 {
			figures["held_s"] = round(x.Idle.Seconds())
		}
		f.Figures[p.name] = figures
	}
	f.Seen = strings.Join(seen, "; ")
	switch {
	case f.Level == OK && x.Idle < 2*x.beat():
		f.Means = "nothing ends streams that soon; to see what heartbeats do, hold them longer (--idle)"
	case f.Level == Bad:
		f.Means = "clients lose nothing, since they resume, but they reconnect that often, all day"
		f.Do = x.product.advice(cuts)
	case f.Level == Warn:
		f.Means = "what does not come in time cannot tell a client that its stream lives"
		f.Do = "see prompt; without --heartbeat at the gateway, idle streams depend on the way's patience"
	}
	return f
}

// beat is the gateway's heartbeat, as streams have been told; 0: none.
func (x *examination) beat() time.Duration {
	for _, p := range x.streams {
		if o := p.look(); o.beat > 0 {
			return o.beat
		}
	}
	return 0
}

// stillness says what became of one silent stream.
func (x *examination) stillness(p *probe, o *observed) (text string, level Level) {
	beats := fmt.Sprintf("%d heartbeats", len(o.alive))
	if len(o.alive) == 1 {
		beats = "1 heartbeat"
	}
	switch {
	case o.ended > 0 && o.bye != "":
		return fmt.Sprintf("the gateway itself ended it after %s (%s)", ms(o.ended), o.bye), OK
	case o.ended > 0:
		since := o.ended - o.opening
		if n := len(o.alive); n > 0 {
			since = o.asked.Add(o.ended).Sub(o.alive[n-1])
		}
		text = fmt.Sprintf("cut after %s with %s, %s after the last sign of life; %s", ms(o.ended), beats, ms(since), p.end(o))
		return text, Bad
	case o.beat > 0 && x.Idle > 2*o.beat && len(o.alive) == 0:
		return fmt.Sprintf("open for %s, but none of the heartbeats due each %s came", ms(x.Idle), ms(o.beat)), Warn
	case o.beat == 0:
		return fmt.Sprintf("open for %s, without heartbeats", ms(x.Idle)), OK
	}
	return fmt.Sprintf("open for %s, with %s (one is due each %s)", ms(x.Idle), beats, ms(o.beat)), OK
}

// silentPoll waits for nothing, as long as a long poll may last.
func (x *examination) silentPoll(ctx context.Context) *Finding {
	// A room of its own, in which nothing happens.
	query := url.Values{"wait": {seconds(x.pace.poll)}, "after": {"latest"}}
	began := time.Now()
	a, err := x.do(ctx, any1or2, x.pace.poll+x.pace.patience, call{
		method: http.MethodGet, path: []string{"rooms", x.room + "-poll", "events"}, query: query,
		header: http.Header{"Accept": {"application/json"}},
	})
	if ctx.Err() != nil {
		return nil
	}
	f := &Finding{
		Check: "silent poll", Level: OK, Means: "the longest long poll is not cut",
		Figures: map[string]any{"after_s": round(time.Since(began).Seconds())},
	}
	switch {
	case err != nil:
		f.Seen = fmt.Sprintf("%s, after %s", reason(err), ms(time.Since(began)))
	case a.status != http.StatusOK:
		f.Seen = fmt.Sprintf("after %s: %s", ms(a.took), a)
	case a.took < x.pace.poll/2:
		f.Seen = fmt.Sprintf("answered after %s, though nothing had happened", ms(a.took))
	default:
		f.Seen = fmt.Sprintf("answered after %s of silence", ms(a.took))
		return f
	}
	f.Level = Warn
	f.Means = "clients that poll see an error each time nothing happens for so long"
	f.Do = x.product.advice(cuts)
	return f
}

// leave is how the gateway took the end of a stream.
type leave struct {
	known bool          // it has counted the stream in the first place
	after time.Duration // it noticed; 0: not in time
	limit time.Duration
}

// leave opens a stream, closes it, and waits until the gateway no longer
// counts it. In a busy room an event is published each second.
func (x *examination) leave(ctx context.Context, kind string, limit time.Duration) leave {
	l := leave{limit: limit}
	room := x.room + "-" + kind
	v := x.best
	if v == nil {
		v = x.streams[0].variant
	}
	p := x.listen(ctx, v, room, nil, nil)
	defer p.close()
	p.await(ctx, x.pace.opening, opened)
	if !x.awaitCount(ctx, room, x.pace.opening, func(n int) bool { return n > 0 }) {
		return l
	}
	l.known = true
	p.close()
	left := time.Now()

	ctx, cancel := context.WithTimeout(ctx, limit)
	var tasks sync.WaitGroup
	if kind == "busy" && x.mayPost {
		tasks.Go(func() {
			for ctx.Err() == nil {
				x.publish(ctx, room, "tick", ephemeral()) // whether it is taken shows in the count
				sleep(ctx, limit/10)
			}
		})
	}
	if x.awaitCount(ctx, room, limit, func(n int) bool { return n == 0 }) {
		l.after = time.Since(left)
	}
	cancel()
	tasks.Wait()
	return l
}

// awaitCount asks for a room's number of streams until it is as wanted.
func (x *examination) awaitCount(ctx context.Context, room string, limit time.Duration, wanted func(int) bool) bool {
	for until := time.Now().Add(limit); ; {
		n, err := x.count(ctx, room)
		if err == nil && wanted(n) {
			return true
		}
		if ctx.Err() != nil || time.Now().After(until) {
			return false
		}
		sleep(ctx, min(limit/50, 250*time.Millisecond))
	}
}

func (x *examination) judgeLeaving(busy, silent leave) *Finding {
	if !busy.known {
		x.notDone("leaving", "the gateway does not tell us how many streams a room has")
		return nil
	}
	f := &Finding{Check: "leaving", Level: OK, Means: "the gateway knows who is there", Figures: map[string]any{"busy_s": after(busy)}}
	f.Seen = "a client that left a busy room was " + busy.String()
	if silent.known {
		f.Seen += ", one that left a silent room " + silent.String()
		f.Figures["silent_s"] = after(silent)
	}
	const soon = 5 * time.Second
	switch {
	case busy.after == 0:
		f.Level = Bad
		f.Means = "the way does not say when a client leaves: dead streams pile up at the gateway until they reach --max-age, and members seem present"
		f.Do = x.product.advice(hides)
	case silent.known && silent.after == 0 && silent.limit < 3*x.beat():
		f.Level = Warn
		f.Means = fmt.Sprintf("the way itself does not say who left; a failed heartbeat does, later than we waited (one is due each %s)", ms(x.beat()))
		f.Do = "wait longer to see it, with --idle; and " + x.product.advice(hides)
	case silent.known && silent.after == 0:
		f.Level = Warn
		f.Means = "in silent rooms the gateway does not learn who left; dead streams stay there until an event comes, or --max-age"
		f.Do = x.product.advice(hides)
	case silent.known && silent.after > soon:
		f.Level = Warn
		f.Means = "only the failed heartbeats tell: members of silent rooms seem present for so long"
		f.Do = "let clients say that they leave (DELETE /streams/{stream}); besides, " + x.product.advice(hides)
	}
	return f
}

func (l leave) String() string {
	if l.after == 0 {
		return fmt.Sprintf("not noticed within %s", ms(l.limit))
	}
	return "noticed after " + ms(l.after)
}

func after(l leave) any {
	if l.after == 0 {
		return nil
	}
	return round(l.after.Seconds())
}
