package fanout

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed scripts/publish.lua
var publishLua string

// publisher runs publish.lua for many callers at a time: what comes while
// earlier calls are under way goes out together, and through the script
// together, which shares what a command and a script cost by themselves. Nobody
// is held up for it: a publication that finds the way free leaves at once. It
// makes no goroutines; each batch is sent by one of those who wait for it.
type publisher struct {
	script *redis.Script
	apart  atomic.Bool // the keys of several rooms may not be in one call

	mu     sync.Mutex // guards the fields below
	queues map[*redis.Client]*publications
}

// publications is those to one server.
type publications struct {
	waiting []*publication
	flights int // batches under way
}

// publication is what one caller wants appended to one room.
type publication struct {
	settings *publishSettings
	keys     []string // the room's, and the idempotency keys
	args     []any    // how many events, then for each its record and its mark
	size     int      // bytes of the records
	until    time.Time

	answer string
	err    error
	turn   chan bool // true: the answer is there; false: send this one, and those that are waiting
}

// publishSettings are the arguments of publish.lua that stand before a new epoch:
// what there is to know of a room's retention.
type publishSettings struct{ command, keep, least, longest, memory, keys string }

// Bounds of a batch, so that an answer is not late because of the others, nor
// Redis held up for long; and of how many are under way: a second one keeps the
// server busy meanwhile.
const (
	maxCombined      = 64
	maxCombinedBytes = 1 << 20
	maxFlights       = 2
)

func newPublisher(apart bool) *publisher {
	p := &publisher{script: redis.NewScript(publishLua), queues: map[*redis.Client]*publications{}}
	p.apart.Store(apart)
	return p
}

// run publishes at a server. Like any command, it may have been executed
// although there is an error, but for those with which the server answers.
func (p *publisher) run(ctx context.Context, client *redis.Client, own *publication) error {
	q, free := p.join(client, own)
	if !free {
		select {
		case done := <-own.turn:
			if done {
				return own.err
			}
		case <-ctx.Done():
			p.giveUp(client, q, own)
			return context.Cause(ctx)
		}
	}
	runtime.Gosched() // who is about to publish goes along
	batch := p.take(q, own)
	// It is not the caller's alone; the client has a time-out of its own.
	p.send(context.WithoutCancel(ctx), client, batch)
	p.leave(client, q)
	for _, other := range batch[1:] {
		other.turn <- true
	}
	return own.err
}

// join lets a publication go at once, if the way is free; otherwise it waits.
func (p *publisher) join(client *redis.Client, own *publication) (q *publications, free bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q = p.queues[client]
	if q == nil {
		q = &publications{}
		p.queues[client] = q
	}
	if q.flights < maxFlights {
		q.flights++
		return q, true
	}
	own.turn = make(chan bool, 1)
	q.waiting = append(q.waiting, own)
	return q, false
}

// take gives the publications that go out next, own first.
func (p *publisher) take(q *publications, own *publication) []*publication {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, events, size := 0, own.events(), own.size
	for _, next := range q.waiting {
		events, size = events+next.events(), size+next.size
		if n == maxCombined-1 || events > batchEvents || size > maxCombinedBytes {
			break
		}
		n++
	}
	batch := append(make([]*publication, 0, n+1), own)
	batch = append(batch, q.waiting[:n]...)
	q.waiting = slices.Delete(q.waiting, 0, n)
	return batch
}

func (p *publication) events() int { return len(p.args) / 2 }

// leave ends a flight: the next one begins, or the queue is forgotten.
func (p *publisher) leave(client *redis.Client, q *publications) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaveLocked(client, q)
}

func (p *publisher) leaveLocked(client *redis.Client, q *publications) {
	now := time.Now()
	for len(q.waiting) > 0 {
		next := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		if now.After(next.until) {
			next.err = context.DeadlineExceeded
			next.turn <- true // there is room: who waits was told nothing yet
			continue
		}
		next.turn <- false
		return
	}
	if q.flights--; q.flights == 0 {
		delete(p.queues, client)
	}
}

// giveUp is for a publication that cannot wait any longer. Unless it was taken
// into a batch, it is not sent.
func (p *publisher) giveUp(client *redis.Client, q *publications, own *publication) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(q.waiting, own); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return
	}
	select {
	case done := <-own.turn:
		if !done {
			p.leaveLocked(client, q) // it was just told to begin a flight
		}
	default:
	}
}

// processor is a client, or one of its connections.
type processor interface {
	Process(ctx context.Context, cmd redis.Cmder) error
}

// send sends a batch and fills in its answers.
func (p *publisher) send(ctx context.Context, client *redis.Client, batch []*publication) {
	groups := p.sort(batch)
	calls := make([]*redis.StringSliceCmd, len(groups))
	if len(groups) == 1 {
		calls[0] = p.call(ctx, "evalsha", p.script.Hash(), batch)
		_ = client.Process(ctx, calls[0])
	} else {
		pipe := client.Pipeline()
		for i, group := range groups {
			calls[i] = p.call(ctx, "evalsha", p.script.Hash(), group)
			_ = pipe.Process(ctx, calls[i])
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
	}
	for i, group := range groups {
		p.settle(ctx, client, calls[i], group)
	}
}

// alone publishes at once, without others. It is run's equal in all else.
func (p *publisher) alone(ctx context.Context, c processor, own *publication) error {
	group := []*publication{own}
	call := p.call(ctx, "evalsha", p.script.Hash(), group)
	_ = c.Process(ctx, call)
	p.settle(ctx, c, call, group)
	return own.err
}

// sort gives the parts of a batch that may go through the script together.
func (p *publisher) sort(batch []*publication) [][]*publication {
	apart := p.apart.Load()
	together := func(a, b *publication) bool {
		return *a.settings == *b.settings && (!apart || a.keys[0] == b.keys[0])
	}
	if !slices.ContainsFunc(batch, func(one *publication) bool { return !together(batch[0], one) }) {
		return [][]*publication{batch}
	}
	var groups [][]*publication
	for _, one := range batch {
		i := slices.IndexFunc(groups, func(group []*publication) bool { return together(group[0], one) })
		if i < 0 {
			i, groups = len(groups), append(groups, nil)
		}
		groups[i] = append(groups[i], one)
	}
	return groups
}

// call makes the command that runs the script for a group. What an argument
// points to is what is sent.
func (p *publisher) call(ctx context.Context, command, script string, group []*publication) *redis.StringSliceCmd {
	keys, args := 0, 0
	for _, one := range group {
		keys, args = keys+len(one.keys), args+len(one.args)
	}
	s := group[0].settings
	list := append(make([]any, 0, 10+keys+args), command, script, keys)
	for _, one := range group {
		for i := range one.keys {
			list = append(list, &one.keys[i])
		}
	}
	list = append(list, &s.command, &s.keep, &s.least, &s.longest, &s.memory, &s.keys, newEpoch())
	for _, one := range group {
		list = append(list, one.args...)
	}
	return redis.NewStringSliceCmd(ctx, list...)
}

// settle takes the answers of a call that was sent. Where the server has not
// run the script, it is sent anew.
func (p *publisher) settle(ctx context.Context, c processor, call *redis.StringSliceCmd, group []*publication) {
	if redis.HasErrorPrefix(call.Err(), "NOSCRIPT") {
		call = p.call(ctx, "eval", publishLua, group)
		_ = c.Process(ctx, call)
	}
	answers, err := call.Result()
	foreign := redis.HasErrorPrefix(err, "CROSSSLOT")
	if len(group) > 1 && (foreign || redis.HasErrorPrefix(err, "NOPERM")) {
		// What looks like one server has its keys in several places, or the
		// fault is one publication's: each goes by itself, then.
		if foreign {
			p.apart.Store(true)
		}
		for _, one := range group {
			_ = p.alone(ctx, c, one)
		}
		return
	}
	if err == nil && len(answers) != len(group) {
		err = fmt.Errorf("Redis answered %d of %d publications", len(answers), len(group))
	}
	for i, one := range group {
		if one.err = err; err != nil {
			continue
		}
		one.answer = answers[i]
		if text, failed := strings.CutPrefix(one.answer, "!"); failed {
			one.err = scriptError(text)
		}
	}
}

// scriptError is an error of Redis's that the script met in one publication.
type scriptError string

func (e scriptError) Error() string { return string(e) }

// RedisError implements redis.Error.
func (scriptError) RedisError() {}

var _ redis.Error = scriptError("")

var errNoPosition = errors.New("Redis gave no position")
