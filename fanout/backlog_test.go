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
		backlog := func(want int64) func() bool { return func() bool { return h.Backlog() == want } }
		mustAppend(t, log, "room", text(numbered(0)))
		prompt.await(t, "an event", count(2))
		eventually(t, 20*time.Second, "the slow stream in its write", backlog(0))
		for i := range 4 {
			mustAppend(t, log, "room", text(numbered(1+i)))
		}
		eventually(t, 20*time.Second, "a backlog of 4", backlog(4))
		for i := range 20 { // beyond the ring
			mustAppend(t, log, "room", text(numbered(5+i)))
		}
		eventually(t, 20*time.Second, "a backlog of 24", backlog(24))
		resume()
		slow.await(t, "all events", count(26))
		eventually(t, 20*time.Second, "no backlog", backlog(0))
	})
}
