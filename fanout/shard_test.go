package fanout

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"sluice/fanout/redistest"
)

func TestIdleStreamIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Stream{}); size > 176 { // what the allocator gives for it
		t.Errorf("a stream takes %d bytes", size)
	}
	if size := unsafe.Sizeof(seat{}); size > 48 {
		t.Errorf("a seat takes %d bytes", size)
	}
}

func TestWheelBringsStreamsUpAtTheirTime(t *testing.T) {
	var w wheel
	const second = instant(time.Second)
	now := 5 * second
	if w.pop(now) != nil || w.next() <= now {
		t.Fatal("an empty wheel brings something up")
	}
	due := map[*Stream]instant{}
	for _, after := range []instant{0, 1, second / 2, 15 * second, 25 * second, 3600 * second, 1<<63 - 1 - 6*second} {
		s := &Stream{}
		due[s] = now + after
		w.add(s, now+after)
	}
	for last := now + 4000*second; now < last && w.held > 0; {
		now = max(now, min(w.next(), last))
		for s := w.pop(now); s != nil; s = w.pop(now) {
			if due[s] > now { // it was too far off
				w.add(s, due[s])
				continue
			}
			if late := now - due[s]; late > 2*wheelTick {
				t.Errorf("it came %v late", time.Duration(late))
			}
			delete(due, s)
		}
	}
	if len(due) != 1 || w.held != 1 {
		t.Errorf("%d streams have not come up, %d are held; want the one that never does", len(due), w.held)
	}
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte("data: hello\n\n"), true)
	f.Add(bytes.Repeat([]byte("x"), 70_000), false)
	f.Fuzz(func(t *testing.T, data []byte, last bool) {
		terms := Terms{Chunked: true}
		b := append(make([]byte, chunkRoom), data...)
		b = terms.frame(b, last)
		if !last {
			b = append(b, lastChunk...)
		}
		got, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes come back as %d, %v", len(data), len(got), err)
		}
	})
}

// connect gives both ends of a connection.
func connect(t testing.TB) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	for {
		if server, err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		if server.RemoteAddr().String() == client.LocalAddr().String() {
			return server, client
		}
		_ = server.Close() // somebody who looks for what listened here before
	}
}

func TestConnectionThatCannotBeWatchedKeepsAGoroutine(t *testing.T) {
	h := runHub(t, NewMemory(Retention{}), Options{})
	s, err := h.Open(t.Context(), ofRoom("lobby", Head()))
	if err != nil {
		t.Fatal(err)
	}
	server, client := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(server, []byte("HEAD "), &Terms{}) })
	in := bufio.NewReader(client)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HEAD ") {
		t.Fatalf("got %q, %v", line, err)
	}
	mustAppend(t, h.log, "lobby", text("hello"))
	for line := ""; line != "data: hello\n"; {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	_ = client.Close()
	serving.Wait() // it has noticed
}

func TestHubThatEndsCutsItsConnections(t *testing.T) {
	h := NewHub(NewMemory(Retention{}), Options{Logger: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = h.Run(ctx) })
	var clients []net.Conn
	for range 10 {
		s, err := h.Open(t.Context(), ofRoom("lobby", Head()))
		if err != nil {
			t.Fatal(err)
		}
		server, client := connect(t)
		s.Serve(server, nil, &Terms{Chunked: true})
		clients = append(clients, client)
	}
	cancel()
	run.Wait()
	for _, client := range clients {
		if _, err := io.Copy(io.Discard, client); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Logf("reset: %v", err) // which is as good an end
		}
	}
	if streams, _, _ := h.Gauges(); streams != 0 {
		t.Errorf("%d streams are left", streams)
	}
}

func TestPublicationsThatComeTogetherAreAllAnswered(t *testing.T) {
	server := redistest.Start(t)
	r := openRedis(t, RedisOptions{URL: server.URL()})
	const publishers, each = 50, 20
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var tasks sync.WaitGroup
	for range publishers {
		tasks.Go(func() {
			for i := range each {
				receipts, err := r.Append(t.Context(), "lobby", []Draft{text(numbered(i))})
				if err != nil {
					t.Errorf("appending: %v", err)
					return
				}
				mu.Lock()
				if seq := receipts[0].Position.Seq; seen[seq] {
					t.Errorf("number %d was given twice", seq)
				}
				seen[receipts[0].Position.Seq] = true
				mu.Unlock()
			}
		})
	}
	tasks.Go(func() { // some give up, which harms nobody else
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Microsecond)
			_, _ = r.Append(ctx, "hall", []Draft{text("impatient")})
			cancel()
		}
	})
	tasks.Wait()
	if h := mustRead(t, r, "lobby", 0, 1); h.Head != publishers*each || len(seen) != publishers*each {
		t.Errorf("the head is %d, %d numbers were given; want %d", h.Head, len(seen), publishers*each)
	}
	r.publish.mu.Lock()
	defer r.publish.mu.Unlock()
	if len(r.publish.queues) != 0 {
		t.Errorf("%d queues are left", len(r.publish.queues))
	}
}

func benchEvent(seq uint64, payload int) Event {
	return Event{
		Position: Position{Epoch: "5p3k9m2x7q1zb", Seq: seq}, Room: "lobby", Type: "message", From: "ann", At: 1795306858760,
		Data: []byte(`{"text":"` + strings.Repeat("x", payload) + `"}`), JSON: true,
	}
}

func BenchmarkEncode(b *testing.B) {
	for name, as := range map[string]Format{"raw": Raw, "envelope": Envelope, "ndjson": NDJSON} {
		b.Run(name, func(b *testing.B) {
			e := benchEvent(42, 150)
			b.ReportAllocs()
			for b.Loop() {
				eventFrame(e, e.Seq).chunk(as)
			}
		})
	}
}

func BenchmarkAppendToRing(b *testing.B) {
	r := newRoom(NewHub(NewMemory(Retention{}), Options{}), "lobby", 0)
	r.live, r.opened, r.extent.Lineage = true, true, Lineage{{Epoch: "5p3k9m2x7q1zb", Start: 1}}
	e := benchEvent(0, 150)
	b.ReportAllocs()
	for b.Loop() {
		e.Seq++
		r.event(e)
	}
}

// BenchmarkDeliver writes events to streams on real connections. An operation
// is an event; what a delivery costs is reported besides.
func BenchmarkDeliver(b *testing.B) {
	for _, streams := range []int{10, 1000} {
		b.Run(fmt.Sprintf("%d streams", streams), func(b *testing.B) { benchDeliver(b, streams) })
	}
}

func benchDeliver(b *testing.B, streams int) {
	h := NewHub(NewMemory(Retention{}), Options{Logger: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = h.Run(ctx) })
	for range streams {
		s, err := h.Open(ctx, ofRoom("lobby", Head()))
		if err != nil {
			b.Fatal(err)
		}
		server, client := connect(b)
		s.Serve(server, nil, &Terms{Chunked: true})
		tasks.Go(func() { _, _ = io.Copy(io.Discard, client) })
	}
	room, e := h.room("lobby"), benchEvent(0, 150)
	room.mu.Lock()
	room.extent.Lineage = Lineage{{Epoch: e.Epoch, Start: 1}}
	room.mu.Unlock()
	b.ReportAllocs()
	for b.Loop() {
		e.Seq++
		want := h.stats.Delivered.Load() + int64(streams)
		room.event(e)
		for h.stats.Delivered.Load() < want {
			time.Sleep(10 * time.Microsecond)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*streams), "ns/delivery")
	cancel()
	tasks.Wait()
}

// BenchmarkResume opens a stream that has missed 100 events of the ring, and
// takes what is due to it.
func BenchmarkResume(b *testing.B) {
	log := NewMemory(Retention{})
	h := NewHub(log, Options{Logger: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = h.Run(ctx) })
	for range 100 {
		_, _ = log.Append(ctx, "lobby", []Draft{{Data: bytes.Repeat([]byte("x"), 150)}})
	}
	sc := newScratch(maxWrite)
	b.ReportAllocs()
	for b.Loop() {
		s, err := h.Open(ctx, ofRoom("lobby", Earliest()))
		if err != nil {
			b.Fatal(err)
		}
		s.sitAside()
		out, _ := s.step(sc.empty(), sc, h.now())
		if sc.buf = out; len(out) < 100*150 {
			b.Fatalf("%d bytes", len(out))
		}
		s.close()
	}
	cancel()
	run.Wait()
}
