package handlers

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"sluice/fanout"
)

// Sizes of a page of history.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// history answers with a page, or, with wait, with the first events that come.
func (g *Gateway) history(w http.ResponseWriter, r *http.Request, query url.Values, v *visitor, rooms []string) error {
	limit, err := number(query, "limit", defaultLimit, 1, maxLimit)
	if err != nil {
		return err
	}
	starts, given, ok, err := startsOf(r, query, rooms)
	if err != nil {
		return err
	}
	if !ok {
		return errBadCursor
	}
	var page fanout.Page
	switch {
	case query.Has("wait"):
		page, err = g.poll(r, query, v, rooms, limit)
	case query.Has("before"):
		page, err = g.pageBefore(r, query.Get("before"), rooms, limit)
	case given:
		page, err = g.hub.PageAfter(r.Context(), rooms, starts, limit)
	default:
		page, err = g.hub.PageBefore(r.Context(), rooms, make([]fanout.Start, len(rooms)), limit)
	}
	if err != nil {
		return err
	}
	types, err := typesOf(query)
	if err != nil {
		return err
	}
	if len(types) > 0 {
		page.Events = slices.DeleteFunc(page.Events, func(e fanout.Event) bool { return !slices.Contains(types, e.Type) })
	}
	writeJSON(w, "application/json", http.StatusOK, pageJSON(page))
	return nil
}

func (g *Gateway) pageBefore(r *http.Request, before string, rooms []string, limit int) (fanout.Page, error) {
	starts, ok := fanout.ParseCursor(before, rooms)
	if !ok {
		return fanout.Page{}, errBadCursor
	}
	return g.hub.PageBefore(r.Context(), rooms, starts, limit)
}

func (g *Gateway) poll(r *http.Request, query url.Values, v *visitor, rooms []string, limit int) (fanout.Page, error) {
	wait, err := duration(query, "wait", maxWait)
	if err != nil {
		return fanout.Page{}, err
	}
	opt, err := g.streamOptions(r, query, rooms, formPage)
	if err != nil {
		return fanout.Page{}, err
	}
	// Who polls again within the grace was here all the time.
	if opt.Member, err = g.memberOf(query, v.identity(), rooms); err != nil {
		return fanout.Page{}, err
	}
	if g.draining.Load() {
		return fanout.Page{}, errDraining
	}
	p, err := g.enter(v, &opt)
	if err != nil {
		return fanout.Page{}, err
	}
	defer p.leave()
	return g.hub.Poll(r.Context(), opt, limit, wait)
}

func pageJSON(page fanout.Page) map[string]any {
	events := make([]json.RawMessage, len(page.Events))
	for i := range page.Events {
		events[i] = fanout.AppendEnvelope(nil, &page.Events[i])
	}
	body := map[string]any{"events": events, "next": page.Next}
	if page.Prev != "" {
		body["prev"] = page.Prev
	}
	if len(page.Gaps) > 0 {
		body["gap"] = page.Gaps[0]
	}
	if len(page.Gaps) > 1 {
		body["gaps"] = page.Gaps
	}
	return body
}
