package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// pass sends a stream through a blockReader; how decides the pieces it arrives in.
func pass(text string, how func(io.Reader) io.Reader) (string, error) {
	watch := newWatchdog(0, func() {})
	b := &blockReader{src: io.NopCloser(how(strings.NewReader(text))), watch: watch, in: make([]byte, 64)}
	out, err := io.ReadAll(b)
	return string(out), err
}

func whole(r io.Reader) io.Reader { return r }

func TestBlocksPassWholeOrNotAtAll(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"data: a\n\n", "data: a\n\n"},
		{"data: a\n", ""},
		{"data: a\n\ndata: b\n", "data: a\n\n"},
		{"data: a\r\n\r\ndata: b\r\r", "data: a\n\ndata: b\n\n"},
		{"data: a\r\n\rdata: b\n\r\n", "data: a\n\ndata: b\n\n"},
		{":ping\n\n:\n\ndata: a\n:x\nid: 1\n\n", "data: a\nid: 1\n\n"},
		{"\n\n\r\n\rdata\n\n", "data\n\n"},
		{"data: a\r\nid: 1\r\n\r", "data: a\nid: 1\n\n"},
		{":data: a\n\n", ""},
	} {
		for name, how := range map[string]func(io.Reader) io.Reader{"whole": whole, "byte by byte": iotest.OneByteReader, "with its end": iotest.DataErrReader} {
			if got, err := pass(c.in, how); got != c.want || err != nil {
				t.Errorf("%q, %s: %q, %v, want %q", c.in, name, got, err, c.want)
			}
		}
	}
}

func TestABlockWithoutEndIsAnError(t *testing.T) {
	endless := io.MultiReader(strings.NewReader("data: a\n\ndata: "), iotest.DataErrReader(bytes.NewReader(make([]byte, maxBlock+1))))
	b := &blockReader{src: io.NopCloser(endless), watch: newWatchdog(0, func() {}), in: make([]byte, 64<<10)}
	out, err := io.ReadAll(b)
	if string(out) != "data: a\n\n" || !errors.Is(err, errBigBlock) {
		t.Errorf("%q, %v, want the first block and then %v", out, err, errBigBlock)
	}
}

// FuzzBlockReader: what comes out is what a plain reading of the format gives, in whatever
// pieces it came in, and a longer stream never takes back what a shorter one gave.
func FuzzBlockReader(f *testing.F) {
	f.Add("data: a\r\n\r\n:x\rid: 1\n\n", 3)
	f.Add(":\n\n:\n\ndata\n\n", 0)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		got, err := pass(text, whole)
		if err != nil || got != plainBlocks(text) {
			t.Fatalf("%q: %q, %v, want %q", text, got, err, plainBlocks(text))
		}
		if slow, _ := pass(text, iotest.OneByteReader); slow != got {
			t.Errorf("%q: %q byte by byte, %q at once", text, slow, got)
		}
		cut = min(max(cut, 0), len(text))
		if short, _ := pass(text[:cut], whole); !strings.HasPrefix(got, short) {
			t.Errorf("%q: %q when cut at %d, but %q in full", text, short, cut, got)
		}
	})
}

// plainBlocks is blockReader without its worries about pieces.
func plainBlocks(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	var out, block strings.Builder
	for line := range strings.Lines(text) {
		switch {
		case !strings.HasSuffix(line, "\n"):
		case line == "\n" && block.Len() > 0:
			out.WriteString(block.String() + "\n")
			block.Reset()
		case line != "\n" && line[0] != ':':
			block.WriteString(line)
		}
	}
	return out.String()
}

func TestWatchdogCountsWaitingOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bitten atomic.Bool
		w := newWatchdog(time.Minute, func() { bitten.Store(true) })
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		w.wait()
		pass(59 * time.Second)
		w.rest()
		pass(time.Hour)
		w.wait()
		pass(59 * time.Second)
		if bitten.Load() {
			t.Fatal("bitten although something came in time")
		}
		w.allow(10 * time.Second)
		pass(9 * time.Second)
		if bitten.Load() {
			t.Fatal("bitten before the new limit")
		}
		pass(2 * time.Second)
		if !bitten.Load() {
			t.Fatal("not bitten after the new limit")
		}
		bitten.Store(false)
		w.allow(0)
		w.wait()
		pass(24 * time.Hour)
		if bitten.Load() {
			t.Fatal("bitten without a limit")
		}
	})
}

func TestSilenceIsTwoAndAHalfHeartbeats(t *testing.T) {
	for data, want := range map[string]time.Duration{
		`{"heartbeat":15}`:  37500 * time.Millisecond,
		`{"heartbeat":0.2}`: 500 * time.Millisecond,
		`{"heartbeat":0}`:   0,
		`{"heartbeat":-1}`:  0,
		`{"heartbeat":1e9}`: 2*time.Hour + 30*time.Minute,
		`{}`:                silenceAtFirst,
		`oops`:              silenceAtFirst,
	} {
		if got := silence([]byte(data)); got != want {
			t.Errorf("%s: %v, want %v", data, got, want)
		}
	}
}
