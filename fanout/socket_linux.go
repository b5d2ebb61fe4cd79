package fanout

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeNow writes what a socket takes without waiting; it is no error if that
// is not all. The call does not tell Go's scheduler that it might block, since
// it does not.
func writeNow(fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd,
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

// swallow takes what a client has sent, up to a bound, and forgets it.
func swallow(raw syscall.RawConn) {
	var buf [4 << 10]byte
	_ = raw.Control(func(fd uintptr) {
		for range 16 {
			n, _, err := syscall.Recvfrom(int(fd), buf[:], syscall.MSG_DONTWAIT)
			if n <= 0 || err != nil {
				return
			}
		}
	})
}

// duplicate gives a file for the same socket, which Go's poller knows nothing of.
//
// A client that has vanished without a word is found out by keep-alive probes
// while nothing is sent to it, but what is sent would be tried again for a
// quarter of an hour: the time-out bounds that, too.
func duplicate(raw syscall.RawConn, timeout time.Duration) (*os.File, error) {
	fd := -1
	var result error
	err := raw.Control(func(old uintptr) {
		if result = unix.SetNonblock(int(old), false); result != nil { // or os would have it polled
			return
		}
		_ = unix.SetsockoptInt(int(old), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds())) // not every socket is TCP's
		fd, result = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err == nil {
		err = result
	}
	if err != nil {
		return nil, os.NewSyscallError("duplicating a socket", err)
	}
	return os.NewFile(uintptr(fd), "stream"), nil
}

// shutDown breaks a connection, so that whoever waits for it does so no longer.
func shutDown(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.Shutdown(int(fd), unix.SHUT_RDWR) // it may be broken already
	})
}
