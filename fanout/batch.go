package fanout

// batch is the frames of a room from one place on, as bytes that all streams
// at that place are written, in one format and framing.
type batch struct {
	place   uint64
	as      Format
	chunked bool

	frames []*frame
	end    uint64    // the place behind the frames
	at     *Position // the cursor there; nil if none of the frames has a number
	odd    bool      // a frame is not the same for all
	bytes  []byte    // a part of a frame, or of buf
	buf    []byte
}

// batches are those of the part at hand. There are few: nearly all streams of
// a room are at the same place.
type batches struct {
	list []*batch
	used int
}

// maxBatches bounds how many are made for a part; whoever is at yet another
// place is written to separately.
const maxBatches = 8

// delivery is a batch that is due to a stream.
type delivery struct {
	stream *Stream
	batch  *batch
}

// serve writes what has come in a part to its streams.
func (sh *shard) serve(p *part, now instant) {
	more, fresh := sh.collect(p)
	sh.batches.encode()
	delivered, bytes := 0, 0
	for _, d := range sh.due {
		d.stream.written = now
		delivered += len(d.batch.frames)
		bytes += len(d.batch.bytes)
		sh.write(d.stream, d.batch.bytes, len(d.batch.frames) == 1)
	}
	sh.hub.stats.Delivered.Add(int64(delivered))
	sh.hub.stats.Bytes.Add(int64(bytes))
	sh.hub.delivered(fresh)
	for _, s := range sh.odd {
		if !s.away {
			sh.step(s, now)
		}
	}
	clear(sh.due)
	clear(sh.odd)
	sh.due, sh.odd = sh.due[:0], sh.odd[:0]
	sh.batches.forget()
	if more {
		sh.mark(p)
	}
}

// collect finds out what is due to whom, and puts their seats behind it. More
// says that there is more than one write should carry; fresh is what has
// only just come.
func (sh *shard) collect(p *part) (more bool, fresh news) {
	r := p.room
	r.mu.Lock()
	defer r.mu.Unlock()
	end := r.ring.end()
	for _, seat := range p.seats {
		s := seat.stream
		if s.away || seat.is(enrolled) && seat.place == end && seat.hole == nil && s.toldDown == 0 {
			continue
		}
		if !seat.plainLocked() {
			sh.odd = append(sh.odd, s)
			continue
		}
		b := sh.batches.from(r, seat.place, s.look.Format, s.terms.Chunked)
		if b == nil || b.odd {
			sh.odd = append(sh.odd, s)
			continue
		}
		fresh = fresh.and(p.tellLocked(seat.place, b.end))
		seat.place = b.end
		if b.at != nil {
			seat.at = b.at
		}
		more = more || b.end < end
		sh.due = append(sh.due, delivery{s, b})
	}
	return more, fresh
}

// plainLocked says that what is due to the seat is what comes next in the
// ring, and nothing else.
func (s *seat) plainLocked() bool {
	st := s.stream
	return s.is(enrolled) && s.hole == nil && s.early == 0 && s.place >= s.room.ring.base &&
		st.more == nil && st.look.types == nil && st.toldDown == 0 && !st.moved
}

// from finds or begins the batch for a place; nil if there are too many. The
// room's lock is held.
func (bs *batches) from(r *room, place uint64, as Format, chunked bool) *batch {
	for _, b := range bs.list[:bs.used] {
		if b.place == place && b.as == as && b.chunked == chunked {
			return b
		}
	}
	if bs.used == maxBatches {
		return nil
	}
	if bs.used == len(bs.list) {
		bs.list = append(bs.list, &batch{})
	}
	b := bs.list[bs.used]
	bs.used++
	b.place, b.as, b.chunked, b.at, b.odd = place, as, chunked, nil, false
	for bytes := 0; place < r.ring.end() && bytes < maxWrite; place++ {
		f := r.ring.at(place)
		b.odd = b.odd || f.gap != nil || f.event.Exclude != "" || f.event.movement != nil
		if f.at != nil {
			b.at = f.at
		}
		b.frames = append(b.frames, f)
		bytes += f.cost()
	}
	b.end = place
	return b
}

// encode makes the bytes of the batches. One frame's are its own, so that
// nothing is copied; those of several are put into one chunk.
func (bs *batches) encode() {
	for _, b := range bs.list[:bs.used] {
		switch {
		case b.odd:
		case len(b.frames) == 1 && b.chunked:
			b.bytes = b.frames[0].chunk(b.as)
		case len(b.frames) == 1:
			b.bytes = b.frames[0].encoded(b.as)
		default:
			b.buf = append(b.buf[:0], make([]byte, chunkRoom)...)
			for _, f := range b.frames {
				b.buf = append(b.buf, f.encoded(b.as)...)
			}
			start := chunkRoom
			if b.chunked {
				start, b.buf = closeChunk(b.buf, chunkRoom)
			}
			b.bytes = b.buf[start:]
		}
	}
}

// forget lets go of the frames, which belong to the ring.
func (bs *batches) forget() {
	for _, b := range bs.list[:bs.used] {
		clear(b.frames)
		b.frames, b.bytes = b.frames[:0], nil
		if cap(b.buf) > 4*maxWrite {
			b.buf = nil
		}
	}
	bs.used = 0
}
