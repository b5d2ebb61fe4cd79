package fanout

import (
	"testing"
	"time"
)

func TestTheBacklogIsWhatStreamsHaveYetToTake(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		h := runHub(t, log, Options{RingEvents: 10})
		prompt, slow := read(t, h, ofRoom("room", Head())), read(t, h, ofRoom("room", Head()))
		prompt.await(t, "the opening", count(1))
		slow.await(t, "the opening", count(1))
		resume := slow.stall()
		for i := range 5 {
			mustAppend(t, log, "room", text(numbered(i)))
		}
		prompt.await(t, "five events", count(6))
		// The first is in the hands of who writes it.
		eventually(t, 10*time.Second, "a backlog", func() bool { b := h.Backlog(); return b == 4 || b == 5 })
		for i := range 20 { // beyond the ring
			mustAppend(t, log, "room", text(numbered(5+i)))
		}
		prompt.await(t, "all events", count(26))
		eventually(t, 10*time.Second, "a larger backlog", func() bool { b := h.Backlog(); return b > 10 && b <= 25 })
		resume()
		slow.await(t, "all events", count(26))
		eventually(t, 10*time.Second, "no backlog", func() bool { return h.Backlog() == 0 })
	})
}
