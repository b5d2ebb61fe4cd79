package fanout

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Terms are what connections that are taken over have in common.
type Terms struct {
	Chunked bool          // what is written is the body of an HTTP/1.1 response in chunks; else it ends with the connection
	Timeout time.Duration // how long a client may take nothing; 30 s if zero
}

func (t *Terms) timeout() time.Duration {
	if t.Timeout <= 0 {
		return 30 * time.Second
	}
	return t.Timeout
}

// Serve takes a connection over and writes the stream to it, behind head. It
// writes what is due at the beginning, for which it may take a while, and
// returns when that has come to an end: the stream has ended, or from now on a
// shard writes what comes, and no goroutine is needed. In both cases conn is
// no longer the caller's. All calls share terms, which do not change.
func (s *Stream) Serve(conn net.Conn, head []byte, terms *Terms) {
	h := s.hub()
	s.conn, s.terms = conn, terms
	raw, ok := h.watchable(conn)
	if !ok {
		s.serveAside(conn, head)
		return
	}
	s.raw, s.away = raw, true
	part := s.first.room.shardPart()
	sh := h.shards[part-1]
	s.waker.Store(&sh.waker)
	for i := range s.seats() {
		seat := s.seat(i)
		seat.room.sit(seat, part)
	}
	sh.driveAside(s, head, nil)
}

// watchable says whether a connection can be parked.
func (h *Hub) watchable(conn net.Conn) (syscall.RawConn, bool) {
	h.pollOnce.Do(func() {
		p, err := newPoller()
		if err != nil {
			h.opt.Logger.Debug("connections cannot be watched, so that each stream has a goroutine", "error", err)
			return
		}
		if !h.spawn(func() { p.run(h.ctx, h.hungUp) }) {
			p.close()
			return
		}
		h.poller = p
	})
	sc, ok := conn.(syscall.Conn)
	if !ok || h.poller == nil {
		return nil, false
	}
	raw, err := sc.SyscallConn()
	return raw, err == nil
}

// hungUp has a shard look whether the client of a slot has hung up.
func (h *Hub) hungUp(slot uint32) {
	h.mu.RLock()
	s := h.streams.slots[slot]
	h.mu.RUnlock()
	if s == nil {
		return
	}
	if w := s.waker.Load(); w != nil && w.shard != nil {
		w.shard.nudge(s, markHung)
	}
}

// park puts a file in the place of the stream's net.Conn, for the same socket,
// and has the poller watch it. A net.Conn costs 0.9 KB of memory, most of it so
// that goroutines can wait for it: for a stream that is not away none does.
func (s *Stream) park() error {
	conn, ok := s.conn.(net.Conn)
	if !ok {
		return nil // it is parked
	}
	file, err := duplicate(s.raw, s.terms.timeout())
	if err != nil {
		return err
	}
	raw, err := file.SyscallConn()
	if err == nil {
		err = s.hub().poller.add(raw, s.slot)
	}
	if err != nil {
		_ = file.Close() // it was of no use
		return err
	}
	sh := s.waker.Load().shard
	sh.mu.Lock()
	s.conn, s.raw = file, raw
	sh.mu.Unlock()
	return conn.Close()
}

// serveAside is Serve where there is no poller that notices hang-ups, or for
// a connection that it cannot watch: a goroutine reads, to see the client leave.
func (s *Stream) serveAside(conn net.Conn, head []byte) {
	var watch sync.WaitGroup
	watch.Go(func() {
		_, _ = io.Copy(io.Discard, conn) // which ends with the connection, one way or another
		s.End(ByeGone)
	})
	to := &takenSink{s: s, head: head}
	reason := s.run(s.hub().ctx, to)
	s.finish(reason)
	s.hangUp(to.whole)
	watch.Wait()
}

// hangUp closes the connection. If it is told to, it first takes what the
// client has sent besides its request: otherwise the kernel would cut the
// client off from the last bytes written.
func (s *Stream) hangUp(gently bool) {
	conn, raw := s.detach()
	if gently && raw != nil {
		swallow(raw)
	}
	_ = conn.Close() // nothing is left that could be lost
}

// detach takes the connection from the stream, which may be remembered for a
// while by a wheel or a queue.
func (s *Stream) detach() (io.Closer, syscall.RawConn) {
	if w := s.waker.Load(); w.shard != nil {
		w.shard.mu.Lock() // others look whether there is a connection
		defer w.shard.mu.Unlock()
	}
	conn, raw := s.conn, s.raw
	s.conn, s.raw = nil, nil
	return conn, raw
}

// frame makes what was appended to b behind chunkRoom what goes over the
// connection.
func (t *Terms) frame(b []byte, last bool) []byte {
	if !t.Chunked {
		return b[chunkRoom:]
	}
	start := chunkRoom
	if len(b) > chunkRoom {
		start, b = closeChunk(b, chunkRoom)
	}
	if last {
		b = append(b, lastChunk...)
	}
	return b[start:]
}

// takenSink writes to a connection that was taken over, from a goroutine,
// waiting for the client where it must.
type takenSink struct {
	s     *Stream
	head  []byte // still to be written before anything else
	whole bool   // these were the last bytes
}

// writeStep is how much a client has to take within the time-out: so little
// that a slow one does, and one that takes nothing is found out.
const writeStep = 16 << 10

func (k *takenSink) send(b []byte, sc *scratch, last bool) error {
	s := k.s
	out := s.terms.frame(b, last)
	if k.head != nil {
		out = append(k.head, out...)
		k.head = nil
	}
	if s.raw != nil && len(out) > 0 {
		n, err := sc.pen.write(s.raw, out)
		if err != nil {
			return err
		}
		out = out[n:]
	}
	k.whole = last
	return s.writeWaiting(out)
}

// writeWaiting writes all of out to the stream's connection, or fails when the
// client takes nothing for too long.
func (s *Stream) writeWaiting(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	conn, ok := s.conn.(net.Conn)
	if file, parked := s.conn.(*os.File); !ok && parked {
		c, err := net.FileConn(file)
		if err != nil {
			return err
		}
		defer c.Close()
		conn = c
	}
	for len(out) > 0 {
		if err := conn.SetWriteDeadline(time.Now().Add(s.terms.timeout())); err != nil {
			return err
		}
		n, err := conn.Write(out[:min(len(out), writeStep)])
		if err != nil {
			return err
		}
		out = out[n:]
	}
	return conn.SetWriteDeadline(time.Time{}) // or what is written without waiting would fail later
}

// pen writes to a descriptor what it takes at once. It exists so that a write
// allocates nothing. One goroutine uses it at a time.
type pen struct {
	out  []byte
	n    int
	err  error
	call func(fd uintptr) bool
}

func newPen() *pen {
	p := &pen{}
	p.call = func(fd uintptr) bool {
		p.n, p.err = writeNow(fd, p.out)
		return true // do not wait
	}
	return p
}

// write says how many bytes of b the connection has taken: all, or fewer if it
// would block.
func (p *pen) write(raw syscall.RawConn, b []byte) (int, error) {
	p.out, p.n = b, 0
	err := raw.Write(p.call)
	p.out = nil
	if err != nil {
		return 0, err
	}
	return p.n, p.err
}
