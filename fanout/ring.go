package fanout

import "sort"

// ring holds the newest frames of a room. A frame's place is a number that
// counts up for as long as the room is open, so that a seat can hold a place
// rather than a copy. Its numbered frames are consecutive up to the room's
// head. The room's lock guards it.
type ring struct {
	frames []*frame
	base   uint64 // place of frames[0]
	bytes  int
}

// end is the place of the next frame.
func (r *ring) end() uint64 { return r.base + uint64(len(r.frames)) }

func (r *ring) at(place uint64) *frame { return r.frames[place-r.base] }

func (r *ring) push(f *frame) {
	r.frames = append(r.frames, f)
	r.bytes += f.cost()
}

// trim drops the oldest frames while there are more than events or bytes, but
// for the newest one, and returns how many bytes that freed.
func (r *ring) trim(events, bytes int) (freed int) {
	n := 0
	for len(r.frames)-n > 1 && (len(r.frames)-n > events || r.bytes > bytes) {
		c := r.frames[n].cost()
		r.frames[n] = nil // the slice keeps its array for a while
		r.bytes -= c
		freed += c
		n++
	}
	r.frames = r.frames[n:]
	r.base += uint64(n)
	return freed
}

// clear drops every frame and returns how many bytes that freed.
func (r *ring) clear() (freed int) {
	freed = r.bytes
	r.base, r.frames, r.bytes = r.end(), nil, 0
	return freed
}

// placeAfter finds where a seat that has seen the history up to seq goes on:
// the place of event seq+1, or the end if seq is head. It says no if the ring
// does not reach back that far.
func (r *ring) placeAfter(seq, head uint64) (place uint64, ok bool) {
	if seq >= head {
		return r.end(), seq == head
	}
	i := sort.Search(len(r.frames), func(i int) bool { return r.frames[i].seq > seq })
	if i == len(r.frames) || !r.frames[i].numbered() || r.frames[i].seq != seq+1 {
		return 0, false
	}
	return r.base + uint64(i), true
}

// reaches says that the newest frame leads to number seq.
func (r *ring) reaches(seq uint64) bool {
	return len(r.frames) > 0 && r.frames[len(r.frames)-1].leadsTo() == seq
}

// cut drops the newest frames, down to the event seq, because the log went
// on differently from there. It returns how many bytes that freed.
func (r *ring) cut(seq uint64) (freed int) {
	n := len(r.frames)
	for n > 0 && (r.frames[n-1].leadsTo() > seq || r.frames[n-1].promises() > seq) {
		n--
		freed += r.frames[n].cost()
		r.frames[n] = nil
	}
	r.frames = r.frames[:n]
	r.bytes -= freed
	return freed
}
