package main

import "time"

// nodeScenarios are about gateways that end, or stand still.
func nodeScenarios() []*scenario {
	return []*scenario{
		{
			name: "node-killed", row: "4", on: single, nodes: 3, short: true,
			fault: "a node ended by SIGKILL, and started again",
			load:  load{rooms: 20, readers: 10},
			run: func(r *rig) {
				r.repeat(40*time.Second, 2*time.Second, func(i int) {
					n := r.nodes[i%len(r.nodes)]
					n.kill()
					r.last(500 * time.Millisecond)
					n.start()
				})
			},
		},
		{
			name: "rolling-deploy", row: "5", on: single, nodes: 3, short: true,
			fault: "a node ended by SIGTERM, and started again",
			load:  load{rooms: 20, readers: 10},
			run: func(r *rig) {
				r.repeat(40*time.Second, time.Second, func(i int) {
					n := r.nodes[i%len(r.nodes)]
					n.stop()
					n.start()
				})
			},
		},
		{
			name: "node-stopped", row: "20", on: single,
			fault: "a node frozen (SIGSTOP) for 0.1 to 5 s",
			load:  load{rooms: 10, readers: 20},
			run: func(r *rig) {
				r.repeat(40*time.Second, time.Second, func(i int) {
					r.nodes[i%2].freeze(100*time.Millisecond + time.Duration(r.rng.Int64N(int64(5*time.Second))))
				})
			},
		},
	}
}
