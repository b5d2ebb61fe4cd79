package eventstream

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a Sink that writes down what it is told.
type recorder []string

func (r *recorder) Event(e Event) {
	*r = append(*r, fmt.Sprintf("event %q id %q data %q", e.Type, e.ID, e.Data))
}
func (r *recorder) Comment(n int) { *r = append(*r, fmt.Sprint("comment ", n)) }
func (r *recorder) Retry(ms int)  { *r = append(*r, fmt.Sprint("retry ", ms)) }

func decode(t *testing.T, pieces ...string) []string {
	t.Helper()
	var d Decoder
	var r recorder
	for _, p := range pieces {
		// A fresh slice that is spoilt afterwards shows whether it was kept.
		b := []byte(p)
		if err := d.Feed(b, &r); err != nil {
			t.Fatalf("Feed(%q): %v", p, err)
		}
		for i := range b {
			b[i] = '#'
		}
	}
	return r
}

func TestBlocksAreDecoded(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"one line", "data: hi\n\n", []string{`event "" id "" data "hi"`}},
		{"several lines", "data: a\ndata: b\ndata:\n\n", []string{`event "" id "" data "a\nb\n"`}},
		{"empty data", "data\n\ndata:\n\n", []string{`event "" id "" data ""`, `event "" id "" data ""`}},
		{"only the first space goes", "data:  x \n\n", []string{`event "" id "" data " x "`}},
		{"id after data", "data: x\nid: 7\n\n", []string{`event "" id "7" data "x"`}},
		{"id stays", "id: 7\ndata: x\n\ndata: y\n\n", []string{`event "" id "7" data "x"`, `event "" id "7" data "y"`}},
		{"id alone moves on", "id: 7\n\ndata: y\n\n", []string{`event "" id "7" data "y"`}},
		{"id with NUL is ignored", "id: 7\nid: 8\x00\ndata: y\n\n", []string{`event "" id "7" data "y"`}},
		{"empty id resets", "id: 7\nid\ndata: y\n\n", []string{`event "" id "" data "y"`}},
		{"type is for one block", "event: a\ndata: x\n\ndata: y\n\n", []string{`event "a" id "" data "x"`, `event "" id "" data "y"`}},
		{"type without data goes", "event: a\n\ndata: y\n\n", []string{`event "" id "" data "y"`}},
		{"retry", "retry: 1000\nretry: 1s\nretry:\nretry: -1\n\n", []string{"retry 1000"}},
		{"comments", ":\n:abc\n: abc\n\n", []string{"comment 0", "comment 3", "comment 4"}},
		{"unknown fields", "dat: x\nfoo\ndata: y\n\n", []string{`event "" id "" data "y"`}},
		{"CR and CR LF", "data: a\r\rdata: b\r\n\r\n", []string{`event "" id "" data "a"`, `event "" id "" data "b"`}},
		{"byte order mark", "\xef\xbb\xbfdata: x\n\n", []string{`event "" id "" data "x"`}},
		{"unfinished block", "data: x\n\ndata: y\n", []string{`event "" id "" data "x"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := decode(t, c.in); !slices.Equal(got, c.want) {
				t.Errorf("whole %q:\n got %q\nwant %q", c.in, got, c.want)
			}
			if got := decode(t, strings.Split(c.in, "")...); !slices.Equal(got, c.want) {
				t.Errorf("byte by byte %q:\n got %q\nwant %q", c.in, got, c.want)
			}
		})
	}
}

func TestIDOfUnfinishedBlockIsNotResumedFrom(t *testing.T) {
	var d Decoder
	var r recorder
	d.Feed([]byte("data: a\nid: 1\n\ndata: b\nid: 2\n"), &r)
	if got := string(d.ID()); got != "1" {
		t.Errorf("the id to resume from is %q before the end of block 2, want 1", got)
	}
	d.Restart()
	d.Feed([]byte("data: c\n\nid: 3\n\n"), &r)
	want := []string{`event "" id "1" data "a"`, `event "" id "1" data "c"`}
	if !slices.Equal(r, want) {
		t.Errorf("got %q, want %q", r, want)
	}
	if got := string(d.ID()); got != "3" {
		t.Errorf("the id to resume from is %q after an id alone, want 3", got)
	}
}

func TestEndlessLineIsRefused(t *testing.T) {
	var d Decoder
	var r recorder
	var err error
	piece := []byte("data: " + strings.Repeat("x", 1<<20))
	for range MaxBlock>>20 + 1 {
		if err = d.Feed(piece, &r); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrTooLong) {
		t.Fatalf("got %v, want %v", err, ErrTooLong)
	}
}

func TestEndlessCommentTakesNoMemory(t *testing.T) {
	var d Decoder
	var r recorder
	for range 100 {
		if err := d.Feed([]byte(":"+strings.Repeat("x", 999)), &r); err != nil {
			t.Fatal(err)
		}
	}
	if cap(d.line) != 0 {
		t.Errorf("kept %d bytes of a comment", cap(d.line))
	}
	d.Feed([]byte("\n"), &r)
	if want := []string{"comment 99999"}; !slices.Equal(r, want) {
		t.Errorf("got %q, want %q", r, want)
	}
}

// counter is a Sink that allocates nothing.
type counter struct{ events int }

func (c *counter) Event(Event) { c.events++ }
func (c *counter) Comment(int) {}
func (c *counter) Retry(int)   {}

func TestDecodingAllocatesNothing(t *testing.T) {
	block := []byte("event: tick\ndata: 0123456789\ndata: 0123456789\nid: 5p3k9m2x7q1zb-42\n\ndata: x\n\n:\n\n")
	var d Decoder
	var c counter
	for _, at := range []int{len(block), 20, 50, 60} {
		feed := func() {
			d.Feed(block[:at], &c)
			d.Feed(block[at:], &c)
		}
		feed()
		if n := testing.AllocsPerRun(100, feed); n != 0 {
			t.Errorf("split at %d: %v allocations for two events", at, n)
		}
	}
}

// reference decodes a whole stream the way the specification words it.
func reference(in string) []string {
	var r recorder
	in = strings.TrimPrefix(in, "\xef\xbb\xbf")
	in = strings.ReplaceAll(in, "\r\n", "\n")
	in = strings.ReplaceAll(in, "\r", "\n")
	lines := strings.Split(in, "\n")
	var kind, id string
	var data []string
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			if data != nil {
				r.Event(Event{Type: []byte(kind), ID: []byte(id), Data: []byte(strings.Join(data, "\n"))})
			}
			kind, data = "", nil
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		if strings.HasPrefix(line, ":") {
			r.Comment(len(value))
			continue
		}
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "data":
			data = append(data, value)
		case "event":
			kind = value
		case "id":
			if !strings.Contains(value, "\x00") {
				id = value
			}
		case "retry":
			if n, err := strconv.ParseUint(value, 10, 31); err == nil {
				r.Retry(int(n))
			}
		}
	}
	return r
}

func FuzzDecoderAgreesWithTheSpecification(f *testing.F) {
	for _, s := range []string{
		"data: a\n\n", "\xef\xbb\xbfdata: a\r\n\r\nid: 1\rdata\r\r", ":pad\nretry: 5\nevent: x\ndata: 1\ndata: 2\nid: 3\n\n",
		"\xef\xbb", "\n\r\n\r", "id: a\x00b\n", "data:x", ":",
	} {
		f.Add(s, 1)
		f.Add(s, 3)
	}
	f.Fuzz(func(t *testing.T, in string, size int) {
		size = max(1, size%64)
		var pieces []string
		for rest := in; rest != ""; {
			n := min(size, len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		want := reference(in)
		if got := decode(t, in); !slices.Equal(got, want) {
			t.Fatalf("whole %q:\n got %q\nwant %q", in, got, want)
		}
		if got := decode(t, pieces...); !slices.Equal(got, want) {
			t.Fatalf("in pieces of %d %q:\n got %q\nwant %q", size, in, got, want)
		}
	})
}
