package fanout

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// The steps of a simulation. Each says whether there was anything for it to do.

func (w *simWorld) anyNode() *simHub { return pick(w.rng, w.nodes...) }

// publish appends some events, new ones or such as were not acknowledged.
func (w *simWorld) publish() bool {
	var p *simPublication
	if len(w.retries) > 0 && w.chance(50) {
		i := w.rng.IntN(len(w.retries))
		p = w.retries[i]
		w.retries = slices.Delete(w.retries, i, i+1)
	} else {
		p = &simPublication{room: pick(w.rng, w.rooms...)}
		for range 1 + w.rng.IntN(4)*w.rng.IntN(2) {
			p.drafts = append(p.drafts, w.draft())
		}
	}
	w.post(p)
	return true
}

func (w *simWorld) post(p *simPublication) {
	n := w.anyNode()
	w.trace("%s: publish %d to %s, %s", n.log.name(), len(p.drafts), p.room, p.drafts[0].Data)
	go func() {
		p.receipts, p.err = n.hub.Append(context.Background(), p.room, p.drafts)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.done = append(w.done, p)
	}()
}

func (w *simWorld) draft() Draft {
	w.drafts++
	d := text(fmt.Sprintf("d%d", w.drafts))
	if w.chance(25) {
		d.Type = "x"
	}
	if w.chance(70) {
		d.Key = "k" + string(d.Data)
	}
	if c := pick(w.rng, w.clients...); c.stream != "" && w.chance(10) {
		d.Exclude = c.stream
	}
	return d
}

// flood appends more than a room keeps.
func (w *simWorld) flood() bool {
	p := &simPublication{room: pick(w.rng, w.rooms...)}
	for range w.server.keep.Events + w.rng.IntN(10) {
		p.drafts = append(p.drafts, w.draft())
	}
	w.post(p)
	for range 40 {
		w.settle()
		w.serveOne(func(op *simOp) bool { return op.what[0] == 'a' })
	}
	return true
}

func (w *simWorld) broadcast() bool {
	n, room := w.anyNode(), pick(w.rng, w.rooms...)
	w.drafts++
	d := text(fmt.Sprintf("passing %s %d", room, w.drafts))
	w.trace("%s: broadcast %s", n.log.name(), d.Data)
	go func() { _, _ = n.hub.Broadcast(context.Background(), room, d) }()
	return true
}

func (w *simWorld) purge() bool {
	n, room := w.anyNode(), pick(w.rng, w.rooms...)
	w.trace("%s: purge %s", n.log.name(), room)
	go func() { _, _ = n.log.Purge(context.Background(), room) }()
	return true
}

// serveOne executes and answers one of the calls that wait.
func (w *simWorld) serveOne(which func(op *simOp) bool) bool {
	var ops []*simOp
	for _, op := range w.net.pending() {
		if which(op) {
			ops = append(ops, op)
		}
	}
	if len(ops) == 0 {
		return false
	}
	op := pick(w.rng, ops...)
	w.trace("%s: %s", op.node.name(), op.what)
	op.finish()
	return true
}

func anyOp(*simOp) bool { return true }

func (w *simWorld) serve() bool { return w.serveOne(anyOp) }

// execute has the server do what is asked, and holds the answer back.
func (w *simWorld) execute() bool {
	for _, op := range w.net.pending() {
		if !op.executed && w.chance(50) {
			w.trace("%s: %s, to be answered later", op.node.name(), op.what)
			op.execute()
			return true
		}
	}
	return false
}

// fail refuses a call, failLate loses the answer to one that was executed.
func (w *simWorld) fail() bool { return w.refuse(false) }

func (w *simWorld) failLate() bool { return w.refuse(true) }

func (w *simWorld) refuse(late bool) bool {
	ops := w.net.pending()
	if len(ops) == 0 {
		return false
	}
	op := pick(w.rng, ops...)
	if late && !op.executed {
		op.execute()
	}
	w.trace("%s: %s fails, executed: %v", op.node.name(), op.what, op.executed)
	op.reply(simAnswer{err: errSim})
	return true
}

// deliver brings a node some messages.
func (w *simWorld) deliver() bool {
	l := w.anyNode().log
	for range 1 + w.rng.IntN(3) {
		if late := w.strays[l]; len(late) > 0 && w.chance(50) {
			w.trace("%s: late: %v", l.name(), late[0])
			w.strays[l] = late[1:]
			l.hand(late[0])
			continue
		}
		if l.session == nil || len(l.session.queue) == 0 {
			return false
		}
		if m := l.session.queue[0]; m.kind == 'f' {
			// The new session's events begin; what was under way of the old is not heard any more.
			w.strays[l] = slices.DeleteFunc(w.strays[l], func(s simMessage) bool { return s.room == m.room })
		}
		w.trace("%s: %v", l.name(), l.deliver())
	}
	return true
}

// tell has the server take note of a subscription.
func (w *simWorld) tell() bool {
	l := w.anyNode().log
	asked := l.asked()
	if len(asked) == 0 || l.session == nil || l.session.deaf {
		return false
	}
	room := pick(w.rng, asked...)
	w.trace("%s: (un)subscribe %s", l.name(), room)
	l.tell(room)
	return true
}

func (w *simWorld) queued() *simLog {
	l := w.anyNode().log
	if l.session == nil || len(l.session.queue) == 0 {
		return nil
	}
	return l
}

// drop loses a message that nobody will ever miss, but for its number.
func (w *simWorld) drop() bool {
	l := w.queued()
	if l == nil {
		return false
	}
	i := w.rng.IntN(len(l.session.queue))
	if l.session.queue[i].kind != 'e' {
		return false
	}
	w.trace("%s: %v is dropped", l.name(), l.session.queue[i])
	l.session.queue = slices.Delete(l.session.queue, i, i+1)
	return true
}

// duplicate brings a message twice.
func (w *simWorld) duplicate() bool {
	l := w.queued()
	if l == nil || l.session.queue[0].event.Epoch == "" && l.session.queue[0].kind == 'e' {
		return false
	}
	w.trace("%s: %v, twice", l.name(), l.session.queue[0])
	l.hand(l.session.queue[0])
	w.settle()
	l.deliver()
	return true
}

func (w *simWorld) lost(l *simLog) {
	if l.session != nil && w.chance(20) {
		// What the reader has in its hands may come a little later.
		for _, m := range l.session.queue {
			if m.kind == 'e' && m.event.Epoch != "" && len(w.strays[l]) < 2 {
				w.strays[l] = append(w.strays[l], m)
			}
		}
	}
	w.trace("%s: the session is lost", l.name())
	l.lose()
	if w.chance(30) {
		l.setDown(true)
	}
}

// lose ends a node's session, connect begins another.
func (w *simWorld) lose() bool {
	l := w.anyNode().log
	if l.session == nil {
		return false
	}
	w.lost(l)
	return true
}

func (w *simWorld) connect() bool {
	for _, n := range w.nodes {
		l := n.log
		switch {
		case l.session == nil:
			w.trace("%s: connect", l.name())
			l.connect()
			l.setDown(false)
			return true
		case l.session.deaf && w.chance(50):
			w.lost(l)
			return true
		}
	}
	return false
}

// move takes a room to another server, as a cluster does.
func (w *simWorld) move() bool {
	l := w.anyNode().log
	all := l.all()
	if l.session == nil || l.session.deaf || len(all) == 0 {
		return false
	}
	room := pick(w.rng, all...)
	w.trace("%s: %s moves", l.name(), room)
	l.move(room)
	return true
}

// goDeaf cuts a session so that the node does not notice yet.
func (w *simWorld) goDeaf() bool {
	l := w.anyNode().log
	if l.session == nil || l.session.deaf {
		return false
	}
	w.trace("%s: the session is cut", l.name())
	l.session.deaf = true
	return true
}

func (w *simWorld) toggleDown() bool {
	l := w.anyNode().log
	w.trace("%s: down: %v", l.name(), l.DownSince("").IsZero())
	l.setDown(l.DownSince("").IsZero())
	return true
}

// restart gives the server a new life without its last writes; -1: without any.
// Every session is cut, but what is in its socket may still be read.
func (w *simWorld) restart(lost int) bool {
	w.trace("the server restarts, and has lost %d", lost)
	if lost < 0 {
		w.server.wipe()
	} else {
		w.server.restart(lost)
	}
	for _, n := range w.nodes {
		if n.log.session != nil {
			n.log.session.deaf = true
		}
	}
	return true
}

func (w *simWorld) expire() bool {
	room, n := pick(w.rng, w.rooms...), pick(w.rng, 1, 3, 1000)
	w.trace("the oldest %d of %s expire", n, room)
	w.server.expire(room, n)
	return true
}

func (w *simWorld) evict() bool {
	room := pick(w.rng, w.rooms...)
	w.trace("%s is evicted", room)
	w.server.evict(room)
	return true
}

// spurious tells a node what it need not have been told.
func (w *simWorld) spurious() bool {
	l, room := w.anyNode().log, pick(w.rng, w.rooms...)
	if l.session == nil || !l.session.rooms[room] {
		return false
	}
	m := simMessage{kind: pick(w.rng, byte('f'), 's'), room: room}
	w.trace("%s: %v, for nothing", l.name(), m)
	l.session.queue = append(l.session.queue, m)
	return true
}

// open has a client come, or come back.
func (w *simWorld) open() bool {
	c := pick(w.rng, w.clients...)
	if c.simConn != nil {
		return false
	}
	w.connectClient(c, w.rng.IntN(len(w.nodes)))
	return true
}

func (w *simWorld) connectClient(c *simClient, node int) {
	starts := c.starts()
	if c.cursor == "" {
		start := pick(w.rng, Head(), Head(), Earliest(), Last(3))
		starts = slices.Repeat([]Start{start}, len(c.rooms))
	}
	w.trace("%s comes to n%d with %q, for %v", c.name, node, c.cursor, c.rooms)
	c.open(w.nodes[node].hub, node, starts)
}

func (w *simWorld) connected() *simClient {
	c := pick(w.rng, w.clients...)
	if c.simConn == nil {
		return nil
	}
	return c
}

// hangUp ends a client's response, between two writes or within one.
func (w *simWorld) hangUp() bool {
	c := w.connected()
	if c == nil {
		return false
	}
	if w.chance(50) {
		w.trace("%s is to be cut off", c.name)
		c.mu.Lock()
		c.left = w.rng.IntN(200)
		c.mu.Unlock()
		return true
	}
	w.trace("%s hangs up", c.name)
	c.hangUp()
	return true
}

func (w *simWorld) stall() bool {
	c := w.connected()
	if c == nil {
		return false
	}
	w.trace("%s stalls", c.name)
	c.stall()
	return true
}

func (w *simWorld) goOn() bool {
	c := w.connected()
	if c == nil {
		return false
	}
	w.trace("%s goes on", c.name)
	c.goOn()
	return true
}

// crash ends a node, with all its streams, and begins another in its place.
func (w *simWorld) crash(opt Options) bool {
	i := w.rng.IntN(len(w.nodes))
	n := w.nodes[i]
	w.trace("%s crashes", n.log.name())
	for _, c := range w.clients {
		if c.simConn != nil && c.node == i {
			c.hangUp()
		}
	}
	n.cancel()
	w.settle()
	n.tasks.Wait()
	l := newSimLog(w.net)
	w.net.nodes[i] = l
	w.nodes[i] = &simHub{log: l}
	w.start(w.nodes[i], opt)
	return true
}

// wait lets time pass in which nothing is served.
func (w *simWorld) wait() bool {
	d := pick(w.rng, time.Millisecond, 50*time.Millisecond, 400*time.Millisecond, 1100*time.Millisecond, 2500*time.Millisecond)
	w.trace("%v pass", d)
	time.Sleep(d)
	return true
}

// calm lets time pass in which nothing else goes wrong.
func (w *simWorld) calm() bool {
	d := time.Duration(pick(w.rng, 1, 2, 6, 20)) * time.Second
	w.trace("%v of calm", d)
	w.rest(d, pick(w.rng, 100*time.Millisecond, time.Second))
	return true
}
