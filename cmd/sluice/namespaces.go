package main

import (
	"strings"
	"sync/atomic"

	"sluice/fanout"
	"sluice/handlers"
)

// gatewayNamespaces is what the file says of namespaces, as far as requests go.
func (f *configFile) gatewayNamespaces() map[string]handlers.Namespace {
	namespaces := map[string]handlers.Namespace{}
	for name, n := range f.Namespaces {
		namespaces[name] = handlers.Namespace{
			Presence: n.Presence, Ephemeral: n.Ephemeral != nil && *n.Ephemeral,
			PublicSubscribe: n.PublicSubscribe, PublicPublish: n.PublicPublish,
		}
	}
	return namespaces
}

// retention is how much rooms keep. The logs and the hub ask it, so that it can
// change while they run.
type retention struct {
	now atomic.Pointer[kept]
}

type kept struct {
	all  fanout.Retention
	some map[string]fanout.Retention // of namespaces
}

// set changes it to what the flags and the file say.
func (r *retention) set(c *serveCmd, file *configFile) {
	k := &kept{all: fanout.Retention{Events: c.HistoryEvents, Age: c.HistoryAge}, some: map[string]fanout.Retention{}}
	for name, n := range file.Namespaces {
		own := k.all
		if n.HistoryEvents != nil {
			own.Events = *n.HistoryEvents
		}
		if n.HistoryAge != nil {
			own.Age = *n.HistoryAge
		}
		k.some[name] = own
	}
	r.now.Store(k)
}

// all is what the logs and the hub are told once, of rooms of which nothing is
// said; they ask for the rest.
func (r *retention) all() fanout.Retention {
	keep := r.now.Load().all
	keep.Rooms = r.of
	return keep
}

func (r *retention) of(room string) fanout.Retention {
	now := r.now.Load()
	if name, _, ok := strings.Cut(room, ":"); ok {
		if own, ok := now.some[name]; ok {
			return own
		}
	}
	return now.all
}
