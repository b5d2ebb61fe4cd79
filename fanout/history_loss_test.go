package fanout

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/fanout/redistest"
)

// lossRig is a node on a simulated log whose server can lose things.
type lossRig struct {
	net *simNet
	log *simLog
	hub *Hub
}

// inLossRig runs f in a bubble.
func inLossRig(t *testing.T, keep Retention, opt Options, f func(t *testing.T, r *lossRig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &lossRig{net: newSimNet(newSimServer(keep))}
		r.net.auto = true
		r.log = r.net.node()
		r.hub = runHub(t, r.log, opt)
		synctest.Wait()
		f(t, r)
	})
}

// away cuts the node off while f happens, and waits until it is back.
func (r *lossRig) away(f func()) {
	r.log.lose()
	f()
	r.log.connect()
	r.net.mu.Lock()
	r.log.tellAll()
	r.net.mu.Unlock()
	synctest.Wait()
}

func (r *lossRig) publish(t *testing.T, from, to int) {
	for i := from; i <= to; i++ {
		mustAppend(t, r.log, "lobby", text(fmt.Sprint(i)))
	}
	synctest.Wait()
}

func (c *reading) wantAll(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	blocks, _ := c.events()
	wantNames(t, blocks, strings.Fields(want)...)
}

func TestAFailoverThatLosesAWholeEpochRepeatsNothing(t *testing.T) {
	inLossRig(t, Retention{}, Options{}, func(t *testing.T, r *lossRig) {
		r.publish(t, 1, 3)
		c := read(t, r.hub, ofRoom("lobby", Earliest()))
		r.net.server.restart(0)
		r.publish(t, 4, 5)
		r.away(func() { r.net.server.restart(2) })
		r.publish(t, 6, 6)
		c.wantAll(t, "open 1 2 3 4 5 gap:truncated 6")
	})
}

func TestALossIsToldHoweverMuchWasTrimmedSince(t *testing.T) {
	inLossRig(t, Retention{Events: 5}, Options{RingEvents: 5}, func(t *testing.T, r *lossRig) {
		c := read(t, r.hub, ofRoom("lobby", Head()))
		r.publish(t, 1, 4)
		r.away(func() {
			r.net.server.restart(2)
			for i := 5; i <= 20; i++ {
				mustAppend(t, r.log, "lobby", text(fmt.Sprint(i)))
			}
		})
		c.wantAll(t, "open 1 2 3 4 gap:truncated 16 17 18 19 20")
	})
}

func TestALossWithinWhatANodeHasSkippedLeavesNoHole(t *testing.T) {
	inLossRig(t, Retention{}, Options{RingEvents: 8}, func(t *testing.T, r *lossRig) {
		c := read(t, r.hub, ofRoom("lobby", Head()))
		synctest.Wait()
		resume := c.stall()
		r.publish(t, 1, 3)
		r.away(func() {
			for i := 4; i <= 12; i++ {
				mustAppend(t, r.log, "lobby", text(fmt.Sprint(i)))
			}
			r.net.server.expire("lobby", 9)
		})
		r.away(func() { r.net.server.restart(6) })
		r.publish(t, 8, 8)
		resume()
		c.wantAll(t, "open 1 2 3 4 5 6 7 8")
	})
}

func TestAGapDoesNotPromiseAnEventThatIsLost(t *testing.T) {
	inLossRig(t, Retention{}, Options{RingEvents: 8}, func(t *testing.T, r *lossRig) {
		c := read(t, r.hub, ofRoom("lobby", Head()))
		synctest.Wait()
		resume := c.stall()
		r.publish(t, 1, 3)
		r.away(func() {
			r.publish(t, 4, 9)
			r.net.server.expire("lobby", 6)
		})
		r.away(func() {
			r.net.server.restart(4) // three events, and that the others expired
			r.net.server.expire("lobby", 6)
		})
		r.publish(t, 10, 10)
		resume()
		synctest.Wait()
		blocks, _ := c.events()
		// How much of 1 to 3 was in the write that stalled is up to the scheduler.
		wantNames(t, blocks[len(blocks)-2:], "gap:trimmed", "10")
		if gap, next := blocks[len(blocks)-2].data, blocks[len(blocks)-1].id; !strings.Contains(gap, `"resumes_at":"`+next+`"`) {
			t.Errorf("behind the gap %s comes %s", gap, next)
		}
	})
}

func TestEventsOfEpochsThatAreForgottenAreNotRepeated(t *testing.T) {
	inLossRig(t, Retention{}, Options{RingEvents: 2}, func(t *testing.T, r *lossRig) {
		r.net.server.lineageBytes = 10
		r.publish(t, 1, 5)
		first := mustRead(t, r.log, "lobby", 0, 1).Events[0].Position
		for i := 6; i <= 8; i++ {
			r.net.server.restart(0)
			r.publish(t, i, i)
		}
		c := read(t, r.hub, ofRoom("lobby", At(first)))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		blocks, _ := c.events()
		if got := strings.Join(names(blocks), " "); got != "open gap:new_history 7 8" {
			t.Errorf("the stream shows %s; want what is of epochs that the log knows, once", got)
		}
	})
}

func TestALogThatHasLessThanTheRoomBelievesIsNotAskedAllTheTime(t *testing.T) {
	inLossRig(t, Retention{}, Options{RingEvents: 2}, func(t *testing.T, r *lossRig) {
		r.publish(t, 1, 10)
		keep := read(t, r.hub, ofRoom("lobby", Head()))
		synctest.Wait()
		at := mustRead(t, r.log, "lobby", 4, 1).Events[0].Position
		r.log.lose()
		r.log.setDown(true)
		r.net.server.restart(5)
		c := read(t, r.hub, ofRoom("lobby", At(at)))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := r.hub.stats.PagesRead.Load(); n > 10 {
			t.Errorf("the log was read %d times for nothing", n)
		}
		r.log.setDown(false)
		r.away(func() {})
		r.publish(t, 11, 11)
		c.wantAll(t, "open degraded restored 11")
		keep.wantAll(t, "open degraded gap:truncated restored 11")
	})
}

func TestEventsThatTheLineageDoesNotReachCountAsDeleted(t *testing.T) {
	server := redistest.Start(t)
	log := openRedis(t, RedisOptions{URL: server.URL()})
	var last Position
	for i := range 6 {
		last = mustAppend(t, log, "lobby", text(numbered(i+1)))[0].Position
	}
	server.Do("HSET", "sluice:meta:{lobby}", "lineage", last.Epoch+":4")
	h := mustRead(t, log, "lobby", 0, 10)
	if h.Oldest != 4 || len(h.Events) != 3 || h.Events[0].Seq != 4 {
		t.Errorf("%+v; want events 4 to 6", h)
	}
}

func TestAnOutageIsNotTheReadersFault(t *testing.T) {
	for _, ring := range []int{4, 8, 20, 40} { // events that the room has at hand, of those that the log keeps
		inLossRig(t, Retention{Events: 20}, Options{RingEvents: ring}, func(t *testing.T, r *lossRig) {
			c := read(t, r.hub, ofRoom("lobby", Head()))
			r.publish(t, 1, 4)
			r.away(func() {
				for i := 5; i <= 30; i++ {
					mustAppend(t, r.log, "lobby", text(fmt.Sprint(i)))
				}
			})
			r.publish(t, 31, 32)
			c.wantAll(t, "open 1 2 3 4 gap:outage 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32")
		})
	}
}
