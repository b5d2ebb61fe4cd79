package fanout_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/fanout"
)

func TestASurveyNamesTheRoomsWithMostToDo(t *testing.T) {
	n := newPresenceNode(t, fanout.NewMemory(fanout.Retention{}), fanout.PresenceOptions{})
	publish := func(room string, events int) {
		t.Helper()
		if _, err := n.hub.Append(t.Context(), room, make([]fanout.Draft, events)); err != nil {
			t.Fatal(err)
		}
	}
	publish("loud", 7) // before anybody listens
	var guests []*guest
	for _, room := range []string{"loud", "busy", "full", "full", "full", "two", "two", "quiet"} {
		guests = append(guests, n.join(fmt.Sprintf("guest %d", len(guests)), room))
	}
	if s := n.hub.Survey(2); s.Members != len(guests) {
		t.Errorf("%d members, want %d", s.Members, len(guests))
	}
	publish("loud", 5)
	publish("busy", 3)
	publish("two", 1)
	got := fmt.Sprint(n.hub.Survey(2).Busiest)
	if want := "[{loud 5 1 1} {busy 3 1 1} {full 0 3 3} {two 1 2 2}]"; got != want {
		t.Errorf("the busiest rooms are %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(n.hub.Survey(1).Busiest), "[{full 0 3 3}]"; got != want {
		t.Errorf("a moment later they are %s, want %s", got, want)
	}
	if got := n.hub.Survey(100).Busiest; len(got) != 5 {
		t.Errorf("all of them are %v, want five", got)
	}
}

func TestReportsComeToThoseWhoWatchAndCountAsNobodysPublications(t *testing.T) {
	n := newPresenceNode(t, fanout.NewMemory(fanout.Retention{}), fanout.PresenceOptions{})
	if n.hub.Watched(t.Context()) {
		t.Error("somebody watches before anybody does")
	}
	viewer := n.join("wall", fanout.StatsRoom)
	if !n.hub.Watched(t.Context()) {
		t.Error("nobody watches, though somebody does")
	}
	n.hub.Report(t.Context(), []byte(`{"a":1}`))
	viewer.awaitText("event: stats\ndata: {\"a\":1}\n\n")
	if got := n.hub.Stats().Published.Load(); got != 0 {
		t.Errorf("%d events count as published", got)
	}
	if got := n.hub.Survey(10).Busiest; len(got) != 0 {
		t.Errorf("the reports' room is among the busiest: %v", got)
	}
}

func TestNobodyWatchesLongAfterTheLastViewerHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPresenceNode(t, fanout.NewMemory(fanout.Retention{}), fanout.PresenceOptions{})
		viewer := n.join("wall", fanout.StatsRoom)
		for range 30 {
			time.Sleep(time.Second)
			if !n.hub.Watched(t.Context()) {
				t.Fatal("nobody watches, though somebody does")
			}
		}
		viewer.vanish()
		time.Sleep(4 * time.Second)
		if !n.hub.Watched(t.Context()) {
			t.Error("who may have lost a word is forgotten at once")
		}
		time.Sleep(2 * time.Second)
		if n.hub.Watched(t.Context()) {
			t.Error("somebody watches, though all have left")
		}
		n.stop()
	})
}

// BenchmarkSurvey is what a node pays each second for its rooms while somebody watches.
func BenchmarkSurvey(b *testing.B) {
	log := fanout.NewMemory(fanout.Retention{})
	hub := fanout.NewHub(log, fanout.Options{Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = hub.Run(ctx) })
	defer tasks.Wait()
	defer cancel()
	for i := range 10_000 {
		s, err := hub.Open(b.Context(), fanout.StreamOptions{Rooms: []string{fmt.Sprintf("room-%d", i)}, Starts: make([]fanout.Start, 1)})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Drop()
	}
	b.ReportAllocs()
	for b.Loop() {
		hub.Survey(10)
	}
}
