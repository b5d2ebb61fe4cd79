//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"sluice/cmd/sluice/internal/bench"
	"sluice/fanout/redistest"
)

// trial is one measurement of many clients in one room.
type trial struct {
	opt *options
	*layout
	ctx  context.Context
	t    redistest.T
	line *status

	id      string
	clock   time.Time
	cluster *cluster
	crowds  []*crowd
	sent    uint32
	res     *crowdResult
}

func newTrial(ctx context.Context, t redistest.T, o *options, l *layout, line *status) *trial {
	return &trial{
		opt: o, layout: l, ctx: ctx, t: t, line: line,
		id: fmt.Sprintf("%08x", rand.Uint32()), clock: time.Now(),
		res: &crowdResult{Kind: "crowd", Streams: l.streams, Nodes: l.nodes, Crowds: l.crowds, Payload: o.payload, Heartbeat: o.heartbeat.Seconds()},
	}
}

// run takes all the steps. What there is of a result is returned with an error, too.
func (x *trial) run() (*crowdResult, error) {
	x.line.show("starting", "a Redis and %d nodes", x.nodes)
	var err error
	if x.cluster, err = startCluster(x.ctx, x.t, x.opt.binary, x.nodes, "--heartbeat", x.opt.heartbeat.String()); err != nil {
		return nil, err
	}
	for _, step := range []func() error{x.connect, x.rest, x.tellAll, x.killOne, x.judge} {
		if err := step(); err != nil {
			return x.res, err
		}
	}
	return x.res, nil
}

// connect opens all streams, and says what they take.
func (x *trial) connect() error {
	if err := x.settle(); err != nil {
		return err
	}
	before := memoryOf(x.cluster.pids(), nil)
	x.res.NodeEmpty = before.nodes / int64(x.nodes)
	began := time.Now()
	asked := 0 // streams
	for i := range x.layout.crowds {
		streams := min(x.perCrowd, x.streams-i*x.perCrowd)
		asked += streams
		c, err := startCrowd(x.t, order{
			Nodes: rotate(x.cluster.addrs(), i), ID: x.id, Clock: x.clock.UnixNano(),
			Streams: streams, FirstSource: i * sources(x.perCrowd), Payload: x.opt.payload,
		})
		if err != nil {
			return err
		}
		x.crowds = append(x.crowds, c)
		// The next ones begin before the last is done: a few stragglers do not hold all others up.
		if err := x.await("connecting", func(all word, _ int) bool { return asked-int(all.Open) < x.perCrowd }); err != nil {
			return err
		}
	}
	if err := x.await("connecting", func(all word, opening int) bool { return opening == 0 }); err != nil {
		return err
	}
	x.res.ConnectSeconds = time.Since(began).Seconds()
	if all, _ := x.words(); all.Open < int64(x.streams) {
		return fmt.Errorf("%d of %d streams are open: %v", all.Open, x.streams, all.Errors)
	}
	if err := x.settle(); err != nil {
		return err
	}
	x.weigh(before)
	return nil
}

// rotate begins elsewhere in a list, so that the first streams of all crowds
// are not the same node's.
func rotate[S any](list []S, by int) []S {
	by %= len(list)
	return slices.Concat(list[by:], list[:by])
}

// settle waits until memory shows what is needed.
func (x *trial) settle() error {
	for range 2 { // what has a finalizer goes the second time
		if err := x.cluster.collectGarbage(x.ctx); err != nil {
			return err
		}
	}
	return x.sleep(x.opt.pause)
}

func (x *trial) sleep(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-x.ctx.Done():
		return context.Cause(x.ctx)
	}
}

func (x *trial) weigh(before memory) {
	now := memoryOf(x.cluster.pids(), x.crowdPids())
	took := now.since(before)
	per := func(bytes int64) int64 { return bytes / int64(x.streams) }
	x.res.Node, x.res.NodeRSS = now.nodes/int64(x.nodes), now.rss/int64(x.nodes)
	x.res.Stream, x.res.Client, x.res.Kernel = per(took.nodes), per(took.crowds), per(took.slab+took.tcp)
	x.res.Machine = now.nodes + now.crowds + took.slab + took.tcp
}

func (x *trial) crowdPids() (pids []int) {
	for _, c := range x.crowds {
		pids = append(pids, c.cmd.Process.Pid)
	}
	return pids
}

// rest measures what idle streams cost: each is sent one heartbeat.
func (x *trial) rest() error {
	x.line.show("resting", "%v, in which each stream is sent a heartbeat", x.opt.heartbeat)
	cpu, began := cpuOf(x.cluster.pids()...), time.Now()
	if err := x.sleep(x.opt.heartbeat); err != nil {
		return err
	}
	took := time.Since(began).Seconds() / x.opt.heartbeat.Seconds()
	x.res.HeartbeatCPU = micros(cpuOf(x.cluster.pids()...)-cpu) / float64(x.streams) / took
	return nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// tellAll sends messages to all, each when the last one is everywhere.
func (x *trial) tellAll() error {
	for i := range x.opt.messages {
		told, err := x.tell(x.cluster.nodes[i%x.nodes])
		if err != nil {
			return err
		}
		x.res.Messages = append(x.res.Messages, told)
	}
	return nil
}

// tell publishes a message and waits until all have it.
func (x *trial) tell(at *node) (told, error) {
	cpu, redis := cpuOf(x.cluster.pids()...), cpuOf(x.cluster.redis)
	posted, err := x.post(at)
	if err != nil {
		return told{}, err
	}
	answered := time.Since(x.clock)
	if err := x.awaitDelivery(); err != nil {
		return told{}, err
	}
	all, _ := x.words()
	last := all.Last - posted
	return told{
		Answered: (answered - posted).Seconds(), Seconds: last.Seconds(),
		CPU: micros(cpuOf(x.cluster.pids()...)-cpu) / float64(x.streams), RedisCPU: micros(cpuOf(x.cluster.redis)-redis) / float64(x.streams),
	}, nil
}

// post publishes the next message.
func (x *trial) post(at *node) (when time.Duration, err error) {
	x.sent++
	when = time.Since(x.clock)
	return when, at.publish(x.ctx, roomName+"-0", bench.Message(x.id, x.opt.payload, x.sent, when))
}

// awaitDelivery returns when every stream has every message, or nothing comes
// any more, which is for judge to tell.
func (x *trial) awaitDelivery() error {
	best, since := int64(-1), time.Now()
	return x.await("delivering", func(all word, _ int) bool {
		if all.Delivered > best {
			best, since = all.Delivered, time.Now()
		}
		return all.Delivered >= int64(x.sent)*int64(x.streams) || time.Since(since) > silence
	})
}

// silence is how long nothing may come until what is missing is lost.
const silence = 20 * time.Second

// killOne kills a node, publishes while its streams are away, and waits until
// they are back elsewhere and have what they missed.
func (x *trial) killOne() error {
	dead := x.cluster.nodes[0]
	x.line.show("killing", "the node at %v", dead.addr)
	before, _ := x.words()
	began := time.Now()
	dead.kill()
	x.cluster.nodes = x.cluster.nodes[1:]
	if _, err := x.post(x.cluster.nodes[0]); err != nil {
		return err
	}
	moved := int64(0)
	back := func(all word, _ int) bool {
		moved = all.Resumed - before.Resumed
		return all.Open == int64(x.streams) && moved >= int64(x.streams/x.nodes)
	}
	if err := x.await("coming back", back); err != nil {
		return err
	}
	x.res.Moved, x.res.MovedSeconds = moved, time.Since(began).Seconds()
	if err := x.awaitDelivery(); err != nil {
		return err
	}
	_, err := x.tell(x.cluster.nodes[len(x.cluster.nodes)-1]) // and they are there, too
	return err
}

// judge asks the crowds what they have got.
func (x *trial) judge() error {
	for _, c := range x.crowds {
		if err := c.tell(x.sent); err != nil {
			return err
		}
	}
	if err := x.await("judging", func(all word, _ int) bool { return all.Sent == x.sent }); err != nil {
		return err
	}
	all, _ := x.words()
	r := x.res
	r.Sent, r.Delivered = x.sent, all.Delivered
	r.Lost, r.Doubled, r.Reordered, r.Corrupt, r.Announced = all.Lost, all.Doubled, all.Reordered, all.Corrupt, all.Announced
	r.Errors = all.Errors
	r.P50, r.P99 = all.Latency.P50, all.Latency.P99
	if r.Lost+r.Doubled+r.Reordered+r.Corrupt > 0 || r.Delivered != int64(x.sent)*int64(x.streams) {
		return errors.New("not every stream has got every message once, whole and in order")
	}
	return nil
}

// words adds up what the crowds said last. The question is the one that all
// have answered; the quantiles are the worst of a crowd.
func (x *trial) words() (all word, opening int) {
	all.Errors = map[string]int64{}
	all.Sent = x.sent
	for _, c := range x.crowds {
		w := c.word()
		if !w.Whole {
			opening++
		}
		all.Open += w.Open
		all.Resumed += w.Resumed
		all.Delivered += w.Delivered
		all.Reordered += w.Reordered
		all.Doubled += w.Doubled
		all.Corrupt += w.Corrupt
		all.Announced += w.Announced
		all.Lost += w.Lost
		all.Last = max(all.Last, w.Last)
		all.Sent = min(all.Sent, w.Sent)
		all.Latency.P50, all.Latency.P99 = max(all.Latency.P50, w.Latency.P50), max(all.Latency.P99, w.Latency.P99)
		for text, n := range w.Errors {
			all.Errors[text] += n
		}
	}
	return all, opening
}

// await waits until the crowds are as they should be, and fails if one of them
// has ended, a node has, or memory runs out.
func (x *trial) await(stage string, done func(all word, opening int) bool) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		all, opening := x.words()
		x.line.show(stage, "%d of %d streams open, %d messages delivered", all.Open, x.streams, all.Delivered)
		if done(all, opening) {
			return nil
		}
		for i, c := range x.crowds {
			if !c.running() {
				return fmt.Errorf("crowd %d ended; it said: %s", i, &c.said)
			}
		}
		for _, n := range x.cluster.nodes {
			select {
			case <-n.done:
				return fmt.Errorf("the node at %v ended by itself", n.addr)
			default:
			}
		}
		if left := meminfo()["MemAvailable"]; left < int64(x.opt.leave*(1<<29)) {
			return fmt.Errorf("only %s of memory are left with %d streams open; -streams %s would be safe",
				size(left), all.Open, strconv.FormatInt(all.Open*8/10/1000*1000, 10))
		}
		select {
		case <-ticker.C:
		case <-x.ctx.Done():
			return context.Cause(x.ctx)
		}
	}
}
