package handlers

import (
	"net/http"

	"sluice/fanout"
)

// renewStream gives a live stream, on whatever node it is, the term of a fresh
// token of the same subject. Whether there is no such stream, or it is somebody
// else's, is not told.
func (g *Gateway) renewStream(w http.ResponseWriter, r *http.Request) error {
	id, ok := pathValue(r, "stream")
	if !ok || !fanout.ValidStreamID(id) {
		return errNotFound
	}
	if g.cfg().Verifier == nil {
		return errNotFound.with("Without tokens no stream has one.")
	}
	var body struct {
		Token string `json:"token"`
	}
	if err := g.readJSON(w, r, &body); err != nil {
		return err
	}
	claims, err := g.verify(r.Context(), body.Token)
	if err != nil {
		return err
	}
	v := &visitor{subject: claims.Subject, claims: claims}
	if err := g.limits.spend(v, 1); err != nil {
		return err
	}
	info, ok, err := g.hub.FindStream(r.Context(), id)
	if err != nil {
		return err
	}
	if !ok || info.Owner != v.subject {
		return errNotFound
	}
	if err := g.may(v, maySubscribe, info.Rooms...); err != nil {
		return err
	}
	renewed, err := g.hub.RenewStream(r.Context(), id, v.lease())
	if err != nil {
		return err
	}
	if !renewed {
		return errNotFound
	}
	writeJSON(w, "application/json", http.StatusOK, map[string]string{
		"expires": string(fanout.AppendTime(nil, claims.Expires.UnixMilli())),
	})
	return nil
}
