package fanout

import (
	"syscall"
	"unsafe"
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
