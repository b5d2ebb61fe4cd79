package fanout

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// catchUp reads from the log what the room may have missed, until the ring
// ends where the log does and nothing has come meanwhile. It gives up when the
// subscription is lost, whose return begins another. One runs for a room at a
// time; it ends at the latest with the hub.
func (r *room) catchUp() {
	backoff := minBackoff
	for {
		select {
		case r.hub.slots <- struct{}{}:
		case <-r.hub.ctx.Done():
			return
		}
		after, limit, ok := r.beginCatchUp()
		var h History
		var err error
		var begun time.Time
		if ok {
			begun = time.Now()
			r.hub.stats.CatchUps.Add(1)
			ctx, cancel := context.WithTimeout(r.hub.ctx, commandTimeout)
			h, err = r.hub.log.Read(ctx, r.name, after, limit)
			cancel()
		}
		<-r.hub.slots
		switch {
		case !ok:
			return
		case err == nil:
			if r.take(h, begun) {
				return
			}
			backoff = minBackoff
		default:
			r.hub.opt.Logger.Warn("could not catch up with a room; trying again", "error", err, "in", backoff)
			select {
			case <-r.hub.ctx.Done():
				return
			case <-time.After(backoff/2 + rand.N(backoff/2)):
			}
			backoff = min(2*backoff, time.Second)
		}
	}
}

// beginCatchUp says what to read, or that the catch-up is over.
func (r *room) beginCatchUp() (after int64, limit int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.following || r.closed {
		r.catching = false
		return 0, 0, false
	}
	r.dirty = false
	if !r.opened {
		return -int64(r.atHand), r.atHand, true
	}
	return int64(r.extent.Head), pageEvents, true
}

// take brings the room to what the log said in a read that began then, and
// says whether that was all.
func (r *room) take(h History, begun time.Time) (done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	opening := !r.opened
	if opening {
		r.opened = true
		r.extent = h.Extent
		r.extent.Head = max(h.Head-min(h.Head, uint64(r.atHand)), h.Oldest-1)
	} else {
		r.reconcileLocked(h.Extent)
	}
	for _, e := range h.Events {
		if e.Seq == r.extent.Head+1 {
			r.appendLocked(e)
		}
	}
	for i := range r.parts {
		if opening {
			r.parts[i].told = r.ring.end() // none of it has only just come
		}
	}
	r.extent.Fenced = h.Fenced
	r.lastEvent, r.readFrom = time.Now(), begun
	done = r.extent.Head == h.Head && !r.dirty
	if done {
		r.catching = false
		if r.following && !r.live {
			r.live = true
			close(r.settled)
		}
	}
	r.wakeLocked()
	return done
}

// reconcileLocked compares the history that the room has shown with the one
// that the log has now. Where the log has lost events, or deleted them, each
// seat that has seen them, or is to miss them, loses its place in the ring, and
// finds its way into the new history by itself; the others go on.
func (r *room) reconcileLocked(log Extent) {
	own := r.extent
	common, related := own.common(log)
	res := Resolution{Reason: ReasonNewHistory, From: log.Oldest - 1}
	if related {
		res = log.Resolve(At(common))
	}
	parted := common.Seq < own.Head || own.only(log, own.HeadPosition())
	if !slices.Equal(r.extent.Lineage, log.Lineage) {
		r.pages.forget() // they tell of a lineage that does not know the newest epoch
	}
	r.extent.Lineage, r.extent.Oldest = log.Lineage, log.Oldest
	if !parted && res.Reason == "" {
		return
	}
	if parted {
		r.hub.ringBytes.Add(-int64(r.ring.cut(common.Seq)))
	}
	whole := res.Reason != ReasonPurged && res.Reason != ReasonNewHistory && r.ring.reaches(common.Seq)
	if !whole {
		r.hub.ringBytes.Add(-int64(r.ring.clear()))
	}
	if res.Reason == ReasonTrimmed {
		// This node was away for longer than the log keeps what it missed. The
		// ring may have no room for the gap before all that is kept.
		r.cutOff = common.Seq + 1
		gap := &Gap{Room: r.name, After: own.Lineage.Position(common.Seq).String(), Missed: res.Missed, Reason: ReasonOutage, before: log.Lineage.Position(res.From)}
		if res.From < log.Head {
			gap.ResumesAt = log.Lineage.Position(res.From + 1)
		}
		r.pushLocked(&frame{gap: gap, seq: common.Seq, at: &gap.before})
	}
	r.extent.Head = res.From
	if !parted && res.Reason == ReasonTrimmed {
		return
	}
	r.rememberLocked(own)
	r.pages.forget()
	for i := range r.parts {
		for _, s := range r.parts[i].seats {
			switch {
			case !s.is(enrolled):
			case !whole || s.hole != nil || s.at.Seq > common.Seq || own.only(log, *s.at):
				s.state = s.state&^enrolled | checked
			default:
				s.early = min(s.early, uint16(r.ring.end()-s.place))
			}
		}
	}
}

// rememberLocked keeps a history that the log may not know any more, for the
// seats that have seen it.
func (r *room) rememberLocked(x Extent) {
	if len(r.past) == pastKept {
		r.past = slices.Delete(r.past, 0, 1)
	}
	r.past = append(r.past, x)
}

// pastKept is how many histories a room remembers that its log has forgotten.
const pastKept = 8

// checkSilent compares rooms of which nothing was heard for a while with the
// log: an event whose message was lost shows by the head's number.
func (h *Hub) checkSilent() {
	if !h.DownSince().IsZero() {
		return
	}
	var names []string
	var silent []*room
	now := time.Now()
	for _, r := range h.allRooms() {
		if r.silent(now) {
			silent = append(silent, r)
			names = append(names, r.name)
		}
	}
	if len(names) == 0 {
		return
	}
	before := make([]Position, len(silent))
	for i, r := range silent {
		before[i] = r.head()
	}
	heads, err := h.log.Heads(h.ctx, names)
	if err != nil {
		return // the subscriber finds out what is wrong, and says so
	}
	for i, r := range silent {
		if heads[i] != before[i] && heads[i] != r.head() {
			h.stats.Overlooked.Add(1)
			r.refresh()
		}
	}
}

// silent says that the room believes to be up to date, and has heard nothing
// for a while. What the log has forgotten by now, the ring forgets too.
func (r *room) silent(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live && now.Sub(r.lastEvent) > r.keep.Age && r.extent.Oldest <= r.extent.Head {
		r.hub.ringBytes.Add(-int64(r.ring.clear()))
		r.extent.Oldest = r.extent.Head + 1
	}
	// Half of the time between two checks, so that none takes almost two of them.
	return r.live && now.Sub(r.lastEvent) >= r.hub.opt.Check/2
}

func (r *room) head() Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.extent.HeadPosition()
}
