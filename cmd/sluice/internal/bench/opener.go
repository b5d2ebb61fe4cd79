package bench

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// opener decides when which stream is opened: so many at a time, so many a
// second, and those that ended not before the pause the server asked for.
type opener struct {
	engine engine
	now    func() time.Duration
	gap    time.Duration // between two openings
	slots  chan struct{} // one for each stream that is being opened
	wake   chan struct{} // something came to the front of the queue

	mu    sync.Mutex // guards queue
	queue queue
}

// due is a stream and when it may be opened.
type due struct {
	at     time.Duration
	stream *stream
}

// queue is a heap by time, and by index among equals.
type queue []due

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].stream.index < q[j].stream.index
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(due)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

func newOpener(e engine, c *Config, now func() time.Duration) *opener {
	o := &opener{engine: e, now: now, slots: make(chan struct{}, c.Connecting), wake: make(chan struct{}, 1)}
	if c.ConnectRate > 0 {
		o.gap = time.Duration(float64(time.Second) / c.ConnectRate)
	}
	return o
}

// add queues s. It does not block.
func (o *opener) add(s *stream, at time.Duration) {
	o.mu.Lock()
	heap.Push(&o.queue, due{at, s})
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// release gives back the slot of a stream that is open, or failed to open.
func (o *opener) release() { <-o.slots }

// run opens streams until ctx ends.
func (o *opener) run(ctx context.Context) {
	var free time.Duration // when the rate allows the next one
	for {
		s := o.next(ctx)
		if s == nil || !sleep(ctx, free-o.now()) {
			return
		}
		free = max(free, o.now()-100*time.Millisecond) + o.gap
		select {
		case <-ctx.Done():
			return
		case o.slots <- struct{}{}:
		}
		s.began = o.now()
		o.engine.open(s)
	}
}

// next waits for a stream that is due; nil once ctx has ended.
func (o *opener) next(ctx context.Context) *stream {
	for ctx.Err() == nil {
		wait := time.Hour
		o.mu.Lock()
		if len(o.queue) > 0 {
			wait = o.queue[0].at - o.now()
		}
		if wait <= 0 {
			s := heap.Pop(&o.queue).(due).stream
			o.mu.Unlock()
			return s
		}
		o.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-o.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// sleep waits for d, and says whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
