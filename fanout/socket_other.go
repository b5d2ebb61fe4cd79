//go:build !linux

package fanout

import (
	"context"
	"errors"
	"net"
	"time"
)

// poller is what other platforms do without: there every stream keeps a
// goroutine (serveAside), and none of the functions below is called.
type poller struct{}

func newPoller() (*poller, error)                 { return nil, errors.ErrUnsupported }
func (*poller) add(socket, uint32) error          { return errors.ErrUnsupported }
func (*poller) run(context.Context, func(uint32)) {}
func (*poller) close()                            {}

// socket is the descriptor of a connection that was taken over.
type socket int32

const noSocket socket = -1

func takeSocket(net.Conn, time.Duration) (socket, bool) { return noSocket, false }
func (socket) write([]byte) (int, error)                { return 0, errors.ErrUnsupported }
func (socket) conn() (net.Conn, error)                  { return nil, errors.ErrUnsupported }
func (socket) hungUp() bool                             { return false }
func (socket) swallow()                                 {}
func (socket) shutDown()                                {}
func (socket) close()                                   {}
