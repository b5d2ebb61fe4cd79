package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// kind puts an error of the network into few words without addresses, so that
// errors of one kind can be counted as one.
func kind(doing string, err error) error {
	var number syscall.Errno
	var timeout net.Error
	switch {
	case errors.As(err, &number):
		return fmt.Errorf("%s: %w", doing, number)
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer in time", doing)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: closed by the server", doing)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// readError is how a stream's connection ended, by the error of its last read.
func readError(s *stream, err error) error {
	switch {
	case !s.open:
		return kind("awaiting the response head", err)
	case errors.Is(err, io.EOF) && s.bye != "":
		return fmt.Errorf("%w: sluice.bye, %s", errEnded, s.bye)
	case errors.Is(err, io.EOF):
		return errEnded
	}
	return kind("reading a stream", err)
}

var (
	errEOF     = io.EOF
	errTimeout = context.DeadlineExceeded
)
