package fanout

import (
	"context"
	"slices"
	"sync"

	"github.com/redis/go-redis/v9"
)

// combiner runs a script for many callers at a time: what is called while
// earlier calls are under way goes out together, in one write, and the answers
// come back in one read. Nobody is held up for it: a call that finds the way
// free leaves at once. It makes no goroutines; each batch is sent by one of
// those who wait for it.
type combiner struct {
	script *redis.Script

	mu     sync.Mutex // guards the fields below
	queues map[*redis.Client]*callQueue
}

// callQueue is the calls to one server.
type callQueue struct {
	waiting []*call
	flights int // batches under way
}

type call struct {
	keys   []string
	args   []any
	answer []any
	err    error
	turn   chan bool // true: the answer is there; false: send this call, and those that are waiting
}

// Bounds of a batch, so that an answer is not late because of the others, and
// of how many are under way: a second one keeps the server busy meanwhile.
const (
	maxCombined = 64
	maxFlights  = 2
)

func newCombiner(script *redis.Script) *combiner {
	return &combiner{script: script, queues: map[*redis.Client]*callQueue{}}
}

// run runs the script on a server. Like any command, it may have been executed
// although there is an error, but for those with which the server answers.
func (c *combiner) run(ctx context.Context, client *redis.Client, keys []string, args []any) ([]any, error) {
	own := &call{keys: keys, args: args, turn: make(chan bool, 1)}
	q, free := c.join(client, own)
	if !free {
		select {
		case done := <-own.turn:
			if done {
				return own.answer, own.err
			}
		case <-ctx.Done():
			c.giveUp(client, q, own)
			return nil, context.Cause(ctx)
		}
	}
	batch := c.take(q, own)
	c.send(ctx, client, batch)
	c.leave(client, q)
	for _, other := range batch[1:] {
		other.turn <- true
	}
	return own.answer, own.err
}

// join lets a call go at once, if the way is free; otherwise it waits.
func (c *combiner) join(client *redis.Client, own *call) (q *callQueue, free bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q = c.queues[client]
	if q == nil {
		q = &callQueue{}
		c.queues[client] = q
	}
	if q.flights < maxFlights {
		q.flights++
		return q, true
	}
	q.waiting = append(q.waiting, own)
	return q, false
}

// take gives the calls that go out next, own first.
func (c *combiner) take(q *callQueue, own *call) []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(q.waiting), maxCombined-1)
	batch := append(make([]*call, 0, n+1), own)
	batch = append(batch, q.waiting[:n]...)
	q.waiting = slices.Delete(q.waiting, 0, n)
	return batch
}

// leave ends a flight: the next one begins, or the queue is forgotten.
func (c *combiner) leave(client *redis.Client, q *callQueue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaveLocked(client, q)
}

func (c *combiner) leaveLocked(client *redis.Client, q *callQueue) {
	if len(q.waiting) > 0 {
		q.waiting[0].turn <- false // there is room: who waits was told nothing yet
		q.waiting = slices.Delete(q.waiting, 0, 1)
		return
	}
	if q.flights--; q.flights == 0 {
		delete(c.queues, client)
	}
}

// giveUp is for a call that cannot wait any longer. Unless it was taken into a
// batch, it is not sent.
func (c *combiner) giveUp(client *redis.Client, q *callQueue, own *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(q.waiting, own); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return
	}
	select {
	case done := <-own.turn:
		if !done {
			c.leaveLocked(client, q) // it was just told to begin a flight
		}
	default:
	}
}

// send sends a batch and fills in its answers.
func (c *combiner) send(ctx context.Context, client *redis.Client, batch []*call) {
	ctx = context.WithoutCancel(ctx) // it is not the caller's alone; the client has a time-out of its own
	if len(batch) == 1 {
		only := batch[0]
		only.answer, only.err = c.script.Run(ctx, client, only.keys, only.args...).Slice()
		return
	}
	pipe := client.Pipeline()
	answers := make([]*redis.Cmd, len(batch))
	for i, call := range batch {
		answers[i] = c.script.EvalSha(ctx, pipe, call.keys, call.args...)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, call := range batch {
		call.answer, call.err = answers[i].Slice()
		if redis.HasErrorPrefix(call.err, "NOSCRIPT") { // it was not executed
			call.answer, call.err = c.script.Eval(ctx, client, call.keys, call.args...).Slice()
		}
	}
}
