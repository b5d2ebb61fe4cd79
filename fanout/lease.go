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

// leases are those of the node's streams that are somebody's. They are few
// where there are no tokens, so that a stream has no room for one in itself.
type leases struct {
	mu   sync.Mutex // guards the fields below
	of   map[*Stream]*leased
	next leaseQueue // of those that end, the next one first
}

// leased is a stream's place in leases.
type leased struct {
	stream *Stream
	lease  Lease
	turn   int       // of StreamOptions
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

func (ls *leases) add(s *Stream, lease Lease, turn int) {
	if lease == (Lease{}) && turn == 0 {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.of == nil {
		ls.of = map[*Stream]*leased{}
	}
	l := &leased{stream: s, lease: lease, turn: turn, index: -1}
	ls.of[s] = l
	ls.scheduleLocked(l)
}

func (ls *leases) remove(s *Stream) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.of[s]; l != nil {
		ls.unscheduleLocked(l)
		delete(ls.of, s)
	}
}

func (ls *leases) get(s *Stream) (lease Lease, turn int) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.of[s]; l != nil {
		return l.lease, l.turn
	}
	return Lease{}, 0
}

func (ls *leases) renew(s *Stream, lease Lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.of[s]; l != nil {
		ls.unscheduleLocked(l)
		l.lease = lease
		ls.scheduleLocked(l)
	}
}

func (ls *leases) unscheduleLocked(l *leased) {
	if l.index >= 0 {
		heap.Remove(&ls.next, l.index)
	}
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
			l.stream.expiring.Store(true)
			l.stream.nudge()
			l.due = l.lease.Until
			heap.Fix(&ls.next, 0)
			continue
		}
		heap.Pop(&ls.next)
		l.stream.End(ByeExpired)
	}
}

// appendExpiring appends word of the lease's end, once.
func (s *Stream) appendExpiring(b []byte) []byte {
	if !s.expiring.Load() || !s.expiring.Swap(false) {
		return b
	}
	data := AppendTime([]byte(`{"expires":"`), s.Lease().Until.UnixMilli())
	return s.appendOwn(b, own{name: "sluice.expiring", data: append(data, `"}`...)})
}

// Lease tells whose the stream is, and for how long by now. Once it has ended
// it is nobody's.
func (s *Stream) Lease() Lease {
	lease, _ := s.hub().leases.get(s)
	return lease
}

// Drop ends a stream that was opened and never run: its client has left.
func (s *Stream) Drop() { s.finish(ByeGone) }

// StreamInfo is what one node tells another of a stream.
type StreamInfo struct {
	Owner string   `json:"owner"`
	Rooms []string `json:"rooms"`
}

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
		if stream.ID() != s.Find || stream.ending() != "" {
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
			h.leases.renew(stream, lease)
		}
		info := &StreamInfo{Owner: owner}
		for i := range stream.seats() {
			info.Rooms = append(info.Rooms, stream.seat(i).room.name)
		}
		return info
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
	h.leases.mu.Lock()
	defer h.leases.mu.Unlock()
	for s, l := range h.leases.of {
		if l.lease.Owner == owner && owner != "" && !l.lease.Since.After(until) {
			s.End(reason)
		}
	}
}
