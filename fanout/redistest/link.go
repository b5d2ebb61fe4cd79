package redistest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is one connection through a proxy: two sockets and a goroutine for each
// direction, both of which end when either socket is closed.
type link struct {
	p      *Proxy
	client *net.TCPConn
	ctx    context.Context // ends when the link is cut
	end    context.CancelFunc

	cutting atomic.Bool // the next bytes from the server are not to arrive

	mu     sync.Mutex // guards server
	server *net.TCPConn
}

func (l *link) serve() {
	defer l.p.forget(l)
	defer l.close()
	if !l.pass(toServer) || !l.connect() {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { l.pump(toClient, l.server, l.client) })
	l.pump(toServer, l.client, l.server)
	back.Wait()
}

// connect dials the server, unless the link was cut meanwhile.
func (l *link) connect() bool {
	server, err := l.p.dial(l.ctx)
	if err != nil {
		return false // the client is told by the closing of its connection
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		_ = server.Close()
		return false
	}
	l.server = server
	return true
}

// close ends the link; it may be called by several and more than once.
func (l *link) close() {
	l.end()
	l.mu.Lock()
	server := l.server
	l.mu.Unlock()
	// Closing twice is an error of no interest.
	_ = l.client.Close()
	if server != nil {
		_ = server.Close()
	}
}

// pump carries bytes one way until there are no more, and then the end itself.
func (l *link) pump(way direction, from, to *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		// Held as well: the end of the stream, or its failure.
		if !l.pass(way) {
			return
		}
		if n > 0 && !l.deliver(way, to, buf[:n]) {
			l.close()
			return
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite() // the other direction may go on
			return
		default:
			l.close()
			return
		}
	}
}

// pass waits while bytes are held that way; false means that the link was cut.
func (l *link) pass(way direction) bool {
	for {
		f, changed := l.p.state()
		if !f.blackhole && (way == toServer || !f.holdReplies) {
			return l.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
			return false
		}
	}
}

// deliver writes b as the faults will have it; false means that the link is over.
func (l *link) deliver(way direction, to *net.TCPConn, b []byte) bool {
	f, _ := l.p.state()
	if way == toServer {
		// Before the request is written, since the reply may be quick.
		if f.cutReply.takes(b) {
			l.cutting.Store(true)
		}
		return l.write(way, to, b)
	}
	if l.cutting.Load() {
		l.p.cut.Add(1)
		return false
	}
	if f.drop.takes(b) {
		l.p.dropped.Add(1)
		return true
	}
	if f.split.takes(b) {
		at := min(f.splitAt, len(b))
		return l.write(way, to, b[:at]) && l.wait(way, f.splitPause) && l.write(way, to, b[at:])
	}
	return l.write(way, to, b)
}

// write writes b at once or, if it is to be chopped, piece by piece.
func (l *link) write(way direction, to *net.TCPConn, b []byte) bool {
	for len(b) > 0 {
		f, _ := l.p.state()
		n := len(b)
		if f.piece > 0 {
			n = min(n, f.piece)
		}
		if _, err := to.Write(b[:n]); err != nil {
			return false
		}
		b = b[n:]
		if f.piece > 0 && !l.wait(way, f.pause) {
			return false
		}
	}
	return true
}

// wait pauses; false means that the link was cut. A fault that came meanwhile
// holds what is left, in the middle of a frame.
func (l *link) wait(way direction, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return l.pass(way)
	case <-l.ctx.Done():
		return false
	}
}
