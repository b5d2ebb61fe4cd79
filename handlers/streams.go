package handlers

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"sluice/fanout"
)

// getEvents answers GET on events in the form that is asked for.
func (g *Gateway) getEvents(w http.ResponseWriter, r *http.Request) error {
	query, err := queryOf(r)
	if err != nil {
		return err
	}
	rooms, err := g.roomsOf(r, query)
	if err != nil {
		return err
	}
	if _, err := g.allow(r, maySubscribe, rooms...); err != nil {
		return err
	}
	form := formOf(r, query)
	if form == formPage {
		return g.history(w, r, query, rooms)
	}
	return g.stream(w, r, query, rooms, form)
}

// stream answers with events for as long as the client stays.
func (g *Gateway) stream(w http.ResponseWriter, r *http.Request, query url.Values, rooms []string, form form) error {
	opt, err := g.streamOptions(r, query, rooms, form)
	if err != nil {
		return err
	}
	s, err := g.open(r, opt)
	if r.Context().Err() != nil {
		return nil // the client has left; nobody is there to be told
	}
	g.streamHeaders(w, form)
	conn := &responseConn{w: w, rc: http.NewResponseController(w), timeout: g.cfg.WriteTimeout}
	if err != nil {
		g.closeFraming(w)
		return conn.Write(g.farewell(opt.Format, err))
	}
	if taken, ok := takeOver(w, r); ok {
		s.Serve(taken, g.responseHead(w.Header()), &g.terms)
		return nil
	}
	g.closeFraming(w)
	if s.Run(r.Context(), conn) == fanout.ByeGone {
		panic(http.ErrAbortHandler) // a clean end would tell whoever is still there that all was sent
	}
	return nil
}

func (g *Gateway) open(r *http.Request, opt fanout.StreamOptions) (*fanout.Stream, error) {
	if g.draining.Load() {
		return nil, fanout.ErrClosed
	}
	return g.hub.Open(r.Context(), opt)
}

// farewell is all that a stream says which cannot be had now.
func (g *Gateway) farewell(as fanout.Format, err error) []byte {
	if errors.Is(err, fanout.ErrClosed) {
		return fanout.AppendBye(nil, as, fanout.ByeDrain, g.cfg.Retry)
	}
	g.problems.count(problemOf(err).kind)
	return fanout.AppendBye(nil, as, fanout.ByeOverload, overloadRetry*g.cfg.Retry)
}

// overloadRetry is how many times longer than usual those stay away whom we
// cannot serve.
const overloadRetry = 2

func (g *Gateway) streamOptions(r *http.Request, query url.Values, rooms []string, form form) (fanout.StreamOptions, error) {
	opt := fanout.StreamOptions{
		Rooms: rooms, Heartbeat: g.cfg.Heartbeat, Retry: g.cfg.Retry, Padding: g.cfg.Padding, MaxAge: g.cfg.MaxAge,
	}
	var err error
	if opt.Starts, _, _, err = startsOf(r, query, rooms); err != nil {
		return opt, err
	}
	if opt.Types, err = typesOf(query); err != nil {
		return opt, err
	}
	envelope, err := flag(query, "envelope")
	if err != nil {
		return opt, err
	}
	switch beat := query.Get("heartbeat"); beat {
	case "", "comment":
	case "event":
		opt.Beats = true
	default:
		return opt, errBadQuery.with("heartbeat is event, or left out.")
	}
	switch {
	case form == formNDJSON:
		opt.Format = fanout.NDJSON
	case envelope || len(rooms) > 1:
		opt.Format = fanout.Envelope
	}
	return opt, nil
}

// streamHeaders are each needed by something that may stand between: nginx
// buffers without the third, caches share a stream or compressors hold it back
// without the second and the fourth.
func (g *Gateway) streamHeaders(w http.ResponseWriter, form form) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	if form == formNDJSON {
		header.Set("Content-Type", "application/x-ndjson")
	}
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no")
	header.Set("Content-Encoding", "identity")
}

// closeFraming has net/http end the body with the connection, if that is wanted.
func (g *Gateway) closeFraming(w http.ResponseWriter) {
	if g.cfg.CloseFraming {
		w.Header().Set("Transfer-Encoding", "identity") // net/http's word for it
	}
}

// maxWait is the longest a long poll waits: proxies were seen to give up after 50 s.
const maxWait = 25 * time.Second
