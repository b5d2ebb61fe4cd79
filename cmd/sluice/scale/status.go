//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// status tells people how far it is: one line on a terminal that is written
// over and over, and elsewhere a line for each stage, and one every ten seconds.
// One goroutine uses it.
type status struct {
	w        io.Writer
	terminal bool
	stage    string
	told     time.Time // a line, elsewhere
}

const tellEvery = 10 * time.Second

func newStatus(w io.Writer) *status {
	s := &status{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// show tells the stage and how far it is.
func (s *status) show(stage, format string, args ...any) {
	if s.terminal {
		fmt.Fprintf(s.w, "\r\x1b[K%-12s "+format, append([]any{stage}, args...)...)
		return
	}
	if now := time.Now(); stage != s.stage || now.Sub(s.told) >= tellEvery {
		s.stage, s.told = stage, now
		fmt.Fprintf(s.w, "%-12s "+format+"\n", append([]any{stage}, args...)...)
	}
}

func (s *status) clear() {
	if s.terminal {
		fmt.Fprint(s.w, "\r\x1b[K")
	}
}
