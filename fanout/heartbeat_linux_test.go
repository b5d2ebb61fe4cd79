package fanout

import (
	"context"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkHeartbeat compares a heartbeat, all that a shard does for it
// included, with a bare write of the same bytes to the same socket, in CPU time
// that the machine's other work does not enter.
func BenchmarkHeartbeat(b *testing.B) {
	const streams = 5000
	sh, all, drain := idleStreams(b, streams)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	beat := all[0].terms.frame(all[0].appendBeat(sh.sc.empty()), false)
	now := sh.hub.now()
	var beats, bare time.Duration
	beatAll := func() {
		began := threadTime(b)
		now += instant(20 * time.Second)
		sh.comeUpAll(now)
		beats += threadTime(b) - began
	}
	writeAll := func() {
		began := threadTime(b)
		for _, s := range all {
			if _, err := s.socket.write(beat); err != nil {
				b.Fatal(err)
			}
		}
		bare += threadTime(b) - began
	}
	for round := 0; b.Loop(); round++ {
		if round%2 == 0 { // the second of two writes to a socket is cheaper
			beatAll()
			writeAll()
		} else {
			writeAll()
			beatAll()
		}
		if got, want := drain(), 2*streams*len(beat); got != want {
			b.Fatalf("clients got %d bytes of %d", got, want)
		}
	}
	n := float64(b.N * streams)
	b.ReportMetric(float64(beats)/n, "ns/heartbeat")
	b.ReportMetric(float64(bare)/n, "ns/write")
	b.ReportMetric(float64(beats)/float64(bare), "ratio")
}

// threadTime is the CPU time that the calling thread has used.
func threadTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// idleStreams gives streams of a room that a shard serves, which only the
// caller drives, and a function that takes what their clients were sent and says
// how many bytes that was.
func idleStreams(b *testing.B, streams int) (sh *shard, all []*Stream, drain func() int) {
	b.Helper()
	h := NewHub(NewMemory(Retention{}), Options{Logger: quiet, Shards: 1})
	h.spawn(func() { _ = h.log.Run(h.ctx, h) })
	var clients []socket
	b.Cleanup(func() {
		h.stop()
		h.tasks.Wait()
		sh.close()
		for _, c := range clients {
			c.close()
		}
	})
	sh = h.shards[0]
	for range streams {
		s, err := h.Open(context.Background(), ofRoom("lobby", Head()))
		if err != nil {
			b.Fatal(err)
		}
		server, client := connect(b)
		s.Serve(server, nil, &Terms{Chunked: true})
		taken, ok := takeSocket(client, time.Minute)
		if !ok {
			b.Fatal("the client's socket cannot be had")
		}
		all, clients = append(all, s), append(clients, taken)
	}
	_, queued := sh.takeQueues()
	for _, s := range queued {
		sh.attend(s, h.now())
	}
	drain = func() (bytes int) {
		var buf [64 << 10]byte
		for _, c := range clients {
			n, _, _ := syscall.Recvfrom(int(c), buf[:], syscall.MSG_DONTWAIT)
			bytes += max(n, 0)
		}
		return bytes
	}
	drain()
	return sh, all, drain
}
