package handlers

import (
	"net/http"
	"time"
)

// responseConn carries a stream over net/http, whatever that speaks: TLS,
// HTTP/2, HTTP/1.1. It belongs to the request's goroutine.
type responseConn struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
}

// writeStep is how much a client has to take within the time-out: so little
// that a slow one does, and one that takes nothing is found out.
const writeStep = 16 << 10

// Write implements fanout.Conn.
func (c *responseConn) Write(b []byte) error {
	for len(b) > 0 {
		if err := c.rc.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return err
		}
		n, err := c.w.Write(b[:min(len(b), writeStep)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return c.rc.Flush()
}
