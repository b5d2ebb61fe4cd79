package main

import "time"

// manyRedisScenarios are about Sentinel and Cluster.
func manyRedisScenarios() []*scenario {
	return []*scenario{
		{
			name: "sentinel-failover-asked", row: "12", on: sentinel, lossy: true,
			fault: "SENTINEL FAILOVER under load",
			run: func(r *rig) {
				r.repeat(40*time.Second, 2*time.Second, func(int) {
					r.store.sentinels.Failover()
					r.store.sentinels.AwaitReady()
				})
			},
		},
		{
			name: "sentinel-primary-killed", row: "12", on: sentinel, lossy: true, short: true,
			fault: "the primary ended by SIGKILL under load; started again as a replica",
			run: func(r *rig) {
				r.repeat(40*time.Second, 2*time.Second, func(int) {
					old := r.store.sentinels.KillPrimary()
					killed := time.Now()
					r.one(r.rooms[0])
					r.within("published again after", time.Since(killed), 10*time.Second)
					r.store.sentinels.AwaitFailover(old)
					old.Restart()
					r.store.sentinels.AwaitReady()
				})
			},
		},
		{
			name: "sentinel-primary-lost-events", row: "12", on: sentinel, lossy: true,
			fault: "the primary killed while its replica had not heard from it for 0.5 s",
			run: func(r *rig) {
				r.repeat(40*time.Second, 2*time.Second, func(int) {
					primary := r.store.sentinels.Primary()
					r.store.standby(primary).Detach()
					r.last(500 * time.Millisecond)
					primary.Kill()
					r.store.sentinels.AwaitFailover(primary)
					primary.Restart()
					r.store.sentinels.AwaitReady()
				})
			},
		},
		{
			name: "sentinel-subscription-killed", row: "10", on: sentinel,
			fault: "CLIENT KILL TYPE pubsub at the primary, every 100 ms",
			run: func(r *rig) {
				r.repeat(15*time.Second, 100*time.Millisecond, func(int) { r.store.server.Do("CLIENT", "KILL", "TYPE", "pubsub") })
			},
		},
		{
			name: "cluster-slots-moved", row: "13", on: cluster, short: true,
			fault: "a room's slot moved to another master, under load",
			load:  load{rooms: 30, readers: 5},
			run: func(r *rig) {
				r.repeat(40*time.Second, 100*time.Millisecond, func(i int) { r.moveTo(r.rooms[i%len(r.rooms)], r.rng.IntN(100)) })
			},
		},
		{
			name: "cluster-master-killed", row: "14", on: cluster, lossy: true, short: true,
			fault: "a master ended by SIGKILL under load; started again as a replica",
			load:  load{rooms: 30, readers: 5},
			run: func(r *rig) {
				r.repeat(40*time.Second, 2*time.Second, func(i int) {
					room := r.rooms[i%len(r.rooms)]
					slot := r.store.cluster.SlotOf("{" + room + "}")
					old := r.store.cluster.KillMaster(slot)
					killed := time.Now()
					r.one(room)
					r.within("published again after", time.Since(killed), 8*time.Second)
					r.store.cluster.AwaitFailover(slot, old)
					old.Restart()
					r.store.cluster.AwaitReady()
				})
			},
		},
		{
			name: "cluster-master-stopped", row: "14", on: cluster, lossy: true,
			fault: "a master frozen (SIGSTOP) for 5 s: it wakes up as somebody who has been replaced",
			load:  load{rooms: 30, readers: 5},
			run: func(r *rig) {
				r.repeat(40*time.Second, 2*time.Second, func(i int) {
					master := r.store.cluster.MasterOf(r.store.cluster.SlotOf("{" + r.rooms[i%len(r.rooms)] + "}"))
					master.Pause()
					r.last(5 * time.Second)
					master.Resume()
					r.store.cluster.AwaitReady()
				})
			},
		},
		{
			name: "cluster-subscription-killed", row: "10", on: cluster,
			fault: "CLIENT KILL TYPE pubsub at each server in turn, every 100 ms",
			load:  load{rooms: 30, readers: 5},
			run: func(r *rig) {
				r.repeat(20*time.Second, 100*time.Millisecond, func(i int) {
					r.store.cluster.Nodes[i%3].Do("CLIENT", "KILL", "TYPE", "pubsub")
				})
			},
		},
		{
			name: "cluster-node-killed", row: "4", on: cluster, nodes: 3,
			fault: "a gateway ended by SIGKILL, and started again",
			load:  load{rooms: 30, readers: 5},
			run: func(r *rig) {
				r.repeat(20*time.Second, 2*time.Second, func(i int) {
					n := r.nodes[i%len(r.nodes)]
					n.kill()
					n.start()
				})
			},
		},
	}
}

// moveTo moves a room's slot to another master, which a number picks.
func (r *rig) moveTo(room string, which int) {
	c := r.store.cluster
	slot := c.SlotOf("{" + room + "}")
	from := c.MasterOf(slot)
	for i := range c.Nodes {
		to := c.Nodes[(which+i)%len(c.Nodes)]
		if to != from && to.Info("replication")["role"] == "master" {
			c.MigrateSlot(slot, to)
			return
		}
	}
}
