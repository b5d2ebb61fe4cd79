package handlers

import "strings"

// Namespace is what holds for all rooms of a namespace. The zero Namespace is
// that of rooms of which nothing was said.
type Namespace struct {
	Presence  *bool // whether there are members; if nil, where a client asks to be one, and not by its token
	Ephemeral bool  // nothing is kept, whoever publishes
}

// namespace gives the settings of a room. What stands before the first colon
// of its name is its namespace.
func (g *Gateway) namespace(room string) Namespace {
	name, _, ok := strings.Cut(room, ":")
	if !ok {
		return Namespace{}
	}
	return g.cfg().Namespaces[name]
}

// present says whether streams are members of a room. asked says that the
// client itself asks for it.
func (n Namespace) present(asked bool) bool {
	if n.Presence == nil {
		return asked
	}
	return *n.Presence
}
