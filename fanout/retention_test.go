package fanout

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// shortRooms keep little, the others as usual.
func shortRooms(room string) Retention {
	if strings.HasPrefix(room, "short:") {
		return Retention{Events: 3}
	}
	return Retention{}
}

func TestRoomsKeepWhatIsTheirs(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		keep := Retention{Events: 10, Rooms: shortRooms}
		log := open(t, keep)
		h := runHub(t, log, Options{})
		for room, want := range map[string]int{"short:1": 3, "long:1": 10} {
			for i := range 20 {
				mustAppend(t, log, room, text(numbered(i)))
			}
			if got := mustRead(t, log, room, 0, 100); len(got.Events) != want || got.Oldest != uint64(21-want) {
				t.Errorf("%s has %d events from %d, want %d", room, len(got.Events), got.Oldest, want)
			}
			page, err := h.Poll(t.Context(), StreamOptions{Rooms: []string{room}, Starts: []Start{Earliest()}}, 100, time.Second)
			if err != nil || len(page.Events) != want {
				t.Errorf("a stream of %s shows %d events (%v), want %d", room, len(page.Events), err, want)
			}
		}
	})
}

func TestRoomsKeepForAsLongAsIsTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewMemory(Retention{Rooms: func(room string) Retention {
			if room == "short" {
				return Retention{Age: time.Minute}
			}
			return Retention{}
		}})
		mustAppend(t, log, "short", text("x"))
		mustAppend(t, log, "long", text("x"))
		time.Sleep(time.Minute + time.Second)
		if n := len(mustRead(t, log, "short", 0, 10).Events); n != 0 {
			t.Errorf("%d events are kept for longer than their room keeps them", n)
		}
		if n := len(mustRead(t, log, "long", 0, 10).Events); n != 1 {
			t.Errorf("%d events are kept where one should be", n)
		}
	})
}

// TestRetentionThatChangesHoldsForOpenRooms: without the gap that a room which
// believes that its log keeps little would tell.
func TestRetentionThatChangesHoldsForOpenRooms(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		var events atomic.Int64
		events.Store(2)
		keep := Retention{Rooms: func(string) Retention { return Retention{Events: int(events.Load())} }}
		log := open(t, keep)
		h := runHub(t, log, Options{Keep: keep})
		c := read(t, h, ofRoom("room", Head()))
		c.await(t, "the opening", count(1))
		events.Store(20)
		h.Refit()
		first := mustAppend(t, log, "room", text("0"))[0].Position
		for i := 1; i < 10; i++ {
			mustAppend(t, log, "room", text(numbered(i)))
		}
		c.await(t, "all of them", count(11))
		page, err := h.PageAfter(t.Context(), []string{"room"}, []Start{At(first)}, 100)
		if err != nil || len(page.Events) != 9 || len(page.Gaps) != 0 {
			t.Errorf("behind the first the room shows %d events and %d gaps (%v), want 9 and none", len(page.Events), len(page.Gaps), err)
		}
		resumed := read(t, h, ofRoom("room", At(first)))
		for _, b := range resumed.await(t, "nine events", count(10)) {
			if b.name == "sluice.gap" {
				t.Errorf("a stream that resumes there is told %s", b.data)
			}
		}
	})
}
