package handlers

import "strings"

// Namespace is what holds for all rooms of a namespace. The zero Namespace is
// that of rooms of which nothing was said.
type Namespace struct {
	Presence        *bool // whether there are members; if nil, where a client asks to be one, and not by its token
	Ephemeral       bool  // nothing is kept, whoever publishes
	PublicSubscribe *bool // whether everybody may read although there are tokens; if nil, the patterns of Config say it
	PublicPublish   *bool // likewise, and write
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

// public says whether everybody has a right in a room although there are
// tokens. What its namespace says counts for more than the patterns, so that a
// part of what they open can be closed.
func (g *Gateway) public(room string, need right) bool {
	n, cfg := g.namespace(room), g.cfg()
	said, patterns := n.PublicSubscribe, cfg.PublicSubscribe
	if need == mayPublish {
		said, patterns = n.PublicPublish, cfg.PublicPublish
	}
	if said != nil {
		return *said
	}
	return patterns.Match(room)
}

// present says whether streams are members of a room. asked says that the
// client itself asks for it.
func (n Namespace) present(asked bool) bool {
	if n.Presence == nil {
		return asked
	}
	return *n.Presence
}
