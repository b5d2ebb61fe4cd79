package fanout

import (
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func leasing(lease Lease) StreamOptions {
	opt := ofRoom("lobby", Head())
	opt.Lease = lease
	return opt
}

func TestStreamIsToldBeforeItsLeaseEndsAndThenEnds(t *testing.T) {
	t.Parallel() // it mostly waits
	h := runHub(t, NewMemory(Retention{}), Options{})
	until := time.Now().Add(2 * time.Second).Truncate(time.Millisecond)
	c := read(t, h, leasing(Lease{Owner: "ann", Until: until}))
	blocks := c.await(t, "the goodbye", endsWith(`{"reason":"token_expired"}`))
	wantNames(t, blocks, "open", "expiring", "bye")
	if !strings.Contains(blocks[1].data, string(AppendTime(nil, until.UnixMilli()))) {
		t.Errorf("told of the end: %q, want it to be %v", blocks[1].data, until)
	}
	if late := time.Since(until); late < 0 || late > 5*time.Second {
		t.Errorf("ended %v after its lease", late)
	}
}

func TestRenewedStreamGoesOn(t *testing.T) {
	t.Parallel() // it mostly waits
	eachLog(t, func(t *testing.T, open openLog) {
		h := runHub(t, open(t, Retention{}), Options{})
		eventually(t, 5*time.Second, "the log to be up", func() bool { return h.DownSince().IsZero() })
		s, err := h.Open(t.Context(), leasing(Lease{Owner: "ann", Until: time.Now().Add(3 * time.Second)}))
		if err != nil {
			t.Fatal(err)
		}
		c := run(t, s)
		c.await(t, "the warning", func(b []block) bool { return len(b) == 2 && b[1].name == "sluice.expiring" })
		later := Lease{Owner: "ann", Since: time.Now(), Until: time.Now().Add(time.Hour)}
		if ok, err := h.RenewStream(t.Context(), s.ID(), Lease{Owner: "bob", Until: later.Until}); ok || err != nil {
			t.Errorf("bob renewed ann's stream: %v, %v", ok, err)
		}
		if info, ok, err := h.FindStream(t.Context(), s.ID()); !ok || err != nil || info.Owner != "ann" || len(info.Rooms) != 1 {
			t.Errorf("found %v, %v, %v", info, ok, err)
		}
		if ok, err := h.RenewStream(t.Context(), s.ID(), later); !ok || err != nil {
			t.Errorf("ann could not renew: %v, %v", ok, err)
		}
		if got := s.Lease(); got.Until.UnixMilli() != later.Until.UnixMilli() || got.Since.UnixMilli() != later.Since.UnixMilli() {
			t.Errorf("the lease is %v, want %v", got, later)
		}
		h.leases.check(later.Until.Add(-time.Minute))
		if s.ending() != "" {
			t.Error("the stream has ended")
		}
		if _, ok, err := h.FindStream(t.Context(), rand.Text()); ok || err != nil {
			t.Errorf("a stream that is not there was found: %v, %v", ok, err)
		}
	})
}

func TestOwnersStreamsEndUnlessTheirRightIsNewer(t *testing.T) {
	h := runHub(t, NewMemory(Retention{}), Options{})
	now := time.Now()
	open := func(lease Lease) *reading {
		c := read(t, h, leasing(lease))
		c.await(t, "the start", count(1))
		return c
	}
	old, unknown := open(Lease{Owner: "ann", Since: now.Add(-time.Hour)}), open(Lease{Owner: "ann"})
	fresh, other := open(Lease{Owner: "ann", Since: now.Add(time.Hour)}), open(Lease{Owner: "bob"})
	h.EndOwned("ann", now, ByeRevoked)
	for _, c := range []*reading{old, unknown} {
		c.await(t, "the goodbye", endsWith(`{"reason":"revoked"}`))
	}
	h.EndOwned("ann", now.Add(2*time.Hour), ByeMaxAge)
	fresh.await(t, "the goodbye", endsWith(`{"reason":"max_age"}`))
	if blocks, _ := other.events(); len(blocks) != 1 {
		t.Errorf("bob's stream has %v", names(blocks))
	}
}

func TestReplacedStreamEndsAndItsSuccessorStays(t *testing.T) {
	h := runHub(t, NewMemory(Retention{}), Options{})
	opt := leasing(Lease{Owner: "ann"})
	opt.ID = rand.Text()
	closed := make(chan struct{})
	opt.Ended = func(ByeReason) { close(closed) }
	first := read(t, h, opt)
	first.await(t, "the start", count(1))
	opt.Turn, opt.Ended = 1, nil
	second := read(t, h, opt)
	second.await(t, "the start", count(1))
	if err := h.ReplaceStream(t.Context(), opt.ID, 1); err != nil {
		t.Fatal(err)
	}
	<-closed
	mustAppend(t, h.Log(), "lobby", text("x"))
	second.await(t, "the event", endsWith("x"))
}

func TestLeasesAreForgottenWithTheirStreams(t *testing.T) {
	h := runHub(t, NewMemory(Retention{}), Options{})
	s, err := h.Open(t.Context(), leasing(Lease{Owner: "ann", Until: time.Now().Add(time.Hour)}))
	if err != nil {
		t.Fatal(err)
	}
	s.Drop()
	if n := len(h.leases.next) + len(h.leases.of); n != 0 {
		t.Errorf("%d leases are kept of no stream", n)
	}
}

func FuzzSignal(f *testing.F) {
	f.Add(`{"ask":"q","room":"lobby"}`)
	f.Add(`{"ask":"q","find":"ABCDEFGHIJKLMNOPQRSTUVWXYZ","lease":{"owner":"ann","until":1}}`)
	f.Add(`{"answer":"q","stream":null,"count":-1}`)
	f.Add(`{"end":"ABCDEFGHIJKLMNOPQRSTUVWXYZ","before":-1}`)
	h := NewHub(NewMemory(Retention{}), Options{Logger: quiet})
	f.Fuzz(func(t *testing.T, message string) {
		h.Signal([]byte(message))
		var s signal
		if json.Unmarshal([]byte(message), &s) == nil {
			if _, err := json.Marshal(s); err != nil {
				t.Fatal(err)
			}
		}
	})
}
