package limit

import (
	"net"
	"sync/atomic"
	"syscall"
)

// Reserve is how many of a process's file descriptors to keep for what is no
// client: the log's connections, files, the operator. Who has few is left most
// of them: 200 of 256 are streams, when as much again is kept for other clients.
func Reserve(descriptors int) int { return min(max(descriptors/16, 28), 1024, descriptors/2) }

// Descriptors is a listener that turns connections away when the process has
// few descriptors left. Accepting the last one would leave none for the log,
// and make accepting itself fail.
//
// The kernel gives out the lowest number that is free, so the number of a new
// connection tells how many are in use: nothing has to be counted.
type Descriptors struct {
	net.Listener
	most    uintptr // the highest number that is taken
	refused atomic.Int64
}

// NewDescriptors guards ln, for a process that may have so many descriptors;
// 0 is no bound.
func NewDescriptors(ln net.Listener, descriptors int) *Descriptors {
	d := &Descriptors{Listener: ln}
	if descriptors > 0 {
		d.most = uintptr(descriptors - Reserve(descriptors))
	}
	return d
}

// Accept implements net.Listener. It gives connections as they are.
func (d *Descriptors) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil || d.most == 0 || d.fits(conn) {
			return conn, err
		}
		d.refused.Add(1)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // nothing of it is to stay, not even in the kernel
		}
		_ = conn.Close() // the client sees a connection that failed, and tries again
	}
}

func (d *Descriptors) fits(conn net.Conn) bool {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return true
	}
	fits := true
	_ = control.Control(func(fd uintptr) { fits = fd <= d.most }) // a connection that is closed by now fits
	return fits
}

// Refused counts the connections that were turned away.
func (d *Descriptors) Refused() int64 { return d.refused.Load() }
