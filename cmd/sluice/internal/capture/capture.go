// Package capture collects what a program writes, for tests that wait for a
// piece of it.
package capture

import (
	"bytes"
	"sync"
	"time"
)

// Output is what was written so far. Its zero value is empty and ready; it must
// not be copied.
type Output struct {
	mu      sync.Mutex // guards the fields below
	text    bytes.Buffer
	changed chan struct{} // closed when there is more; nil while nobody waits
}

// Write adds to the output. It never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.text.Write(p)
}

// String is all of the output.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Await waits until the output is as it should be, and says whether it is. It
// gives up after limit, or when ended is closed: by then all has been written.
func (o *Output) Await(limit time.Duration, ended <-chan struct{}, ok func(text string) bool) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		text, changed := o.state()
		if ok(text) {
			return true
		}
		select {
		case <-changed:
		case <-ended:
			return ok(o.String()) // with what was written last
		case <-timeout.C:
			return false
		}
	}
}

// state is the output, and what is closed when there is more of it.
func (o *Output) state() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.text.String(), o.changed
}
