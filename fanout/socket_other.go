//go:build !linux

package fanout

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// poller is what other platforms do without: there every stream keeps a
// goroutine (serveAside), and none of the functions below is called.
type poller struct{}

func newPoller() (*poller, error)                                { return nil, errors.ErrUnsupported }
func (*poller) add(syscall.RawConn, uint32) error                { return errors.ErrUnsupported }
func (*poller) run(context.Context, func(uint32))                {}
func (*poller) close()                                           {}
func hungUp(syscall.RawConn) bool                                { return false }
func writeNow(uintptr, []byte) (int, error)                      { return 0, nil }
func swallow(syscall.RawConn)                                    {}
func duplicate(syscall.RawConn, time.Duration) (*os.File, error) { return nil, errors.ErrUnsupported }
func shutDown(syscall.RawConn)                                   {}
