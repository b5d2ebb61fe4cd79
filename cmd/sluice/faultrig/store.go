package main

import (
	"strings"

	"sluice/fanout/redistest"
)

// topology is how Redis is set up.
type topology string

const (
	single     topology = "single"
	replicated topology = "single with a replica"
	sentinel   topology = "Sentinel"
	cluster    topology = "Cluster"
)

// store is the Redis of a scenario. What does not belong to its topology is nil.
type store struct {
	url       string
	server    *redistest.Server // or the first primary
	replica   *redistest.Server
	proxy     *redistest.Proxy // in front of server
	sentinels *redistest.Sentinels
	cluster   *redistest.Cluster
}

func newStore(t redistest.T, s *scenario) *store {
	t.Helper()
	switch s.on {
	case cluster:
		c := redistest.StartCluster(t, 3, 1, s.redis...)
		return &store{url: c.URL(), cluster: c}
	case sentinel:
		primary := redistest.Start(t, s.redis...)
		replica := redistest.Replica(t, primary, s.redis...)
		sentinels := redistest.StartSentinels(t, 3, 2, primary, replica)
		return &store{url: sentinels.URL(), server: primary, replica: replica, sentinels: sentinels}
	}
	st := &store{server: redistest.Start(t, s.redis...)}
	st.proxy = redistest.NewProxy(t, st.server.Addr)
	st.url = strings.Replace(st.server.URL(), st.server.Addr, st.proxy.Addr(), 1)
	if s.on == replicated {
		st.replica = redistest.Replica(t, st.server, s.redis...)
	}
	return st
}

// other is the one of the two servers under Sentinel that is not the primary.
func (st *store) standby(primary *redistest.Server) *redistest.Server {
	if primary == st.server {
		return st.replica
	}
	return st.server
}
