package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestHistogramIsExactToOneStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 300).Draw(t, "values")
		var h, a, b histogram
		for i, v := range values {
			h.add(time.Duration(v))
			if i%2 == 0 {
				a.add(time.Duration(v))
			} else {
				b.add(time.Duration(v))
			}
		}
		a.merge(&b)
		if a != h {
			t.Fatal("two merged halves are not the whole")
		}
		slices.Sort(values)
		for _, q := range []float64{.01, .5, .95, .99, 1} {
			want := values[max(0, int(q*float64(len(values))+0.5)-1)]
			got := int64(h.quantile(q))
			if math.Abs(float64(got-want)) > float64(want)/steps+0.5 {
				t.Fatalf("quantile %v of %v: got %v, want %v", q, values, got, want)
			}
		}
	})
}

func TestHistogramTakesEverything(t *testing.T) {
	var h histogram
	if got := h.quantile(.5); got != 0 {
		t.Errorf("empty: %v", got)
	}
	h.add(-5)
	h.add(math.MaxInt64)
	if got := h.quantile(1); got < 1<<46 {
		t.Errorf("largest: %v", got)
	}
}

func TestLedgerAgreesWithASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pubs = 3
		l := ledger{last: make([]uint32, pubs)}
		seen := map[[2]uint32]bool{}
		highest := [pubs]uint32{}
		for _, v := range rapid.SliceOf(rapid.Uint32Range(0, 60*pubs-1)).Draw(t, "arrivals") {
			pub, seq := v%pubs, v/pubs+1
			want := fresh
			switch {
			case seen[[2]uint32{pub, seq}]:
				want = doubled
			case seq < highest[pub]:
				want = late
			}
			if got := l.enter(int(pub), seq); got != want {
				t.Fatalf("publisher %d, number %d: got %v, want %v", pub, seq, got, want)
			}
			seen[[2]uint32{pub, seq}] = true
			highest[pub] = max(highest[pub], seq)
		}
		doubt := []uint32{3, 9, 60}
		for pub := range uint32(pubs) {
			const sent = 60
			var want int64
			for seq := uint32(1); seq <= sent; seq++ {
				if !seen[[2]uint32{pub, seq}] && !slices.Contains(doubt, seq) {
					want++
				}
			}
			if got := l.lost(int(pub), sent, doubt); got != want {
				t.Fatalf("publisher %d: lost %d, want %d", pub, got, want)
			}
		}
	})
}

func TestMessagesSurviveEnvelopes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(MinPayload, 500).Draw(t, "size")
		f := newFormat("0badcafe", size)
		m := message{
			room: rapid.IntRange(0, maxRooms-1).Draw(t, "room"), pub: rapid.IntRange(0, maxPublishers-1).Draw(t, "pub"),
			seq: rapid.Uint32().Draw(t, "seq"), at: rapid.Int64Range(0, 1<<48-1).Draw(t, "at"),
		}
		raw := f.append(nil, m)
		if len(raw) != size {
			t.Fatalf("%d bytes, want %d", len(raw), size)
		}
		for _, data := range []string{string(raw), `{"data":"` + string(raw) + `"}`} {
			if got, is := f.parse([]byte(data)); is != whole || got != m {
				t.Fatalf("%s: got %+v (%v), want %+v", data, got, is, m)
			}
		}
		if _, is := newFormat("00000000", size).parse(raw); is != foreign {
			t.Fatalf("another run's message: %v", is)
		}
	})
}

func FuzzNoChangeOfAMessageGoesUnseen(f *testing.F) {
	f.Add(uint16(0), byte(1))
	f.Add(uint16(60), byte('y'))
	f.Add(uint16(52), byte('J')) // what ends the checksum is not summed
	f.Fuzz(func(t *testing.T, at uint16, b byte) {
		format := newFormat("0badcafe", 100)
		raw := format.append(nil, message{1, 2, 3, 4})
		i := int(at) % len(raw)
		if raw[i] == b {
			return
		}
		raw[i] = b
		if m, is := format.parse(raw); is == whole {
			t.Fatalf("byte %d is now %q, and still it is %+v", i, b, m)
		}
	})
}

// keeper takes a body as it comes.
type keeper struct{ bytes.Buffer }

func (k *keeper) takeBody(b []byte) error {
	k.Write(b)
	return nil
}

// feedIn feeds raw in pieces of the given size.
func feedIn(raw string, size int) (r response, body string, rest string, err error) {
	var k keeper
	for at := 0; at < len(raw); {
		piece := []byte(raw[at:min(at+size, len(raw))])
		left, err := r.feed(piece, &k)
		if err != nil {
			return r, k.String(), "", err
		}
		at += len(piece) - len(left)
		for i := range piece {
			piece[i] = '#' // it must not have been kept
		}
		if r.part == complete {
			return r, k.String(), raw[at:], nil
		}
	}
	return r, k.String(), "", nil
}

func TestResponsesAreReadAsNetHTTPDoes(t *testing.T) {
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1;x=y\r\nh\r\nA \r\nello world\r\n000\r\nTrailer: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nto the end",
		"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nto the end",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200\r\nContent-Type: Text/Event-Stream ; charset=utf-8\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
	} {
		for size := 1; size <= len(raw); size++ {
			got, body, rest, err := feedIn(raw+"HTTP/1.1 next", size)
			if strings.Contains(raw, "to the end") {
				got, body, rest, err = feedIn(raw, size)
			}
			if err != nil {
				t.Fatalf("%q in pieces of %d: %v", raw, size, err)
			}
			compare(t, raw, got, body)
			if got.part == complete && rest != "HTTP/1.1 next" {
				t.Fatalf("%q in pieces of %d: %q is left", raw, size, rest)
			}
		}
	}
}

// compare asks net/http what raw means.
func compare(t *testing.T, raw string, got response, body string) {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(raw))
	var want *http.Response
	for want == nil || want.StatusCode < 200 {
		var err error
		if want, err = http.ReadResponse(r, nil); err != nil {
			t.Fatalf("net/http on %q: %v", raw, err)
		}
	}
	wantBody, err := io.ReadAll(want.Body)
	if err != nil {
		t.Fatalf("net/http on %q: %v", raw, err)
	}
	if got.status != want.StatusCode || body != string(wantBody) {
		t.Fatalf("%q: got %d %q, want %d %q", raw, got.status, body, want.StatusCode, wantBody)
	}
	if want.Header.Get("Retry-After") == "3" && got.retryAfter != 3*time.Second {
		t.Fatalf("%q: retry after %v", raw, got.retryAfter)
	}
	if e := want.Header.Get("Content-Encoding") != ""; e != got.encoded || e != got.eventStream {
		t.Fatalf("%q: encoded %v, event stream %v", raw, got.encoded, got.eventStream)
	}
}

func TestMalformedResponsesAreRefused(t *testing.T) {
	for _, raw := range []string{
		"SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 abc x\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead),
	} {
		if _, _, _, err := feedIn(raw, 7); err == nil {
			t.Errorf("%.60q was taken", raw)
		}
	}
}

func FuzzResponseDoesNotCareAboutPieces(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 3)
	f.Add("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", 2)
	f.Fuzz(func(t *testing.T, raw string, size int) {
		size = 1 + max(size, -size)%50
		a, bodyA, restA, errA := feedIn(raw, len(raw)+1)
		b, bodyB, restB, errB := feedIn(raw, max(size, 1))
		if (errA == nil) != (errB == nil) || a.status != b.status || bodyA != bodyB || restA != restB {
			t.Fatalf("%q whole: %d %q %q %v\nin pieces of %d: %d %q %q %v", raw, a.status, bodyA, restA, errA, size, b.status, bodyB, restB, errB)
		}
	})
}

func TestGateLetsInWhatWasDeliveredOrIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &run{began: time.Now()}
		r.intakes = []*intake{{run: r}}
		r.gate.limit = 2
		r.due.Store(2)
		pass := func(after time.Duration, want bool) {
			t.Helper()
			from := r.now()
			if got := r.gate.pass(t.Context(), r, 10*time.Second); got != want {
				t.Fatalf("pass: %v, want %v", got, want)
			}
			if d := (r.now() - from - after).Abs(); d > time.Millisecond {
				t.Fatalf("passed after %v, want %v", r.now()-from, after)
			}
		}
		time.AfterFunc(500*time.Millisecond, func() { r.intakes[0].delivered.Add(1) })
		pass(500*time.Millisecond, true)
		r.due.Add(1)
		// Nothing comes any more: what is under way is taken for lost.
		pass(stalled, true)
		r.due.Add(2)
		time.Sleep(9*time.Second + 999*time.Millisecond - r.now())
		r.gate.since = r.now()
		pass(time.Millisecond, false)
	})
}

func TestReadingAStreamAllocatesNothing(t *testing.T) {
	p, err := newPlan(t.Context(), Config{Subscribe: "http://127.0.0.1/"}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	r := &run{plan: p, began: time.Now(), subscribed: make([]int64, 1)}
	r.opener = &opener{slots: make(chan struct{}, 1)}
	r.opener.slots <- struct{}{}
	in := &intake{run: r}
	s := &stream{ledger: ledger{last: make([]uint32, 1)}}
	if err := in.take(s, []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	const rounds = 100
	var chunks [][]byte
	for i := range rounds + 1 {
		event := fmt.Sprintf("data: %s\nid: %d\n\n", p.format.append(nil, message{seq: uint32(i + 1)}), i)
		chunks = append(chunks, fmt.Appendf(nil, "%x\r\n%s\r\n", len(event), event))
	}
	split := rand.IntN(50)
	n := testing.AllocsPerRun(rounds, func() {
		chunk := chunks[0]
		chunks = chunks[1:]
		if in.take(s, chunk[:split]) != nil || in.take(s, chunk[split:]) != nil {
			t.Fatal("not taken")
		}
	})
	if n > 0 || in.delivered.Load() != rounds+1 {
		t.Errorf("%v allocations for an event; %d delivered; split at %d", n, in.delivered.Load(), split)
	}
}
