package fanout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/fanout/redistest"
)

// rig is a node on a Redis behind a proxy, with streams in some rooms and
// publishers that retry, with a key, until they are answered.
type rig struct {
	server *redistest.Server
	proxy  *redistest.Proxy
	log    *Redis
	hub    *Hub
	rooms  []string
	reads  map[string][]*reading

	mu    sync.Mutex
	acked map[string]map[uint64]string // by room and number: what was acknowledged; "" if two differ
	fails int
}

func newRig(t *testing.T, server *redistest.Server, rooms, streams int) *rig {
	t.Helper()
	proxy := redistest.NewProxy(t, server.Addr)
	r := newRigAt(t, "redis://"+proxy.Addr(), rooms, streams)
	r.server, r.proxy = server, proxy
	return r
}

// publish appends events from some publishers until stop is called, which
// waits until each has been answered.
func (r *rig) publish(t *testing.T, publishers int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				r.one(t, r.rooms[(p+i)%len(r.rooms)], fmt.Sprintf("%d.%d", p, i))
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// one publishes an event, for as long as it takes.
func (r *rig) one(t *testing.T, room, data string) {
	draft := Draft{Type: "message", Data: []byte(data), Key: "k" + newEpoch()}
	deadline := time.Now().Add(30 * time.Second)
	for {
		got, err := r.hub.Append(context.Background(), room, []Draft{draft})
		if err == nil {
			r.ack(room, got[0].Position, data)
			return
		}
		r.mu.Lock()
		r.fails++
		r.mu.Unlock()
		if !errors.Is(err, ErrUnavailable) || time.Now().After(deadline) {
			t.Errorf("publishing: %v", err)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *rig) ack(room string, p Position, data string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked[room][p.Seq] = data
}

// verify waits until every stream has shown its room's head, and holds what it
// showed against what was acknowledged: consecutive, nothing missing, nothing
// twice. It returns how many gaps streams showed, by reason.
func (r *rig) verify(t *testing.T) map[string]int {
	t.Helper()
	gaps := map[string]int{}
	delivered := 0
	for _, room := range r.rooms {
		var head Position
		eventually(t, 15*time.Second, "a head", func() bool {
			heads, err := r.log.Heads(context.Background(), []string{room})
			if err == nil {
				head = heads[0]
			}
			return err == nil
		})
		for i, c := range r.reads[room] {
			blocks := c.await(t, fmt.Sprintf("stream %d of %s at %v", i, room, head), func(blocks []block) bool {
				return slices.ContainsFunc(blocks, func(b block) bool { return b.id == head.String() })
			})
			shown := map[uint64]string{}
			var at uint64
			for _, b := range blocks {
				switch {
				case b.name == "sluice.gap":
					var gap struct{ Reason string }
					_ = json.Unmarshal([]byte(b.data), &gap)
					gaps[gap.Reason]++
					at = position(t, b.id).Seq
				case b.id == "" || strings.HasPrefix(b.name, "sluice."):
				default:
					seq := position(t, b.id).Seq
					if seq != at+1 {
						t.Errorf("%s, stream %d: %d follows %d", room, i, seq, at)
					}
					at, shown[seq] = seq, b.data
					delivered++
				}
			}
			if len(gaps) == 0 {
				r.compare(t, room, shown)
			}
		}
	}
	t.Logf("%d delivered, %d publications tried again", delivered, r.fails)
	return gaps
}

func (r *rig) compare(t *testing.T, room string, shown map[uint64]string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for seq, data := range r.acked[room] {
		if shown[seq] != strings.ReplaceAll(data, "\r\n", "\n") { // as SSE can carry it
			t.Errorf("%s: %d was acknowledged as %q and shown as %q", room, seq, data, shown[seq])
		}
	}
	if len(shown) != len(r.acked[room]) {
		t.Errorf("%s: %d shown, %d acknowledged", room, len(shown), len(r.acked[room]))
	}
}

func (r *rig) noGaps(t *testing.T) {
	t.Helper()
	if gaps := r.verify(t); len(gaps) > 0 {
		t.Errorf("streams show gaps though nothing is lost: %v", gaps)
	}
}

// pause lets a fault last; what it waits for is time itself.
func pause(d time.Duration) { <-time.After(d) }

func TestNothingIsLostWhenTheSubscriptionIsKilled(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRig(t, redistest.Start(t), 5, 4)
	stop := r.publish(t, 4)
	for range 30 {
		pause(100 * time.Millisecond)
		r.server.Do("CLIENT", "KILL", "TYPE", "pubsub")
	}
	stop()
	r.noGaps(t)
	if n := r.hub.stats.Losses.Load(); n < 5 {
		t.Errorf("only %d losses: the fault did not happen", n)
	}
}

func TestNothingIsLostWhenEveryConnectionIsCut(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRig(t, redistest.Start(t), 5, 4)
	stop := r.publish(t, 4)
	for range 20 {
		pause(150 * time.Millisecond)
		r.proxy.Cut()
	}
	stop()
	r.noGaps(t)
}

func TestAnAcknowledgementThatIsLostIsNotASecondEvent(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRig(t, redistest.Start(t), 3, 2)
	stop := r.publish(t, 4)
	for range 20 {
		r.proxy.CutReply(1, redistest.Command("evalsha"))
		pause(100 * time.Millisecond)
	}
	stop()
	r.noGaps(t)
	if r.proxy.CutReplies() < 10 {
		t.Errorf("only %d replies were cut", r.proxy.CutReplies())
	}
}

func TestARedisThatKeepsItsDataIsNotMissed(t *testing.T) {
	t.Parallel() // it mostly waits
	// With everysec Redis holds back what it writes while the disk is busy with
	// the second before, though it has answered.
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	r := newRig(t, server, 5, 4)
	stop := r.publish(t, 4)
	for range 3 {
		pause(700 * time.Millisecond)
		server.Kill()
		pause(1500 * time.Millisecond)
		server.Restart()
	}
	stop()
	r.noGaps(t)
	for _, c := range r.reads["room0"] {
		blocks, _ := c.events()
		told := strings.Join(names(blocks), " ")
		if !strings.Contains(told, "degraded") || !strings.Contains(told, "restored") {
			t.Errorf("the stream was not told of the outage: %.300s", told)
		}
	}
}

func TestARedisThatLosesItsDataIsOneGap(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	r := newRig(t, server, 3, 4)
	stop := r.publish(t, 2)
	pause(500 * time.Millisecond)
	stop()
	server.Kill()
	server.Restart()
	stop = r.publish(t, 2)
	pause(2 * time.Second)
	stop()
	if gaps := r.verify(t); gaps["new_history"] != 12 || len(gaps) != 1 {
		t.Errorf("12 streams show %v, want a gap new_history each", gaps)
	}
}

func TestADeadLinkIsFoundAndPublishersAreTold(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRig(t, redistest.Start(t), 3, 2)
	stop := r.publish(t, 2)
	pause(500 * time.Millisecond)
	var took time.Duration
	for range 3 { // a busy machine may be late
		if took = r.silenced(t); took < 2950*time.Millisecond {
			break
		}
		r.proxy.Heal()
		eventually(t, 6*time.Second, "the link is back", func() bool { return r.hub.DownSince().IsZero() })
	}
	if took > 2950*time.Millisecond {
		t.Errorf("found out after %v, want less than 3 s", took)
	}
	begun := time.Now()
	if _, err := r.hub.Append(t.Context(), "room0", []Draft{text("x")}); !errors.Is(err, ErrUnavailable) || time.Since(begun) > 50*time.Millisecond {
		t.Errorf("publishing meanwhile: %v after %v", err, time.Since(begun))
	}
	pause(2 * time.Second)
	r.proxy.Heal()
	healed := time.Now()
	eventually(t, 6*time.Second, "the link is back", func() bool { return r.hub.DownSince().IsZero() })
	t.Logf("back after %v", time.Since(healed))
	stop()
	r.noGaps(t)
}

// silenced makes the link fall silent directly after it was heard, which takes longest to
// find out, and returns how long it took.
func (r *rig) silenced(t *testing.T) time.Duration {
	t.Helper()
	heard := r.log.Links().Canary
	eventually(t, 6*time.Second, "a canary", func() bool { return r.log.Links().Canary != heard })
	r.proxy.Blackhole(true)
	begun := time.Now()
	eventually(t, 6*time.Second, "an outage", func() bool { return !r.hub.DownSince().IsZero() })
	return time.Since(begun)
}

func TestAStoppedRedisIsOnlyADelay(t *testing.T) {
	t.Parallel() // it mostly waits
	server := redistest.Start(t)
	r := newRig(t, server, 3, 2)
	stop := r.publish(t, 2)
	for _, d := range []time.Duration{100 * time.Millisecond, time.Second, 5 * time.Second} {
		pause(300 * time.Millisecond)
		server.Pause()
		pause(d)
		server.Resume()
	}
	pause(time.Second)
	stop()
	r.noGaps(t)
}

func TestAMessageThatIsDroppedIsMissedWithinSeconds(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRig(t, redistest.Start(t), 1, 2)
	r.one(t, "room0", "seen")
	for _, c := range r.reads["room0"] {
		c.await(t, "the first event", count(2))
	}
	r.proxy.Drop(1, redistest.Contains("sluice:ch:{room0}"))
	mustAppend(t, mustDirect(t, r), "room0", text("dropped"))
	begun := time.Now()
	for _, c := range r.reads["room0"] {
		wantNames(t, c.await(t, "the dropped event", count(3)), "open", "seen", "dropped")
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it came after %v", took)
	}
	if r.proxy.Dropped() != 1 {
		t.Errorf("%d messages were dropped", r.proxy.Dropped())
	}
}

func TestAConfirmationThatIsLostIsNotWaitedForForEver(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRig(t, redistest.Start(t), 1, 2)
	r.proxy.Drop(-1, redistest.Contains("subscribe\r\n$17\r\nsluice:ch:{room0}"))
	r.server.Do("CLIENT", "KILL", "TYPE", "pubsub")
	eventually(t, 5*time.Second, "the confirmation is lost", func() bool { return r.proxy.Dropped() > 0 })
	pause(500 * time.Millisecond) // go-redis may have asked twice
	r.proxy.Heal()
	begun := time.Now()
	mustAppend(t, mustDirect(t, r), "room0", text("unheard"))
	for _, c := range r.reads["room0"] {
		c.await(t, "the event", endsWith("unheard"))
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it came after %v", took)
	}
}

// mustDirect is a second way to the rig's Redis, without the proxy.
func mustDirect(t *testing.T, r *rig) *Redis {
	return openRedis(t, RedisOptions{URL: r.server.URL(), Keep: Retention{Events: 100000}})
}

func TestAnOutputBufferThatOverflowsLosesNothing(t *testing.T) {
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 256kb 0 0")
	r := newRig(t, server, 1, 1)
	direct := mustDirect(t, r)
	r.proxy.HoldReplies(true)
	large := strings.Repeat("x", 30<<10)
	for i := range 400 {
		data := strconv.Itoa(i) + large
		got := mustAppend(t, direct, "room0", text(data))
		r.ack("room0", got[0].Position, data)
	}
	r.proxy.Heal()
	r.noGaps(t)
	if r.hub.stats.Losses.Load() == 0 {
		t.Error("the subscription was not lost: the fault did not happen")
	}
}

func TestAFailoverThatLosesEventsTellsThoseWhoSawThem(t *testing.T) {
	primary := redistest.Start(t)
	replica := redistest.Replica(t, primary)
	r := newRig(t, primary, 1, 3)
	for i := range 5 {
		r.one(t, "room0", numbered(i+1))
	}
	replica.CatchUp(primary)
	replica.Detach()
	early := r.reads["room0"][0]
	early.await(t, "five events", count(6))
	for i := range 3 {
		r.one(t, "room0", numbered(i+6))
	}
	var lost Position
	for _, c := range r.reads["room0"] {
		blocks := c.await(t, "eight events", count(9))
		lost = position(t, blocks[8].id)
	}
	primary.Kill()
	replica.Promote()
	r.proxy.SetTarget(replica.Addr)
	r.proxy.Cut()
	for i := range 4 {
		r.one(t, "room0", "new "+strconv.Itoa(i))
	}
	want := []string{"open"}
	for i := range 8 {
		want = append(want, numbered(i+1))
	}
	want = append(want, "gap:truncated", "new 0", "new 1", "new 2", "new 3")
	for _, c := range r.reads["room0"] {
		blocks := c.await(t, "the new events", endsWith("new 3"))
		blocks = slices.DeleteFunc(blocks, func(b block) bool { return b.name == "sluice.degraded" || b.name == "sluice.restored" })
		wantNames(t, blocks, want...)
		if gap := blocks[9]; gap.id != lost.Epoch+"-5" || !strings.Contains(gap.data, `"after":"`+lost.String()+`"`) {
			t.Errorf("the gap is %+v; want the last position that holds, %s-5", gap, lost.Epoch)
		}
	}
	for from, want := range map[uint64][]string{
		5: {"open", "new 0", "new 1", "new 2", "new 3"},
		6: {"open", "gap:truncated", "new 0", "new 1", "new 2", "new 3"},
		8: {"open", "gap:truncated", "new 0", "new 1", "new 2", "new 3"},
	} {
		c := read(t, r.hub, ofRoom("room0", At(Position{lost.Epoch, from})))
		wantNames(t, c.await(t, "who comes back", endsWith("new 3")), want...)
	}
}

func TestADemotedServerIsFoundByTheCanary(t *testing.T) {
	old := redistest.Start(t)
	fresh := redistest.Replica(t, old)
	r := newRig(t, old, 1, 2)
	r.one(t, "room0", "one")
	fresh.CatchUp(old)
	fresh.Promote()
	// The subscription stays with the old server; what is new goes to the fresh one.
	r.proxy.SetTarget(fresh.Addr)
	r.log.servers.drop(theOnly)
	begun := time.Now()
	r.one(t, "room0", "two")
	for _, c := range r.reads["room0"] {
		wantNames(t, c.await(t, "the event on the fresh server", endsWith("two")), "open", "one", "two")
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it came after %v", took)
	}
}

func TestAFullRedisRefusesAndKeepsCounting(t *testing.T) {
	server := redistest.Start(t)
	r := newRig(t, server, 1, 1)
	r.one(t, "room0", "one")
	server.Do("CONFIG", "SET", "maxmemory", "1")
	if _, err := r.hub.Append(t.Context(), "room0", []Draft{text("too much")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("publishing to a full Redis: %v", err)
	}
	if h := mustRead(t, r.log, "room0", 0, 10); h.Head != 1 {
		t.Errorf("the head is %d after a refusal", h.Head)
	}
	server.Do("CONFIG", "SET", "maxmemory", "0")
	r.one(t, "room0", "two")
	r.noGaps(t)
}

func TestScriptsThatRedisForgotAreLoadedAgain(t *testing.T) {
	server := redistest.Start(t)
	r := newRig(t, server, 2, 2)
	stop := r.publish(t, 2)
	for range 50 {
		pause(10 * time.Millisecond)
		server.Do("SCRIPT", "FLUSH")
	}
	stop()
	r.noGaps(t)
}

func TestASplitMessageIsStillOneMessage(t *testing.T) {
	t.Parallel() // it mostly waits
	r := newRig(t, redistest.Start(t), 2, 2)
	r.proxy.Chop(3, time.Millisecond)
	for i := range 10 {
		r.one(t, "room"+strconv.Itoa(i%2), "aaaa\r\n*3\r\n$7\r\nmessage\r\n$17\r\nsluice:ch:{room1}\r\n$6\r\nFORGED\r\n"+strconv.Itoa(i))
	}
	r.proxy.Heal()
	r.noGaps(t)
}
