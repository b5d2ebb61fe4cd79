package fanout

import (
	"io"
	"net"
	"sync"
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
	s.terms = terms
	if !h.watches() {
		s.serveAside(conn, head)
		return
	}
	sock, ok := takeSocket(conn, terms.timeout())
	if !ok {
		s.serveAside(conn, head)
		return
	}
	part := s.first.room.shardPart()
	sh := h.shards[part-1]
	s.socket, s.away = sock, true
	s.waker.Store(&sh.waker)
	for i := range s.seats() {
		seat := s.seat(i)
		seat.room.sit(seat, part)
	}
	if h.poller.add(sock, s.slot) != nil {
		s.End(ByeGone) // a client that leaves would never be noticed
	}
	sh.driveAside(s, head, nil)
}

// watches says whether there is a poller, without which no connection can be
// without a goroutine.
func (h *Hub) watches() bool {
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
	return h.poller != nil
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

// serveAside is Serve where there is no poller that notices hang-ups, or for
// a connection that it cannot watch: a goroutine reads, to see the client leave.
func (s *Stream) serveAside(conn net.Conn, head []byte) {
	var watch sync.WaitGroup
	watch.Go(func() {
		_, _ = io.Copy(io.Discard, conn) // which ends with the connection, one way or another
		s.End(ByeGone)
	})
	reason := s.run(s.hub().ctx, &connTaken{terms: s.terms, conn: conn, head: head})
	s.finish(reason)
	_ = conn.Close() // nothing is left that could be lost
	watch.Wait()
}

// connTaken writes to a connection that is not watched.
type connTaken struct {
	terms *Terms
	conn  net.Conn
	head  []byte // still to be written before anything else
}

func (k *connTaken) send(b []byte, last bool) error {
	out := append(k.head, k.terms.frame(b, last)...)
	k.head = nil
	return k.terms.writeTo(k.conn, out)
}

// hangUp closes the connection. If it is told to, it first takes what the
// client has sent besides its request: otherwise the kernel would cut the
// client off from the last bytes written.
func (s *Stream) hangUp(gently bool) {
	sock := s.detach()
	if gently {
		sock.swallow()
	}
	sock.close()
}

// detach takes the connection from the stream, which may be remembered for a
// while by a wheel or a queue. Others, who look under the lock whether there is
// one, do not see it once it is closed and its number another's.
func (s *Stream) detach() socket {
	sh := s.waker.Load().shard
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sock := s.socket
	s.socket = noSocket
	return sock
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

func (k *takenSink) send(b []byte, last bool) error {
	out := k.s.terms.frame(b, last)
	if k.head != nil {
		out = append(k.head, out...)
		k.head = nil
	}
	if len(out) > 0 {
		n, err := k.s.socket.write(out)
		if err != nil {
			return err
		}
		out = out[n:]
	}
	k.whole = last
	return k.s.writeWaiting(out)
}

// writeWaiting writes all of out to the stream's connection, or fails when the
// client takes nothing for too long.
func (s *Stream) writeWaiting(out []byte) error {
	if len(out) == 0 {
		return nil
	}
	conn, err := s.socket.conn()
	if err != nil {
		return err
	}
	defer conn.Close()
	return s.terms.writeTo(conn, out)
}

// writeTo writes all of out, or fails when the client takes nothing for too long.
func (t *Terms) writeTo(conn net.Conn, out []byte) error {
	for len(out) > 0 {
		if err := conn.SetWriteDeadline(time.Now().Add(t.timeout())); err != nil {
			return err
		}
		n, err := conn.Write(out[:min(len(out), writeStep)])
		if err != nil {
			return err
		}
		out = out[n:]
	}
	return nil
}
