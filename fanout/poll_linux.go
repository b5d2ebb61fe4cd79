package fanout

import (
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller notices when clients hang up, by an epoll set that watches the
// connections that were taken over for nothing else. What clients send is not
// looked at. A connection leaves the set by being closed.
type poller struct {
	file *os.File // of the set; Go's own poller waits for it
	raw  syscall.RawConn
}

// newPoller gives a poller, which is to be closed.
func newPoller() (*poller, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(set, true); err != nil { // or os.File would not poll it
		_ = unix.Close(set)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{file: os.NewFile(uintptr(set), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, err
	}
	return p, nil
}

// add watches a connection; when its client hangs up, slot is reported, once.
func (p *poller) add(s socket, slot uint32) error {
	var result error
	event := unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(slot)}
	err := p.raw.Control(func(set uintptr) {
		result = unix.EpollCtl(int(set), unix.EPOLL_CTL_ADD, int(s), &event)
	})
	return errors.Join(err, result)
}

func (p *poller) close() { _ = p.file.Close() }

// run reports slots until ctx ends. A report may be late, when the slot is
// another connection's: hungUp tells.
func (p *poller) run(ctx context.Context, report func(slot uint32)) {
	stop := context.AfterFunc(ctx, p.close)
	defer stop()
	events := make([]unix.EpollEvent, 256)
	for {
		n := 0
		err := p.raw.Read(func(set uintptr) bool {
			n, _ = unix.EpollWait(int(set), events, 0) // of an error nothing follows but another try
			return n > 0
		})
		if err != nil {
			return // it was closed
		}
		for _, e := range events[:n] {
			report(uint32(e.Fd))
		}
	}
}
