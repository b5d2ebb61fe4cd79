package handlers

import (
	"net/http"

	"sluice/fanout"
)

// getRoom tells what is known of a room.
func (g *Gateway) getRoom(w http.ResponseWriter, r *http.Request) error {
	room, _, err := roomInPath(r)
	if err != nil {
		return err
	}
	v, err := g.admit(r, maySubscribe, room)
	if err != nil {
		return err
	}
	if err := g.limits.spend(v, 1); err != nil { // all nodes are asked
		return err
	}
	history, err := g.hub.Read(r.Context(), room, -1, 0)
	if err != nil {
		return err
	}
	writeJSON(w, "application/json", http.StatusOK, map[string]any{
		"room":    room,
		"head":    history.HeadPosition().String(),
		"oldest":  history.OldestPosition().String(),
		"streams": g.hub.Streams(r.Context(), room),
	})
	return nil
}

// listRooms lists the rooms that have a history, a page at a time.
func (g *Gateway) listRooms(w http.ResponseWriter, r *http.Request) error {
	query, err := queryOf(r)
	if err != nil {
		return err
	}
	if _, err := g.allow(r, mayAdminister); err != nil {
		return err
	}
	limit, err := number(query, "limit", defaultLimit, 1, maxLimit)
	if err != nil {
		return err
	}
	rooms, next, err := g.hub.Log().Rooms(r.Context(), query.Get("after"), limit)
	if err != nil {
		return err
	}
	body := map[string]any{"rooms": rooms, "next": next}
	if len(rooms) == 0 {
		body["rooms"] = []string{}
	}
	if next == "" {
		body["next"] = nil
	}
	writeJSON(w, "application/json", http.StatusOK, body)
	return nil
}

// purge empties a room.
func (g *Gateway) purge(w http.ResponseWriter, r *http.Request) error {
	room, _, err := roomInPath(r)
	if err != nil {
		return err
	}
	if _, err := g.allow(r, mayAdminister, room); err != nil {
		return err
	}
	head, err := g.hub.Log().Purge(r.Context(), room)
	if err != nil {
		return err
	}
	writeJSON(w, "application/json", http.StatusOK, map[string]string{"room": room, "head": head.String()})
	return nil
}

// endStream ends a stream of the client's own, which proves itself by knowing
// its id. Whether there was one is not told.
func (g *Gateway) endStream(w http.ResponseWriter, r *http.Request) error {
	id, ok := pathValue(r, "stream")
	if !ok || !fanout.ValidStreamID(id) {
		return errNotFound
	}
	if err := g.limits.spend(&visitor{address: g.addressOf(r)}, 1); err != nil { // all nodes are told
		return err
	}
	if err := g.hub.EndStream(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
