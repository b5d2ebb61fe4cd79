package handlers

import (
	"encoding/json"
	"net/http"

	"sluice/fanout"
)

// member is a user in a room, as clients are told.
type member struct {
	User    string          `json:"user"`
	Info    json.RawMessage `json:"info,omitempty"`
	Streams int             `json:"streams"`
	Since   string          `json:"since"`
}

// members is who is in a room.
type members struct {
	Room    string    `json:"room"`
	Count   int       `json:"count"`
	Members *[]member `json:"members,omitempty"` // left out where they are too many
}

// getMembers lists who is in a room.
func (g *Gateway) getMembers(w http.ResponseWriter, r *http.Request) error {
	room, _, err := roomInPath(r)
	if err != nil {
		return err
	}
	if _, err := g.allow(r, maySubscribe, room); err != nil {
		return err
	}
	roster, err := g.hub.Members(r.Context(), room)
	if err != nil {
		return err
	}
	writeJSON(w, "application/json", http.StatusOK, membersOf(room, roster))
	return nil
}

func membersOf(room string, roster fanout.Roster) members {
	body := members{Room: room, Count: roster.Count}
	if roster.Members == nil {
		return body
	}
	list := make([]member, len(roster.Members))
	for i, p := range roster.Members {
		list[i] = member{User: p.User, Info: p.Info, Streams: p.Streams, Since: string(fanout.AppendTime(nil, p.Since))}
	}
	body.Members = &list
	return body
}
