package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// simWorld is nodes, clients and publishers around one log, and the scheduler
// that decides what happens next. Everything that it decides comes from rng.
type simWorld struct {
	seed    uint64
	rng     *rand.Rand
	net     *simNet
	server  *simServer
	truth   *simTruth
	rooms   []string
	nodes   []*simHub
	clients []*simClient
	drafts  int
	retries []*simPublication
	lines   []string
	begun   time.Time
	step    int

	actions []simAction
	weights int
	strays  map[*simLog][]simMessage

	mu   sync.Mutex // guards done
	done []*simPublication
}

// simHub is a hub that can be ended and begun anew.
type simHub struct {
	log    *simLog
	hub    *Hub
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

// simPublication is a POST.
type simPublication struct {
	room     string
	drafts   []Draft
	receipts []Receipt
	err      error
}

type simAction struct {
	name   string
	weight int
	do     func() bool // false if there was nothing to do
}

func (w *simWorld) trace(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf("%4d %9v  ", w.step, time.Since(w.begun).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (w *simWorld) chance(percent int) bool { return w.rng.IntN(100) < percent }

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// newSimWorld builds what the seed asks for. It runs in a bubble.
func newSimWorld(seed uint64, mutate func(*simWorld)) *simWorld {
	rng := rand.New(rand.NewPCG(seed, 0x51))
	w := &simWorld{seed: seed, rng: rng, begun: time.Now(), strays: map[*simLog][]simMessage{}}
	keep := Retention{Events: pick(rng, 5, 12, 40), Age: pick(rng, 30*time.Second, time.Hour), Keys: time.Hour}
	w.server = newSimServer(keep)
	w.truth = w.server.truth
	w.server.pageBytes = pick(rng, 1, 150, maxPageBytes)
	if w.chance(20) {
		w.server.lineageBytes, w.truth.capped = 20, true
	}
	w.net = newSimNet(w.server)
	w.net.batch = pick(rng, 2, 100)
	w.rooms = []string{"a", "b", "c"}[:1+rng.IntN(3)]
	if w.chance(30) {
		w.longAgo()
	}
	opt := Options{RingEvents: pick(rng, 2, 4, 8, 16), Linger: 2 * time.Second, Keep: keep, Logger: quiet}
	drops := w.chance(50)
	if !drops {
		opt.Check = 24 * time.Hour // nothing but the feed tells
	}
	for range 1 + rng.IntN(3) {
		n := &simHub{log: w.net.node()}
		w.nodes = append(w.nodes, n)
		w.start(n, opt)
	}
	for i := range 2 + rng.IntN(6) {
		w.clients = append(w.clients, w.newClient(i))
	}
	w.choose(drops, opt)
	w.trace("%d nodes, rooms %v, %d clients, keep %d for %v, ring %d, page %d bytes, batch %d, check %v", len(w.nodes), w.rooms, len(w.clients), keep.Events, keep.Age, opt.RingEvents, w.server.pageBytes, w.net.batch, opt.Check)
	if mutate != nil {
		mutate(w)
	}
	return w
}

// longAgo gives the first room a past, so that its numbers pass from one page to the next.
func (w *simWorld) longAgo() {
	seq := uint64(pageEvents - 1 - w.rng.IntN(30))
	epoch := w.server.newEpoch()
	e := Event{Position: Position{epoch, seq}, Room: w.rooms[0]}
	n := w.truth.append(w.truth.root(e.Room), e, &Draft{Data: []byte("long ago")})
	n.gone = true
	now := time.Now()
	w.server.set(e.Room, &simRoom{epoch: epoch, seq: seq, run: w.server.run, lineage: Lineage{{Epoch: epoch, Start: 1}}, head: n,
		logEnds: now.Add(w.server.keep.Age), metaEnds: now.Add(w.server.keep.memory())})
	w.server.undo = nil
}

func (w *simWorld) start(n *simHub, opt Options) {
	n.hub = NewHub(n.log, opt)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.tasks.Go(func() { _ = n.hub.Run(ctx) })
	<-n.log.ran
	n.log.connect()
}

func (w *simWorld) newClient(i int) *simClient {
	c := &simClient{
		name: fmt.Sprintf("c%d", i), truth: w.truth, trace: w.trace,
		at: map[string]*simNode{}, seen: map[string]bool{}, expected: map[string]Position{},
	}
	c.rooms = []string{pick(w.rng, w.rooms...)}
	c.opt.Format = pick(w.rng, Raw, Envelope)
	if w.chance(30) {
		c.rooms, c.opt.Format = w.rooms, Envelope
		if len(w.rooms) == 1 {
			c.opt.Format = Raw
		}
	}
	if w.chance(25) {
		c.opt.Types = []string{"x"}
	}
	c.opt.Beats = w.chance(20)
	return c
}

// choose gives each kind of step a weight. Each seed has some of the faults
// only, so that some go far without being covered up by others.
func (w *simWorld) choose(drops bool, opt Options) {
	usual := []simAction{
		{"publish", 14, w.publish},
		{"serve", 24, w.serve},
		{"deliver", 24, w.deliver},
		{"tell", 10, w.tell},
		{"connect", 6, w.connect},
		{"open", 8, w.open},
		{"wait", 6, w.wait},
		{"calm", 3, w.calm},
	}
	faults := []simAction{
		{"hang up", 4, w.hangUp},
		{"stall", 3, w.stall},
		{"go on", 4, w.goOn},
		{"fail", 4, w.fail},
		{"fail late", 3, w.failLate},
		{"execute", 6, w.execute},
		{"duplicate", 2, w.duplicate},
		{"lose", 2, w.lose},
		{"move", 2, w.move},
		{"go deaf", 2, w.goDeaf},
		{"down", 1, w.toggleDown},
		{"restart", 1, func() bool { return w.restart(0) }},
		{"fail over", 2, func() bool { return w.restart(1 + w.rng.IntN(8)) }},
		{"wipe", 1, func() bool { return w.restart(-1) }},
		{"purge", 1, w.purge},
		{"expire", 1, w.expire},
		{"pass", 3, w.broadcast},
		{"nudge", 1, w.spurious},
		{"crash", 1, func() bool { return w.crash(opt) }},
		{"flood", 1, w.flood},
	}
	if drops {
		// Nobody tells of these; silent rooms have to be compared with the log.
		faults = append(faults, simAction{"drop", 3, w.drop}, simAction{"evict", 1, w.evict})
	}
	w.actions = usual
	for _, a := range faults {
		if w.chance(55) {
			w.actions = append(w.actions, a)
		}
	}
	for _, a := range w.actions {
		w.weights += a.weight
	}
}

// run takes the steps, heals everything, and waits until nothing is due.
func (w *simWorld) run(steps int) {
	for w.step = range steps {
		k := w.rng.IntN(w.weights)
		for _, a := range w.actions {
			if k -= a.weight; k < 0 {
				a.do()
				break
			}
		}
		w.settle()
		if len(w.truth.wrong) > 0 {
			return
		}
	}
	w.heal()
}

// settle lets all goroutines do what they can, then looks at what came of it.
func (w *simWorld) settle() {
	synctest.Wait()
	for _, c := range w.clients {
		c.look()
	}
	w.mu.Lock()
	done := w.done
	w.done = nil
	w.mu.Unlock()
	slices.SortFunc(done, func(a, b *simPublication) int {
		return strings.Compare(string(a.drafts[0].Data), string(b.drafts[0].Data))
	})
	for _, p := range done {
		w.answered(p)
	}
}

// answered takes note of what a publisher was told. It tries again what has a key.
func (w *simWorld) answered(p *simPublication) {
	w.trace("publishing %s of %s: %d of %d, %v", p.drafts[0].Data, p.room, len(p.receipts), len(p.drafts), p.err)
	for i, r := range p.receipts {
		w.truth.acknowledged(p.room, &p.drafts[i], r)
	}
	left := p.drafts[len(p.receipts):]
	if p.err == nil && len(left) > 0 || p.err != nil && !errors.Is(p.err, ErrUnavailable) {
		w.truth.complain("publishing %q gives %d receipts and %v", p.drafts[0].Data, len(p.receipts), p.err)
	}
	left = slices.DeleteFunc(slices.Clone(left), func(d Draft) bool { return d.Key == "" })
	if len(left) > 0 {
		w.retries = append(w.retries, &simPublication{room: p.room, drafts: left})
	}
}

// heal ends all faults, and holds everybody to the promise that they get to the head.
func (w *simWorld) heal() {
	w.step++
	w.trace("all is healed")
	for _, n := range w.nodes {
		if n.log.session == nil || n.log.session.deaf {
			w.lost(n.log)
			n.log.connect()
		}
		n.log.setDown(false)
	}
	for _, c := range w.clients {
		if c.simConn != nil {
			c.goOn()
		}
	}
	w.settle()
	for range 12 {
		w.serveAll()
		for _, c := range w.clients {
			if c.simConn == nil {
				w.connectClient(c, w.rng.IntN(len(w.nodes)))
			}
		}
		w.rest(2*time.Second, 100*time.Millisecond)
		w.rest(3*time.Second, 1500*time.Millisecond)
		if len(w.truth.wrong) > 0 {
			return
		}
	}
	w.serveAll()
	w.final()
}

// rest lets time pass in which all is served at once, or soon.
func (w *simWorld) rest(d, within time.Duration) {
	for range d / within {
		w.serveAll()
		time.Sleep(within)
	}
	w.serveAll()
}

// serveAll serves whatever comes, until nothing does.
func (w *simWorld) serveAll() {
	for range 1000 {
		w.settle()
		busy := false
		for _, op := range slices.Clone(w.net.pending()) {
			op.finish()
			busy = true
		}
		for _, n := range w.nodes {
			for _, room := range n.log.asked() {
				if n.log.session != nil && !n.log.session.deaf {
					n.log.tell(room)
					busy = true
				}
			}
			for s := n.log.session; s != nil && len(s.queue) > 0; busy = true {
				n.log.deliver()
			}
		}
		if !busy {
			return
		}
	}
	for _, op := range w.net.pending() {
		w.trace("%s: still asks to %s", op.node.name(), op.what)
	}
	w.truth.complain("the nodes never come to rest")
}

// finish executes and answers a call, as if nothing had ever happened.
func (op *simOp) finish() {
	if !op.executed {
		op.execute()
	}
	op.reply(op.result)
}

// final says what is wrong with the end.
func (w *simWorld) final() {
	now := time.Now()
	for _, room := range w.rooms {
		head := w.truth.root(room)
		if r := w.server.meta(room, now); r != nil {
			head = r.head
		}
		w.truth.once(head)
		for _, c := range w.clients {
			if slices.Contains(c.rooms, room) && c.at[room] != head {
				w.complainLate(c, room, head)
			}
		}
	}
	for _, c := range w.clients {
		if c.degraded {
			w.truth.complain("%s was never told that the outage is over", c.name)
		}
	}
}

func (w *simWorld) complainLate(c *simClient, room string, head *simNode) {
	at := Position{}
	if n := c.at[room]; n != nil {
		at = n.pos
	}
	w.truth.complain("%s is at %v of %s in the end, and the head is %v", c.name, at, room, head.pos)
}

// stop ends everything, so that the bubble can.
func (w *simWorld) stop() {
	for _, c := range w.clients {
		if c.simConn != nil {
			c.hangUp()
		}
	}
	for _, n := range w.nodes {
		n.cancel()
	}
	for _, n := range w.nodes {
		n.tasks.Wait()
	}
	time.Sleep(time.Minute) // whoever still waits gives up
}
