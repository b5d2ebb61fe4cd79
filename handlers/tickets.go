package handlers

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"sluice/fanout"
	"sluice/handlers/auth"
)

const (
	ticketFresh  = 30 * time.Second  // in which a ticket must be used
	ticketReopen = 5 * time.Minute   // after a stream's end, in which it may be reopened
	ticketTouch  = 150 * time.Second // how often that is put off while the stream lasts
	ticketFlush  = 2 * time.Second   // for what is left to write when the node ends
	ticketKey    = "ticket:"         // and the ticket's hash: who sees the store cannot use it
	keepEvery    = time.Second
)

// ticket is a code for the URL of an EventSource, which cannot send a token
// otherwise. It opens one stream; from then on it stands for that stream, and
// with a cursor opens it anew, ending it where it was.
//
//	unused, 30 s -> open, while the stream lasts -> ended, 5 min -> gone
//
// The record is kept in the log's store, so that any node takes any ticket. It
// changes by exchange for what it was, so that of several requests with one
// ticket one goes through. It lives five minutes and is touched while its
// stream lasts, so that after a crash, too, it is gone in time.
type ticket struct {
	Subject   string        `json:"subject"`
	Issued    int64         `json:"issued,omitempty"` // of the token, Unix seconds; 0 if it did not say
	Expires   int64         `json:"expires"`          // likewise, Unix milliseconds
	Rooms     []string      `json:"rooms,omitempty"`  // that it is good for; what the token may read if empty
	Subscribe auth.Patterns `json:"subscribe,omitempty"`

	Info json.RawMessage `json:"info,omitempty"`

	Stream string   `json:"stream,omitempty"` // the stream that it has opened
	Turn   int      `json:"turn,omitempty"`   // how often it was reopened
	Opened []string `json:"opened,omitempty"` // the rooms of the stream

	key    string // in the store
	record []byte // what is there
}

// claims is what the ticket grants.
func (t *ticket) claims() auth.Claims {
	c := auth.Claims{Subject: t.Subject, Expires: time.UnixMilli(t.Expires), Subscribe: t.Subscribe, Info: t.Info}
	if t.Issued != 0 {
		c.IssuedAt = time.Unix(t.Issued, 0)
	}
	return c
}

// ttl is how long a record is good for, of what the token leaves.
func (t *ticket) ttl(most time.Duration) time.Duration {
	return min(most, time.Until(time.UnixMilli(t.Expires)))
}

func (t *ticket) encode() []byte {
	b, err := json.Marshal(t)
	if err != nil {
		panic("handlers: a ticket cannot be written: " + err.Error()) // all its fields can
	}
	return b
}

func ticketKeyOf(code string) string {
	sum := sha256.Sum256([]byte(code))
	return ticketKey + hex.EncodeToString(sum[:])
}

// sellTicket gives a ticket for a token.
func (g *Gateway) sellTicket(w http.ResponseWriter, r *http.Request) error {
	if g.cfg().Verifier == nil {
		return errNotFound.with("Without tokens nobody needs a ticket.")
	}
	v, err := g.identify(r)
	if err != nil {
		return err
	}
	if v.subject == "" {
		return errUnauthorized
	}
	if err := g.limits.spend(v, 1); err != nil {
		return err
	}
	var body struct {
		Rooms []string `json:"rooms"`
	}
	if err := g.readJSON(w, r, &body); err != nil {
		return err
	}
	if len(body.Rooms) > g.cfg().MaxRooms {
		return g.tooManyRooms()
	}
	if slices.ContainsFunc(body.Rooms, func(room string) bool { return !fanout.ValidRoom(room) }) {
		return errBadRoom
	}
	if err := g.may(v, maySubscribe, body.Rooms...); err != nil {
		return err
	}
	code := rand.Text()
	t := &ticket{
		Subject: v.subject, Expires: v.claims.Expires.UnixMilli(), Rooms: body.Rooms,
		Subscribe: v.claims.Subscribe, Info: v.claims.Info,
	}
	if !v.claims.IssuedAt.IsZero() {
		t.Issued = v.claims.IssuedAt.Unix()
	}
	ttl := t.ttl(ticketFresh)
	if ok, err := g.hub.Log().Swap(r.Context(), ticketKeyOf(code), nil, t.encode(), ttl); err != nil || !ok {
		return errUnavailable
	}
	writeJSON(w, "application/json", http.StatusCreated, map[string]string{
		"ticket": code, "expires": string(fanout.AppendTime(nil, time.Now().Add(ttl).UnixMilli())),
	})
	return nil
}

// present looks at the ticket in a stream's URL, which counts there and
// nowhere else, before any other token. It is taken later, by take, when the
// stream can be had.
func (g *Gateway) present(r *http.Request, query url.Values, rooms []string) (*visitor, error) {
	codes := query["ticket"]
	if len(codes) != 1 || !fanout.ValidStreamID(codes[0]) { // they have one form
		return nil, errUnauthorized
	}
	t, err := g.loadTicket(r.Context(), ticketKeyOf(codes[0]))
	if err != nil {
		return nil, err
	}
	if err := g.revoked.check(r.Context(), t.claims()); err != nil {
		return nil, err
	}
	if t.Stream != "" && (!hasCursor(r, query) || !sameRooms(rooms, t.Opened)) {
		return nil, errUnauthorized
	}
	v := &visitor{subject: t.Subject, address: g.addressOf(r), claims: t.claims(), ticket: t}
	if len(t.Rooms) > 0 && slices.ContainsFunc(rooms, func(room string) bool { return !slices.Contains(t.Rooms, room) }) {
		return nil, errForbidden
	}
	return v, g.may(v, maySubscribe, rooms...)
}

func (g *Gateway) loadTicket(ctx context.Context, key string) (*ticket, error) {
	record, err := g.hub.Log().Load(ctx, key)
	if err != nil {
		return nil, err
	}
	t := &ticket{key: key, record: record}
	if record == nil || json.Unmarshal(record, t) != nil || t.ttl(time.Hour) <= 0 {
		return nil, errUnauthorized
	}
	return t, nil
}

func hasCursor(r *http.Request, query url.Values) bool {
	return len(nonEmpty(r.Header.Values("Last-Event-ID")))+len(nonEmpty(query["lastEventId"]))+len(nonEmpty(query["after"])) > 0
}

func sameRooms(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// assign says which stream the ticket is about to open.
func (t *ticket) assign(opt *fanout.StreamOptions) {
	if t.Stream == "" {
		opt.ID = rand.Text()
		return
	}
	opt.ID, opt.Turn = t.Stream, t.Turn+1
}

// take makes the ticket that of a stream, unless somebody was faster. The
// stream's earlier turn, wherever it goes on, ends.
func (g *Gateway) take(ctx context.Context, t *ticket, opt *fanout.StreamOptions) (*ticket, error) {
	taken := *t
	taken.Stream, taken.Turn, taken.Opened = opt.ID, opt.Turn, opt.Rooms
	taken.record = taken.encode()
	if g.cfg().StrictTickets {
		taken.record = nil
	}
	ok, err := g.hub.Log().Swap(ctx, t.key, t.record, taken.record, taken.ttl(ticketReopen))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errUnauthorized
	}
	if opt.Turn > 0 {
		return &taken, g.hub.ReplaceStream(ctx, opt.ID, opt.Turn)
	}
	return &taken, nil
}

// tickets are those of this node's streams.
type tickets struct {
	hub *fanout.Hub

	mu   sync.Mutex // guards open
	open map[*heldTicket]struct{}
}

// heldTicket is the ticket of a stream that is open here. The fields belong to
// the goroutine of run.
type heldTicket struct {
	ticket  *ticket
	stream  *fanout.Stream
	closed  <-chan struct{}
	touched time.Time
	ended   time.Time // when closed was seen; zero before
}

// hold keeps the ticket of a stream until a while after closed is.
func (ts *tickets) hold(t *ticket, s *fanout.Stream, closed <-chan struct{}) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.open[&heldTicket{ticket: t, stream: s, closed: closed, touched: time.Now()}] = struct{}{}
}

// run writes what the streams' lives mean for their tickets, until ctx ends.
func (ts *tickets) run(ctx context.Context) {
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			ts.keep(ctx)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ticketFlush)
			defer cancel()
			ts.keep(ctx)
			return
		}
	}
}

func (ts *tickets) keep(ctx context.Context) {
	ts.mu.Lock()
	held := make([]*heldTicket, 0, len(ts.open))
	for h := range ts.open {
		held = append(held, h)
	}
	ts.mu.Unlock()
	for _, h := range held {
		more, err := ts.keepOne(ctx, h)
		if err != nil {
			return // the others would only wait for the same
		}
		if more {
			continue
		}
		ts.mu.Lock()
		delete(ts.open, h)
		ts.mu.Unlock()
	}
}

// keepOne writes a ticket's record, if it is time to. It says whether there is
// anything left to keep.
func (ts *tickets) keepOne(ctx context.Context, h *heldTicket) (more bool, err error) {
	select {
	case <-h.closed:
		if h.ended.IsZero() {
			h.ended = time.Now()
		}
	default:
	}
	ended := h.ended
	next := *h.ticket
	if lease := h.stream.Lease(); !lease.Until.IsZero() { // while it is open
		next.Expires, next.Issued = lease.Until.UnixMilli(), 0
		if !lease.Since.IsZero() {
			next.Issued = lease.Since.Unix()
		}
	}
	renewed := next.Expires != h.ticket.Expires
	if ended.IsZero() && !renewed && time.Since(h.touched) < ticketTouch {
		return true, nil
	}
	next.record = next.encode()
	ttl := next.ttl(ticketReopen)
	if !ended.IsZero() {
		ttl = next.ttl(ticketReopen - time.Since(ended))
	}
	log := ts.hub.Log()
	ok, err := log.Swap(ctx, next.key, h.ticket.record, next.record, ttl)
	if err == nil && !ok {
		ok, err = log.Swap(ctx, next.key, nil, next.record, ttl) // if the store has lost it
	}
	if err != nil {
		return true, err
	}
	if !ok {
		h.stream.End(fanout.ByeLeft) // it was opened elsewhere, and word of that may be lost
		return false, nil
	}
	h.ticket, h.touched = &next, time.Now()
	return ended.IsZero(), nil
}
