package handlers

import (
	"context"
	"strings"
	"sync"
	"time"

	"sluice/fanout"
	"sluice/handlers/limit"
)

// Limits of what is served. A limit that is zero does not limit.
type Limits struct {
	Streams           int // open on this node
	StreamsPerAddress int // of one address, or /64
	StreamsPerSubject int //

	PublishRate  float64 // events a second of a subject, or of an address without one; on all nodes
	PublishBurst int     // of them at once; a second's worth if zero
	RoomRate     float64 // events a second in a room; on all nodes
	RoomBurst    int     //
	NewRoomsRate float64 // rooms a second that this node has not seen lately, of a subject or an address
}

// limiter keeps the books of Limits.
type limiter struct {
	streams, byAddress, bySubject *limit.Counts
	publish, room                 *limit.Shared
	newRooms                      *limit.Rates
	recent                        *limit.Recent // rooms

	mu     sync.Mutex // guards the field below
	places map[placeKey]*place
}

func newLimiter(limits Limits) *limiter {
	l := &limiter{
		streams:   limit.NewCounts(0),
		byAddress: limit.NewCounts(0),
		bySubject: limit.NewCounts(0),
		publish:   limit.NewShared("publish", limit.RateOptions{}),
		room:      limit.NewShared("room", limit.RateOptions{}),
		newRooms:  limit.NewRates(limit.RateOptions{}),
		recent:    limit.NewRecent(1<<16, 10*time.Minute),
		places:    map[placeKey]*place{},
	}
	l.set(limits)
	return l
}

// set changes the limits, for what comes from now on: no stream ends by it.
func (l *limiter) set(limits Limits) {
	l.streams.SetMost(limits.Streams)
	l.byAddress.SetMost(limits.StreamsPerAddress)
	l.bySubject.SetMost(limits.StreamsPerSubject)
	l.publish.Set(limit.RateOptions{PerSecond: limits.PublishRate, Burst: limits.PublishBurst})
	l.room.Set(limit.RateOptions{PerSecond: limits.RoomRate, Burst: limits.RoomBurst})
	l.newRooms.Set(limit.RateOptions{PerSecond: limits.NewRoomsRate})
}

// run adds up with the other nodes what was published, until ctx ends.
func (l *limiter) run(ctx context.Context, ledger limit.Ledger) {
	var tasks sync.WaitGroup
	tasks.Go(func() { l.publish.Run(ctx, ledger) })
	tasks.Go(func() { l.room.Run(ctx, ledger) })
	tasks.Wait()
}

// spend counts n of what all have to share in: events, and whatever else makes
// work on other nodes.
func (l *limiter) spend(v *visitor, n int) error {
	if ok, wait := l.publish.Allow(v.key(), n); !ok {
		return errPublishRate.after(wait)
	}
	return nil
}

// inRooms counts n events in each of the rooms.
func (l *limiter) inRooms(rooms []string, n int) error {
	for _, room := range rooms {
		if ok, wait := l.room.Allow(room, n); !ok {
			return errRoomRate.after(wait)
		}
	}
	return nil
}

// enterRooms counts the rooms that nobody has named lately: making up names is
// the cheapest way to cost a gateway memory.
func (l *limiter) enterRooms(v *visitor, rooms []string) error {
	for _, room := range rooms {
		if l.recent.Has(room) {
			continue
		}
		if ok, wait := l.newRooms.Allow(v.key(), 1); !ok {
			return errNewRooms.after(wait)
		}
		l.recent.Add(room)
	}
	return nil
}

// place is what a stream holds of the limits. All streams of one subject at one
// address share it, so that the limits cost a stream no memory.
type place struct {
	placeKey
	limits  *limiter
	ended   func(fanout.ByeReason) // leave, for a stream that ends by itself
	streams int                    // that share it; limiter.mu guards it
}

type placeKey struct{ address, subject string }

// thisNode is the one key under which all streams count.
const thisNode = ""

// enter takes a place for a stream, which owes one leave.
func (l *limiter) enter(v *visitor) (*place, error) {
	key := placeKey{address: v.address, subject: v.subject}
	if !l.streams.Acquire(thisNode) {
		return nil, errStreams
	}
	if !l.byAddress.Acquire(key.address) {
		l.streams.Release(thisNode)
		return nil, errStreamsAddress
	}
	if key.subject != "" && !l.bySubject.Acquire(key.subject) {
		l.streams.Release(thisNode)
		l.byAddress.Release(key.address)
		return nil, errStreamsSubject
	}
	return l.share(key), nil
}

// share gives the place that streams of a key have in common.
func (l *limiter) share(key placeKey) *place {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.places[key]
	if p == nil {
		p = &place{placeKey: placeKey{strings.Clone(key.address), strings.Clone(key.subject)}, limits: l}
		p.ended = func(fanout.ByeReason) { p.leave() }
		l.places[p.placeKey] = p
	}
	p.streams++
	return p
}

// leave gives back what one stream held.
func (p *place) leave() {
	l := p.limits
	l.mu.Lock()
	if p.streams--; p.streams == 0 {
		delete(l.places, p.placeKey)
	}
	l.mu.Unlock()
	l.streams.Release(thisNode)
	l.byAddress.Release(p.address)
	if p.subject != "" {
		l.bySubject.Release(p.subject)
	}
}
