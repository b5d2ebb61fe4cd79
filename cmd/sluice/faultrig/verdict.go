package main

import (
	"fmt"
	"sync"
)

// fault is a kind of thing that must not happen.
type fault int

const (
	lost        fault = iota // acknowledged, not shown, and the client was not told
	doubled                  // shown or appended twice
	reordered                // shown behind a later one
	altered                  // one position, two events
	unexplained              // a gap that need not have been
	other                    // anything else that is promised
	faultKinds
)

// verdict counts what must not happen and keeps the first few cases in words.
type verdict struct {
	mu    sync.Mutex // guards the fields below
	count [faultKinds]int
	words []string
}

func (v *verdict) wrong(f fault, format string, args ...any) { v.wrongBy(f, 1, format, args...) }

func (v *verdict) wrongBy(f fault, n int, format string, args ...any) {
	const kept = 12
	v.mu.Lock()
	defer v.mu.Unlock()
	v.count[f] += n
	if len(v.words) < kept {
		v.words = append(v.words, fmt.Sprintf(format, args...))
	}
}

// bad says whether anything was wrong.
func (v *verdict) bad() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.count != [faultKinds]int{}
}
