package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// manySources says that every address in 127.0.0.0/8 can be bound.
const manySources = true

// epoll is the engine for plain HTTP: a few goroutines, each with an epoll set
// and one buffer for all its streams.
type epoll struct {
	workers []*worker
	tasks   sync.WaitGroup
}

// worker reads its share of the streams.
type worker struct {
	run    *run
	in     *intake
	ep     int
	bell   int       // eventfd that ends a wait
	fleet  []*stream // by index/stride: what an epoll event's number stands for; the goroutine's
	stride int

	connecting map[*stream]struct{} // no response head yet; the goroutine's
	buf        []byte
	request    []byte

	mu      sync.Mutex // guards the fields below
	pending []*stream
	ending  bool
}

const (
	bellNumber  = -1
	sweepEvery  = 250 * time.Millisecond
	readBuffer  = 256 << 10
	eventsAtOne = 512
)

// newEngine chooses the engine for the plan.
func newEngine(r *run) (engine, error) {
	if r.Portable || r.subscribe.tls != nil {
		return newPortable(r), nil
	}
	e := &epoll{}
	for i := range r.intakes {
		w, err := newWorker(r, r.intakes[i], len(r.intakes))
		if err != nil {
			e.stop()
			return nil, fmt.Errorf("setting up epoll: %w", err)
		}
		e.workers = append(e.workers, w)
		e.tasks.Go(w.loop)
	}
	return e, nil
}

// readers is how many goroutines read: leave the greater part of the machine
// to what is measured.
func readers() int { return min(max(runtime.GOMAXPROCS(0)/3, 1), 8) }

func newWorker(r *run, in *intake, stride int) (*worker, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: bellNumber})
	}
	if err != nil {
		unix.Close(ep)
		return nil, err
	}
	return &worker{
		run: r, in: in, ep: ep, bell: bell, stride: stride,
		fleet:      make([]*stream, (r.Streams+stride-1)/stride),
		connecting: map[*stream]struct{}{},
		buf:        make([]byte, readBuffer),
	}, nil
}

func (e *epoll) open(s *stream) {
	w := e.workers[s.index%len(e.workers)]
	w.mu.Lock()
	w.pending = append(w.pending, s)
	w.mu.Unlock()
	w.ring()
}

func (e *epoll) stop() {
	for _, w := range e.workers {
		w.mu.Lock()
		w.ending = true
		w.mu.Unlock()
		w.ring()
	}
	e.tasks.Wait()
}

// ring can only fail when the bell already rings.
func (w *worker) ring() { unix.Write(w.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (w *worker) loop() {
	defer w.close()
	events := make([]unix.EpollEvent, eventsAtOne)
	for swept := w.run.now(); ; {
		pending, ending := w.takePending()
		if ending {
			return
		}
		for _, s := range pending {
			w.connect(s)
		}
		n, err := unix.EpollWait(w.ep, events, int(sweepEvery/time.Millisecond))
		if err != nil && err != unix.EINTR {
			// Only a programming error can bring us here: the set and the
			// buffer are ours and valid.
			panic(fmt.Sprintf("epoll_wait: %v", err))
		}
		for i := range max(n, 0) {
			w.handle(&events[i])
		}
		if now := w.run.now(); now-swept >= sweepEvery {
			swept = now
			w.sweep(now)
		}
	}
}

func (w *worker) takePending() (pending []*stream, ending bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pending, w.pending = w.pending, nil
	return pending, w.ending
}

func (w *worker) close() {
	for _, s := range w.fleet {
		if s != nil {
			unix.Close(s.fd)
		}
	}
	unix.Close(w.bell)
	unix.Close(w.ep)
}

// connect begins a connection; epoll tells when it stands.
func (w *worker) connect(s *stream) {
	fd, err := dialNonblocking(w.run.source(s.source), w.run.node(s))
	if err != nil {
		w.run.ended(s, kind("connect", err))
		return
	}
	s.fd = fd
	number := s.index / w.stride
	if err := unix.EpollCtl(w.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(number)}); err != nil {
		unix.Close(fd)
		w.run.ended(s, kind("connect", err))
		return
	}
	w.fleet[number] = s
	w.connecting[s] = struct{}{}
}

// end closes the connection of s and gives s back.
func (w *worker) end(s *stream, err error) {
	w.fleet[s.index/w.stride] = nil
	delete(w.connecting, s)
	unix.Close(s.fd)
	w.run.ended(s, err)
}

func (w *worker) handle(e *unix.EpollEvent) {
	if e.Fd == bellNumber {
		var b [8]byte
		unix.Read(w.bell, b[:]) // whatever it holds, it is silent now
		return
	}
	s := w.fleet[e.Fd]
	switch {
	case s == nil: // ended by an earlier event of the same wait
	case e.Events&unix.EPOLLOUT != 0:
		if err := w.ask(s, e.Fd); err != nil {
			w.end(s, kind("connect", err))
		}
	default:
		w.read(s)
	}
}

// ask sends the request on a connection that has just been made, or failed.
func (w *worker) ask(s *stream, number int32) error {
	failure, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if failure != 0 {
		return unix.Errno(failure)
	}
	w.request = w.run.streamRequest(w.request[:0], s.room, s.decoder.ID())
	n, err := unix.Write(s.fd, w.request)
	if err != nil {
		return err
	}
	if n < len(w.request) {
		return errors.New("the request does not fit a send buffer")
	}
	return unix.EpollCtl(w.ep, unix.EPOLL_CTL_MOD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: number})
}

// read takes what there is, once; epoll comes back if there is more.
func (w *worker) read(s *stream) {
	n, err := unix.Read(s.fd, w.buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return
	case err != nil:
		w.end(s, readError(s, err))
		return
	case n == 0:
		w.end(s, readError(s, errEOF))
		return
	}
	if err := w.in.take(s, w.buf[:n]); err != nil {
		w.end(s, err)
		return
	}
	if s.open {
		delete(w.connecting, s)
	}
}

// sweep gives up on streams that have waited for a response head too long.
func (w *worker) sweep(now time.Duration) {
	for s := range w.connecting {
		if now-s.began > w.run.Patience {
			w.end(s, kind("awaiting the response head", errTimeout))
		}
	}
}

func dialNonblocking(source netip.Addr, to netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if source.IsValid() {
		// With this option the port is chosen by connect, which can use one
		// that is taken towards another server; bind could not.
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()})
		}
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// ensureDescriptors raises the limit of open files to n where that is allowed.
func ensureDescriptors(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit of open files: %w", err)
	}
	need := uint64(n)
	if limit.Cur >= need {
		return nil
	}
	allowed := limit.Max
	limit.Cur, limit.Max = need, max(need, limit.Max)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("these streams need %d open files, the system allows %d: ask for fewer, or raise it (ulimit -n)", n, allowed)
	}
	return nil
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
