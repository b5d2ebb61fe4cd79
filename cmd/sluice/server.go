package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// server is an http.Server that ends without dropping anybody who had got
// through: net/http leaves a request unanswered whose head comes once it shuts
// down, though its connection was accepted before.
type server struct {
	*http.Server
	ln       net.Listener
	accepted chan struct{} // closed when no more connections are
	open     atomic.Int64  // connections, those of streams excepted
}

func newServer(srv *http.Server, ln net.Listener) *server {
	s := &server{Server: srv, ln: ln, accepted: make(chan struct{})}
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.open.Add(-1)
		}
	}
	return s
}

// serve serves until end, or until something fails. It is called once, and has
// to be before end.
func (s *server) serve(c *certificate) error {
	defer close(s.accepted)
	if c.now.Load() == nil {
		return s.Serve(s.ln)
	}
	s.TLSConfig = &tls.Config{GetCertificate: c.get}
	return s.ServeTLS(s.ln, "", "")
}

// lastWords is how long a connection may take to say what it was opened for,
// when no others are accepted any more.
const lastWords = time.Second

// end takes no more connections, and waits until the requests on those that
// there are have been answered, or ctx has ended. Connections have to be told
// before not to stay (SetKeepAlivesEnabled).
func (s *server) end(ctx context.Context) error {
	_ = s.ln.Close() // Shutdown closes it, too
	<-s.accepted
	late := time.After(lastWords)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for s.open.Load() > 0 {
		select {
		case <-look.C:
			continue
		case <-late:
		case <-ctx.Done():
		}
		break
	}
	return s.Shutdown(ctx)
}
