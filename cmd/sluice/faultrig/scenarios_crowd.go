package main

import (
	"fmt"
	"syscall"
	"time"
)

// crowdScenarios are about many clients at once.
func crowdScenarios() []*scenario {
	quiet := 15 * time.Second // else heartbeats would be most of the load
	return []*scenario{
		{
			name: "huge-room", row: "23", on: single, heartbeat: quiet,
			fault: "5,000 clients in one room",
			load:  load{rooms: 1, readers: 1, publishers: 1, rate: 5},
			run: func(r *rig) {
				r.crowd(int(5000*r.cfg.scale), 0)
				r.injected.Add(1)
				r.delays.reset()
				r.last(r.scaled(15 * time.Second))
				r.note("99 %% of events within %v", r.delays.below(0.99))
			},
		},
		{
			name: "herd", row: "24", on: single, nodes: 3, heartbeat: quiet,
			fault: "10,000 clients that come back at once, because their node was killed",
			load:  load{rooms: 20, readers: 6, publishers: 2, rate: 10},
			run:   herd,
		},
		{
			name: "small-herd", row: "24", on: single, nodes: 3, heartbeat: quiet, short: true,
			fault: "1,000 clients that come back at once, because their node was killed",
			load:  load{rooms: 20, readers: 6, publishers: 2, rate: 10},
			run:   herd,
		},
	}
}

// crowd sets n clients to work, all of whom begin at one node, and waits until
// they have their streams.
func (r *rig) crowd(n, at int) []*checker {
	before := len(r.checkers)
	for i := range n {
		bases := r.bases(at)
		if i%2 == 1 && len(bases) > 2 {
			bases = []string{bases[0], bases[2], bases[1]} // half of them know another way out
		}
		r.follow(&checker{name: fmt.Sprintf("one of the crowd, %d", i), room: r.rooms[i%len(r.rooms)], bases: bases})
		if i%500 == 499 {
			r.awaitOpen(r.checkers[before:])
		}
	}
	r.awaitOpen(r.checkers[before:])
	return r.checkers[before:]
}

// herd kills the node that has the crowd. The others have the rooms open, and
// their rings are what all of the crowd is served from.
func herd(r *rig) {
	size := 1000
	if r.scenario.name == "herd" {
		size = min(10_000, descriptors()-2000)
	}
	crowd := r.crowd(size, 0)
	r.last(time.Second)
	reads := r.reads()
	r.nodes[0].kill()
	killed := time.Now()
	r.injected.Add(int64(len(crowd)))
	back := func() bool {
		for _, c := range crowd {
			if c.opens.Load() < 2 {
				return false
			}
		}
		return true
	}
	if !r.await(60*time.Second, back) {
		r.verdict.wrong(other, "not all of %d clients were back after 60 s", len(crowd))
	}
	r.note("%d clients back after %.1f s", len(crowd), time.Since(killed).Seconds())
	r.last(time.Second)
	each := float64(r.reads()-reads) / float64(len(r.rooms))
	r.note("%.2f reads of the log a room", each)
	if each > 3 {
		r.verdict.wrong(other, "%.2f reads of the log a room, promised are 3", each)
	}
}

// reads is how often the nodes that outlive a herd have read the log.
func (r *rig) reads() (n int) {
	for _, node := range r.nodes[1:] {
		n += int(node.metric("sluice_catchup_reads_total") + node.metric("sluice_page_reads_total"))
	}
	return n
}

// descriptors is how many files this process may have open.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<20))
}
