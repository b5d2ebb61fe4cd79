package fanout

import (
	"strings"
	"testing"
	"time"
)

const aTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestAnEventTakesItsTraceToTheStreams(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		told := make(chan Traced, 10)
		h := runHub(t, log, Options{Traced: func(e Traced) { told <- e }})
		c := read(t, h, ofRoom("room", Head()))
		c.await(t, "the opening", count(1))
		traced := text("traced")
		traced.Trace = aTrace
		mustAppend(t, log, "room", text("plain"), traced, text("plain"))
		c.await(t, "all of them", count(4))
		select {
		case e := <-told:
			if e.Parent != aTrace || string(e.Event.Data) != "traced" || e.Event.Seq != 2 || e.Written.Before(e.Came) {
				t.Errorf("of an event with a trace %+v is told", e)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is told of an event with a trace")
		}
		if _, err := log.Broadcast(t.Context(), "room", traced); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-told:
			if e.Event.Seq != 0 {
				t.Errorf("of an event that is kept nowhere %+v is told", e)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is told of an ephemeral event with a trace")
		}
		// What somebody reads later was not on its way for so long.
		late := read(t, h, ofRoom("room", Earliest()))
		late.await(t, "what is kept", count(4))
		if len(told) > 0 {
			t.Errorf("of an event that was read again %+v is told", <-told)
		}
	})
}

func TestWithoutATraceThereIsNoneInTheRecord(t *testing.T) {
	d := text("data")
	plain := string(appendRecord(nil, 5, &d))
	if plain != "5|message|t||0|data" {
		t.Errorf("the record is %q", plain)
	}
	d.Trace = aTrace
	traced := appendRecord(nil, 5, &d)
	if string(traced) != "5|message|t."+aTrace+"||0|data" {
		t.Errorf("the record with a trace is %q", traced)
	}
	e, err := parseRecord("room", traced)
	if err != nil || e.trace == nil || e.trace.parent != aTrace || e.JSON || string(e.Data) != "data" {
		t.Errorf("it is read as %+v, %v", e, err)
	}
	for _, wrong := range []string{"t.", "t." + aTrace + "0", "t." + strings.ToUpper(aTrace), "t.01" + aTrace[2:], "t" + aTrace, "x." + aTrace} {
		if e, err := parseRecord("room", []byte("5|message|"+wrong+"||0|data")); err == nil {
			t.Errorf("the kind %q is read as %+v", wrong, e)
		}
	}
}

func TestTracesThatAreOffCostNothing(t *testing.T) {
	h := NewHub(NewMemory(Retention{}), Options{})
	r := h.open("room")
	d, buf := text("data"), make([]byte, 0, 100)
	e := newEvent("room", &d, time.Now())
	e.Position = Position{"e", 1}
	r.pushLocked(eventFrame(e, 1))
	if n := testing.AllocsPerRun(1000, func() {
		buf = appendRecord(buf[:0], 5, &d)
		r.parts[0].told = 0
		h.delivered(r.parts[0].tellLocked(0, 1).and(news{}))
	}); n != 0 {
		t.Errorf("%v allocations for an event without a trace", n)
	}
}
