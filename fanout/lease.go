package fanout

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// Lease says whose a stream is and for how long. Who may have one is decided
// elsewhere; here it only ends.
type Lease struct {
	Owner string    // "" for nobody in particular
	Since time.Time // when the right to it was given; zero if that is not known
	Until time.Time // when it ends; zero for never
}

// expiringBefore is how long before its lease ends a stream is told.
const expiringBefore = 30 * time.Second

// leases are those of the node's streams that end, the next one first.
type leases struct {
	mu   sync.Mutex // guards the queue and what it holds
	next leaseQueue
}

// leased is a stream's place in leases; its lease is guarded by their lock.
type leased struct {
	stream *Stream
	lease  Lease
	due    time.Time // when something is to be done
	index  int       // in the queue; -1 outside
}

type leaseQueue []*leased

func (q leaseQueue) Len() int           { return len(q) }
func (q leaseQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q leaseQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *leaseQueue) Push(x any) {
	l := x.(*leased)
	l.index = len(*q)
	*q = append(*q, l)
}

// Pop implements heap.Interface.
func (q *leaseQueue) Pop() any {
	old := *q
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	l.index = -1
	return l
}

func (ls *leases) add(s *Stream, lease Lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	s.leased = leased{stream: s, lease: lease, index: -1}
	ls.scheduleLocked(&s.leased)
}

func (ls *leases) remove(s *Stream) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if s.leased.stream != nil && s.leased.index >= 0 {
		heap.Remove(&ls.next, s.leased.index)
	}
}

func (ls *leases) of(s *Stream) Lease {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return s.leased.lease
}

func (ls *leases) set(s *Stream, lease Lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if s.leased.stream == nil {
		return
	}
	if s.leased.index >= 0 {
		heap.Remove(&ls.next, s.leased.index)
	}
	s.leased.lease = lease
	ls.scheduleLocked(&s.leased)
}

func (ls *leases) scheduleLocked(l *leased) {
	if l.lease.Until.IsZero() {
		return
	}
	l.due = l.lease.Until.Add(-expiringBefore)
	heap.Push(&ls.next, l)
}

// check tells the streams whose leases are about to end, and ends those whose have.
func (ls *leases) check(now time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for len(ls.next) > 0 && !ls.next[0].due.After(now) {
		l := ls.next[0]
		if now.Before(l.lease.Until) {
			l.stream.expire(l.lease.Until)
			l.due = l.lease.Until
			heap.Fix(&ls.next, 0)
			continue
		}
		heap.Pop(&ls.next)
		l.stream.End(ByeExpired)
	}
}

// expire has the stream tell its client that it is about to end.
func (s *Stream) expire(at time.Time) {
	s.expiring.Store(&at)
	s.reader.nudge()
}

// appendExpiring appends word of the lease's end, once.
func (s *Stream) appendExpiring(b []byte) []byte {
	if s.expiring.Load() == nil {
		return b
	}
	at := s.expiring.Swap(nil)
	if at == nil {
		return b
	}
	data := AppendTime([]byte(`{"expires":"`), at.UnixMilli())
	return s.appendOwn(b, own{name: "sluice.expiring", data: append(data, `"}`...)})
}

// Lease tells whose the stream is, and for how long by now.
func (s *Stream) Lease() Lease { return s.hub.leases.of(s) }

// StreamInfo is what one node tells another of a stream.
type StreamInfo struct {
	Owner string   `json:"owner"`
	Rooms []string `json:"rooms"`
}

// Drop gives up a stream that was never run.
func (s *Stream) Drop() { s.close() }

// FindStream asks all nodes for a stream. ok is false if none of those that
// answer has it.
func (h *Hub) FindStream(ctx context.Context, id string) (info StreamInfo, ok bool, err error) {
	err = h.ask(ctx, signal{Find: id}, func(answer signal) bool {
		if answer.Stream != nil {
			info, ok = *answer.Stream, true
		}
		return ok
	})
	return info, ok, err
}

// RenewStream gives a stream, on whatever node it is, another term, if it is
// the owner's. ok says that it was there.
func (h *Hub) RenewStream(ctx context.Context, id string, lease Lease) (ok bool, err error) {
	question := signal{Find: id, Lease: &leaseSignal{lease.Owner, lease.Since.UnixMilli(), lease.Until.UnixMilli()}}
	if lease.Since.IsZero() {
		question.Lease.Since = 0
	}
	err = h.ask(ctx, question, func(answer signal) bool {
		ok = ok || answer.Stream != nil
		return ok
	})
	return ok, err
}

// leaseSignal is a lease on its way to another node.
type leaseSignal struct {
	Owner string `json:"owner"`
	Since int64  `json:"since,omitempty"` // Unix milliseconds
	Until int64  `json:"until"`
}

// found answers a question for a stream: nil if it is not here.
func (h *Hub) found(s signal) *StreamInfo {
	for _, stream := range h.allStreams() {
		if stream.id != s.Find || stream.end.Load() != nil {
			continue
		}
		owner := stream.Lease().Owner
		if s.Lease != nil {
			if s.Lease.Owner != owner {
				return nil
			}
			lease := Lease{Owner: owner, Until: time.UnixMilli(s.Lease.Until)}
			if s.Lease.Since != 0 {
				lease.Since = time.UnixMilli(s.Lease.Since)
			}
			h.leases.set(stream, lease)
		}
		return &StreamInfo{Owner: owner, Rooms: stream.opt.Rooms}
	}
	return nil
}

// ReplaceStream ends a stream wherever it is, as long as its turn is before
// the given one: it is open anew.
func (h *Hub) ReplaceStream(ctx context.Context, id string, turn int) error {
	_, err := h.send(ctx, signal{End: id, Before: turn})
	return err
}

// EndOwned ends this node's streams of an owner whose right was given at the
// given time or before, or nobody knows when.
func (h *Hub) EndOwned(owner string, until time.Time, reason ByeReason) {
	for _, s := range h.allStreams() {
		if lease := s.Lease(); lease.Owner == owner && owner != "" && !lease.Since.After(until) {
			s.End(reason)
		}
	}
}
