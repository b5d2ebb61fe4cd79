package fanout

import (
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is the descriptor of a connection that was taken over: all that a
// stream keeps of it. A net.Conn takes 0.9 KB, most of it so that goroutines can
// wait for it, an os.File still 0.2 KB; for a stream that is not away nobody
// waits, and its socket has one owner, who closes it (Stream.hangUp).
type socket int32

const noSocket socket = -1

// takeSocket takes the socket out of a connection, and closes what is left of
// that. It says no, and leaves everything as it was, if there is none.
//
// A client that has vanished without a word is found out by keep-alive probes
// while nothing is sent to it, but what is sent would be tried again for a
// quarter of an hour: the time-out bounds that, too.
func takeSocket(conn net.Conn, timeout time.Duration) (socket, bool) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return noSocket, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return noSocket, false
	}
	fd := -1
	err = raw.Control(func(old uintptr) {
		_ = unix.SetsockoptInt(int(old), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds())) // not every socket is TCP's
		if dup, err := unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fd = dup
		}
	})
	if err != nil || fd < 0 {
		return noSocket, false
	}
	_ = conn.Close() // the socket lives on
	return socket(fd), true
}

// write writes what the socket takes without waiting, all or fewer bytes. The
// call does not tell Go's scheduler that it might block, since it does not.
func (s socket) write(b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(s),
			uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EAGAIN:
			return 0, nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// conn gives a connection for the same socket, so that a goroutine can wait for
// it. It is to be closed, which leaves the socket open.
func (s socket) conn() (net.Conn, error) {
	fd, err := unix.FcntlInt(uintptr(s), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("duplicating a socket", err)
	}
	file := os.NewFile(uintptr(fd), "stream")
	defer file.Close() // the connection has a descriptor of its own
	return net.FileConn(file)
}

// hungUp says that the client has closed its end, or that the connection is
// broken. It does not block.
func (s socket) hungUp() bool {
	fds := []unix.PollFd{{Fd: int32(s), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// swallow takes what the client has sent, up to a bound, and forgets it.
func (s socket) swallow() {
	var buf [4 << 10]byte
	for range 16 {
		n, _, err := syscall.Recvfrom(int(s), buf[:], syscall.MSG_DONTWAIT)
		if n <= 0 || err != nil {
			return
		}
	}
}

// shutDown breaks the connection, so that whoever waits for it does so no longer.
func (s socket) shutDown() {
	_ = unix.Shutdown(int(s), unix.SHUT_RDWR) // it may be broken already
}

func (s socket) close() {
	_ = unix.Close(int(s)) // nothing is left that could be lost
}
