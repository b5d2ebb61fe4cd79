package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/fanout/redistest"
)

// chaosScenarios mix all faults of a topology by the seed.
func chaosScenarios() []*scenario {
	return []*scenario{
		{
			name: "chaos-single", row: "34", on: single, nodes: 3, fronts: true, redis: appendOnly("always"), short: true,
			fault: "everything at random, on one Redis that keeps what it acknowledged",
			load:  load{rooms: 20, readers: 10, rate: 400},
			run:   func(r *rig) { r.chaos(slices.Concat(clientFaults, nodeFaults, redisFaults)) },
		},
		{
			name: "chaos-lossy", row: "34", on: single, nodes: 3, fronts: true, redis: appendOnly("always"), lossy: true,
			fault: "the same, and power losses that take acknowledged events with them",
			load:  load{rooms: 20, readers: 10, rate: 400},
			run: func(r *rig) {
				r.chaos(slices.Concat(clientFaults, nodeFaults, redisFaults, []chaosFault{{"lose power", 0, func(r *rig, _ int, _ time.Duration) { powerLoss(r) }}}))
			},
		},
		{
			name: "chaos-sentinel", row: "34", on: sentinel, nodes: 3, fronts: true, lossy: true,
			fault: "everything at random, with failovers by Sentinel",
			load:  load{rooms: 20, readers: 10, rate: 400},
			run:   func(r *rig) { r.chaos(slices.Concat(clientFaults, nodeFaults, sentinelFaults)) },
		},
		{
			name: "chaos-cluster", row: "34", on: cluster, nodes: 3, fronts: true, lossy: true,
			fault: "everything at random, with failovers and moving slots of a Cluster",
			load:  load{rooms: 30, readers: 7, rate: 400},
			run:   func(r *rig) { r.chaos(slices.Concat(clientFaults, nodeFaults, clusterFaults)) },
		},
	}
}

// chaosFault is something that may befall a rig. which is drawn, and says to
// what; so is how long it lasts, up to longest.
type chaosFault struct {
	name    string
	longest time.Duration
	inject  func(r *rig, which int, lasts time.Duration)
}

var clientFaults = []chaosFault{
	{"cut a node's clients", 0, func(r *rig, which int, _ time.Duration) { r.front(which).Cut() }},
	{"blackhole a node's clients", 4 * time.Second, func(r *rig, which int, lasts time.Duration) {
		p := r.front(which)
		p.Blackhole(true)
		r.last(lasts)
		p.Heal()
	}},
	{"cut a reply to a publisher", 0, func(r *rig, which int, _ time.Duration) {
		r.front(which).CutReply(3, redistest.Contains("POST /rooms"))
	}},
	{"chop what clients get", 2 * time.Second, func(r *rig, which int, lasts time.Duration) {
		p := r.front(which)
		p.Chop(50, time.Millisecond)
		r.last(lasts)
		p.Heal()
	}},
}

var nodeFaults = []chaosFault{
	{"kill a node", time.Second, func(r *rig, which int, lasts time.Duration) {
		n := r.nodes[which%len(r.nodes)]
		n.kill()
		r.last(lasts)
		n.start()
	}},
	{"deploy a node", 0, func(r *rig, which int, _ time.Duration) {
		n := r.nodes[which%len(r.nodes)]
		n.stop()
		n.start()
	}},
	{"freeze a node", 5 * time.Second, func(r *rig, which int, lasts time.Duration) { r.nodes[which%len(r.nodes)].freeze(lasts) }},
}

var redisFaults = []chaosFault{
	{"kill Redis", 2 * time.Second, func(r *rig, _ int, lasts time.Duration) { r.killRedis(lasts) }},
	{"freeze Redis", 4 * time.Second, func(r *rig, _ int, lasts time.Duration) {
		r.store.server.Pause()
		r.last(lasts)
		r.store.server.Resume()
	}},
	{"cut the links to Redis", 0, func(r *rig, _ int, _ time.Duration) { r.store.proxy.Cut() }},
	{"blackhole Redis", 5 * time.Second, func(r *rig, _ int, lasts time.Duration) {
		r.store.proxy.Blackhole(true)
		r.last(lasts)
		r.store.proxy.Heal()
	}},
	{"hold what Redis says", 3 * time.Second, func(r *rig, _ int, lasts time.Duration) {
		r.store.proxy.HoldReplies(true)
		r.last(lasts)
		r.store.proxy.Heal()
	}},
	{"cut replies of Redis", 0, func(r *rig, which int, _ time.Duration) {
		r.store.proxy.CutReply(1+which%5, redistest.Command("evalsha"))
	}},
	{"drop messages", 0, func(r *rig, which int, _ time.Duration) {
		r.store.proxy.Drop(1+which%5, redistest.Contains("sluice:ch:"))
	}},
	{"chop what Redis says", time.Second, func(r *rig, which int, lasts time.Duration) {
		r.store.proxy.Chop(20+which%100, time.Millisecond)
		r.last(lasts)
		r.store.proxy.Heal()
	}},
	{"kill subscriptions", 0, func(r *rig, _ int, _ time.Duration) { r.store.server.Do("CLIENT", "KILL", "TYPE", "pubsub") }},
	{"forget scripts", 0, func(r *rig, _ int, _ time.Duration) { r.store.server.Do("SCRIPT", "FLUSH") }},
}

var sentinelFaults = []chaosFault{
	{"ask for a failover", 0, func(r *rig, _ int, _ time.Duration) {
		r.store.sentinels.Failover()
		r.store.sentinels.AwaitReady()
	}},
	{"kill the primary", 0, func(r *rig, _ int, _ time.Duration) {
		old := r.store.sentinels.KillPrimary()
		r.store.sentinels.AwaitFailover(old)
		old.Restart()
		r.store.sentinels.AwaitReady()
	}},
	{"kill subscriptions", 0, func(r *rig, _ int, _ time.Duration) {
		r.store.sentinels.Primary().Do("CLIENT", "KILL", "TYPE", "pubsub")
	}},
	{"forget scripts", 0, func(r *rig, _ int, _ time.Duration) { r.store.sentinels.Primary().Do("SCRIPT", "FLUSH") }},
}

var clusterFaults = []chaosFault{
	{"kill a master", 0, func(r *rig, which int, _ time.Duration) {
		c := r.store.cluster
		slot := c.SlotOf("{" + r.rooms[which%len(r.rooms)] + "}")
		old := c.KillMaster(slot)
		c.AwaitFailover(slot, old)
		old.Restart()
		c.AwaitReady()
	}},
	{"kill subscriptions", 0, func(r *rig, which int, _ time.Duration) {
		r.store.cluster.Nodes[which%len(r.store.cluster.Nodes)].Do("CLIENT", "KILL", "TYPE", "pubsub")
	}},
	{"move a slot", 0, func(r *rig, which int, _ time.Duration) { r.moveTo(r.rooms[which%len(r.rooms)], which) }},
	{"move slots", 0, func(r *rig, which int, _ time.Duration) {
		for i := range 5 {
			r.moveTo(r.rooms[(which+i)%len(r.rooms)], which+i)
		}
	}},
}

func (r *rig) front(which int) *redistest.Proxy { return r.nodes[which%len(r.nodes)].front }

// step is one fault of a chaos, and how long after the one before it begins.
type step struct {
	after, lasts time.Duration
	which        int
	fault        chaosFault
}

func (s step) String() string {
	return fmt.Sprintf("%v later: %s, %d, for %v", s.after.Round(time.Millisecond), s.fault.name, s.which, s.lasts.Round(time.Millisecond))
}

// schedule draws the faults of a chaos, all before the first begins: so they
// depend on the seed alone.
func (r *rig) schedule(whole time.Duration, faults []chaosFault) []step {
	var steps []step
	for at := time.Duration(0); at < whole; {
		f := faults[r.rng.IntN(len(faults))]
		s := step{after: 50*time.Millisecond + time.Duration(r.rng.Int64N(int64(800*time.Millisecond))), which: r.rng.IntN(1000), fault: f}
		if f.longest > 0 {
			s.lasts = 20*time.Millisecond + time.Duration(r.rng.Int64N(int64(f.longest)))
		}
		steps = append(steps, s)
		at += s.after + s.lasts
	}
	return steps
}

// chaos injects one drawn fault after the other.
func (r *rig) chaos(faults []chaosFault) {
	whole := r.scaled(90 * time.Second)
	if r.cfg.chaos > 0 {
		whole = r.cfg.chaos
	}
	steps := r.schedule(whole, faults)
	resident := r.resident()
	var names []string
	for _, s := range steps {
		r.cfg.say("       %v", s)
		r.last(s.after)
		s.fault.inject(r, s.which, s.lasts)
		r.injected.Add(1)
		if !slices.Contains(names, s.fault.name) {
			names = append(names, s.fault.name)
		}
	}
	for _, n := range r.nodes {
		n.front.Heal()
	}
	if r.store.proxy != nil {
		r.store.proxy.Heal()
	}
	r.note("seed %d, %d kinds of faults", r.cfg.seed, len(names))
	r.cfg.say("       %s", strings.Join(names, "; "))
	if r.cfg.chaos >= 10*time.Minute {
		r.note("resident memory of the nodes %v MB, then %v MB", resident, r.resident())
	}
}

// resident is the memory of each node, in MB.
func (r *rig) resident() (mb []int) {
	for _, n := range r.nodes {
		mb = append(mb, int(n.metric("process_resident_memory_bytes"))>>20)
	}
	return mb
}
