package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/fanout/redistest"
)

// clientScenarios are about what happens between clients and nodes.
func clientScenarios() []*scenario {
	return []*scenario{
		{
			name: "clients-cut", row: "1", on: single, fronts: true, short: true,
			fault: "every client's connection cut, every 200 ms",
			load:  load{readers: 20},
			run: func(r *rig) {
				r.repeat(30*time.Second, 200*time.Millisecond, func(i int) { r.nodes[i%2].front.Cut() })
			},
		},
		{
			name: "clients-half-open", row: "2", on: single, fronts: true,
			fault: "a node's clients blackholed: nobody is told that the connections are dead",
			load:  load{rooms: 4, readers: 10, rate: 200, size: 16 << 10},
			run:   halfOpen,
		},
		{
			name: "slow-readers", row: "3", on: single,
			fault: "10 clients that read 1 KB/s, 2 that read nothing, among 200",
			load:  load{readers: 20, rate: 200, size: 1 << 10},
			run:   slowReaders,
		},
		{
			name: "silent-streams", row: "19", on: single, heartbeat: time.Second,
			fault: "nothing published: would anything on the way take the streams for idle?",
			load:  load{rooms: 10, readers: 10, rate: 1},
			run:   silence,
		},
		{
			name: "descriptors-run-out", row: "21", on: single, nodes: 1, descriptors: 256,
			fault: "400 more clients than a node has descriptors for",
			load:  load{rooms: 10, readers: 10, rate: 100},
			run:   tooMany,
		},
		{
			name: "join-while-live", row: "32", on: single, short: true,
			fault: "a client that joins in the middle: from the head, from the beginning, or from 10 events back",
			load:  load{rooms: 5, readers: 2, rate: 1000},
			run: func(r *rig) {
				r.repeat(20*time.Second, 20*time.Millisecond, func(i int) {
					begin := []string{"", "after=earliest", "last=10"}[i%3]
					r.follow(&checker{name: fmt.Sprintf("joiner %d", i), room: r.rooms[i%len(r.rooms)], bases: r.bases(i), begin: begin})
				})
			},
		},
		{
			name: "history-trimmed", row: "33", on: single, trimming: true, short: true,
			fault: "clients away for longer than the room keeps events (100)",
			env:   []string{"SLUICE_HISTORY_EVENTS=100"},
			load:  load{rooms: 4, readers: 10, rate: 400},
			run:   awayForLong,
			after: func(r *rig) {
				if got, want := r.gapsOf("trimmed"), len(r.rooms)*5; got != want {
					r.verdict.wrong(other, "%d gaps, want exactly %d: one for each client that was away", got, want)
				}
			},
		},
		{
			name: "publisher-never-told", row: "9", on: single, fronts: true, short: true,
			fault: "the connection cut between an event's appending and its acknowledgement to the publisher",
			run: func(r *rig) {
				r.repeat(20*time.Second, 50*time.Millisecond, func(i int) { r.nodes[i%2].front.CutReply(1, redistest.Contains("POST /rooms")) })
				r.injected.Store(int64(r.nodes[0].front.CutReplies() + r.nodes[1].front.CutReplies()))
			},
		},
		{
			name: "same-key-at-once", row: "25", on: single, nodes: 3, short: true,
			fault: "one key, sent 64 times at once to 3 nodes",
			run:   sameKey,
		},
	}
}

// halfOpen blackholes one node's clients; the node must find out by itself.
func halfOpen(r *rig) {
	dead := r.nodes[0]
	r.last(time.Second)
	dead.front.Blackhole(true)
	r.injected.Add(int64(len(r.checkers) / 2))
	begun := time.Now()
	if !r.await(45*time.Second, func() bool { return dead.metric("sluice_streams") == 0 }) {
		r.verdict.wrong(other, "after 45 s the node still has %.0f streams of clients that are out of reach", dead.metric("sluice_streams"))
	}
	r.note("given up after %.1f s", time.Since(begun).Seconds())
	dead.front.Heal()
	r.last(r.scaled(3 * time.Second))
}

// slowReaders compares what the others feel with and without the slow.
func slowReaders(r *rig) {
	r.last(r.scaled(6 * time.Second))
	before := r.delays.below(0.99)
	r.delays.reset()
	var slow []*checker
	for i := range 12 {
		c := &checker{name: fmt.Sprintf("slow client %d", i), room: r.rooms[i%len(r.rooms)], bases: r.bases(i), pace: 1 << 10}
		if i >= 10 {
			c.pace = 1 // as good as never
		}
		slow = append(slow, r.follow(c))
	}
	r.injected.Add(int64(len(slow)))
	r.last(r.scaled(20 * time.Second))
	r.note("99 %% of events within %v before, %v with them", before, r.delays.below(0.99))
	for _, c := range slow {
		c.calm.Store(true)
	}
}

// silence checks that something comes at least every heartbeat and a bit. A
// checker gives a stream up after patience heartbeats of silence, as a proxy
// with a short idle time-out would.
func silence(r *rig) {
	r.last(r.scaled(30 * time.Second))
	stalls := 0
	for _, c := range r.checkers {
		stalls += int(c.stalls.Load())
	}
	r.injected.Add(1)
	r.note("%d heartbeats, %d streams found silent for %.1f of them", r.beats.Load(), stalls, patience)
	if stalls > 0 {
		r.verdict.wrong(other, "%d streams were silent for %.1f heartbeats", stalls, patience)
	}
}

// tooMany opens more streams than there are descriptors. Whoever is in must
// not notice, and those who are not must be told to wait.
func tooMany(r *rig) {
	before := make([]int64, len(r.checkers))
	for i, c := range r.checkers {
		before[i] = c.opens.Load()
	}
	ctx, cancel := context.WithCancel(r.ctx)
	var late sync.WaitGroup
	defer late.Wait()
	defer cancel()
	for i := range 400 {
		// Nobody judges them: those who never got in have seen nothing.
		c := &checker{r: r, name: fmt.Sprintf("late client %d", i), room: r.rooms[i%len(r.rooms)], bases: r.bases(0)}
		late.Go(func() { c.follow(ctx) })
		r.injected.Add(1)
	}
	r.last(r.scaled(10 * time.Second))
	if took := r.one(r.rooms[0]); took > 5*time.Second {
		r.verdict.wrong(other, "publishing took %v", took)
	}
	for i, c := range r.checkers {
		if c.opens.Load() != before[i] {
			r.verdict.wrong(other, "%s lost its stream", c)
		}
	}
	r.note("%d times told to come back later", r.byesOf("overload"))
}

// awayForLong keeps half of the clients away while each room gets three times as
// many events as it keeps.
func awayForLong(r *rig) {
	const missed = 300
	r.last(time.Second)
	away := r.checkers[:len(r.checkers)/2]
	for _, c := range away {
		c.leave()
	}
	r.injected.Add(int64(len(away)))
	left := map[string]uint64{}
	for _, room := range r.rooms {
		left[room] = r.lastAcked(room).seq
	}
	r.last(r.scaled(6 * time.Second))
	if !r.await(time.Minute, func() bool {
		return !slices.ContainsFunc(r.rooms, func(room string) bool { return r.lastAcked(room).seq < left[room]+missed })
	}) {
		r.verdict.wrong(other, "within a minute some room got fewer than %d events", missed)
	}
	for _, c := range away {
		r.send(c)
	}
	r.last(time.Second)
}

// sameKey sends each of many keys by many publishers at once.
func sameKey(r *rig) {
	keys := int(300 * r.cfg.scale)
	for i := range keys {
		room, key := r.rooms[i%len(r.rooms)], fmt.Sprintf("shared-%d", i)
		data := fmt.Sprintf("%s %d shared", key, time.Now().UnixNano())
		places := make([]place, 64)
		var tasks sync.WaitGroup
		for k := range places {
			tasks.Go(func() {
				p := &publisher{r: r, bases: r.bases(k), base: k}
				at, err := p.insist(r.ctx, room, key, data)
				if err != nil {
					r.verdict.wrong(other, "%s: %v", key, err)
				}
				places[k] = at
			})
		}
		tasks.Wait()
		for _, at := range places {
			if at != places[0] {
				r.verdict.wrong(doubled, "%s was acknowledged as %v and as %v", key, places[0], at)
			}
		}
		r.ledger.write(room, event{places[0], sum([]byte(data))})
		r.injected.Add(1)
	}
}
