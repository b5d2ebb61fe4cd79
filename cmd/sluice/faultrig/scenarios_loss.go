package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// lossScenarios are about a Redis that loses what it acknowledged. Whoever had
// seen it is told, once and before anything later; nobody else is told anything.
func lossScenarios() []*scenario {
	return []*scenario{
		{
			name: "redis-lost-everything", row: "7", on: single, lossy: true, short: true,
			fault: "Redis without persistence ended by SIGKILL, and started again",
			run:   func(r *rig) { r.quietly(func() { r.killRedis(200 * time.Millisecond) }) },
			after: func(r *rig) {
				if got, want := r.gapsOf("new_history"), len(r.checkers); got != want {
					r.verdict.wrong(other, "%d gaps new_history, want one for each of %d clients", got, want)
				}
			},
		},
		{
			name: "redis-loses-often", row: "7", on: single, lossy: true,
			fault: "the same under load, again and again",
			run: func(r *rig) {
				r.repeat(30*time.Second, 2*time.Second, func(int) { r.killRedis(200 * time.Millisecond) })
			},
		},
		{
			name: "torn-append-file", row: "8", on: single, redis: appendOnly("always"), lossy: true, short: true,
			fault: "power lost: Redis killed, up to 20 KB cut off the end of its file, the file repaired by redis-check-aof",
			load:  load{rate: 200},
			run: func(r *rig) {
				r.repeat(60*time.Second, time.Second, func(int) { powerLoss(r) })
			},
		},
		{
			name: "failover-loses-events", row: "12", on: replicated, lossy: true, short: true,
			fault: "a failover to a replica that lacks the last 3 events of each room; clients before and beyond it",
			load:  load{rooms: 10, readers: 10, rate: 200},
			run:   lossyFailover,
			after: func(r *rig) {
				if got, want := r.gapsOf("truncated"), len(r.rooms)*beyond; got != want {
					r.verdict.wrong(other, "%d gaps truncated, want %d: one for each client that had seen what was lost", got, want)
				}
			},
		},
		{
			name: "eviction", row: "16", on: single, lossy: true, trimming: true,
			redis: []string{"--maxmemory", "6mb", "--maxmemory-policy", "allkeys-lru"},
			fault: "more published than a Redis that evicts (allkeys-lru, 6 MB) can keep",
			load:  load{rooms: 60, readers: 3, rate: 600, size: 1 << 10},
			run: func(r *rig) {
				r.last(r.scaled(30 * time.Second))
				r.injected.Store(evicted(r.store.server.Info("stats")["evicted_keys"]))
			},
		},
	}
}

// quietly injects a fault while nothing is published, before and after which
// everybody sees everything.
func (r *rig) quietly(inject func()) {
	r.last(r.scaled(3 * time.Second))
	r.hush()
	r.arrive()
	inject()
	r.injected.Add(1)
	r.publish()
	r.last(r.scaled(5 * time.Second))
}

// arrive waits until every client has all that was acknowledged.
func (r *rig) arrive() {
	logs := map[string]*history{}
	for _, room := range r.rooms {
		h, err := r.history(r.ctx, room)
		if err != nil {
			r.Fatalf("reading the log: %v", err)
		}
		logs[room] = h
	}
	r.settle(logs)
}

// beyond is how many clients of a room see what is then lost.
const beyond = 5

// lossyFailover promotes a replica that was cut off before the last events. In
// each room, half of the clients stay away from before these until afterwards.
func lossyFailover(r *rig) {
	primary, replica := r.store.server, r.store.replica
	r.last(r.scaled(3 * time.Second))
	r.hush()
	r.arrive()
	// Those who stay away, and some who join while the rest is lost.
	away := r.checkers[:len(r.rooms)*(10-beyond)]
	for _, c := range away {
		c.leave()
	}
	replica.CatchUp(primary)
	replica.Detach()
	var tasks sync.WaitGroup
	for _, room := range r.rooms {
		tasks.Go(func() {
			for range 3 {
				r.one(room)
			}
		})
	}
	tasks.Wait()
	staying := r.checkers[len(away):]
	r.await(10*time.Second, func() bool {
		for _, c := range staying {
			if c.seen() != r.lastAcked(c.room) {
				return false
			}
		}
		return true
	})
	primary.Kill()
	replica.Promote()
	r.store.proxy.SetTarget(replica.Addr)
	r.store.proxy.Cut()
	r.injected.Add(1)
	r.publish()
	// A node that has not noticed yet would show them what is lost.
	if want := len(staying); !r.await(10*time.Second, func() bool { return r.gapsOf("truncated") >= want }) {
		r.verdict.wrong(other, "after 10 s, %d of %d clients were told", r.gapsOf("truncated"), want)
	}
	for _, c := range away {
		r.send(c)
	}
	r.last(r.scaled(5 * time.Second))
}

// lastAcked is where the last acknowledged event of a room stands.
func (r *rig) lastAcked(room string) place {
	r.ledger.mu.Lock()
	defer r.ledger.mu.Unlock()
	events := r.ledger.rooms[room]
	if len(events) == 0 {
		return place{}
	}
	return events[len(events)-1].at
}

// powerLoss kills Redis and takes away the end of its file, which the system
// had not written yet, in the middle of whatever stands there.
//
// The file is repaired before the restart, since redis-server does that badly
// (7.0.15, with aof-load-truncated, its default): it loads nothing of a
// transaction that lacks its end, but leaves what is whole of it in the file, and
// at the restart after the next these commands are run with what was written
// behind them. Events that were lost come back in place of others, under
// positions that have been given anew, which no client of Redis can notice.
func powerLoss(r *rig) {
	server := r.store.server
	server.Kill()
	files, err := filepath.Glob(filepath.Join(server.Dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) == 0 {
		r.Fatalf("Redis has no append-only file (%v)", err)
	}
	file := files[len(files)-1]
	info, err := os.Stat(file)
	if err == nil {
		err = os.Truncate(file, max(info.Size()-r.rng.Int64N(20<<10), 0))
	}
	if err != nil {
		r.Fatalf("tearing the append-only file: %v", err)
	}
	repair := exec.Command("redis-check-aof", "--fix", file)
	repair.Stdin = strings.NewReader("y\n")
	if said, err := repair.CombinedOutput(); err != nil {
		r.Fatalf("redis-check-aof (of the package redis-tools): %v\n%s", err, said)
	}
	server.Restart()
}

func evicted(text string) (n int64) {
	_, _ = fmt.Sscan(strings.TrimSpace(text), &n)
	return n
}
