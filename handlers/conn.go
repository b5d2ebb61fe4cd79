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

// Write implements fanout.Conn.
func (c *responseConn) Write(b []byte) error {
	if err := c.rc.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	if _, err := c.w.Write(b); err != nil {
		return err
	}
	return c.rc.Flush()
}
