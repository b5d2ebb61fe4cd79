package handlers

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/fanout"
)

func TestStreamsShowEveryEventInOrder(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{})
		var streams []*testStream
		for range 50 {
			streams = append(streams, n.open("/rooms/lobby/events"))
		}
		var all sync.WaitGroup
		for _, s := range streams {
			all.Go(func() { s.wantNumbers(1, 500) })
		}
		n.publishNumbers("lobby", 1, 500, "")
		all.Wait()
	})
}

func TestStreamHeadersArriveOnEveryPath(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{config: Config{Origins: []string{"https://app.example"}}})
		s := n.open("/rooms/lobby/events", "Origin: https://app.example")
		for name, want := range map[string]string{
			"Content-Type":                "text/event-stream; charset=utf-8",
			"Cache-Control":               "no-store, no-transform",
			"X-Accel-Buffering":           "no",
			"Content-Encoding":            "identity",
			"X-Content-Type-Options":      "nosniff",
			"Referrer-Policy":             "no-referrer",
			"Access-Control-Allow-Origin": "https://app.example",
			"Vary":                        "Origin",
		} {
			if got := s.header.Get(name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		if date, err := http.ParseTime(s.header.Get("Date")); err != nil || time.Since(date) > time.Minute {
			t.Errorf("Date: %q, %v", s.header.Get("Date"), err)
		}
		if s.opened.id == "" || !strings.Contains(s.opened.data, `"lobby"`) {
			t.Errorf("opened with %q", s.opened)
		}
	})
}

func TestCursorInTheRingResumes(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{})
		first := n.open("/rooms/lobby/events")
		n.publishNumbers("lobby", 1, 100, "")
		first.wantNumbers(1, 40)
		second := n.open("/rooms/lobby/events", "Last-Event-ID: "+first.id)
		if second.opened.id != first.id {
			t.Errorf("opened at %q, want %q", second.opened.id, first.id)
		}
		second.wantNumbers(41, 100)
		n.publishNumbers("lobby", 101, 110, "")
		second.wantNumbers(101, 110)
		first.wantNumbers(41, 110)
	})
}

func TestCursorBehindTheRingReadsTheLog(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{hub: fanout.Options{RingEvents: 16}, keep: fanout.Retention{Events: 3000}})
		n.publishNumbers("lobby", 1, 2000, "")
		s := n.open("/rooms/lobby/events?after=earliest")
		s.wantNumbers(1, 1500)
		n.publishNumbers("lobby", 2001, 2100, "")
		s.wantNumbers(1501, 2100)
	})
}

func TestManyLargeEventsInTheRingComeWithoutDelay(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{hub: fanout.Options{RingBytes: 16 << 20}})
		idle := n.open("/rooms/lobby/events") // which keeps the ring
		n.publishNumbers("lobby", 1, 100, " "+strings.Repeat("x", 10_000))
		s := n.open("/rooms/lobby/events?after=earliest")
		begun := time.Now()
		s.wantNumbers(1, 100)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("took %v: it waited for a heartbeat", took)
		}
		idle.wantNumbers(1, 100)
	})
}

func TestGapStandsBeforeTheFirstEventAfterAHole(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{keep: fanout.Retention{Events: 10}})
		n.publishNumbers("lobby", 1, 30, "")
		first := n.open("/rooms/lobby/events?last=1")
		position := first.nextEvent().id
		epoch, _, _ := strings.Cut(position, "-")
		for cursor, reason := range map[string]string{
			epoch + "-5": "trimmed", "0000000000000-1": "new_history", "nonsense": "bad_cursor", epoch + "-99": "bad_cursor",
		} {
			s := n.open("/rooms/lobby/events?after=" + cursor)
			if reason == "bad_cursor" {
				n.publish("lobby", "more")
			}
			gap := s.nextEvent()
			if gap.name != "sluice.gap" || !strings.Contains(gap.data, `"reason":"`+reason+`"`) {
				t.Errorf("cursor %q: got %q, want a gap for %s", cursor, gap, reason)
			}
		}
		if _, err := n.log.Purge(t.Context(), "lobby"); err != nil {
			t.Fatal(err)
		}
		n.publish("lobby", "after the purge")
		for {
			b := first.nextEvent()
			if b.name == "sluice.gap" {
				if !strings.Contains(b.data, `"reason":"purged"`) {
					t.Errorf("got %q, want a gap for purged", b.data)
				}
				break
			}
		}
		if b := first.nextEvent(); b.data != "after the purge" {
			t.Errorf("got %q behind the gap", b.data)
		}
	})
}

func TestFiltersLeaveEventsOutAndMoveTheCursorOn(t *testing.T) {
	t.Parallel() // it mostly waits
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{config: Config{Heartbeat: 200 * time.Millisecond}})
		typed := n.open("/rooms/lobby/events?types=news,alarm")
		own := n.open("/rooms/lobby/events")
		var opened struct{ Stream string }
		if err := json.Unmarshal([]byte(own.opened.data), &opened); err != nil {
			t.Fatal(err)
		}
		n.publish("lobby", "chatter")
		n.publish("lobby", "headline", func(d *fanout.Draft) { d.Type = "news" })
		n.publish("lobby", "not to myself", func(d *fanout.Draft) { d.Exclude = opened.Stream })
		n.publish("lobby", "passing", func(d *fanout.Draft) { d.Type = "other" })
		if b := typed.nextEvent(); b.name != "news" || b.data != "headline" {
			t.Errorf("got %q, want the news", b)
		}
		if b := typed.nextEvent(); b.name != "sluice.beat" || !strings.HasSuffix(b.id, "-4") {
			t.Errorf("got %q, want a beat with the id of what was left out", b)
		}
		for _, want := range []string{"chatter", "headline", "passing"} {
			if b := own.nextEvent(); b.data != want {
				t.Errorf("got %q, want %q", b.data, want)
			}
		}
	})
}

func TestEphemeralEventsHaveNoID(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{})
		s := n.open("/rooms/lobby/events")
		n.publish("lobby", "kept")
		if _, err := n.hub.Broadcast(t.Context(), "lobby", fanout.Draft{Data: []byte("passing")}); err != nil {
			t.Fatal(err)
		}
		n.publish("lobby", "kept too")
		for i, want := range []string{"kept", "passing", "kept too"} {
			if b := s.nextEvent(); b.data != want || (b.id == "") != (i == 1) {
				t.Errorf("got %q, want %q", b, want)
			}
		}
		late := n.open("/rooms/lobby/events?after=earliest")
		for _, want := range []string{"kept", "kept too"} {
			if b := late.nextEvent(); b.data != want {
				t.Errorf("got %q, want %q: what came before is not for a later stream", b.data, want)
			}
		}
	})
}

func TestHeartbeatsComeOnASilentStream(t *testing.T) {
	t.Parallel() // it mostly waits
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{config: Config{Heartbeat: 50 * time.Millisecond}})
		comments, events := n.open("/rooms/lobby/events"), n.open("/rooms/lobby/events?heartbeat=event")
		for range 3 {
			if b := comments.next(); b.comment != ":" {
				t.Errorf("got %q, want a comment", b)
			}
			if b := events.next(); b.name != "sluice.beat" || b.data != "{}" {
				t.Errorf("got %q, want a beat", b)
			}
		}
	})
}

func TestStreamOfSeveralRoomsHasACompositeCursor(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{})
		s := n.open("/events?room=a&room=b&room=c")
		for i := 1; i <= 30; i++ {
			room := string(rune('a' + i%3))
			n.publish(room, fmt.Sprint(i))
			b := s.nextEvent()
			if !strings.Contains(b.data, fmt.Sprintf(`"data":"%d"`, i)) || strings.Count(b.id, "=") != 3 {
				t.Fatalf("got %q, want event %d with the cursors of three rooms", b, i)
			}
		}
		n.publish("b", "missed")
		again := n.open("/events?room=a&room=b&room=c", "Last-Event-ID: "+s.id)
		if b := again.nextEvent(); !strings.Contains(b.data, `"missed"`) {
			t.Errorf("got %q", b)
		}
	})
}

func TestNDJSONCarriesALineAnEvent(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{config: Config{Heartbeat: 300 * time.Millisecond}})
		one := n.request("/rooms/lobby/events", "", "Accept: application/x-ndjson")
		two := n.request("/events?room=lobby&room=hall", "", "Accept: application/x-ndjson")
		n.await("both streams", func() bool { return n.streams() == 2 })
		n.publish("lobby", "hello")
		for _, s := range []*testStream{one, two} {
			for _, want := range []string{"sluice.open", "message", "sluice.beat"} {
				line, err := s.line()
				var e struct{ ID, Type, Cursor string }
				if err != nil || json.Unmarshal([]byte(line), &e) != nil || e.Type != want {
					t.Fatalf("got %q, %v, want %s", line, err, want)
				}
				if want == "message" && (s == two) != strings.Contains(e.Cursor, "hall=") {
					t.Errorf("got the cursor %q", e.Cursor)
				}
			}
		}
	})
}

func TestStreamEndsAtItsAge(t *testing.T) {
	t.Parallel() // it mostly waits
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{config: Config{MaxAge: 100 * time.Millisecond}})
		s := n.open("/rooms/lobby/events")
		if last := s.wantEnd(); last.name != "sluice.bye" || !strings.Contains(last.data, "max_age") {
			t.Errorf("ended with %q", last)
		}
	})
}

func TestStreamEndsAsItsClientAsks(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{})
		s := n.open("/rooms/lobby/events")
		var opened struct{ Stream string }
		if err := json.Unmarshal([]byte(s.opened.data), &opened); err != nil {
			t.Fatal(err)
		}
		if err := n.hub.EndStream(t.Context(), opened.Stream); err != nil {
			t.Fatal(err)
		}
		s.wantEnd()
		n.await("the end", func() bool { return n.streams() == 0 && n.ended(fanout.ByeLeft) == 1 })
	})
}

func TestOutageIsTold(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{})
		streams := []*testStream{n.open("/rooms/lobby/events"), n.open("/events?room=lobby&room=hall")}
		n.log.link(false)
		for _, s := range streams {
			if b := s.nextEvent(); b.name != "sluice.degraded" {
				t.Errorf("got %q", b)
			}
		}
		n.log.link(true)
		for _, s := range streams {
			if b := s.nextEvent(); b.name != "sluice.restored" {
				t.Errorf("got %q", b)
			}
		}
		n.publish("lobby", "on it goes")
		if b := streams[0].nextEvent(); b.data != "on it goes" {
			t.Errorf("got %q", b)
		}
	})
}

func TestSlowReaderLosesNothing(t *testing.T) {
	t.Parallel() // it mostly waits
	onEveryPath(t, func(t *testing.T, p path) {
		const events = 3000
		n := newTestNode(t, p, setup{sndbuf: 8 << 10, keep: fanout.Retention{Events: events}, hub: fanout.Options{RingEvents: 64}})
		slow, quick := n.open("/rooms/lobby/events"), n.open("/rooms/lobby/events")
		var reading sync.WaitGroup
		reading.Go(func() { quick.wantNumbers(1, events) })
		n.publishNumbers("lobby", 1, events, " "+strings.Repeat("x", 2000)) // more than all buffers hold
		reading.Wait()
		slow.wantNumbers(1, events)
		n.publish("lobby", fmt.Sprint(events+1))
		slow.wantNumbers(events+1, events+1)
		quick.wantNumbers(events+1, events+1)
	})
}

func TestReaderThatTakesNothingIsEndedAlone(t *testing.T) {
	t.Parallel() // it mostly waits
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{
			sndbuf: 8 << 10, keep: fanout.Retention{Events: 3000},
			config: Config{WriteTimeout: time.Second},
		})
		n.open("/rooms/lobby/events")
		quick := n.open("/rooms/lobby/events")
		var reading sync.WaitGroup
		reading.Go(func() { quick.wantNumbers(1, 2000) })
		n.publishNumbers("lobby", 1, 2000, " "+strings.Repeat("x", 8000))
		reading.Wait()
		n.await("the end of the one that stalls", func() bool { return n.streams() == 1 && n.ended(fanout.ByeGone) == 1 })
	})
}

func TestHangUpIsNoticedWithinASecond(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{})
		var streams []*testStream
		for range 20 {
			streams = append(streams, n.open("/rooms/lobby/events"))
		}
		n.await("all streams", func() bool { return n.streams() == 20 })
		for i, s := range streams[:10] {
			if tcp, ok := s.conn.(*net.TCPConn); ok && i%2 == 0 {
				_ = tcp.SetLinger(0) // a reset rather than an end
			}
			s.hangUp()
		}
		if took := n.await("ten ends", func() bool { return n.streams() == 10 }); took > time.Second {
			t.Errorf("took %v", took)
		}
		n.publish("lobby", "1")
		for _, s := range streams[10:] {
			s.wantNumbers(1, 1)
		}
	})
}

func TestDrainSaysGoodbyeToAll(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{})
		var streams []*testStream
		for range 30 {
			streams = append(streams, n.open("/rooms/lobby/events"))
		}
		n.gateway.Drain()
		n.hub.Drain(t.Context(), 50*time.Millisecond)
		if left := n.streams(); left != 0 {
			t.Errorf("%d streams are left", left)
		}
		for _, s := range streams {
			if last := s.wantEnd(); last.name != "sluice.bye" || !strings.Contains(last.data, "drain") {
				t.Errorf("ended with %q", last)
			}
		}
		if b := n.request("/rooms/lobby/events", "").next(); b.name != "sluice.bye" {
			t.Errorf("who comes later got %q", b)
		}
	})
}

func TestWhatIsSentBehindARequestIsIgnored(t *testing.T) {
	n := newTestNode(t, paths[0], setup{})
	s := n.request("/rooms/lobby/events", "GET /rooms/other/events HTTP/1.1\r\nHost: x\r\n\r\n"+strings.Repeat("garbage", 1000))
	if b := s.next(); b.name != "sluice.open" {
		t.Fatalf("got %q", b)
	}
	for i := 1; i <= 100; i++ {
		if _, err := io.WriteString(s.conn, strings.Repeat("more garbage", 10)); err != nil {
			t.Fatal(err)
		}
		n.publish("lobby", fmt.Sprint(i))
		s.wantNumbers(i, i)
	}
	n.hub.Drain(t.Context(), 0)
	if last := s.wantEnd(); last.name != "sluice.bye" {
		t.Errorf("ended with %q", last)
	}
}

func TestThousandsOfStreams(t *testing.T) {
	const streams, rooms, events = 2000, 20, 50
	n := newTestNode(t, paths[0], setup{hub: fanout.Options{Shards: 4}})
	all := make([]*testStream, streams)
	for i := range all {
		all[i] = n.open(fmt.Sprintf("/rooms/r%d/events", i%rooms))
	}
	var tasks sync.WaitGroup
	for room := range rooms {
		tasks.Go(func() { n.publishNumbers(fmt.Sprintf("r%d", room), 1, events, "") })
	}
	gone := 0
	for i, s := range all {
		if i%7 == 3 {
			s.hangUp() // while events come
			gone++
			continue
		}
		s.wantNumbers(1, events)
	}
	tasks.Wait()
	n.await("those that left", func() bool { return n.streams() == streams-gone })
}

func TestStreamsComeAndGoWhileEventsCome(t *testing.T) {
	onEveryPath(t, func(t *testing.T, p path) {
		n := newTestNode(t, p, setup{hub: fanout.Options{RingEvents: 8, Shards: 3}, keep: fanout.Retention{Events: 1 << 20}})
		done := make(chan struct{})
		var publishing, reading sync.WaitGroup
		publishing.Go(func() {
			for i := 1; ; i++ {
				select {
				case <-done:
					return
				default:
					n.publish("lobby", fmt.Sprint(i))
				}
				if i%64 == 0 {
					time.Sleep(time.Millisecond) // or the log forgets faster than anybody reads
				}
			}
		})
		for range 8 {
			reading.Go(func() {
				cursor, seen := "", 0
				for range 10 {
					target := "/rooms/lobby/events?after=earliest"
					if cursor != "" {
						target = "/rooms/lobby/events?after=" + cursor
					}
					s := n.open(target)
					s.wantNumbers(seen+1, seen+40)
					seen, cursor = seen+40, s.id
					s.hangUp()
				}
			})
		}
		reading.Wait()
		close(done)
		publishing.Wait()
	})
}
