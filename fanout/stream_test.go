package fanout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reading is the client's end of a stream under test: it parses what comes by
// itself, as the WHATWG has it, and remembers.
type reading struct {
	mu      sync.Mutex
	pending []byte
	blocks  []block
	changed chan struct{}
	stalled chan struct{} // when not nil, Write waits until it is closed
	cut     bool          // Write fails

	cancel context.CancelFunc
	done   chan ByeReason
}

// block is an SSE block that is dispatched, or a comment.
type block struct {
	id, name, data, retry string
	comment               bool
}

func (c *reading) Write(b []byte) error {
	c.mu.Lock()
	stalled := c.stalled
	c.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return errors.New("cut")
	}
	c.pending = append(c.pending, b...)
	for {
		i := bytes.Index(c.pending, []byte("\n\n"))
		if i < 0 {
			break
		}
		c.blocks = append(c.blocks, parseBlock(string(c.pending[:i])))
		c.pending = c.pending[i+2:]
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

func parseBlock(text string) block {
	var b block
	var data []string
	fields := 0
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			b.id = value
		case "event":
			b.name = value
		case "data":
			data = append(data, value)
		case "retry":
			b.retry = value
		case "":
			continue
		default:
			panic("a line that no client knows: " + line)
		}
		fields++
	}
	b.data = strings.Join(data, "\n")
	b.comment = fields == 0
	if !b.comment && b.name == "" {
		b.name = "message"
	}
	return b
}

// read opens a stream and runs it until the test ends, or stop is called.
func read(t *testing.T, h *Hub, opt StreamOptions) *reading {
	t.Helper()
	s, err := h.Open(t.Context(), opt)
	if err != nil {
		t.Fatalf("opening %v: %v", opt.Rooms, err)
	}
	return run(t, s)
}

func run(t *testing.T, s *Stream) *reading {
	ctx, cancel := context.WithCancel(context.Background())
	c := &reading{changed: make(chan struct{}), cancel: cancel, done: make(chan ByeReason, 1)}
	go func() { c.done <- s.Run(ctx, c) }()
	t.Cleanup(func() { c.stop() })
	return c
}

// stop hangs up and waits for the stream to notice.
func (c *reading) stop() {
	c.cancel()
	c.mu.Lock()
	if c.stalled != nil {
		close(c.stalled)
		c.stalled = nil
	}
	c.mu.Unlock()
	reason := <-c.done
	c.done <- reason
}

// stall makes the client stop reading until the function is called.
func (c *reading) stall() (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = make(chan struct{})
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.stalled != nil {
			close(c.stalled)
			c.stalled = nil
		}
	}
}

// await waits until f is satisfied with the events, comments left out.
func (c *reading) await(t *testing.T, what string, f func(blocks []block) bool) []block {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		blocks, changed := c.events()
		if f(blocks) {
			return blocks
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: not within 20 s; the last of %d events: %+v", what, len(blocks), blocks[max(0, len(blocks)-5):])
		}
	}
}

func (c *reading) events() ([]block, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var events []block
	for _, b := range c.blocks {
		if !b.comment {
			events = append(events, b)
		}
	}
	return events, c.changed
}

func ofRoom(room string, start Start) StreamOptions {
	return StreamOptions{Rooms: []string{room}, Starts: []Start{start}}
}

func position(t *testing.T, s string) Position {
	t.Helper()
	p, ok := ParsePosition(s)
	if !ok {
		t.Fatalf("%q is no position", s)
	}
	return p
}

// names lists what came, as "open", "gap:reason", or the data of a message.
func names(blocks []block) []string {
	var list []string
	for _, b := range blocks {
		switch b.name {
		case "sluice.gap":
			var gap struct{ Reason string }
			_ = json.Unmarshal([]byte(b.data), &gap)
			list = append(list, "gap:"+gap.Reason)
		case "message":
			list = append(list, b.data)
		default:
			list = append(list, strings.TrimPrefix(b.name, "sluice."))
		}
	}
	return list
}

func wantNames(t *testing.T, blocks []block, want ...string) {
	t.Helper()
	if got := names(blocks); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the stream shows\n\t%v\nwant\n\t%v", got, want)
	}
}

func count(n int) func([]block) bool {
	return func(blocks []block) bool { return len(blocks) >= n }
}

func endsWith(data string) func([]block) bool {
	return func(blocks []block) bool { return len(blocks) > 0 && blocks[len(blocks)-1].data == data }
}

func TestStreamBeginsAtTheHead(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		h := runHub(t, log, Options{})
		last := mustAppend(t, log, "lobby", text("before"))[0].Position
		c := read(t, h, ofRoom("lobby", Head()))
		blocks := c.await(t, "the opening", count(1))
		if blocks[0].name != "sluice.open" || blocks[0].id != last.String() || blocks[0].retry == "" {
			t.Errorf("the stream opens with %+v; want sluice.open with id %v and a retry", blocks[0], last)
		}
		mustAppend(t, log, "lobby", text("one"), text("two"))
		blocks = c.await(t, "two events", count(3))
		wantNames(t, blocks, "open", "one", "two")
		if want := (Position{last.Epoch, 3}).String(); blocks[2].id != want {
			t.Errorf("the last id is %s, want %s", blocks[2].id, want)
		}
	})
}

func TestStreamResumesFromEveryPosition(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{Events: 60})
		h := runHub(t, log, Options{RingEvents: 16})
		var epoch string
		for i := range 100 {
			epoch = mustAppend(t, log, "lobby", text(numbered(i+1)))[0].Position.Epoch
		}
		for from := range 101 {
			c := read(t, h, ofRoom("lobby", At(Position{epoch, uint64(from)})))
			want := []string{"open"}
			next := from + 1
			if from < 40 {
				want = append(want, "gap:trimmed")
				next = 41
			}
			for i := next; i <= 100; i++ {
				want = append(want, numbered(i))
			}
			blocks := c.await(t, fmt.Sprintf("everything behind %d", from), count(len(want)))
			wantNames(t, blocks, want...)
			if want := (Position{epoch, uint64(from)}).String(); blocks[0].id != want {
				t.Errorf("from %d, it opens with id %s", from, blocks[0].id)
			}
			if from < 40 {
				want := fmt.Sprintf(`{"room":"lobby","after":"%s-%d","resumes_at":"%s-41","missed":%d,"reason":"trimmed"}`, epoch, from, epoch, 40-from)
				if blocks[1].data != want || blocks[1].id != epoch+"-40" {
					t.Errorf("the gap is %s with id %s, want %s", blocks[1].data, blocks[1].id, want)
				}
			}
			c.stop()
		}
	})
}

func TestStreamSaysWhyACursorLeadsNowhere(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		h := runHub(t, log, Options{})
		for i := range 3 {
			mustAppend(t, log, "lobby", text(numbered(i+1)))
		}
		epoch := mustAppend(t, log, "lobby", text("event 4"))[0].Position.Epoch
		for _, tt := range []struct {
			cursor string
			id     string // of the opening
			want   []string
		}{
			{"zzz-3", "zzz-3", []string{"open", "gap:new_history", "event 1", "event 2", "event 3", "event 4", "next"}},
			{epoch + "-9", epoch + "-9", []string{"open", "gap:bad_cursor", "next"}},
			{"nonsense", epoch + "-4", []string{"open", "gap:bad_cursor", "next"}},
			{strings.Repeat("9", 10<<10), epoch + "-4", []string{"open", "gap:bad_cursor", "next"}},
			{"0-0", "0-0", []string{"open", "event 1", "event 2", "event 3", "event 4", "next"}},
			{"kitchen=a-1", epoch + "-4", []string{"open", "next"}},
			{"lobby=" + epoch + "-3,kitchen=a-1", epoch + "-3", []string{"open", "event 4", "next"}},
		} {
			if _, err := log.Purge(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
			starts, _ := ParseCursor(tt.cursor, []string{"lobby"})
			c := read(t, h, StreamOptions{Rooms: []string{"lobby"}, Starts: starts})
			c.await(t, "the opening", count(len(tt.want)-1))
			if _, err := h.Broadcast(t.Context(), "lobby", text("next")); err != nil {
				t.Fatal(err)
			}
			blocks := c.await(t, "what the cursor "+tt.cursor[:min(len(tt.cursor), 20)]+" leads to", count(len(tt.want)))
			wantNames(t, blocks, tt.want...)
			if blocks[0].id != tt.id {
				t.Errorf("%.20s opens with id %s, want %s", tt.cursor, blocks[0].id, tt.id)
			}
			c.stop()
		}
	})
}

func TestPurgeIsAGapForEverybody(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		h := runHub(t, log, Options{})
		old := mustAppend(t, log, "lobby", text("secret"))[0].Position
		c := read(t, h, ofRoom("lobby", Head()))
		c.await(t, "the opening", count(1))
		head, err := log.Purge(t.Context(), "lobby")
		if err != nil {
			t.Fatal(err)
		}
		c.await(t, "the gap", count(2))
		mustAppend(t, log, "lobby", text("after"))
		blocks := c.await(t, "what comes after", count(3))
		wantNames(t, blocks, "open", "gap:purged", "after")
		if blocks[1].id != head.String() {
			t.Errorf("the gap has id %s, want %v", blocks[1].id, head)
		}
		back := read(t, h, ofRoom("lobby", At(old)))
		wantNames(t, back.await(t, "who comes back", count(3)), "open", "gap:purged", "after")
	})
}

func TestSeveralRoomsShareAStream(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		h := runHub(t, log, Options{})
		a := mustAppend(t, log, "a", text("a1"), text("a2"))[1].Position
		starts, ok := ParseCursor("a="+a.Epoch+"-1", []string{"a", "b"})
		if !ok {
			t.Fatal("the cursor cannot be read")
		}
		c := read(t, h, StreamOptions{Rooms: []string{"a", "b"}, Starts: starts, Format: Envelope})
		c.await(t, "a2", count(2))
		b := mustAppend(t, log, "b", text("b1"))[0].Position
		blocks := c.await(t, "b1", count(3))
		for i, want := range []string{
			"a=" + a.Epoch + "-1,b=0-0",
			"a=" + a.String() + ",b=0-0",
			"a=" + a.String() + ",b=" + b.String(),
		} {
			if blocks[i].id != want {
				t.Errorf("block %d has id %s, want %s", i, blocks[i].id, want)
			}
		}
		if !strings.HasPrefix(blocks[2].data, `{"id":"`+b.String()+`","room":"b","type":"message","at":"`) || !strings.HasSuffix(blocks[2].data, `","data":"b1"}`) {
			t.Errorf("the envelope is %s", blocks[2].data)
		}
	})
}

func TestLeftOutEventsMoveTheCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewMemory(Retention{})
		h := runHub(t, log, Options{})
		opt := ofRoom("lobby", Head())
		opt.Types = []string{"wanted"}
		c := read(t, h, opt)
		synctest.Wait()
		last := mustAppend(t, log, "lobby", text("unwanted"), Draft{Type: "wanted", Data: []byte("x")}, text("unwanted"))[2].Position
		time.Sleep(16 * time.Second)
		synctest.Wait()
		blocks, _ := c.events()
		wantNames(t, blocks, "open", "wanted", "beat")
		if blocks[2].id != last.String() || blocks[2].data != "{}" {
			t.Errorf("the beat is %+v, want id %v", blocks[2], last)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if n := len(c.blocks); n != 4 || !c.blocks[3].comment {
			t.Errorf("the next heartbeat is no comment: %+v", c.blocks)
		}
	})
}

func TestExcludedStreamDoesNotSeeTheEvent(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		h := runHub(t, log, Options{})
		s, err := h.Open(t.Context(), ofRoom("lobby", Head()))
		if err != nil {
			t.Fatal(err)
		}
		mine, other := run(t, s), read(t, h, ofRoom("lobby", Head()))
		draft := text("from me")
		draft.Exclude = s.ID()
		mustAppend(t, log, "lobby", draft, text("from all"))
		wantNames(t, other.await(t, "both events", count(3)), "open", "from me", "from all")
		wantNames(t, mine.await(t, "the other event", count(2)), "open", "from all")
	})
}

func TestHeartbeatsComeOnSilentStreamsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewMemory(Retention{})
		h := runHub(t, log, Options{})
		c := read(t, h, ofRoom("lobby", Head()))
		opt := ofRoom("lobby", Head())
		opt.Beats = true
		beats := read(t, h, opt)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := len(c.blocks); n != 41 {
			t.Errorf("%d writes in ten silent minutes, want 1 and 40 heartbeats", n)
		}
		if blocks, _ := beats.events(); len(blocks) != 41 || blocks[40].name != "sluice.beat" || blocks[40].data != "{}" || blocks[40].id != "" {
			t.Errorf("%d events where beats were asked for; the last %+v", len(blocks), blocks[len(blocks)-1])
		}
	})
}

func TestStreamsEndAtAnAgeWithAGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewMemory(Retention{})
		h := runHub(t, log, Options{})
		begun := time.Now()
		ages := map[time.Duration]bool{}
		for range 20 {
			opt := ofRoom("lobby", Head())
			opt.MaxAge = time.Hour
			c := read(t, h, opt)
			go func() { <-c.done; c.done <- ByeMaxAge }()
			if reason := <-c.done; reason != ByeMaxAge {
				t.Fatalf("ended by %s", reason)
			}
			age := time.Since(begun)
			begun = time.Now()
			if age < 48*time.Minute || age > 72*time.Minute {
				t.Errorf("ended at an age of %v", age)
			}
			ages[age.Round(time.Second)] = true
			c.done <- ByeMaxAge
			blocks, _ := c.events()
			if last := blocks[len(blocks)-1]; last.name != "sluice.bye" || last.data != `{"reason":"max_age"}` || last.retry == "" {
				t.Errorf("the goodbye is %+v", last)
			}
		}
		if len(ages) < 10 {
			t.Errorf("streams end together: %v", ages)
		}
	})
}

func TestManyLargeEventsAtOnceAllArrive(t *testing.T) {
	log := NewMemory(Retention{})
	h := runHub(t, log, Options{})
	c := read(t, h, ofRoom("lobby", Head()))
	c.await(t, "the opening", count(1))
	drafts := make([]Draft, 20)
	for i := range drafts {
		drafts[i] = text(strings.Repeat("x", 40<<10))
	}
	mustAppend(t, log, "lobby", drafts...)
	checkConsecutive(t, c.await(t, "all of them", count(21)))
}

func TestStalledStreamCatchesUpAndHoldsUpNobody(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		h := runHub(t, log, Options{RingEvents: 16})
		stalled, good := read(t, h, ofRoom("lobby", Head())), read(t, h, ofRoom("lobby", Head()))
		stalled.await(t, "the opening", count(1))
		resume := stalled.stall()
		const n = 500
		want := []string{"open"}
		for i := range n {
			mustAppend(t, log, "lobby", text(numbered(i+1)))
			want = append(want, numbered(i+1))
		}
		wantNames(t, good.await(t, "everything", count(n+1)), want...)
		resume()
		wantNames(t, stalled.await(t, "everything, later", count(n+1)), want...)
	})
}

func TestStreamThatFallsBehindTheLogIsToldSo(t *testing.T) {
	log := NewMemory(Retention{Events: 32})
	h := runHub(t, log, Options{RingEvents: 16})
	c := read(t, h, ofRoom("lobby", Head()))
	c.await(t, "the opening", count(1))
	mustAppend(t, log, "lobby", text("0"))
	c.await(t, "an event", count(2))
	resume := c.stall()
	for i := range 100 {
		mustAppend(t, log, "lobby", text(numbered(i+1)))
	}
	resume()
	blocks := c.await(t, "the end", endsWith("event 100"))
	gaps := 0
	for _, name := range names(blocks) {
		if strings.HasPrefix(name, "gap:") {
			gaps++
			if name != "gap:slow" {
				t.Errorf("the gap is %s", name)
			}
		}
	}
	// There are two if the stream's goroutine came late, and was overtaken before it stalled as well.
	if gaps != 1 && gaps != 2 {
		t.Errorf("%d gaps, want 1 or 2: %v", gaps, names(blocks))
	}
	checkConsecutive(t, blocks)
}

// checkConsecutive holds a stream of one room to the promise: each number
// follows the last one, or a gap says where it goes on.
func checkConsecutive(t *testing.T, blocks []block) {
	t.Helper()
	var at Position
	for i, b := range blocks {
		if b.id == "" {
			continue
		}
		p := position(t, b.id)
		if !strings.HasPrefix(b.name, "sluice.") && p.Seq != at.Seq+1 {
			t.Errorf("event %v follows %v (block %d)", p, at, i)
		}
		at = p
	}
}

func TestReplayMeetsLiveWithoutAHole(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{Events: 2000})
		h := runHub(t, log, Options{RingEvents: 32})
		const n, readers = 1500, 40
		first := mustAppend(t, log, "lobby", text(numbered(1)))[0].Position
		var publishing sync.WaitGroup
		publishing.Go(func() {
			for i := 1; i < n; i++ {
				if _, err := log.Append(context.Background(), "lobby", []Draft{text(numbered(i + 1))}); err != nil {
					t.Error(err)
				}
			}
		})
		var streams []*reading
		for range readers {
			streams = append(streams, read(t, h, ofRoom("lobby", At(Position{first.Epoch, 0}))))
		}
		publishing.Wait()
		for _, c := range streams {
			blocks := c.await(t, "all events", count(n+1))
			checkConsecutive(t, blocks)
			if len(blocks) != n+1 || blocks[n].data != numbered(n) {
				t.Errorf("%d blocks, the last %+v", len(blocks), blocks[len(blocks)-1])
			}
		}
	})
}

func TestReplayThatTrimmingOvertakesIsOneGap(t *testing.T) {
	log := NewMemory(Retention{Events: 300})
	h := runHub(t, log, Options{RingEvents: 32})
	const n = 5000
	first := mustAppend(t, log, "lobby", text(numbered(1)))[0].Position
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for i := 1; i < n; i++ {
			mustAppend(t, log, "lobby", text(numbered(i+1)))
		}
	})
	for range 20 {
		c := read(t, h, ofRoom("lobby", At(Position{first.Epoch, 0})))
		blocks := c.await(t, "the last event", endsWith(numbered(n)))
		checkConsecutive(t, blocks)
	}
	publishing.Wait()
}

func TestHerdCostsFewReadsOfTheLog(t *testing.T) {
	log := &counting{Log: NewMemory(Retention{})}
	h := runHub(t, log, Options{})
	var epoch string
	for i := range 600 {
		epoch = mustAppend(t, log, "lobby", text(numbered(i+1)))[0].Position.Epoch
	}
	const herd = 1000
	var wg sync.WaitGroup
	for i := range herd {
		wg.Go(func() {
			c := read(t, h, ofRoom("lobby", At(Position{epoch, uint64(100 + i%400)})))
			checkConsecutive(t, c.await(t, "all that was missed", count(1+600-100-i%400)))
		})
	}
	wg.Wait()
	if n := log.reads(); n > 3 {
		t.Errorf("%d reads of the log for a herd of %d, want at most 3", n, herd)
	}
}

func TestHerdWithLostCursorsCostsFewReadsOfTheLog(t *testing.T) {
	log := &counting{Log: NewMemory(Retention{})}
	h := runHub(t, log, Options{})
	for i := range 100 {
		mustAppend(t, log, "lobby", text(numbered(i+1)))
	}
	const herd = 1000
	var wg sync.WaitGroup
	begun := time.Now()
	for range herd {
		wg.Go(func() {
			c := read(t, h, ofRoom("lobby", At(Position{"lost", 50})))
			c.await(t, "all that is kept", count(102))
		})
	}
	wg.Wait()
	if n, most := log.reads(), 3+int(time.Since(begun)/refreshSpacing); n > most {
		t.Errorf("%d reads of the log for a herd of %d in %v, want at most %d", n, herd, time.Since(begun), most)
	}
}

// counting counts the reads of a log.
type counting struct {
	Log
	mu sync.Mutex
	n  int
}

func (c *counting) Read(ctx context.Context, room string, after int64, limit int) (History, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.Log.Read(ctx, room, after, limit)
}

func (c *counting) reads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestRoomsCloseBehindTheirLastStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewMemory(Retention{})
		h := runHub(t, log, Options{})
		c := read(t, h, ofRoom("lobby", Head()))
		mustAppend(t, log, "lobby", text("x"))
		synctest.Wait()
		if streams, rooms, ring := h.Gauges(); streams != 1 || rooms != 1 || ring == 0 {
			t.Errorf("%d streams, %d rooms, %d bytes while one is open", streams, rooms, ring)
		}
		c.stop()
		time.Sleep(4 * time.Second)
		if _, rooms, _ := h.Gauges(); rooms != 1 {
			t.Error("the room closed before anybody could come back")
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if streams, rooms, ring := h.Gauges(); streams != 0 || rooms != 0 || ring != 0 {
			t.Errorf("%d streams, %d rooms, %d bytes when all have left", streams, rooms, ring)
		}
	})
}

func TestDrainSendsStreamsAwayOverItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := NewMemory(Retention{})
		h := runHub(t, log, Options{})
		var streams []*reading
		for range 100 {
			streams = append(streams, read(t, h, ofRoom("lobby", Head())))
		}
		synctest.Wait()
		begun := time.Now()
		go func() {
			time.Sleep(4 * time.Second)
			if left, _, _ := h.Gauges(); left < 40 || left > 60 {
				t.Errorf("%d of 100 streams are left at half time", left)
			}
		}()
		h.Drain(t.Context(), 8*time.Second)
		synctest.Wait()
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("draining took %v", took)
		}
		for _, c := range streams {
			blocks, _ := c.events()
			wantNames(t, blocks, "open", "bye")
			if blocks[1].data != `{"reason":"drain"}` || blocks[1].retry == "" {
				t.Errorf("the goodbye is %+v", blocks[1])
			}
		}
		if _, err := h.Open(t.Context(), ofRoom("lobby", Head())); !errors.Is(err, ErrClosed) {
			t.Errorf("a stream opens on a node that drains: %v", err)
		}
	})
}
