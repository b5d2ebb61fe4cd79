package fanout

import (
	"math"
	"runtime"
	"sync"
	"time"
)

// shard writes to a share of the connections that were taken over, from one
// goroutine, which never waits for a client.
//
// What is due is told to it in two queues: parts of rooms in which something
// has come, and single streams. It takes all of both at a time, so that the
// busier it is, the more events go into one write. In a part, streams at the
// same place are written the same bytes (batch.go); a stream that needs more
// than that (an outage to tell, several rooms, a filter) goes through the same
// steps as one with a goroutine of its own (step.go).
//
// A stream that has to wait, since its connection would block or its events
// must be read from the log, is away: a goroutine drives it until nothing is
// due, and gives it back. A stream that is away is not touched by the shard.
type shard struct {
	hub   *Hub
	waker waker         // of its streams
	wake  chan struct{} // has a token when the shard may be asleep and should not be

	mu      sync.Mutex // guards the fields below, Stream.marks and part.dirty
	parts   []*part    // in which something has come
	streams []*Stream  // to be looked at
	asleep  bool
	closed  bool // streams are no longer taken back

	// The fields below belong to the shard's goroutine.
	sc        *scratch
	wheel     wheel
	batches   batches
	due       []delivery // of the part at hand
	odd       []*Stream  // of the part at hand: those that need steps
	idleParts []*part    // the arrays of the queues, used in turn
	idleQueue []*Stream
}

// mark says why a stream is in its shard's queue.
type mark uint8

const (
	markQueued mark = 1 << iota // it is in the queue
	markHung                    // its client may have hung up
	markBack                    // it is no longer away
)

func newShard(h *Hub) *shard {
	sh := &shard{hub: h, wake: make(chan struct{}, 1), sc: newScratch(maxWrite)}
	sh.waker.shard = sh
	return sh
}

func (h *Hub) startShards() {
	for _, sh := range h.shards {
		h.spawn(sh.run)
	}
}

// mark queues a part in which something has come. It does not block.
func (sh *shard) mark(p *part) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p.dirty {
		return
	}
	p.dirty = true
	sh.parts = append(sh.parts, p)
	sh.wakeLocked()
}

// nudge queues a stream. It does not block.
func (sh *shard) nudge(s *Stream, why mark) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.nudgeLocked(s, why)
}

func (sh *shard) nudgeLocked(s *Stream, why mark) {
	queued := s.marks&markQueued != 0
	s.marks |= why | markQueued
	if queued {
		return
	}
	sh.streams = append(sh.streams, s)
	sh.wakeLocked()
}

func (sh *shard) wakeLocked() {
	if sh.asleep {
		sh.asleep = false
		sh.wake <- struct{}{} // there is room: who slept has taken the last one
	}
}

// run serves until the hub ends, and then cuts the connections that are left.
func (sh *shard) run() {
	timer := time.NewTimer(math.MaxInt64)
	defer timer.Stop()
	armed := instant(math.MaxInt64)
	for {
		runtime.Gosched() // who brings more of what is due goes first: it then takes one write
		parts, streams := sh.takeQueues()
		if len(parts)+len(streams) == 0 {
			if next := sh.wheel.next(); next != armed {
				timer.Reset(time.Duration(max(next-sh.hub.now(), 0)))
				armed = next
			}
			select {
			case <-sh.wake:
			case <-timer.C:
				armed = math.MaxInt64
				sh.awake()
			case <-sh.hub.ctx.Done():
				sh.close()
				return
			}
		}
		now := sh.hub.now()
		for s := sh.wheel.pop(now); s != nil; s = sh.wheel.pop(now) {
			sh.comeUp(s, now)
		}
		for _, p := range parts {
			sh.serve(p, now)
		}
		for _, s := range streams {
			sh.attend(s, now)
		}
		clear(parts)
		clear(streams)
		sh.idleParts, sh.idleQueue = parts[:0], streams[:0]
	}
}

// takeQueues takes all that is queued; if there is nothing, the shard is
// asleep from now on, which whoever queues something ends.
func (sh *shard) takeQueues() ([]*part, []*Stream) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	parts, streams := sh.parts, sh.streams
	for _, p := range parts {
		p.dirty = false
	}
	sh.parts, sh.streams = sh.idleParts, sh.idleQueue
	sh.asleep = len(parts)+len(streams) == 0
	return parts, streams
}

// awake ends a sleep that nobody else has ended.
func (sh *shard) awake() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.asleep {
		sh.asleep = false
		return
	}
	<-sh.wake
}

// comeUp looks at a stream whose time has come, or would have, had nothing
// been written meanwhile.
func (sh *shard) comeUp(s *Stream, now instant) {
	switch {
	case s.away: // it is put into the wheel when it is back
	case s.due() > now:
		sh.wheel.add(s, s.due())
	default:
		sh.step(s, now)
	}
}

// attend looks at a stream that was queued.
func (sh *shard) attend(s *Stream, now instant) {
	sh.mu.Lock()
	why, raw := s.marks, s.raw
	s.marks = 0
	sh.mu.Unlock()
	if raw == nil {
		return // it has ended
	}
	if why&markBack != 0 {
		s.away = false
	}
	if why&markHung != 0 && hungUp(raw) {
		s.end.CompareAndSwap(0, byeCode(ByeGone))
		if s.away {
			sh.cut(s)
		}
	}
	if !s.away {
		sh.step(s, now)
	}
}

// step writes what is due to one stream.
func (sh *shard) step(s *Stream, now instant) {
	b, out := s.step(sh.sc.empty(), sh.sc, now)
	sh.sc.buf = b
	sh.hub.stats.Bytes.Add(int64(len(b) - chunkRoom))
	b = s.terms.frame(b, out.clean())
	if out.over != "" {
		sh.part(s, b, out)
		return
	}
	if len(b) > 0 && !sh.write(s, b, false) {
		return
	}
	sh.hub.delivered(out.fresh)
	switch {
	case out.older:
		sh.sendAway(s, nil)
	case out.more:
		sh.nudge(s, 0)
	}
	if !s.away && !s.timed {
		sh.wheel.add(s, s.due())
	}
}

// part writes the last bytes to a stream, and ends it.
func (sh *shard) part(s *Stream, b []byte, out outlook) {
	s.away = true
	n, err := sh.sc.pen.write(s.raw, b)
	if err == nil && n < len(b) {
		rest := append([]byte(nil), b[n:]...)
		if sh.hub.spawn(func() {
			err := s.writeWaiting(rest)
			s.finish(out.over)
			s.hangUp(out.clean() && err == nil)
		}) {
			return
		}
	}
	s.finish(out.over)
	s.hangUp(out.clean() && err == nil)
}

// write gives b to a connection. It says no if the stream is away since, or
// ended. What stays, for ever the same, need not be copied for a slow client.
func (sh *shard) write(s *Stream, b []byte, stays bool) bool {
	n, err := sh.sc.pen.write(s.raw, b)
	if err != nil {
		s.away = true
		s.finish(ByeGone)
		s.hangUp(false)
		return false
	}
	if n < len(b) {
		rest := b[n:]
		if !stays {
			rest = append([]byte(nil), rest...)
		}
		sh.sendAway(s, rest)
		return false
	}
	return true
}

// sendAway has a goroutine write rest to a stream's connection, and then
// whatever is due until nothing is.
func (sh *shard) sendAway(s *Stream, rest []byte) {
	s.away = true
	if !sh.hub.spawn(func() { sh.driveAside(s, nil, rest) }) {
		s.finish(ByeGone)
		s.hangUp(false)
	}
}

// driveAside is what a goroutine does for a stream that is away: it writes all
// that is due, behind head, waiting for the client and for the log. At last it
// gives the stream back to its shard, or ends it. What is left of an earlier
// write goes first, before more is gathered for a client that may take nothing.
func (sh *shard) driveAside(s *Stream, head, rest []byte) {
	sh.hub.stats.Waiting.Add(1)
	defer sh.hub.stats.Waiting.Add(-1)
	if s.writeWaiting(rest) != nil {
		s.finish(ByeGone)
		s.hangUp(false)
		return
	}
	to := &takenSink{s: s, head: head}
	for {
		reason, err := s.drive(sh.hub.ctx, to)
		switch {
		case reason != "":
			s.finish(reason)
			s.hangUp(to.whole)
			return
		case err == nil:
			if s.park() == nil && sh.takeBack(s) {
				return
			}
			s.End(ByeGone)
			continue
		}
		select {
		case <-sh.hub.ctx.Done():
			s.End(ByeGone)
		case <-time.After(logRetry / 4): // short, since nothing else wakes it
		}
	}
}

// takeBack gives the shard a stream that was away. It says no if it is closed.
func (sh *shard) takeBack(s *Stream) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closed {
		return false
	}
	sh.nudgeLocked(s, markBack)
	return true
}

// cut breaks the connection of a stream that is away, so that whoever drives
// it no longer waits.
func (sh *shard) cut(s *Stream) {
	sh.mu.Lock()
	raw := s.raw
	sh.mu.Unlock()
	if raw != nil {
		shutDown(raw)
	}
}

// close ends all streams of the shard. Those that are away are ended by their
// goroutines.
func (sh *shard) close() {
	sh.mu.Lock()
	sh.closed = true
	for _, s := range sh.streams {
		if s.marks&markBack != 0 {
			s.away = false
		}
	}
	sh.mu.Unlock()
	for _, s := range sh.hub.allStreams() {
		if s.waker.Load() != &sh.waker {
			continue
		}
		s.End(ByeGone)
		if s.away {
			sh.cut(s)
			continue
		}
		s.away = true
		s.finish(s.ending())
		s.hangUp(false)
	}
}
