package handlers

import (
	"net/url"

	"sluice/fanout"
)

// maxName is how many bytes a name may have that a client gives itself.
const maxName = 64

// identity is what a request proves of whoever sends it.
type identity struct {
	subject string // of the token; "" without one
	info    []byte // what it says of the subject to others: compact JSON, nil for nothing
	open    bool   // the gateway knows no tokens, so that everybody is who they say
}

// memberOf says as whom a stream's client is present in which of its rooms,
// nil if in none. With tokens nobody names themselves: members are subjects, in
// the namespaces that have presence. In an open gateway clients do, everywhere
// but where presence is off.
func (g *Gateway) memberOf(query url.Values, who identity, rooms []string) (*fanout.Member, error) {
	m := &fanout.Member{User: who.subject, Info: who.info, Rooms: []string{}}
	if who.open {
		if !query.Has("presence") {
			return nil, nil
		}
		m.User, m.Info = query.Get("presence"), nil
		if len(m.User) > maxName || !fanout.ValidUser(m.User) {
			return nil, errBadQuery.with("presence is a name of 1 to 64 bytes, without control characters.")
		}
	}
	if m.User == "" {
		return nil, nil
	}
	for _, room := range rooms {
		if g.namespace(room).present(who.open) {
			m.Rooms = append(m.Rooms, room)
		}
	}
	if len(m.Rooms) == 0 {
		return nil, nil
	}
	return m, nil
}
