package main

import (
	"strings"

	"sluice/fanout"
	"sluice/handlers"
)

// gatewayNamespaces is what the file says of namespaces, as far as requests go.
func (f *configFile) gatewayNamespaces() map[string]handlers.Namespace {
	namespaces := map[string]handlers.Namespace{}
	for name, n := range f.Namespaces {
		namespaces[name] = handlers.Namespace{Presence: n.Presence, Ephemeral: n.Ephemeral != nil && *n.Ephemeral}
	}
	return namespaces
}

// retention is what the file says of how much rooms keep; nil if nothing.
func (f *configFile) retention() func(room string) fanout.Retention {
	own := map[string]fanout.Retention{}
	for name, n := range f.Namespaces {
		var keep fanout.Retention
		if n.HistoryEvents != nil {
			keep.Events = *n.HistoryEvents
		}
		if n.HistoryAge != nil {
			keep.Age = *n.HistoryAge
		}
		if keep.Events > 0 || keep.Age > 0 {
			own[name] = keep
		}
	}
	if len(own) == 0 {
		return nil
	}
	return func(room string) fanout.Retention {
		name, _, ok := strings.Cut(room, ":")
		if !ok {
			return fanout.Retention{}
		}
		return own[name]
	}
}
