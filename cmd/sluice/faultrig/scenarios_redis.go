package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"sluice/fanout/redistest"
)

// appendOnly has Redis write all to a file: always syncing it before it
// answers, or each second.
func appendOnly(fsync string) []string {
	return []string{"--appendonly", "yes", "--appendfsync", fsync}
}

// redisScenarios are about one Redis that keeps what it acknowledged.
func redisScenarios() []*scenario {
	return []*scenario{
		{
			name: "redis-killed-always", row: "6", on: single, redis: appendOnly("always"), short: true,
			fault: "Redis ended by SIGKILL, and started again; appendfsync always",
			run: func(r *rig) {
				r.repeat(30*time.Second, 2*time.Second, func(int) { r.killRedis(500 * time.Millisecond) })
			},
		},
		{
			name: "redis-killed-everysec", row: "6", on: single, redis: appendOnly("everysec"),
			fault: "Redis ended by SIGKILL, and started again; appendfsync everysec",
			run: func(r *rig) {
				r.repeat(30*time.Second, 2*time.Second, func(int) { r.killRedis(500 * time.Millisecond) })
			},
		},
		{
			name: "redis-stopped", row: "18", on: single,
			fault: "Redis frozen (SIGSTOP) for 0.1 to 5 s",
			run: func(r *rig) {
				r.repeat(30*time.Second, time.Second, func(int) {
					r.store.server.Pause()
					r.last(100*time.Millisecond + time.Duration(r.rng.Int64N(int64(5*time.Second))))
					r.store.server.Resume()
				})
			},
		},
		{
			name: "appended-never-told", row: "9", on: single, short: true,
			fault: "the connection to Redis cut between the script and its reply",
			run: func(r *rig) {
				r.repeat(20*time.Second, 50*time.Millisecond, func(int) { r.store.proxy.CutReply(1, redistest.Command("evalsha")) })
				r.injected.Store(int64(r.store.proxy.CutReplies()))
			},
		},
		{
			name: "redis-links-cut", row: "10", on: single,
			fault: "every connection to Redis cut",
			run:   func(r *rig) { r.repeat(20*time.Second, 200*time.Millisecond, func(int) { r.store.proxy.Cut() }) },
		},
		{
			name: "subscription-killed", row: "10", on: single, short: true,
			fault: "CLIENT KILL TYPE pubsub, every 50 ms",
			load:  load{rate: 500},
			run: func(r *rig) {
				r.repeat(30*time.Second, 50*time.Millisecond, func(int) { r.store.server.Do("CLIENT", "KILL", "TYPE", "pubsub") })
			},
		},
		{
			name: "output-buffer-overflow", row: "11", on: single,
			redis: []string{"--client-output-buffer-limit", "pubsub 256kb 0 0"},
			fault: "a node frozen until Redis gives its subscription up for its size",
			load:  load{rooms: 4, readers: 4, rate: 200, size: 30 << 10},
			run:   overflow,
		},
		{
			name: "redis-full", row: "15", on: single, short: true,
			fault: "no memory left (maxmemory, noeviction)",
			run:   func(r *rig) { r.repeat(20*time.Second, 500*time.Millisecond, func(int) { full(r) }) },
		},
		{
			name: "partition", row: "18", on: single, short: true,
			fault: "the nodes cut off from Redis, nobody told (blackhole), for 1.5 to 10 s",
			run:   partition,
		},
		{
			name: "scripts-forgotten", row: "26", on: single,
			fault: "SCRIPT FLUSH, every 10 ms",
			run: func(r *rig) {
				r.repeat(15*time.Second, 10*time.Millisecond, func(int) { r.store.server.Do("SCRIPT", "FLUSH") })
			},
		},
		{
			name: "torn-frames", row: "27", on: single, short: true,
			fault: "what Redis sends torn at any byte, with a pause",
			load:  load{rate: 50},
			run:   tear,
		},
		{
			name: "redis-busy", row: "28", on: single,
			fault: "Redis busy for 3 s (DEBUG SLEEP)",
			run: func(r *rig) {
				r.repeat(20*time.Second, 2*time.Second, func(int) {
					// It answers when it has slept, which is later than the rig waits.
					ctx, cancel := context.WithTimeout(r.ctx, 4*time.Second)
					defer cancel()
					_ = r.store.server.Client().Do(ctx, "DEBUG", "SLEEP", "3").Err()
				})
			},
		},
		{
			name: "demoted-server", row: "29", on: replicated, short: true,
			fault: "the subscription left at a server that is no longer the primary",
			run:   demoted,
			lossy: true, // what was acknowledged between the last copied byte and the switch
		},
		{
			name: "messages-lost", row: "30", on: single, short: true,
			fault: "a message from Redis thrown away, on a connection that goes on",
			load:  load{rooms: 10, readers: 10, rate: 30},
			run:   dropMessages,
		},
	}
}

// killRedis ends the server as a crash does, and starts it again.
func (r *rig) killRedis(away time.Duration) {
	r.store.server.Kill()
	r.last(away)
	r.store.server.Restart()
}

func overflow(r *rig) {
	r.repeat(15*time.Second, 2*time.Second, func(i int) { r.nodes[i%2].freeze(2 * time.Second) })
	losses := r.nodes[0].metric("sluice_subscription_losses_total") + r.nodes[1].metric("sluice_subscription_losses_total")
	r.note("%.0f subscriptions lost", losses)
	if losses == 0 {
		r.verdict.wrong(other, "no subscription was lost: the fault did not happen")
	}
}

// full leaves Redis no memory: publishers must be refused, and nothing written.
func full(r *rig) {
	r.store.server.Do("CONFIG", "SET", "maxmemory", "1")
	r.last(50 * time.Millisecond)
	_, again, err := r.post(r.ctx, r.nodes[0].base(), r.rooms[0], fmt.Sprintf("full-%d", time.Now().UnixNano()), "must not be written")
	if err == nil || !again {
		r.verdict.wrong(other, "publishing to a full Redis: %v", err)
	}
	r.last(300 * time.Millisecond)
	r.store.server.Do("CONFIG", "SET", "maxmemory", "0")
}

// partition holds all that passes between the nodes and Redis. Streams stay
// open meanwhile, are told, and publishers are told at once.
func partition(r *rig) {
	for _, d := range []time.Duration{1500 * time.Millisecond, 5 * time.Second, 10 * time.Second} {
		if r.scaled(10*time.Second) < d/2 {
			continue
		}
		r.last(2 * time.Second)
		r.store.proxy.Blackhole(true)
		r.injected.Add(1)
		begun := time.Now()
		if d >= 5*time.Second {
			r.foundOut(begun)
		}
		r.last(d - time.Since(begun))
		r.store.proxy.Heal()
		healed := time.Now()
		for _, n := range r.nodes {
			if err := n.await(http.StatusOK, 10*time.Second); err != nil {
				r.verdict.wrong(other, "after a partition of %v: %v", d, err)
			}
		}
		r.within("back after", time.Since(healed), 5*time.Second)
	}
	if opens := r.reconnects(); opens > 0 {
		r.verdict.wrong(other, "%d streams were ended, though only Redis was out of reach", opens)
	}
}

// foundOut checks that the nodes notice in time that Redis is out of reach, and
// say so.
func (r *rig) foundOut(begun time.Time) {
	for _, n := range r.nodes {
		if err := n.await(http.StatusServiceUnavailable, 6*time.Second); err != nil {
			r.verdict.wrong(other, "out of reach of Redis: %v", err)
		}
	}
	// 3 s are promised, and the machine has other things to do.
	r.within("noticed after", time.Since(begun), 4*time.Second)
	asked := time.Now()
	_, again, err := r.post(r.ctx, r.nodes[0].base(), r.rooms[0], fmt.Sprintf("out-%d", asked.UnixNano()), "must not be written")
	if err == nil || !again || time.Since(asked) > 500*time.Millisecond {
		r.verdict.wrong(other, "publishing meanwhile: %v after %v", err, time.Since(asked))
	}
	if !r.await(time.Second, func() bool { return r.degraded.Load() >= int64(len(r.checkers)) }) {
		r.verdict.wrong(other, "of %d streams, %d were told sluice.degraded", len(r.checkers), r.degraded.Load())
	}
}

func (r *rig) reconnects() (n int) {
	for _, c := range r.checkers {
		n += int(c.opens.Load()) - 1
	}
	return n
}

// tear splits a message at every byte of its frame, three pauses each, and then
// chops all that passes.
func tear(r *rig) {
	pauses := []time.Duration{time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond}
	end := time.Now().Add(r.scaled(30 * time.Second))
	for i := 0; time.Now().Before(end); i++ {
		r.store.proxy.SplitAt(i/3%180, pauses[i%3], redistest.Contains("sluice:ch:"))
		r.injected.Add(1)
		r.last(pauses[i%3] + 20*time.Millisecond)
	}
	r.store.proxy.Heal()
	r.store.proxy.Chop(7, time.Millisecond)
	r.injected.Add(1)
	r.last(r.scaled(5 * time.Second))
	r.store.proxy.Heal()
}

// demoted promotes the replica and moves all connections but the subscriptions.
func demoted(r *rig) {
	old, fresh := r.store.server, r.store.replica
	r.last(r.scaled(3 * time.Second))
	fresh.CatchUp(old)
	fresh.Promote()
	r.store.proxy.SetTarget(fresh.Addr)
	old.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	r.injected.Add(1)
	begun := time.Now()
	at := r.checkers[0]
	r.one(at.room)
	was := r.delivered.Load()
	if !r.await(10*time.Second, func() bool { return r.delivered.Load() > was+int64(len(r.checkers)) }) {
		r.verdict.wrong(other, "nothing arrives from the new primary")
	}
	r.within("noticed after", time.Since(begun), 6*time.Second)
	r.last(r.scaled(3 * time.Second))
}

// dropMessages loses messages of rooms that are busy and, in the end, of rooms
// in which nothing else happens.
func dropMessages(r *rig) {
	r.repeat(15*time.Second, 300*time.Millisecond, func(int) { r.store.proxy.Drop(1, redistest.Contains("sluice:ch:")) })
	r.last(500 * time.Millisecond)
	r.hush()
	r.arrive()
	// One copy for each node.
	r.store.proxy.Drop(len(r.nodes), redistest.Contains("sluice:ch:{"+r.rooms[0]+"}"))
	want := r.delivered.Load() + int64(len(r.checkers)/len(r.rooms))
	r.one(r.rooms[0])
	begun := time.Now()
	r.injected.Add(1)
	r.await(20*time.Second, func() bool { return r.delivered.Load() >= want })
	r.within("found in a silent room after", time.Since(begun), 10*time.Second)
	r.injected.Store(int64(r.store.proxy.Dropped()))
}
