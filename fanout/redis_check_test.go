package fanout

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/fanout/redistest"
)

// lockedBuffer collects what a logger writes.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// warnings runs a node on a Redis for as long as it takes to be checked.
func warnings(t *testing.T, url string, want string) string {
	t.Helper()
	var log lockedBuffer
	r, err := OpenRedis(RedisOptions{URL: url, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	runHub(t, r, Options{})
	eventually(t, 5*time.Second, "word of "+want, func() bool { return strings.Contains(log.String(), want) })
	return log.String()
}

func TestARedisThatWouldLoseRoomsIsComplainedOf(t *testing.T) {
	evicting := redistest.Start(t, "--maxmemory-policy", "volatile-lru", "--appendonly", "yes")
	if text := warnings(t, evicting.URL(), "maxmemory-policy volatile-lru"); strings.Contains(text, "appendonly yes") {
		t.Errorf("a Redis with appendonly is told to have it: %s", text)
	}
	forgetful := redistest.Start(t)
	if text := warnings(t, forgetful.URL(), "keeps nothing on disk"); strings.Contains(text, "maxmemory") {
		t.Errorf("a Redis without eviction is told of it: %s", text)
	}
	saving := redistest.Start(t, "--save", "900 1")
	warnings(t, saving.URL(), "from time to time only")
}

func TestTheRightsThatAreAskedForAreEnough(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "little", "on", ">pw", "~sluice:*", "&sluice:*", "+@read", "+@pubsub", "+ping", "+hello", "+evalsha", "+eval", "+script|load", "+script|exists", "+publish")
	text := warnings(t, "redis://little:pw@"+server.Addr, "does not let us")
	_, line, _ := strings.Cut(text, "give the user: ")
	line, _, _ = strings.Cut(line, "\"")
	rule := []any{"ACL", "SETUSER", "enough", "on", ">pw"}
	for _, word := range strings.Fields(line) {
		rule = append(rule, word)
	}
	server.Do(rule...)
	r := newRigAt(t, "redis://enough:pw@"+server.Addr, 2, 2)
	stop := r.publish(t, 2)
	pause(300 * time.Millisecond)
	stop()
	r.noGaps(t)
	if _, err := r.log.Purge(t.Context(), "room0"); err != nil {
		t.Errorf("purging: %v", err)
	}
	if _, _, err := r.log.Rooms(t.Context(), "", 10); err != nil {
		t.Errorf("listing: %v", err)
	}
}

func TestAnAcknowledgementSaysWhenNoReplicaHasTheEvent(t *testing.T) {
	primary := redistest.Start(t)
	replica := redistest.Replica(t, primary)
	log := openRedis(t, RedisOptions{URL: primary.URL(), Ack: 300 * time.Millisecond})
	if got := mustAppend(t, log, "lobby", text("x"))[0]; got.Alone {
		t.Error("the replica is there, and the event is said to be alone")
	}
	replica.Detach()
	if got := mustAppend(t, log, "lobby", text("y"))[0]; !got.Alone || got.Position.Seq != 2 {
		t.Errorf("without a replica: %+v", got)
	}
}
