package handlers

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/fanout"
)

// receipt is what a publisher gets for an event.
type receipt struct {
	ID   string `json:"id,omitempty"`
	Room string `json:"room"`
	Type string `json:"type"`
	At   string `json:"at"`

	Replicated *bool `json:"replicated,omitempty"` // false: it was asked to be, and is not
}

func newReceipt(room string, d *fanout.Draft, position fanout.Position, at int64) receipt {
	name := d.Type
	if name == "" {
		name = "message"
	}
	var text [32]byte
	return receipt{ID: position.String(), Room: room, Type: name, At: string(fanout.AppendTime(text[:0], at))}
}

// postEvents publishes what was posted: an event or a batch, to the room of
// the path or to those of the query.
func (g *Gateway) postEvents(w http.ResponseWriter, r *http.Request) error {
	query, err := queryOf(r)
	if err != nil {
		return err
	}
	rooms, err := g.roomsOf(r, query, fanout.ValidRoom)
	if err != nil {
		return err
	}
	v, err := g.admit(r, mayPublish, rooms...)
	if err != nil {
		return err
	}
	// The first event is paid for before its body is read.
	if err := g.limits.spend(v, len(rooms)); err != nil {
		return err
	}
	base, err := draftOf(r, query, v.subject)
	if err != nil {
		return err
	}
	base.Trace = g.cfg().Tracer.Carried(r.Context())
	ephemeral, err := flag(query, "ephemeral")
	if err != nil {
		return err
	}
	drafts, batch, err := g.draftsOf(w, r, base)
	if err != nil {
		return err
	}
	received := time.Now()
	if batch {
		if err := g.limits.spend(v, (len(drafts)-1)*len(rooms)); err != nil {
			return err
		}
	}
	if err := g.limits.enterRooms(v, rooms); err != nil {
		return err
	}
	if err := g.limits.inRooms(rooms, len(drafts)); err != nil {
		return err
	}
	list := batch || strings.HasPrefix(r.URL.Path, "/events")
	if ephemeral || g.allEphemeral(rooms) {
		return g.broadcast(w, r, rooms, drafts, list)
	}
	if err := g.append(w, r, rooms, drafts, list); err != nil {
		return err
	}
	g.metrics.publish.Observe(time.Since(received).Seconds())
	return nil
}

// draftOf reads what a request says of its events besides their data.
func draftOf(r *http.Request, query url.Values, subject string) (fanout.Draft, error) {
	d := fanout.Draft{From: subject, Type: "message", Exclude: query.Get("exclude")}
	if d.Exclude != "" && !fanout.ValidStreamID(d.Exclude) {
		return d, errBadQuery.with("exclude is the id of a stream, as its sluice.open told it.")
	}
	names := r.Header.Values("Event-Type")
	if query.Has("type") {
		names = query["type"]
	}
	if len(names) > 0 {
		d.Type = names[0]
	}
	if len(names) > 1 || !fanout.ValidType(d.Type) {
		return d, errBadType
	}
	var err error
	d.Key, err = keyOf(r.Header.Values("Idempotency-Key"))
	return d, err
}

func (g *Gateway) draftsOf(w http.ResponseWriter, r *http.Request, base fanout.Draft) (drafts []fanout.Draft, batch bool, err error) {
	as, err := kindOf(r)
	if err != nil {
		return nil, false, err
	}
	limit := g.cfg().MaxBody
	if as == kindBatch {
		limit = max(maxBatchBytes, limit)
	}
	body, err := g.readBody(w, r, limit)
	if err != nil {
		return nil, false, err
	}
	if as == kindBatch {
		drafts, err = g.batch(body, base)
		return drafts, true, err
	}
	base.Data = body
	base.JSON, err = isJSON(body, as)
	return []fanout.Draft{base}, false, err
}

// broadcast sends events that nobody keeps.
func (g *Gateway) broadcast(w http.ResponseWriter, r *http.Request, rooms []string, drafts []fanout.Draft, list bool) error {
	var receipts []receipt
	for _, room := range rooms {
		for i := range drafts {
			at, err := g.hub.Broadcast(r.Context(), room, drafts[i])
			if err != nil {
				return partly(err, receipts)
			}
			receipts = append(receipts, newReceipt(room, &drafts[i], fanout.Position{}, at))
		}
	}
	writeReceipts(w, http.StatusAccepted, receipts, list)
	return nil
}

// append writes events to their rooms.
func (g *Gateway) append(w http.ResponseWriter, r *http.Request, rooms []string, drafts []fanout.Draft, list bool) error {
	if err := g.checkKeys(r.Context(), rooms, drafts); err != nil {
		return err
	}
	receipts := make([]receipt, 0, len(rooms)*len(drafts))
	replayed, alone := true, false
	for _, room := range rooms {
		done, err := g.publish(r.Context(), room, drafts)
		for i, d := range done {
			replayed = replayed && (d.Replayed || d.Position == fanout.Position{})
			receipt := newReceipt(room, &drafts[i], d.Position, d.At)
			if d.Alone {
				alone, receipt.Replicated = true, new(bool)
			}
			receipts = append(receipts, receipt)
		}
		if err != nil {
			return partly(err, receipts)
		}
	}
	status := http.StatusCreated
	if replayed {
		w.Header().Set("Idempotency-Replayed", "true")
		status = http.StatusOK
	}
	if alone {
		status = http.StatusAccepted // the primary has it, and would lose it alone
	}
	writeReceipts(w, status, receipts, list)
	return nil
}

// checkKeys refuses a key that was used with another body in any of several
// rooms before the first of them is written to. Of one room the log sees to it.
func (g *Gateway) checkKeys(ctx context.Context, rooms []string, drafts []fanout.Draft) error {
	keyed := slices.ContainsFunc(drafts, func(d fanout.Draft) bool { return d.Key != "" })
	if len(rooms) == 1 || !keyed {
		return nil
	}
	for _, room := range rooms {
		if g.namespace(room).Ephemeral {
			continue
		}
		if err := g.hub.CheckKeys(ctx, room, drafts); err != nil {
			return err
		}
	}
	return nil
}

// publish appends events, or, where their room keeps nothing, sends them only.
func (g *Gateway) publish(ctx context.Context, room string, drafts []fanout.Draft) (done []fanout.Receipt, err error) {
	ctx, end := g.cfg().Tracer.Step(ctx, "append", room)
	defer func() { end(err) }()
	if !g.namespace(room).Ephemeral {
		return g.hub.Append(ctx, room, drafts)
	}
	for i := range drafts {
		at, err := g.hub.Broadcast(ctx, room, drafts[i])
		if err != nil {
			return done, err
		}
		done = append(done, fanout.Receipt{At: at})
	}
	return done, nil
}

func (g *Gateway) allEphemeral(rooms []string) bool {
	for _, room := range rooms {
		if !g.namespace(room).Ephemeral {
			return false
		}
	}
	return true
}

// partly lists, with an error, what was written before it.
func partly(err error, receipts []receipt) error {
	if len(receipts) == 0 {
		return err
	}
	var p *problem
	if !errors.As(err, &p) {
		p = problemOf(err)
	}
	return p.and("events", receipts)
}

func writeReceipts(w http.ResponseWriter, status int, receipts []receipt, list bool) {
	b := make([]byte, 0, 32+160*len(receipts))
	if list {
		b = append(b, `{"events":[`...)
	}
	for i := range receipts {
		if i > 0 {
			b = append(b, ',')
		}
		b = receipts[i].append(b)
	}
	if list {
		b = append(b, "]}"...)
	}
	header := w.Header()
	header["Content-Type"], header["Cache-Control"] = contentJSON, noStore
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a client that is gone needs no answer
}

// append appends the receipt as json.Marshal would: nothing in it needs escapes.
func (r *receipt) append(b []byte) []byte {
	b = append(b, '{')
	if r.ID != "" {
		b = append(append(append(b, `"id":"`...), r.ID...), `",`...)
	}
	b = append(append(b, `"room":"`...), r.Room...)
	b = append(append(b, `","type":"`...), r.Type...)
	b = append(append(b, `","at":"`...), r.At...)
	b = append(b, '"')
	if r.Replicated != nil {
		b = strconv.AppendBool(append(b, `,"replicated":`...), *r.Replicated)
	}
	return append(b, '}')
}
