package main

import (
	"reflect"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/handlers"
)

func TestNamespacesReachTheLogAndTheGateway(t *testing.T) {
	var f configFile
	text := `namespaces:
  chat: {history-events: 5, presence: true}
  live: {ephemeral: true, presence: false}
  slow: {history-age: 1h}
  plain:
`
	if err := f.parse([]byte(text), nil); err != nil {
		t.Fatal(err)
	}
	on, off := true, false
	want := map[string]handlers.Namespace{"chat": {Presence: &on}, "live": {Presence: &off, Ephemeral: true}, "slow": {}, "plain": {}}
	if got := f.gatewayNamespaces(); !reflect.DeepEqual(got, want) {
		t.Errorf("the gateway is told %+v, want %+v", got, want)
	}
	keep := f.retention()
	for room, want := range map[string]fanout.Retention{
		"chat:lobby": {Events: 5}, "chat:a:b": {Events: 5}, "slow:x": {Age: time.Hour},
		"chat": {}, "live:x": {}, "other:chat:x": {}, "lobby": {},
	} {
		if got := keep(room); !reflect.DeepEqual(got, want) {
			t.Errorf("of %s the log keeps %+v, want %+v", room, got, want)
		}
	}
	var empty configFile
	if empty.retention() != nil {
		t.Error("without a file every room is asked about")
	}
}
