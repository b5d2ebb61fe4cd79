package handlers

import (
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
	rooms, err := g.roomsOf(r, query, readable)
	if err != nil {
		return err
	}
	form := formOf(r, query)
	if form == formPage {
		v, err := g.admit(r, maySubscribe, rooms...)
		if err != nil {
			return err
		}
		return g.history(w, r, query, v, rooms)
	}
	if r.Method == http.MethodHead {
		return g.headOfStream(w, r, rooms, form)
	}
	return g.stream(w, r, query, rooms, form)
}

// headOfStream tells what the head of a stream would be, and opens none. A
// ticket is not looked at: it would be spent.
func (g *Gateway) headOfStream(w http.ResponseWriter, r *http.Request, rooms []string, form form) error {
	if _, err := g.admit(r, maySubscribe, rooms...); err != nil {
		return err
	}
	g.streamHeaders(w, form)
	w.WriteHeader(http.StatusOK)
	return nil
}

// stream answers with events for as long as the client stays.
func (g *Gateway) stream(w http.ResponseWriter, r *http.Request, query url.Values, rooms []string, form form) error {
	opt, err := g.streamOptions(r, query, rooms, form)
	if err != nil {
		return err
	}
	s, err := g.open(r, query, opt)
	if r.Context().Err() != nil {
		if s != nil {
			s.Drop()
		}
		return nil // the client has left; nobody is there to be told
	}
	conn := &responseConn{w: w, rc: http.NewResponseController(w), timeout: g.cfg().WriteTimeout}
	if err != nil {
		return g.refuse(r, conn, opt.Format, form, err)
	}
	g.streamHeaders(w, form)
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

// open opens a stream, if whoever asks for it may have it.
func (g *Gateway) open(r *http.Request, query url.Values, opt fanout.StreamOptions) (*fanout.Stream, error) {
	v, err := g.streamVisitor(r, query, opt.Rooms)
	if err != nil {
		return nil, err
	}
	if opt.Member, err = g.memberOf(query, v.identity(), opt.Rooms); err != nil {
		return nil, err
	}
	if g.draining.Load() {
		return nil, fanout.ErrClosed
	}
	p, err := g.enter(v, &opt)
	if err != nil {
		return nil, err
	}
	if v.ticket != nil {
		return g.openWithTicket(r, v.ticket, opt, p)
	}
	s, err := g.hub.Open(r.Context(), opt)
	if err != nil {
		p.leave()
	}
	return s, err
}

// streamVisitor says who asks for a stream, by ticket or by token.
func (g *Gateway) streamVisitor(r *http.Request, query url.Values, rooms []string) (*visitor, error) {
	if g.cfg().Verifier != nil && query.Has("ticket") {
		return g.present(r, query, rooms)
	}
	v, err := g.admit(r, maySubscribe, rooms...)
	if err == nil && v.subject != "" && !time.Now().Before(v.claims.Expires) {
		return nil, errUnauthorized // what is good for a moment more, for clocks that differ, is no good for a stream
	}
	return v, err
}

// enter takes a place for a stream, which it gives back when it has closed.
func (g *Gateway) enter(v *visitor, opt *fanout.StreamOptions) (*place, error) {
	if err := g.limits.enterRooms(v, opt.Rooms); err != nil {
		return nil, err
	}
	p, err := g.limits.enter(v)
	if err != nil {
		return nil, err
	}
	opt.Lease, opt.Ended = v.lease(), p.ended
	return p, nil
}

// openWithTicket takes the ticket last, so that it is not spent on a stream
// that cannot be had.
func (g *Gateway) openWithTicket(r *http.Request, t *ticket, opt fanout.StreamOptions, p *place) (*fanout.Stream, error) {
	closed := make(chan struct{})
	opt.Ended = func(fanout.ByeReason) { p.leave(); close(closed) }
	t.assign(&opt)
	s, err := g.hub.Open(r.Context(), opt)
	if err != nil {
		p.leave()
		return nil, err
	}
	taken, err := g.take(r.Context(), t, &opt)
	if err != nil {
		s.End(fanout.ByeLeft) // so that nobody is present who should not be here at all
		s.Drop()
		return nil, err
	}
	if !g.cfg().StrictTickets {
		g.tickets.hold(taken, s, closed)
	}
	return s, nil
}

// refuse answers a request for a stream that cannot be had. Whoever may come
// back is told when, in the way that browsers understand; the others get a
// status at which they stop.
func (g *Gateway) refuse(r *http.Request, conn *responseConn, as fanout.Format, form form, err error) error {
	p := problemOf(err)
	switch {
	case err == errRevoked:
		conn.w.WriteHeader(http.StatusNoContent)
		return nil
	case p.status != http.StatusTooManyRequests && p.status < http.StatusInternalServerError:
		return err
	}
	g.report(r.Context(), p, err)
	if c, ok := conn.w.(*countedWriter); ok {
		c.problem = p.kind
	}
	g.streamHeaders(conn.w, form)
	g.closeFraming(conn.w)
	conn.w.Header().Set("Connection", "close") // its descriptor is better used by others
	if p == errDraining {
		return conn.Write(fanout.AppendBye(nil, as, fanout.ByeDrain, g.cfg().Retry))
	}
	retry := overloadRetry * g.cfg().Retry
	if p.status == http.StatusTooManyRequests {
		retry = max(overloadWait, 2*p.retry)
	}
	return conn.Write(fanout.AppendBye(nil, as, fanout.ByeOverload, retry))
}

// overloadRetry is how many times longer than usual those stay away whom we
// cannot serve.
const overloadRetry = 2

// overloadWait is after about how long those come back who met a limit.
const overloadWait = 15 * time.Second

func (g *Gateway) streamOptions(r *http.Request, query url.Values, rooms []string, form form) (fanout.StreamOptions, error) {
	opt := fanout.StreamOptions{
		Rooms: rooms, Heartbeat: g.cfg().Heartbeat, Retry: g.cfg().Retry, Padding: g.cfg().Padding, MaxAge: g.cfg().MaxAge,
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
	if g.cfg().CloseFraming {
		w.Header().Set("Transfer-Encoding", "identity") // net/http's word for it
	}
}

// maxWait is the longest a long poll waits: proxies were seen to give up after 50 s.
const maxWait = 25 * time.Second
