package fanout

import (
	"context"
	"fmt"
	"runtime"
	"testing"
)

// TestFurtherRoomOfAStreamIsSmall opens streams of several rooms and weighs
// them against streams of one.
func TestFurtherRoomOfAStreamIsSmall(t *testing.T) {
	const most = 64 // bytes
	h := runHub(t, NewMemory(Retention{}), Options{Shards: 1})
	const streams = 1000
	one := bytesOfAStream(t, h, streams, 1)
	for _, rooms := range []int{5, 50} {
		all := bytesOfAStream(t, h, streams, rooms)
		each := (all - one) / float64(rooms-1)
		t.Logf("a stream of 1 room takes %.0f bytes, of %d rooms %.0f: %.1f for each further one", one, rooms, all, each)
		if each > most {
			t.Errorf("with %d rooms, each further one takes %.1f bytes, want at most %d", rooms, each, most)
		}
	}
}

// bytesOfAStream opens streams, in the same rooms all of them, and says what one takes.
func bytesOfAStream(t *testing.T, h *Hub, streams, rooms int) float64 {
	t.Helper()
	opt := StreamOptions{}
	for i := range rooms {
		opt.Rooms = append(opt.Rooms, fmt.Sprintf("room-%d", i))
		opt.Starts = append(opt.Starts, Head())
	}
	open := func() *Stream {
		s, err := h.Open(context.Background(), opt)
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.seats() { // as Serve does
			seat := s.seat(i)
			seat.room.sit(seat, 1)
		}
		return s
	}
	first := open() // the rooms themselves do not count
	defer first.Drop()
	before := heapInUse()
	all := make([]*Stream, streams)
	for i := range all {
		all[i] = open()
	}
	took := heapInUse() - before
	for _, s := range all {
		s.Drop()
	}
	return float64(took) / float64(streams)
}

// heapInUse is how much of it is in use.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
