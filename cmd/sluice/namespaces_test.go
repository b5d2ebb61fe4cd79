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
  news: {public-subscribe: true, public-publish: false}
  plain:
`
	if err := f.parse([]byte(text), nil); err != nil {
		t.Fatal(err)
	}
	on, off := true, false
	want := map[string]handlers.Namespace{"chat": {Presence: &on}, "live": {Presence: &off, Ephemeral: true}, "slow": {}, "news": {PublicSubscribe: &on, PublicPublish: &off}, "plain": {}}
	if got := f.gatewayNamespaces(); !reflect.DeepEqual(got, want) {
		t.Errorf("the gateway is told %+v, want %+v", got, want)
	}
	var r retention
	r.set(&serveCmd{HistoryEvents: 100, HistoryAge: 24 * time.Hour}, &f)
	keep := r.all()
	if keep.Events != 100 || keep.Age != 24*time.Hour {
		t.Errorf("of most rooms the log keeps %+v", keep)
	}
	for room, want := range map[string]fanout.Retention{
		"chat:lobby": {Events: 5, Age: 24 * time.Hour}, "chat:a:b": {Events: 5, Age: 24 * time.Hour}, "slow:x": {Events: 100, Age: time.Hour},
		"chat": {Events: 100, Age: 24 * time.Hour}, "live:x": {Events: 100, Age: 24 * time.Hour}, "other:chat:x": {Events: 100, Age: 24 * time.Hour},
	} {
		if got := keep.Rooms(room); !reflect.DeepEqual(got, want) {
			t.Errorf("of %s the log keeps %+v, want %+v", room, got, want)
		}
	}
	r.set(&serveCmd{HistoryEvents: 200, HistoryAge: time.Hour}, &configFile{})
	if got, want := keep.Rooms("chat:lobby"), (fanout.Retention{Events: 200, Age: time.Hour}); !reflect.DeepEqual(got, want) {
		t.Errorf("once that has changed, it keeps %+v, want %+v", got, want)
	}
}
