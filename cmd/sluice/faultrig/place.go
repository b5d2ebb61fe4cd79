package main

import (
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
)

// place is where an event stands: the epoch and the number of a position.
type place struct {
	epoch string
	seq   uint64
}

func (p place) String() string { return p.epoch + "-" + strconv.FormatUint(p.seq, 10) }

func parsePlace(id string) (place, error) {
	epoch, digits, ok := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || epoch == "" {
		return place{}, fmt.Errorf("%q is no position", id)
	}
	return place{epoch, seq}, nil
}

var sumSeed = maphash.MakeSeed()

// sum stands for an event's data. No two events of a run have the same data.
func sum(data []byte) uint64 { return maphash.Bytes(sumSeed, data) }

// event is an event as the rig remembers it.
type event struct {
	at  place
	sum uint64
}
