package fanout

import (
	"context"
	"slices"
	"time"
)

// StatsRoom is where nodes report how they do, each of itself:
//
//	a stream in StatsRoom, on any node -> that node's signal -> every node: Watched
//	-> its caller: Report -> Log.Broadcast -> every node that has such streams
//
// It is a room like any other to the log and to streams. Its name is none that
// people can use (ValidRoom), so that nobody else publishes there.
const StatsRoom = "@stats"

// reportWait bounds what a report may wait for the log.
const reportWait = 700 * time.Millisecond

// watchedFor is how long word of somebody who watches holds: nodes that have
// such streams say so about every second, and some of it may be lost.
const watchedFor = 5 * time.Second

// Watched says whether a stream of any node is in StatsRoom. Nodes tell each
// other when this is called, so each of them calls it about once a second. It
// waits for the log a little.
func (h *Hub) Watched(ctx context.Context) bool {
	if h.localStreams(StatsRoom) > 0 {
		h.watched.Store(time.Now().UnixNano())
		if h.log.DownSince("").IsZero() {
			ctx, cancel := context.WithTimeout(ctx, reportWait)
			defer cancel()
			_, _ = h.send(ctx, signal{Watching: true}) // the next one may get through
		}
	}
	return time.Since(time.Unix(0, h.watched.Load())) < watchedFor
}

// Report sends JSON to all streams in StatsRoom, as an ephemeral event of the
// type stats. What does not get through the log is shown at least to those on
// this node: an outage is when somebody looks. Nothing of it is counted as
// published.
func (h *Hub) Report(ctx context.Context, data []byte) {
	d := Draft{Type: "stats", Data: data, JSON: true}
	if h.log.DownSince(StatsRoom).IsZero() {
		ctx, cancel := context.WithTimeout(ctx, reportWait)
		defer cancel()
		if _, err := h.log.Broadcast(ctx, StatsRoom, d); err == nil {
			return
		}
	}
	h.Event(newEvent(StatsRoom, &d, time.Now()))
}

// Survey is who is in a hub's rooms, and in which there is most to do.
type Survey struct {
	Members int        // users that are present through this node, counted in each of their rooms
	Busiest []Activity // by events first, then by streams
}

// Activity is what there is to do in a room.
type Activity struct {
	Room    string
	Events  uint64 // that have come here since the survey before; 0 in a room that was not seen then
	Streams int    // of this node
	Members int    // that are present through this node
}

// Survey looks at all rooms and gives the top ones with the most events and
// the top ones with the most streams. It costs a look at each room, and each
// survey begins the count for the next, so that there is to be one caller.
func (h *Hub) Survey(top int) Survey {
	var byEvents, byStreams []Activity
	for _, r := range h.allRooms() {
		if r.name[0] == '@' {
			continue
		}
		a := r.survey()
		if a.Events > 0 {
			byEvents = insertTop(byEvents, top, a, func(a Activity) uint64 { return a.Events })
		}
		if a.Streams > 0 {
			byStreams = insertTop(byStreams, top, a, func(a Activity) uint64 { return uint64(a.Streams) })
		}
	}
	s := Survey{Busiest: byEvents}
	for _, a := range byStreams {
		if !slices.ContainsFunc(byEvents, func(b Activity) bool { return a.Room == b.Room }) {
			s.Busiest = append(s.Busiest, a)
		}
	}
	here := h.presence.present()
	for _, n := range here {
		s.Members += n
	}
	for i := range s.Busiest {
		s.Busiest[i].Members = here[s.Busiest[i].Room]
	}
	return s
}

// insertTop adds a to the n largest, which are in falling order.
func insertTop(list []Activity, n int, a Activity, by func(Activity) uint64) []Activity {
	at, _ := slices.BinarySearchFunc(list, by(a), func(have Activity, want uint64) int {
		if by(have) >= want {
			return -1
		}
		return 1
	})
	if at == n {
		return list
	}
	list = slices.Insert(list, at, a)
	return list[:min(len(list), n)]
}

// survey counts what has come since the one before by the places of the ring,
// which count up anyway. What fills the ring of a room that opens has not come
// just now.
func (r *room) survey() Activity {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := Activity{Room: r.name, Streams: r.streamsLocked()}
	counted, end := r.counted, r.ring.end()+1
	r.counted = end
	switch {
	case !r.live:
		r.counted = 0
	case counted > 0 && counted < end:
		a.Events = end - counted
	}
	return a
}

// present counts the users that are present through this node, by room.
func (p *presence) present() map[string]int {
	p.mu.Lock()
	rooms := make([]*attendance, 0, len(p.rooms))
	for _, a := range p.rooms {
		rooms = append(rooms, a)
	}
	p.mu.Unlock()
	here := make(map[string]int, len(rooms))
	for _, a := range rooms {
		a.mu.Lock()
		here[a.room] = len(a.here) - len(a.absent)
		a.mu.Unlock()
	}
	return here
}
