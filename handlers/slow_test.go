package handlers

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowVariable makes the test of slow clients large: SLUICE_SLOW=10000 is so
// many of them, beside a tenth of good streams. It takes about a minute and
// 25000 descriptors in two processes.
const slowVariable = "SLUICE_SLOW"

// attackVariable is set for the process that the slow clients run in: the
// address to attack, how many they are, and within how many nanoseconds they come.
const attackVariable = "SLUICE_TEST_ATTACK"

// S16: clients that are slow in every way there is, in the head, in the body,
// in reading, delay those that are not by a fifth at most, and cost memory by
// their number and not by what they ask for.
func TestS16SlowClientsDelayNobody(t *testing.T) {
	if target := os.Getenv(attackVariable); target != "" {
		attack(t, target)
		return
	}
	slow, seconds, spread := 500, 1, time.Second
	slack := 20 * time.Millisecond // by which a short run on a busy machine differs from itself
	cfg := Config{WriteTimeout: 5 * time.Second, BodyTimeout: 5 * time.Second}
	if text := os.Getenv(slowVariable); text != "" {
		var err error
		if slow, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		seconds, spread, slack = 5, 10*time.Second, 2*time.Millisecond
		cfg = Config{} // what people run
	}
	n := startNode(t, memory(), cfg)
	good := make(chan time.Duration, 1<<20)
	var readers sync.WaitGroup
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
		readers.Wait()
	}()
	for range max(100, slow/10) {
		conns = append(conns, goodStream(t, n, &readers, good))
	}
	n.await("all good streams", func() bool { return n.gateway.limits.streams.Total() == len(conns) })
	for range 64 { // more than a socket takes
		if got := n.ask("POST", "/rooms/large/events", strings.Repeat("x", 60000)); got.status != 201 {
			t.Fatal(got)
		}
	}
	// A busy machine may be busier during one measurement than during the other,
	// though hardly three times in a row.
	for try := 1; ; try++ {
		before := delays(t, n, seconds, len(conns), good)
		memoryBefore := inUse()
		stop := startAttack(t, n.addr, slow, spread)
		n.await("the slow readers", func() bool { return n.gateway.limits.streams.Total() >= len(conns)+slow/3-slow/20 })
		during := delays(t, n, seconds, len(conns), good)
		cost := (inUse() - memoryBefore) / slow
		stop()
		t.Logf("%d good streams: p99 %v alone, %v beside %d slow clients, which cost %d bytes each", len(conns), before, during, slow, cost)
		if cost > 64<<10 {
			t.Errorf("a slow client costs %d bytes, want 64 KiB at most", cost)
		}
		if during <= before*12/10+slack {
			return
		}
		if try == 3 {
			t.Fatalf("p99 is %v beside slow clients, %v without; want 1.2 times that at most", during, before)
		}
		n.await("the end of the slow readers", func() bool { return n.gateway.limits.streams.Total() == len(conns) })
	}
}

func inUse() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

// goodStream reads a stream as fast as it comes, and tells how late each event is.
func goodStream(t *testing.T, n *liveNode, readers *sync.WaitGroup, late chan<- time.Duration) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, head("GET", "/rooms/good/events")+"\r\n")
	readers.Go(func() {
		in := bufio.NewReader(conn)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			if text, ok := strings.CutPrefix(line, "data: "); ok && text[0] != '{' {
				sent, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
				late <- time.Duration(time.Now().UnixNano() - sent)
			}
		}
	})
	return conn
}

// delays gives the 99th percentile of how late events come, in the best of four
// tries: what else the machine does is not to count.
func delays(t *testing.T, n *liveNode, seconds, streams int, late <-chan time.Duration) time.Duration {
	t.Helper()
	best := time.Hour
	for range 4 {
		best = min(best, delay(t, n, seconds, streams, late))
	}
	return best
}

// delay publishes 20 events a second, for so many seconds.
func delay(t *testing.T, n *liveNode, seconds, streams int, late <-chan time.Duration) time.Duration {
	t.Helper()
	events := 20 * seconds
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for range events {
		<-ticker.C
		if got := n.ask("POST", "/rooms/good/events", strconv.FormatInt(time.Now().UnixNano(), 10)); got.status != 201 {
			t.Fatal(got)
		}
	}
	all := make([]time.Duration, 0, events*streams)
	timeout := time.After(20 * time.Second)
	for len(all) < cap(all) {
		select {
		case d := <-late:
			all = append(all, d)
		case <-timeout:
			t.Fatalf("%d of %d events came", len(all), cap(all))
		}
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

// startAttack runs slow clients in a process of their own.
func startAttack(t *testing.T, addr string, clients int, spread time.Duration) (stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestS16SlowClientsDelayNobody$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", attackVariable, addr, clients, spread))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Wait() // whatever the slow ones have met
	})
	t.Cleanup(stop)
	return stop
}

// attack is what that process does until its stdin ends.
func attack(t *testing.T, target string) {
	var addr string
	var clients int
	var spread time.Duration
	if _, err := fmt.Sscan(target, &addr, &clients, (*int64)(&spread)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = io.Copy(io.Discard, os.Stdin) }()
	var tasks sync.WaitGroup
	for i := range clients {
		tasks.Go(func() {
			if wait(ended, time.Duration(i)*spread/time.Duration(clients)) {
				return
			}
			for !slowly(ended, addr, i%3) {
				if wait(ended, rand.N(time.Second)) {
					return
				}
			}
		})
	}
	tasks.Wait()
}

// wait says whether the attack has ended meanwhile.
func wait(ended <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// slowly is one connection of a slow client, which ends when the gateway has
// enough of it. It says whether the attack has ended.
func slowly(ended <-chan struct{}, addr string, way int) bool {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	if way == 2 { // it asks for everything and reads nothing
		_ = conn.(*net.TCPConn).SetReadBuffer(1024)
		_, _ = io.WriteString(conn, head("GET", "/rooms/large/events?after=earliest")+"\r\n")
		return wait(ended, 40*time.Second) // by then the gateway has ended it
	}
	request := head("GET", "/rooms/good/events") + strings.Repeat("X-Slow: y\r\n", 1000)
	if way == 1 {
		request = head("POST", "/rooms/bad/events", "Content-Length: 60000") + "\r\n" + strings.Repeat("x", 60000)
		if _, err := io.WriteString(conn, request[:100]); err != nil {
			return false
		}
		request = request[100:]
	}
	for i := range len(request) {
		if _, err := conn.Write([]byte{request[i]}); err != nil {
			return false
		}
		if wait(ended, 5*time.Second) {
			return true
		}
	}
	return false
}
