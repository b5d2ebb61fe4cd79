package fanout

import (
	"bytes"
	"fmt"
	"slices"
)

// simTruth is what really happened. A room's histories are a tree: its root is
// the empty room, every event and every purge hangs on what the log had before
// it, and where the log has lost its end the tree forks. What a client sees is a
// way down the tree; where it leaves the way, a gap has to say so.
type simTruth struct {
	rooms     map[string]*simTree
	forgotten map[string]bool // epochs that the log knew, and at some time did not any more
	capped    bool            // the log forgets epochs, for want of room
	wrong     []string        // what contradicts the promises
}

type simTree struct {
	root  *simNode
	nodes map[Position]*simNode
	first map[string]*simNode // of each epoch
}

type simNode struct {
	pos    Position
	parent *simNode
	event  Event
	draft  *Draft // that became the event
	purge  bool   // no event, but where all before was deleted
	gone   bool   // the log has, or had, deleted the event
}

func newSimTruth() *simTruth {
	return &simTruth{rooms: map[string]*simTree{}, forgotten: map[string]bool{}}
}

func (t *simTruth) tree(room string) *simTree {
	tree := t.rooms[room]
	if tree == nil {
		root := &simNode{pos: Origin, event: Event{Room: room}}
		tree = &simTree{root: root, nodes: map[Position]*simNode{Origin: root}, first: map[string]*simNode{}}
		t.rooms[room] = tree
	}
	return tree
}

func (t *simTruth) root(room string) *simNode { return t.tree(room).root }

func (t *simTruth) complain(format string, args ...any) {
	t.wrong = append(t.wrong, fmt.Sprintf(format, args...))
}

func (t *simTruth) append(parent *simNode, e Event, d *Draft) *simNode {
	return t.add(&simNode{pos: e.Position, parent: parent, event: e, draft: d})
}

func (t *simTruth) purge(parent *simNode, p Position) *simNode {
	return t.add(&simNode{pos: p, parent: parent, event: Event{Room: parent.event.Room}, purge: true})
}

func (t *simTruth) add(n *simNode) *simNode {
	tree := t.tree(n.event.Room)
	if other := tree.nodes[n.pos]; other != nil {
		t.complain("the log has given %v of %s to %q and to %q", n.pos, n.event.Room, other.event.Data, n.event.Data)
	}
	tree.nodes[n.pos] = n
	if tree.first[n.pos.Epoch] == nil {
		tree.first[n.pos.Epoch] = n
	}
	return n
}

// lineageChanged remembers which epochs the log could not place any more.
func (t *simTruth) lineageChanged(before, after Lineage) {
	for _, f := range before {
		if !after.has(f.Epoch) {
			t.forgotten[f.Epoch] = true
		}
	}
}

// find gives the place in the tree that a position names, nil if it names none.
// A number before an epoch's first is that of the history which it continues.
func (t *simTruth) find(room string, p Position) *simNode {
	tree := t.tree(room)
	if n := tree.nodes[p]; n != nil {
		return n
	}
	n := tree.first[p.Epoch]
	for n != nil && n.pos.Seq > p.Seq {
		n = n.parent
	}
	if n == nil || n.pos.Seq != p.Seq {
		return nil
	}
	return n
}

// way gives the nodes from behind a down to b; ok is false if b is not below a.
func way(a, b *simNode) (nodes []*simNode, ok bool) {
	for n := b; n != a; n = n.parent {
		if n == nil || n.pos.Seq < a.pos.Seq {
			return nil, false
		}
		nodes = append(nodes, n)
	}
	slices.Reverse(nodes)
	return nodes, true
}

// fork gives the last place that a and b have in common.
func fork(a, b *simNode) *simNode {
	above := map[*simNode]bool{}
	for n := a; n != nil; n = n.parent {
		above[n] = true
	}
	for ; !above[b]; b = b.parent {
	}
	return b
}

// acknowledged holds a receipt against what became of the draft.
func (t *simTruth) acknowledged(room string, d *Draft, r Receipt) {
	n := t.tree(room).nodes[r.Position]
	switch {
	case n == nil || n.draft == nil:
		t.complain("%q of %s was acknowledged as %v, which there is not", d.Data, room, r.Position)
	case !bytes.Equal(n.event.Data, d.Data) || n.event.At != r.At:
		t.complain("%q of %s was acknowledged as %v, which is %q", d.Data, room, r.Position, n.event.Data)
	case r.Replayed && d.Key == "":
		t.complain("%q of %s has no key and was not taken for new", d.Data, room)
	}
}

// once checks that no draft became two events of one history.
func (t *simTruth) once(head *simNode) {
	seen := map[string]Position{}
	for n := head; n != nil; n = n.parent {
		if n.draft == nil {
			continue
		}
		key := string(n.draft.Data)
		if other, twice := seen[key]; twice {
			t.complain("%q is both %v and %v of %s", key, n.pos, other, n.event.Room)
		}
		seen[key] = n.pos
	}
}
