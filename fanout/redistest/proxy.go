package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy passes TCP connections on to a server and, when told to, does to them
// what networks and machines do. It stands in front of anything: Redis, or a
// gateway. A fault befalls what arrives after the call, on all connections there
// are and come unless it says otherwise, until it is taken back; faults add up.
//
// All methods may be called from any goroutine.
type Proxy struct {
	ln   net.Listener
	end  context.CancelFunc // of ctx, in which targets are dialled
	ctx  context.Context
	work sync.WaitGroup // the listener and the links

	accepted, cut, dropped atomic.Int64

	mu      sync.Mutex // guards the fields below
	target  string
	links   map[*link]struct{}
	faults  faults
	changed chan struct{} // closed, and replaced, when faults change
	closed  bool
}

// NewProxy starts a proxy in front of target (host:port) and closes it with the
// test. Nothing needs to listen there yet.
func NewProxy(t T, target string) *Proxy {
	t.Helper()
	p, err := Listen(target)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(p.Close)
	return p
}

// Listen starts a proxy in front of target, on a free port on loopback. The
// caller closes it.
func Listen(target string) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting a proxy in front of %s: %w", target, err)
	}
	p := &Proxy{ln: ln, target: target, links: make(map[*link]struct{}), changed: make(chan struct{})}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.work.Go(p.accept)
	return p, nil
}

// Addr returns the address to connect to.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Close closes the listener and all connections and returns when nothing of the
// proxy is left. It may be called twice.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.ln.Close() // the second time it is closed already
	p.end()
	p.Cut()
	p.work.Wait()
}

// Cut closes all connections now, on both sides. New ones are served.
func (p *Proxy) Cut() {
	for _, l := range p.snapshot() {
		l.close()
	}
}

// SetTarget sends new connections to another server. Those there are stay: call
// Cut as well to move all.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Conns returns the number of open connections.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Accepted returns the number of connections that came so far, without those
// refused.
func (p *Proxy) Accepted() int { return int(p.accepted.Load()) }

// CutReplies returns how many replies CutReply has kept back so far.
func (p *Proxy) CutReplies() int { return int(p.cut.Load()) }

// Dropped returns how many times Drop has thrown bytes away so far.
func (p *Proxy) Dropped() int { return int(p.dropped.Load()) }

// accept takes connections until the listener is closed.
func (p *Proxy) accept() {
	for {
		conn, err := p.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, perhaps: the test's own doing, and it may pass.
			select {
			case <-p.ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		p.admit(conn.(*net.TCPConn)) // what a TCP listener returns
	}
}

// admit serves the connection in a goroutine, unless the proxy refuses.
func (p *Proxy) admit(client *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.faults.refuse {
		_ = client.SetLinger(0) // a reset, the nearest to a closed port
		_ = client.Close()
		return
	}
	p.accepted.Add(1)
	l := &link{p: p, client: client}
	l.ctx, l.end = context.WithCancel(p.ctx)
	p.links[l] = struct{}{}
	p.work.Go(l.serve)
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *Proxy) snapshot() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*link, 0, len(p.links))
	for l := range p.links {
		all = append(all, l)
	}
	return all
}

// dial connects to the target of this moment.
func (p *Proxy) dial(ctx context.Context) (*net.TCPConn, error) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil // what dialling "tcp" returns
}
