package fanout

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice/fanout/redistest"
)

// together sends publications as one batch.
func together(t *testing.T, r *Redis, batch ...*publication) {
	t.Helper()
	r.publish.send(t.Context(), r.servers.client(r.servers.addresses()[0]), batch)
}

func (r *Redis) draft(room string, drafts ...Draft) *publication {
	return r.publicationOf(room, drafts, time.Now())
}

func wantSeqs(t *testing.T, p *publication, seqs ...uint64) []Receipt {
	t.Helper()
	receipts, err := parseReceipts(p.answer, len(seqs), 1)
	if p.err != nil || err != nil {
		t.Errorf("%s: %v, %v", p.keys[0], p.err, err)
		return make([]Receipt, len(seqs))
	}
	for i, receipt := range receipts {
		if receipt.Position.Seq != seqs[i] {
			t.Errorf("%s: event %d has number %d, want %d", p.keys[0], i, receipt.Position.Seq, seqs[i])
		}
	}
	return receipts
}

func TestPublicationsOfOneBatchAreAsIfAlone(t *testing.T) {
	server := redistest.Start(t)
	r := openRedis(t, RedisOptions{URL: server.URL(), Keep: Retention{Rooms: shortRooms}})
	keyed := Draft{Data: []byte("x"), From: "ann", Key: "k"}
	other := Draft{Data: []byte("y"), From: "ann", Key: "k"}
	batch := []*publication{
		r.draft("a", text("1")),
		r.draft("b", text("1"), keyed, text("3")),
		r.draft("a", text("2")),
		r.draft("b", text("4"), other), // its key is taken, by the batch itself
		r.draft("b", keyed, text("4")),
		r.draft("short:c", text("1"), text("2")),
		r.draft("a", text("3")),
	}
	together(t, r, batch...)
	a := wantSeqs(t, batch[0], 1)
	b := wantSeqs(t, batch[1], 1, 2, 3)
	c := wantSeqs(t, batch[5], 1, 2)
	wantSeqs(t, batch[2], 2)
	wantSeqs(t, batch[6], 3)
	if again := wantSeqs(t, batch[4], 2, 4); !again[0].Replayed || again[0].At == 1 || again[1].Replayed {
		t.Errorf("a retry in the batch gives %+v", again)
	}
	var reused *KeyReusedError
	if _, err := parseReceipts(batch[3].answer, 2, 1); !errors.As(err, &reused) || reused.Index != 1 {
		t.Errorf("a key that was used gives %v", err)
	}
	if a[0].Position.Epoch == b[0].Position.Epoch || b[0].Position.Epoch == c[0].Position.Epoch {
		t.Error("two rooms have one epoch")
	}
	for room, want := range map[string]string{"a": "1 2 3", "b": "1 x 3 4", "short:c": "1 2"} {
		var got []string
		for _, e := range mustRead(t, r, room, 0, 10).Events {
			got = append(got, string(e.Data))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s has %q, want %q", room, got, want)
		}
	}
}

func TestAFaultInOneRoomHarmsNoOther(t *testing.T) {
	server := redistest.Start(t)
	r := openRedis(t, RedisOptions{URL: server.URL()})
	server.Do("SET", "sluice:log:{type}", "not a stream")
	server.Do("SET", "sluice:meta:{meta}", "not a hash")
	server.Do("HSET", "sluice:meta:{number}", "epoch", "e", "seq", "many", "lineage", "e:1")
	batch := []*publication{r.draft("first", text("x"))}
	faulty := []string{"meta", "number"}
	for _, room := range faulty {
		batch = append(batch, r.draft(room, text("x")), r.draft("after-"+room, text("x")))
	}
	batch = append(batch, r.draft("type", text("x")))
	together(t, r, batch...)
	wantSeqs(t, batch[0], 1)
	for i, room := range faulty {
		var refused redis.Error
		if err := batch[2*i+1].err; !errors.As(err, &refused) {
			t.Errorf("%s: %v, want an error of Redis's", room, err)
		}
		wantSeqs(t, batch[2*i+2], 1)
	}
	wantSeqs(t, batch[len(batch)-1], 1) // what is no room's log is not kept
}

// TestRightsTakenAwayWithinAPublication takes one right after the other, so that Redis
// refuses the rest of what it has begun to write.
func TestRightsTakenAwayWithinAPublication(t *testing.T) {
	server := redistest.Start(t)
	r := openRedis(t, RedisOptions{URL: server.URL()})
	for command, kept := range map[string]bool{"hset": false, "set": true, "pexpire": true, "publish": true} {
		t.Run(command, func(t *testing.T) {
			room := "room-" + command
			mustAppend(t, r, room, text("1"))
			server.Do("PEXPIRE", "sluice:log:{"+room+"}", 10_000) // it is due to be set anew
			draft := Draft{Data: []byte("2"), Key: "k"}
			server.Do("ACL", "SETUSER", "default", "-"+command)
			if _, err := r.Append(t.Context(), room, []Draft{draft, text("3")}); err == nil {
				t.Error("the publication was acknowledged")
			}
			wantNumbers(t, r, room, map[bool]int{false: 1, true: 3}[kept])
			server.Do("ACL", "SETUSER", "default", "+@all")
			if !kept || command != "set" {
				if again := mustAppend(t, r, room, draft)[0]; again.Position.Seq != 2 || again.Replayed != kept {
					t.Errorf("the retry gives %+v", again)
				}
			}
			mustAppend(t, r, room, text("4"))
			wantNumbers(t, r, room, map[bool]int{false: 3, true: 4}[kept])
		})
	}
}

// wantNumbers checks that a room has n events, 1 to n.
func wantNumbers(t *testing.T, log Log, room string, n int) {
	t.Helper()
	h := mustRead(t, log, room, 0, 10)
	if h.Head != uint64(n) || len(h.Events) != n {
		t.Errorf("the head is %d, and there are %d events; want %d", h.Head, len(h.Events), n)
	}
	for i, e := range h.Events {
		if e.Seq != uint64(i+1) {
			t.Errorf("event %d has number %d", i+1, e.Seq)
		}
	}
}

func TestAServerThatIsReallyACluster(t *testing.T) {
	t.Parallel() // it mostly waits
	cluster := redistest.StartCluster(t, 1, 0)
	r := openRedis(t, RedisOptions{URL: "redis://" + cluster.Addrs()[0]})
	for round := range uint64(2) {
		var batch []*publication
		for i := range 5 {
			batch = append(batch, r.draft("room"+strconv.Itoa(i), text("x")))
		}
		together(t, r, batch...)
		for _, p := range batch {
			wantSeqs(t, p, round+1)
		}
		if !r.publish.apart.Load() {
			t.Error("it is not remembered that rooms do not go together")
		}
	}
}

func TestAServerThatOnlyReadsIsAnErrorOfAll(t *testing.T) {
	primary, replica := redistest.Start(t), redistest.Start(t)
	replica.Follow(primary)
	r := openRedis(t, RedisOptions{URL: replica.URL()})
	batch := []*publication{r.draft("a", text("x")), r.draft("b", text("x"))}
	together(t, r, batch...)
	for _, p := range batch {
		if !redis.HasErrorPrefix(p.err, "READONLY") {
			t.Errorf("%s: %v", p.keys[0], p.err)
		}
	}
	if open := r.servers.client(theOnly).PoolStats().TotalConns; open != 0 {
		t.Errorf("%d connections to it are kept", open) // by its name there may be another server now
	}
}

func TestAFullServerRefusesAllAndKeepsNothing(t *testing.T) {
	server := redistest.Start(t)
	r := openRedis(t, RedisOptions{URL: server.URL()})
	server.Do("CONFIG", "SET", "maxmemory", "1")
	batch := []*publication{r.draft("a", text("x")), r.draft("b", text("x"))}
	together(t, r, batch...)
	for _, p := range batch {
		if p.err == nil || !strings.Contains(p.err.Error(), "maxmemory") {
			t.Errorf("%s: %v", p.keys[0], p.err)
		}
	}
	if n := server.Do("DBSIZE"); n != int64(0) {
		t.Errorf("%v keys are left", n)
	}
}

func TestARoomsTimeIsSetAnewOnceInAWhile(t *testing.T) {
	server := redistest.Start(t)
	r := openRedis(t, RedisOptions{URL: server.URL(), Keep: Retention{Age: time.Hour}})
	left := func(kind string) time.Duration {
		millis, _ := server.Do("PTTL", "sluice:"+kind+":{lobby}").(int64)
		return time.Duration(millis) * time.Millisecond
	}
	for _, before := range []time.Duration{0, time.Hour + 10*time.Second, time.Hour - time.Second, 2 * time.Hour, time.Minute} {
		if before > 0 {
			for _, kind := range []string{"log", "meta"} {
				server.Do("PEXPIRE", "sluice:"+kind+":{lobby}", strconv.FormatInt(before.Milliseconds(), 10))
			}
		}
		mustAppend(t, r, "lobby", text("x"))
		log, meta := left("log"), left("meta")
		if log < time.Hour-5*time.Second || log > time.Hour+36*time.Second {
			t.Errorf("with %v left before, the log has %v", before, log)
		}
		if enough := before > time.Hour && before < time.Hour+36*time.Second; enough && (log > before || meta > before) {
			t.Errorf("with %v left before, the log has %v, meta %v: set although there was no need", before, log, meta)
		} else if !enough && meta < r.keep.memory() {
			t.Errorf("with %v left before, meta has %v", before, meta)
		}
	}
	server.Do("DEL", "sluice:log:{lobby}") // as purge.lua does, which leaves meta
	mustAppend(t, r, "lobby", text("x"))
	if log := left("log"); log < time.Hour-5*time.Second {
		t.Errorf("a log that is new has %v", log)
	}
}
