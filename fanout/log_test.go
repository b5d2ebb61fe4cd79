package fanout

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLogNumbersEventsFromOneWithoutHoles(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		var epoch string
		for i := range 300 {
			for _, r := range mustAppend(t, log, "lobby", text(numbered(2*i)), text(numbered(2*i+1))) {
				epoch = r.Position.Epoch
			}
		}
		h := mustRead(t, log, "lobby", 0, 1000)
		if h.Head != 600 || h.Oldest != 1 || len(h.Events) != 600 {
			t.Fatalf("head %d, oldest %d, %d events; want 600, 1, 600", h.Head, h.Oldest, len(h.Events))
		}
		for i, e := range h.Events {
			if e.Seq != uint64(i+1) || e.Epoch != epoch || string(e.Data) != numbered(i) {
				t.Fatalf("event %d is %v %q", i, e.Position, e.Data)
			}
		}
	})
}

func TestLogKeepsEventsAsTheyWere(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		drafts := []Draft{
			{Type: "message", Data: []byte("a\r\nb\rc\n\x00|1|2|")},
			{Type: "x.y-z_1", From: "ann|b\n", Data: []byte(`{"a": 1}`), JSON: true, Exclude: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
			{Type: "empty", Data: []byte{}},
			{Data: []byte("no type")},
		}
		before := time.Now().UnixMilli()
		receipts := mustAppend(t, log, "lobby", drafts...)
		for i, e := range mustRead(t, log, "lobby", 0, 10).Events {
			want := drafts[i]
			if want.Type == "" {
				want.Type = "message"
			}
			if e.Type != want.Type || e.From != want.From || !bytes.Equal(e.Data, want.Data) || e.JSON != want.JSON || e.Exclude != want.Exclude || e.Room != "lobby" {
				t.Errorf("got %+v, want %+v", e, want)
			}
			if e.At != receipts[i].At || e.At < before || e.Position != receipts[i].Position {
				t.Errorf("event says %v at %d, receipt %v at %d", e.Position, e.At, receipts[i].Position, receipts[i].At)
			}
		}
	})
}

func TestLogReadsAnyPiece(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{Events: 20})
		if h := mustRead(t, log, "nowhere", 0, 10); h.HeadPosition() != Origin || h.OldestPosition() != Origin || h.Oldest != 1 || len(h.Events) != 0 {
			t.Errorf("a room without history reads as %+v", h)
		}
		for i := range 50 {
			mustAppend(t, log, "lobby", text(numbered(i+1)))
		}
		for _, tt := range []struct {
			after       int64
			limit       int
			first, last uint64
		}{
			{0, 5, 31, 35}, {30, 5, 31, 35}, {31, 5, 32, 36}, {48, 5, 49, 50}, {49, 1, 50, 50}, {50, 5, 0, 0}, {70, 5, 0, 0},
			{-3, 10, 48, 50}, {-3, 2, 48, 49}, {-1000, 3, 31, 33}, {-1, 0, 0, 0}, {0, 0, 0, 0}, {0, 1000, 31, 50},
		} {
			h := mustRead(t, log, "lobby", tt.after, tt.limit)
			var first, last uint64
			if n := len(h.Events); n > 0 {
				first, last = h.Events[0].Seq, h.Events[n-1].Seq
			}
			if first != tt.first || last != tt.last || h.Head != 50 || h.Oldest != 31 {
				t.Errorf("Read(%d, %d) gives %d to %d of %d to %d; want %d to %d of 31 to 50", tt.after, tt.limit, first, last, h.Oldest, h.Head, tt.first, tt.last)
			}
		}
	})
}

func TestLogGivesLargeEventsFewAtATimeButSome(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		large := Draft{Type: "message", Data: bytes.Repeat([]byte("x"), 400<<10)}
		for range 6 {
			mustAppend(t, log, "lobby", large)
		}
		next := int64(0)
		for reads := 0; next < 6; reads++ {
			h := mustRead(t, log, "lobby", next, 500)
			if len(h.Events) == 0 || len(h.Events) > 3 || reads > 6 {
				t.Fatalf("read %d behind %d gives %d events", reads, next, len(h.Events))
			}
			next = int64(h.Events[len(h.Events)-1].Seq)
		}
	})
}

func TestRetryWithTheKeyIsTheSameEvent(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		draft := Draft{Type: "message", From: "ann", Data: []byte("x"), Key: "k1"}
		first := mustAppend(t, log, "lobby", draft)[0]
		again := mustAppend(t, log, "lobby", draft)[0]
		if !again.Replayed || again.Position != first.Position || again.At != first.At {
			t.Errorf("retry gives %+v, first was %+v", again, first)
		}
		for name, other := range map[string]Draft{
			"data":  {Type: "message", From: "ann", Data: []byte("y"), Key: "k1"},
			"type":  {Type: "other", From: "ann", Data: []byte("x"), Key: "k1"},
			"kind":  {Type: "message", From: "ann", Data: []byte("x"), JSON: true, Key: "k1"},
			"shift": {Type: "messag", From: "ann", Data: []byte("ex"), Key: "k1"},
		} {
			_, err := log.Append(t.Context(), "lobby", []Draft{text("before"), other})
			var reused *KeyReusedError
			if !errors.As(err, &reused) || reused.Index != 1 {
				t.Errorf("the same key with another %s: %v; want that draft 1 reuses a key", name, err)
			}
			if err := log.CheckKeys(t.Context(), "lobby", []Draft{text("before"), other}); !errors.As(err, &reused) || reused.Index != 1 {
				t.Errorf("looking up the same key with another %s: %v; want that draft 1 reuses a key", name, err)
			}
		}
		if h := mustRead(t, log, "lobby", 0, 10); h.Head != 1 {
			t.Errorf("%d events after refusals, want 1", h.Head)
		}
		bob := draft
		bob.From = "bob"
		for room, drafts := range map[string][]Draft{"lobby": {draft, bob, text("new")}, "kitchen": {draft}, "cellar": {text("new")}} {
			if err := log.CheckKeys(t.Context(), room, drafts); err != nil {
				t.Errorf("looking up keys that may be used in %s: %v", room, err)
			}
		}
		if r := mustAppend(t, log, "lobby", bob)[0]; r.Replayed {
			t.Error("bob's key hit ann's")
		}
		if r := mustAppend(t, log, "kitchen", draft)[0]; r.Replayed {
			t.Error("a key of one room hit that of another")
		}
		mixed := mustAppend(t, log, "lobby", text("new"), draft, text("newer"))
		if mixed[0].Position.Seq != 3 || !mixed[1].Replayed || mixed[1].Position.Seq != 1 || mixed[2].Position.Seq != 4 {
			t.Errorf("a batch with a known key gives %+v", mixed)
		}
	})
}

func TestALongBatchWithAReusedKeyWritesNothing(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		mustAppend(t, log, "lobby", Draft{Data: []byte("x"), Key: "k250"})
		drafts := make([]Draft, 300)
		for i := range drafts {
			drafts[i] = Draft{Data: []byte(numbered(i)), Key: "k" + strconv.Itoa(i)}
		}
		_, err := log.Append(t.Context(), "lobby", drafts)
		var reused *KeyReusedError
		if !errors.As(err, &reused) || reused.Index != 250 {
			t.Errorf("the batch gives %v; want that draft 250 reuses a key", err)
		}
		if h := mustRead(t, log, "lobby", -1, 1); h.Head != 1 {
			t.Errorf("%d events were written", h.Head-1)
		}
	})
}

func TestConcurrentRetriesAppendOnce(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		const callers, keys = 16, 50
		positions := make([][]Position, keys)
		for k := range keys {
			positions[k] = make([]Position, callers)
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					got, err := log.Append(context.Background(), "lobby", []Draft{{Type: "message", Data: []byte("x"), Key: "k" + strconv.Itoa(k)}})
					if err == nil {
						positions[k][c] = got[0].Position
					}
				})
			}
			wg.Wait()
		}
		for k, p := range positions {
			if p[0] == (Position{}) || slices.ContainsFunc(p, func(q Position) bool { return q != p[0] }) {
				t.Errorf("key %d: callers got %v", k, p)
			}
		}
		if h := mustRead(t, log, "lobby", -1, 1); h.Head != keys {
			t.Errorf("%d events of %d keys", h.Head, keys)
		}
	})
}

func TestPurgeBeginsAnEpochAndKeepsCounting(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		if p, err := log.Purge(t.Context(), "lobby"); err != nil || p != Origin {
			t.Errorf("purging nothing gives %v, %v", p, err)
		}
		old := mustAppend(t, log, "lobby", text("a"), text("b"))[1].Position
		head, err := log.Purge(t.Context(), "lobby")
		if err != nil || head.Epoch == old.Epoch || head.Seq != 2 {
			t.Fatalf("purging gives %v, %v; was at %v", head, err, old)
		}
		h := mustRead(t, log, "lobby", 0, 10)
		if len(h.Events) != 0 || h.HeadPosition() != head || h.OldestPosition() != head {
			t.Errorf("after the purge: %+v", h)
		}
		if res := h.Resolve(At(old)); res.Reason != ReasonPurged || res.From != 2 || res.Missed != 0 {
			t.Errorf("the old head resolves to %+v", res)
		}
		if res := h.Resolve(At(head)); res.Reason != "" || res.From != 2 {
			t.Errorf("the new head resolves to %+v", res)
		}
		next := mustAppend(t, log, "lobby", text("c"))[0].Position
		if next != (Position{head.Epoch, 3}) {
			t.Errorf("the next event is %v", next)
		}
	})
}

func TestHeadsAndRoomsTellWhatThereIs(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		var want []string
		for i := range 250 {
			room := "room:" + strconv.Itoa(i)
			mustAppend(t, log, room, text("x"))
			want = append(want, room)
		}
		heads, err := log.Heads(t.Context(), []string{"room:7", "nowhere", "room:8"})
		if err != nil || heads[0].Seq != 1 || heads[1] != Origin || heads[2].Seq != 1 || heads[0].Epoch == heads[2].Epoch {
			t.Errorf("heads are %v, %v", heads, err)
		}
		seen := map[string]bool{}
		page := ""
		for range 1000 {
			rooms, next, err := log.Rooms(t.Context(), page, 40)
			if err != nil {
				t.Fatal(err)
			}
			for _, room := range rooms {
				seen[room] = true
			}
			if page = next; next == "" {
				break
			}
		}
		for _, room := range want {
			if !seen[room] {
				t.Errorf("%s is not listed", room)
			}
		}
		if len(seen) != len(want) {
			t.Errorf("%d rooms are listed, want %d", len(seen), len(want))
		}
	})
}

func TestWhatIsPastItsTimeIsGone(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{Age: 50 * time.Millisecond})
		before := mustAppend(t, log, "lobby", text("x"))[0].Position
		eventually(t, 5*time.Second, "the event goes", func() bool {
			return len(mustRead(t, log, "lobby", 0, 1).Events) == 0
		})
		h := mustRead(t, log, "lobby", 0, 1)
		if h.HeadPosition() != before || h.Oldest != 2 {
			t.Errorf("numbering went with the events: %+v", h.Extent)
		}
		if next := mustAppend(t, log, "lobby", text("y"))[0].Position; next != (Position{before.Epoch, 2}) {
			t.Errorf("the next event is %v", next)
		}
	})
}

// recorder is a Feed that remembers.
type recorder struct {
	mu     sync.Mutex
	events []Event
	told   []string
}

func (f *recorder) tell(s string) { f.mu.Lock(); defer f.mu.Unlock(); f.told = append(f.told, s) }
func (f *recorder) Event(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, e)
}
func (f *recorder) Stale(room string)     { f.tell("stale " + room) }
func (f *recorder) Following(room string) { f.tell("following " + room) }
func (f *recorder) Lost([]string)         { f.tell("lost") }
func (f *recorder) Link()                 { f.tell("link") }
func (f *recorder) Signal(message []byte) { f.tell("signal " + string(message)) }
func (f *recorder) heard(s string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.told, s)
}
func (f *recorder) snapshot() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

func TestFollowersAreFedInOrder(t *testing.T) {
	eachLog(t, func(t *testing.T, open openLog) {
		log := open(t, Retention{})
		feed := &recorder{}
		ctx, cancel := context.WithCancel(context.Background())
		var tasks sync.WaitGroup
		tasks.Go(func() { _ = log.Run(ctx, feed) })
		defer tasks.Wait()
		defer cancel()
		log.Follow("lobby")
		eventually(t, 5*time.Second, "following", func() bool { return feed.heard("following lobby") })
		mustAppend(t, log, "kitchen", text("elsewhere"))
		for i := range 100 {
			mustAppend(t, log, "lobby", text(numbered(i+1)))
		}
		if _, err := log.Broadcast(t.Context(), "lobby", text("passing")); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "101 events", func() bool { return len(feed.snapshot()) == 101 })
		kept := mustRead(t, log, "lobby", 0, 1000).Events
		for i, e := range feed.snapshot() {
			if i == 100 {
				if e.Position != (Position{}) || string(e.Data) != "passing" {
					t.Errorf("the ephemeral event is %+v", e)
				}
				continue
			}
			if k := kept[i]; e.Position != k.Position || !bytes.Equal(e.Data, k.Data) || e.At != k.At {
				t.Errorf("fed %+v, kept %+v", e, k)
			}
		}
		if _, err := log.Purge(t.Context(), "lobby"); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "word of the purge", func() bool { return feed.heard("stale lobby") })
		nodes, err := log.Signal(t.Context(), []byte("hi"))
		if err != nil || nodes != 1 {
			t.Errorf("signalling reaches %d nodes, %v", nodes, err)
		}
		eventually(t, 5*time.Second, "the signal", func() bool { return feed.heard("signal hi") })
		log.Unfollow("lobby")
		eventually(t, 5*time.Second, "an end of the feed", func() bool {
			before := len(feed.snapshot())
			mustAppend(t, log, "lobby", text("unheard"))
			_, _ = log.Signal(t.Context(), []byte("after "+strconv.Itoa(before)))
			eventually(t, 5*time.Second, "the signal behind it", func() bool { return feed.heard("signal after " + strconv.Itoa(before)) })
			return len(feed.snapshot()) == before
		})
	})
}

func TestRedisURLs(t *testing.T) {
	for _, good := range []string{
		"redis://127.0.0.1:6379", "redis://u:p@h:1/2", "rediss://h:6379", "unix:///tmp/redis.sock",
		"redis+sentinel://h1:26379,h2:26379/mymaster", "redis+sentinel://u:p@h1:26379/mymaster?db=3",
		"redis+cluster://u:p@h1:7000,h2:7001",
	} {
		where, err := parseRedisURL(good)
		if err != nil {
			t.Errorf("%s: %v", good, err)
			continue
		}
		_ = where.close()
	}
	for _, bad := range []string{"", "localhost:6379", "http://h", "redis+sentinel://h1:26379", "redis+sentinel://h1/m", "redis+cluster://h1", "redis://h:x"} {
		_, err := parseRedisURL(bad)
		if err == nil {
			t.Errorf("%q is taken for a URL", bad)
		}
	}
	_, err := parseRedisURL("redis://user:secret@h:x")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a bad URL's error is %v", err)
	}
}
