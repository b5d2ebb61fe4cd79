package capture

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOutputIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o Output
		ended := make(chan struct{})
		has := func(piece string) func(string) bool {
			return func(text string) bool { return strings.Contains(text, piece) }
		}
		go func() {
			for _, piece := range []string{"one ", "two ", "three "} {
				time.Sleep(time.Second)
				o.Write([]byte(piece))
			}
			close(ended)
		}()
		began := time.Now()
		if !o.Await(time.Minute, ended, has("one two")) || time.Since(began) != 2*time.Second {
			t.Errorf("after %v: %q", time.Since(began), &o)
		}
		if o.Await(500*time.Millisecond, ended, has("three")) || time.Since(began) != 2500*time.Millisecond {
			t.Errorf("after %v: %q", time.Since(began), &o)
		}
		if o.Await(time.Minute, ended, has("four")) || time.Since(began) != 3*time.Second {
			t.Errorf("after %v: %q; nothing more could come", time.Since(began), &o)
		}
		if !o.Await(0, ended, has("three")) {
			t.Errorf("what is there is not found: %q", &o)
		}
	})
}
