package redistest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// through returns a client that goes through the proxy.
func through(t *testing.T, p *Proxy) *redis.Client {
	t.Helper()
	c := newClient(p.Addr(), "")
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// subscribed returns a subscription whose confirmation has come.
func subscribed(t *testing.T, c *redis.Client, channel string) *redis.PubSub {
	t.Helper()
	ps := c.Subscribe(within(t, 5*time.Second), channel)
	t.Cleanup(func() { _ = ps.Close() })
	if _, err := ps.Receive(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	return ps
}

// plain returns a bare connection to addr that gives up after 10 s.
func plain(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// wantBytes reads as many bytes as want has.
func wantBytes(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(conn, got)
	if string(got[:n]) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

// wantSilence reads nothing for d.
func wantSilence(t *testing.T, conn net.Conn, d time.Duration) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !isTimeout(err) {
		t.Fatalf("read %d bytes, %v; want silence for %v", n, err, d)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
}

// wantEnd reads nothing but the end of the connection.
func wantEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || isTimeout(err) {
		t.Fatalf("read %d bytes, %v; want the end of the connection", n, err)
	}
}

func TestProxyPassesOnWhatBothSay(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	big := strings.Repeat("0123456789abcdef", 64<<10) // 1 MiB
	c := through(t, p)
	ctx := within(t, 5*time.Second)
	if err := c.Set(ctx, "big", big, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got := c.Get(ctx, "big").Val(); got != big {
		t.Fatalf("got %d bytes back, want the %d that were sent", len(got), len(big))
	}
	wantEqual(t, "accepted", p.Accepted(), 1)
	wantEqual(t, "open", p.Conns(), 1)

	// A client that has nothing more to say still gets its answer.
	conn := plain(t, p.Addr())
	send(t, conn, "PING\r\n")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, conn, "+PONG\r\n")
	wantEnd(t, conn)

	// The server's end is passed on too.
	conn = plain(t, p.Addr())
	send(t, conn, "QUIT\r\n")
	wantBytes(t, conn, "+OK\r\n")
	wantEnd(t, conn)
}

func TestCutClosesBothEndsAndServesNewConnections(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	conn := plain(t, p.Addr())
	send(t, conn, "CLIENT SETNAME victim\r\n")
	wantBytes(t, conn, "+OK\r\n")

	p.Cut()
	wantEnd(t, conn)
	eventually(t, func() error {
		if list := s.Do("CLIENT", "LIST").(string); strings.Contains(list, "name=victim") || p.Conns() != 0 {
			return fmt.Errorf("%d connections, at the server: %s", p.Conns(), list)
		}
		return nil
	})
	conn = plain(t, p.Addr())
	send(t, conn, "PING\r\n")
	wantBytes(t, conn, "+PONG\r\n")
}

func TestCutReplyExecutesOnceAndAnswersNever(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	c := through(t, p)
	ctx := within(t, 10*time.Second)
	for i, n := range []int{1, 2} {
		s.Do("SET", "n", 0)
		p.CutReply(n, Command("INCR"))
		if err := c.Ping(ctx).Err(); err != nil {
			t.Fatalf("PING, which does not match: %v", err)
		}
		for range n {
			if got, err := c.Incr(ctx, "n").Result(); err == nil {
				t.Fatalf("INCR answered %d, want an error", got)
			}
		}
		wantEqual(t, "n after the cuts", s.Do("GET", "n"), any(fmt.Sprint(n)))
		if got, err := c.Incr(ctx, "n").Result(); err != nil || got != int64(n+1) {
			t.Fatalf("INCR after the cuts: got %d, %v, want %d", got, err, n+1)
		}
		wantEqual(t, "replies cut", p.CutReplies(), []int{1, 3}[i])
	}
	p.CutReply(-1, Contains("n"))
	for range 3 {
		if err := c.Incr(ctx, "n").Err(); err == nil {
			t.Fatal("INCR answered, want an error each time")
		}
	}
	p.CutReply(0, nil)
	if got, err := c.Incr(ctx, "n").Result(); err != nil || got != 7 {
		t.Fatalf("INCR at last: got %d, %v, want 7", got, err)
	}
}

func TestCutReplyWorksInFrontOfHTTP(t *testing.T) {
	var posts atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		posts.Add(1)
	}))
	defer web.Close()
	p := NewProxy(t, web.Listener.Addr().String())
	p.CutReply(1, Contains("POST /"))
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()

	res, err := client.Post("http://"+p.Addr(), "text/plain", strings.NewReader("hi"))
	if err == nil {
		res.Body.Close()
		t.Fatalf("got status %d, want an error", res.StatusCode)
	}
	wantEqual(t, "posts executed", posts.Load(), int64(1))
	res, err = client.Post("http://"+p.Addr(), "text/plain", strings.NewReader("hi"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	wantEqual(t, "posts executed", posts.Load(), int64(2))
}

func TestBlackholeIsSilenceForOldAndNewConnections(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	old := plain(t, p.Addr())
	send(t, old, "SUBSCRIBE c\r\n")
	wantBytes(t, old, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")

	p.Blackhole(true)
	fresh := plain(t, p.Addr()) // accepted
	send(t, fresh, "INCR n\r\n")
	wantEqual(t, "receivers", s.Do("PUBLISH", "c", "held"), any(int64(1)))
	wantSilence(t, old, 50*time.Millisecond)
	wantSilence(t, fresh, 50*time.Millisecond)
	wantEqual(t, "n in the dark", s.Do("GET", "n"), any(nil))
	if err := through(t, p).Ping(within(t, 50*time.Millisecond)).Err(); !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Fatalf("PING: got %v, want a timeout", err)
	}

	p.Blackhole(false)
	wantBytes(t, old, "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\nheld\r\n")
	wantBytes(t, fresh, ":1\r\n")
}

func TestBlackholeHidesThatTheServerDied(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	conn := plain(t, p.Addr())
	send(t, conn, "PING\r\n")
	wantBytes(t, conn, "+PONG\r\n")
	p.Blackhole(true)
	s.Kill()
	wantSilence(t, conn, 50*time.Millisecond)
	p.Heal()
	wantEnd(t, conn)
}

func TestHeldRepliesComeLateAndTheRequestWasExecuted(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	conn := plain(t, p.Addr())
	p.HoldReplies(true)
	send(t, conn, "INCR n\r\n")
	eventually(t, func() error {
		if n := s.Do("GET", "n"); n != "1" {
			return fmt.Errorf("n is %v, want 1", n)
		}
		return nil
	})
	wantSilence(t, conn, 50*time.Millisecond)
	p.HoldReplies(false)
	wantBytes(t, conn, ":1\r\n")
}

func TestChopDeliversEverythingInPieces(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	conn := plain(t, p.Addr())
	p.Chop(3, 10*time.Millisecond)
	began := time.Now()
	send(t, conn, "PING\r\n")
	first := make([]byte, 64)
	n, err := conn.Read(first)
	if err != nil || string(first[:n]) != "+PO" {
		t.Fatalf("first read: got %q, %v, want %q", first[:n], err, "+PO")
	}
	wantBytes(t, conn, "NG\r\n")
	// Two pieces there, two pauses; three back, two pauses before the last.
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Fatalf("it took %v, want the pauses in both directions", took)
	}
	p.Chop(0, 0)

	p.Chop(1, 0)
	value := strings.Repeat("v", 2000)
	c := through(t, p)
	ctx := within(t, 10*time.Second)
	if err := c.Set(ctx, "k", value, 0).Err(); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "value", c.Get(ctx, "k").Val(), value)
}

func TestSplitTearsAFrameWhereItIsTold(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	conn := plain(t, p.Addr())
	send(t, conn, "SUBSCRIBE c\r\n")
	wantBytes(t, conn, "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
	const frame = "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\ntorn\r\n"
	for _, at := range []int{0, 1, 17, len(frame) - 1} {
		const pause = 30 * time.Millisecond
		p.SplitAt(at, pause, Contains("torn"))
		s.Do("PUBLISH", "c", "torn")
		wantBytes(t, conn, frame[:at])
		wantSilence(t, conn, pause/3)
		wantBytes(t, conn, frame[at:])
	}
	s.Do("PUBLISH", "c", "torn") // once is enough
	wantBytes(t, conn, frame)
}

func TestDroppedMessageIsLostAndTheNextArrives(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	ps := subscribed(t, through(t, p), "c")
	p.Drop(1, Contains("message"))
	s.Do("PUBLISH", "c", "lost")
	eventually(t, func() error {
		if n := p.Dropped(); n != 1 {
			return fmt.Errorf("%d deliveries dropped, want 1", n)
		}
		return nil
	})
	s.Do("PUBLISH", "c", "next")
	m, err := ps.ReceiveMessage(within(t, 5*time.Second))
	if err != nil || m.Payload != "next" {
		t.Fatalf("got %v, %v, want the message after the lost one", m, err)
	}
}

func TestRefusedConnectionsAreResetAndOldOnesGoOn(t *testing.T) {
	s := Start(t)
	p := NewProxy(t, s.Addr)
	old := plain(t, p.Addr())
	send(t, old, "PING\r\n")
	wantBytes(t, old, "+PONG\r\n")

	p.Refuse(true)
	conn, err := net.Dial("tcp", p.Addr())
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %v, want a reset", err)
	}
	send(t, old, "PING\r\n")
	wantBytes(t, old, "+PONG\r\n")
	wantEqual(t, "accepted", p.Accepted(), 1)

	p.Heal()
	fresh := plain(t, p.Addr())
	send(t, fresh, "PING\r\n")
	wantBytes(t, fresh, "+PONG\r\n")
}

func TestNewTargetGetsTheNewConnections(t *testing.T) {
	a, b := Start(t), Start(t)
	a.Do("SET", "who", "a")
	b.Do("SET", "who", "b")
	p := NewProxy(t, a.Addr)
	c := through(t, p)
	ctx := within(t, 5*time.Second)
	wantEqual(t, "first", c.Get(ctx, "who").Val(), "a")
	p.SetTarget(b.Addr)
	wantEqual(t, "on the old connection", c.Get(ctx, "who").Val(), "a")
	p.Cut()
	wantEqual(t, "after Cut", c.Get(ctx, "who").Val(), "b")

	b.Kill()
	conn := plain(t, p.Addr())
	wantEnd(t, conn) // nobody listens there
}

func TestClosedProxyLeavesNothingWhateverItIsDoing(t *testing.T) {
	s := Start(t)
	for name, fault := range map[string]func(p *Proxy){
		"well":       func(*Proxy) {},
		"blackholed": func(p *Proxy) { p.Blackhole(true) },
		"pausing":    func(p *Proxy) { p.Chop(1, time.Hour) },
		"splitting":  func(p *Proxy) { p.SplitAt(1, time.Hour, nil) },
		"stuck":      func(*Proxy) { s.Pause() },
	} {
		before := goleak.IgnoreCurrent()
		p, err := Listen(s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		conns := []net.Conn{plain(t, p.Addr()), nil}
		send(t, conns[0], "PING\r\n")
		wantBytes(t, conns[0], "+PONG\r\n")
		fault(p)
		conns[1] = plain(t, p.Addr())
		for _, conn := range conns {
			send(t, conn, "PING\r\n")
		}
		eventually(t, func() error {
			if p.Accepted() != 2 {
				return fmt.Errorf("%s: %d connections accepted, want 2", name, p.Accepted())
			}
			return nil
		})
		p.Close()
		p.Close()
		if err := goleak.Find(before); err != nil {
			t.Errorf("%s: after Close: %v", name, err)
		}
		wantEqual(t, name+": connections after Close", p.Conns(), 0)
		for _, conn := range conns {
			if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
				t.Errorf("%s: a connection is open after Close", name)
			}
		}
		s.Resume()
	}
}
