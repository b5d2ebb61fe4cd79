package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/fanout/redistest"
)

// config is what is the same for all scenarios of a run.
type config struct {
	binary string        // of sluice
	seed   uint64        // of everything that is drawn
	scale  float64       // of durations and numbers; 1 is the whole thing
	chaos  time.Duration // how long a chaos lasts, whatever the scale; 0 is as long as it says
	say    func(format string, args ...any)
}

// scenario is a set-up, a load, and what befalls it.
type scenario struct {
	name  string
	row   string // what it is called in the failure model
	fault string // in words
	on    topology

	nodes       int           // gateways; 2 if zero
	fronts      bool          // a proxy in front of each
	redis       []string      // arguments of redis-server
	env         []string      // settings of the nodes, "SLUICE_RETRY=1s"
	descriptors int           // that a node may have open; as many as the rig may if zero
	heartbeat   time.Duration // of streams; 2 s if zero
	load        load

	lossy    bool // Redis loses what it acknowledged, and says so to nobody
	trimming bool // rooms keep less than is published
	short    bool // belongs to the short form

	run   func(r *rig) // injects the faults while the load is on
	after func(r *rig) // looks at what came of it, once all have arrived
}

// load is who publishes and who reads meanwhile.
type load struct {
	rooms      int // 10 if zero
	readers    int // clients a room; 10 if zero
	publishers int // 4 if zero
	rate       int // events a second of all publishers; 300 if zero
	size       int // bytes of an event; 100 if zero
}

// rig is a scenario that runs.
type rig struct {
	redistest.T
	cfg      config
	scenario *scenario
	ctx      context.Context
	rng      *rand.Rand // the scenario's, for the goroutine that injects
	client   *http.Client
	store    *store
	nodes    []*node
	rooms    []string
	verdict  *verdict
	ledger   *ledger

	checkers      []*checker
	clients       sync.WaitGroup
	stopClients   context.CancelFunc
	clientsCtx    context.Context
	publishers    sync.WaitGroup
	stopPublisher chan struct{} // nil while nobody publishes
	heartbeat     time.Duration

	delivered, beats, degraded, restored, injected atomic.Int64
	delays                                         delays

	mu    sync.Mutex // guards the fields below
	gaps  map[string]int
	byes  map[string]int
	notes []string
}

// play runs a scenario and writes what came of it into res.
func play(t redistest.T, cfg config, s *scenario, res *result) {
	begun := time.Now()
	r := newRig(t, cfg, s)
	defer func() { r.report(res, time.Since(begun)) }()
	r.startCheckers()
	r.publish()
	s.run(r)
	r.hush()
	r.judge(res)
	if s.after != nil {
		s.after(r)
	}
	r.leftovers()
}

func newRig(t redistest.T, cfg config, s *scenario) *rig {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	r := &rig{
		T: t, cfg: cfg, scenario: s, ctx: ctx,
		rng:     newRNG(cfg.seed, s.name),
		client:  &http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}},
		verdict: &verdict{}, ledger: &ledger{rooms: map[string][]event{}},
		gaps: map[string]int{}, byes: map[string]int{}, heartbeat: cmp.Or(s.heartbeat, 2*time.Second),
	}
	r.clientsCtx, r.stopClients = context.WithCancel(ctx)
	t.Cleanup(func() {
		cancel()
		r.clients.Wait()
		r.publishers.Wait()
		r.client.CloseIdleConnections()
	})
	r.store = newStore(t, s)
	for range cmp.Or(s.nodes, 2) {
		r.nodes = append(r.nodes, r.newNode())
	}
	for i := range cmp.Or(s.load.rooms, 10) {
		r.rooms = append(r.rooms, fmt.Sprintf("fault:%02d", i))
	}
	return r
}

// newRNG gives what a scenario draws from.
func newRNG(seed uint64, name string) *rand.Rand { return rand.New(rand.NewPCG(seed, sum64(name))) }

// sum64 is a number that a name always has.
func sum64(name string) (n uint64) {
	for _, c := range []byte(name) {
		n = (n ^ uint64(c)) * 1099511628211
	}
	return n
}

// settings are those of a node: nothing is limited that the load would exceed,
// and heartbeats come often, so that silence is noticed soon.
func (r *rig) settings() []string {
	return append([]string{
		"SLUICE_HISTORY_EVENTS=200000", "SLUICE_HEARTBEAT=" + r.heartbeat.String(), "SLUICE_RETRY=1s", "SLUICE_WRITE_TIMEOUT=5s",
		"SLUICE_DRAIN=3s", "SLUICE_LOG_FORMAT=text", "SLUICE_LOG_LEVEL=warn",
		"SLUICE_PUBLISH_RATE=0", "SLUICE_NEW_ROOMS_RATE=0", "SLUICE_MAX_STREAMS_PER_IP=0", "SLUICE_MAX_STREAMS_PER_SUBJECT=0",
	}, r.scenario.env...)
}

// bases are where clients find the nodes, beginning with the i-th.
func (r *rig) bases(i int) []string {
	list := make([]string, len(r.nodes))
	for k := range list {
		list[k] = r.nodes[(i+k)%len(r.nodes)].base()
	}
	return list
}

// startCheckers sets the clients of the load to work and waits until all have a stream.
func (r *rig) startCheckers() {
	r.Helper()
	for i := range cmp.Or(r.scenario.load.readers, 10) {
		for k, room := range r.rooms {
			r.follow(&checker{name: fmt.Sprintf("client %d", i), room: room, bases: r.bases(i + k)})
		}
	}
	r.awaitOpen(r.checkers)
}

// follow sets a client to work.
func (r *rig) follow(c *checker) *checker {
	c.r = r
	r.checkers = append(r.checkers, c)
	r.send(c)
	return c
}

// send has a client go on where it was, until it leaves or all are sent home.
func (r *rig) send(c *checker) {
	ctx, leave := context.WithCancel(r.clientsCtx)
	gone := make(chan struct{})
	c.leave = func() { leave(); <-gone }
	r.clients.Go(func() {
		defer close(gone)
		defer leave()
		c.follow(ctx)
	})
}

func (r *rig) awaitOpen(checkers []*checker) {
	r.Helper()
	ok := r.await(60*time.Second, func() bool {
		for _, c := range checkers {
			if c.opens.Load() == 0 {
				return false
			}
		}
		return true
	})
	if !ok {
		r.Fatalf("not every client has got a stream")
	}
}

// await asks until it is so, and says whether it was within the limit.
func (r *rig) await(limit time.Duration, so func() bool) bool {
	for begun := time.Now(); !so(); {
		if time.Since(begun) > limit || r.ctx.Err() != nil {
			return false
		}
		time.Sleep(10 * time.Millisecond) // others' processes do not tell us
	}
	return true
}

// publish sets the publishers of the load to work.
func (r *rig) publish() {
	l := r.scenario.load
	n, rate := cmp.Or(l.publishers, 4), cmp.Or(l.rate, 300)
	stop := make(chan struct{})
	r.stopPublisher = stop
	for i := range n {
		turn := i * len(r.rooms) / n
		p := &publisher{
			r: r, name: fmt.Sprintf("p%d-%d", r.ledger.acked.Load(), i),
			bases: r.bases(i), rooms: slices.Concat(r.rooms[turn:], r.rooms[:turn]),
			interval: time.Duration(float64(time.Second) * float64(n) / float64(rate)), size: cmp.Or(l.size, 100),
		}
		r.publishers.Go(func() { p.run(r.ctx, stop) })
	}
}

// hush stops the publishers and returns when each of their events is
// acknowledged. There may be none.
func (r *rig) hush() {
	if r.stopPublisher != nil {
		close(r.stopPublisher)
		r.stopPublisher = nil
	}
	r.publishers.Wait()
}

// one publishes an event to a room and says how long that took.
func (r *rig) one(room string) time.Duration {
	begun := time.Now()
	p := &publisher{r: r, name: fmt.Sprintf("one-%d", r.ledger.acked.Load()), bases: r.bases(0), size: 100}
	p.name += fmt.Sprint("-", begun.UnixNano())
	p.publish(r.ctx, room)
	return time.Since(begun)
}

// last lets time pass: d of the whole thing.
func (r *rig) last(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
	}
}

// scaled is d of the whole thing, and less of a short form.
func (r *rig) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) * r.cfg.scale)
}

// repeat injects a fault every so often for a while, at least twice.
func (r *rig) repeat(whole, every time.Duration, inject func(i int)) {
	end := time.Now().Add(r.scaled(whole))
	for i := 0; time.Now().Before(end) || i < 2; i++ {
		r.last(every)
		inject(i)
		r.injected.Add(1)
	}
	r.last(every)
}

func (r *rig) countGap(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gaps[reason]++
}

func (r *rig) countBye(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byes[reason]++
}

// note adds to what is reported of the scenario.
func (r *rig) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// within fails the scenario if something took longer than promised.
func (r *rig) within(what string, took, promised time.Duration) {
	r.note("%s %.1f s", what, took.Seconds())
	if took > promised {
		r.verdict.wrong(other, "%s took %v, promised are %v", what, took.Round(time.Millisecond), promised)
	}
}

// settle waits until every client is where its room's log ends.
func (r *rig) settle(logs map[string]*history) {
	behind := func() (n int, first string) {
		for _, c := range r.checkers {
			if log := logs[c.room]; log != nil && len(log.events) > 0 && c.seen() != log.head() {
				if n++; n == 1 {
					first = fmt.Sprintf("%s is at %v of %v", c, c.seen(), log.head())
				}
			}
		}
		return n, first
	}
	if !r.await(30*time.Second, func() bool { n, _ := behind(); return n == 0 }) {
		n, first := behind()
		r.verdict.wrongBy(other, n, "%d clients did not arrive within 30 s: %s", n, first)
	}
}

// judge waits until all has arrived, sends the clients home and judges.
func (r *rig) judge(res *result) {
	logs := map[string]*history{}
	for _, room := range r.rooms {
		h, err := r.history(r.ctx, room)
		if err != nil {
			r.Fatalf("reading the log: %v", err)
		}
		logs[room] = h
	}
	r.settle(logs)
	r.stopClients()
	r.clients.Wait()
	j := newJudge(r.verdict, r.scenario, logs)
	j.acknowledged(r.ledger.rooms)
	for _, c := range r.checkers {
		j.checker(c)
	}
	res.LostByRedis, res.Explained = j.lostByRedis, j.explained
}

// leftovers checks that the nodes hold nothing of those who left.
func (r *rig) leftovers() {
	r.client.CloseIdleConnections()
	for _, n := range r.nodes {
		if !n.running() {
			continue
		}
		const slack = 20 // connections that a pool has grown by, and ours
		if !r.await(20*time.Second, func() bool { return n.metric("sluice_streams") == 0 }) {
			r.verdict.wrong(other, "%s has %.0f streams though all clients left", n.addr, n.metric("sluice_streams"))
		}
		if !r.await(10*time.Second, func() bool { return n.metric("go_goroutines") <= n.before+slack }) {
			r.verdict.wrong(other, "%s has %.0f goroutines, %.0f at first", n.addr, n.metric("go_goroutines"), n.before)
		}
	}
}

// gapsOf tells how many gaps were shown, by reason.
func (r *rig) gapsOf(reason string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gaps[reason]
}

// byesOf tells how many goodbyes were said, by reason.
func (r *rig) byesOf(reason string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byes[reason]
}

func (r *rig) report(res *result, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.verdict
	v.mu.Lock()
	defer v.mu.Unlock()
	s := r.scenario
	res.Name, res.Row, res.Fault, res.On, res.Seconds = s.name, s.row, s.fault, string(s.on), took.Seconds()
	res.Injected, res.Acknowledged, res.Delivered = int(r.injected.Load()), int(r.ledger.acked.Load()), int(r.delivered.Load())
	res.Retried = int(r.ledger.retried.Load())
	res.Clients = len(r.checkers)
	for _, c := range r.checkers {
		res.Reconnects += max(0, int(c.opens.Load())-1)
	}
	res.Lost, res.Doubled, res.Reordered, res.Altered = v.count[lost], v.count[doubled], v.count[reordered], v.count[altered]
	res.Unexplained, res.Other = v.count[unexplained], v.count[other]
	res.Note, res.Wrong = strings.Join(r.notes, ", "), v.words
}
