package fanout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// simClient is a client that comes back again and again with the cursor it last
// saw, and the judge of what it is shown: it knows the truth, and follows its
// own way through it.
type simClient struct {
	name  string
	truth *simTruth
	rooms []string
	opt   StreamOptions
	trace func(format string, args ...any)

	// What the client has: the judge's own.
	cursor   string              // id last received
	asked    string              // cursor with which the stream was opened
	at       map[string]*simNode // where it is in each room
	seen     map[string]bool     // room and position of the events it was shown
	expected map[string]Position // by the last gap: the next event
	stream   string              // id of the open stream
	opened   bool                // the stream has said so
	degraded bool
	node     int
	gaps     int
	shown    int

	*simConn // of the open stream; nil if there is none
}

// simConn is one response.
type simConn struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the stream is over, or did not open

	mu      sync.Mutex // guards the fields below
	pending []byte
	stalled chan struct{} // when not nil, Write waits until it is closed
	left    int           // bytes that still get through; -1: all
	err     error         // why it did not open
}

func (c *simConn) Write(b []byte) error {
	c.mu.Lock()
	stalled := c.stalled
	c.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left >= 0 && len(b) > c.left {
		c.pending = append(c.pending, b[:c.left]...)
		c.left = 0
		return errors.New("cut")
	}
	c.pending = append(c.pending, b...)
	return nil
}

// open connects to a node; what comes of it shows later.
func (c *simClient) open(h *Hub, node int, starts []Start) {
	ctx, cancel := context.WithCancel(context.Background())
	conn := &simConn{cancel: cancel, done: make(chan struct{}), left: -1}
	c.simConn, c.node, c.opened, c.degraded, c.asked = conn, node, false, false, c.cursor
	clear(c.expected)
	opt := c.opt
	opt.Rooms, opt.Starts = c.rooms, starts
	go func() {
		defer close(conn.done)
		s, err := h.Open(ctx, opt)
		if err != nil {
			conn.mu.Lock()
			defer conn.mu.Unlock()
			conn.err = err
			return
		}
		s.Run(ctx, conn)
	}()
}

// starts is how the client comes back.
func (c *simClient) starts() []Start {
	starts, _ := ParseCursor(c.cursor, c.rooms)
	return starts
}

// hangUp ends the response, at once or after some more bytes.
func (c *simClient) hangUp() {
	c.cancel()
	c.goOn()
}

func (c *simClient) stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled == nil {
		c.stalled = make(chan struct{})
	}
}

func (c *simClient) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled != nil {
		close(c.stalled)
		c.stalled = nil
	}
}

func (c *simClient) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// look judges what has come since it last did.
func (c *simClient) look() {
	if c.simConn == nil {
		return
	}
	over := c.ended()
	c.mu.Lock()
	all := c.pending
	i := bytes.LastIndex(all, []byte("\n\n"))
	c.pending = all[max(i+1, 0):]
	if i >= 0 {
		c.pending = all[i+2:]
	}
	c.mu.Unlock()
	if i >= 0 {
		for text := range strings.SplitSeq(string(all[:i]), "\n\n") {
			if b := parseBlock(text); !b.comment {
				c.judge(b)
			}
		}
	}
	if over {
		c.trace("%s: its stream is over (%v)", c.name, c.err)
		c.simConn = nil
	}
}

func (c *simClient) complain(format string, args ...any) {
	c.truth.complain(c.name+": "+format, args...)
	c.trace("%s: !!! "+format, append([]any{c.name}, args...)...)
}

func (c *simClient) judge(b block) {
	if b.name != "message" || b.id == "" {
		c.trace("%s sees %s %s %s", c.name, b.name, b.id, c.withoutID(b.data))
	} else {
		c.trace("%s sees %s %s", c.name, b.id, b.data)
	}
	if b.name != "sluice.open" && !c.opened {
		c.complain("%s comes before the opening", b.name)
		return
	}
	switch b.name {
	case "sluice.open":
		c.judgeOpening(b)
	case "sluice.gap":
		c.judgeGap(b)
	case "sluice.beat":
		if b.id != "" {
			c.move(b.id, "")
		}
	case "sluice.degraded", "sluice.restored":
		if c.degraded == (b.name == "sluice.degraded") {
			c.complain("%s twice", b.name)
		}
		c.degraded = !c.degraded
	case "sluice.bye":
		c.complain("the stream says goodbye: %s", b.data)
	default:
		c.judgeEvent(b)
	}
	if b.id != "" {
		c.cursor = b.id
	}
}

// withoutID keeps what is random out of the trace.
func (c *simClient) withoutID(data string) string {
	if i := strings.Index(data, `","rooms"`); i > 0 {
		return data[i:]
	}
	return data
}

// positions reads an id, nil if it is none.
func (c *simClient) positions(id string) map[string]Position {
	starts, ok := ParseCursor(id, c.rooms)
	if !ok {
		c.complain("%q is no cursor", id)
		return nil
	}
	at := map[string]Position{}
	for i, s := range starts {
		if s.kind != fromPosition {
			c.complain("the cursor %q lacks %s", id, c.rooms[i])
			return nil
		}
		at[c.rooms[i]] = s.at
	}
	return at
}

func (c *simClient) judgeOpening(b block) {
	if c.opened {
		c.complain("a second opening")
	}
	c.opened = true
	var data struct{ Stream string }
	_ = json.Unmarshal([]byte(b.data), &data)
	c.stream = data.Stream
	if c.cursor != "" {
		if b.id != c.cursor {
			c.complain("it came back with %s, and the stream opens with %s", c.cursor, b.id)
		}
		return
	}
	for room, p := range c.positions(b.id) {
		if c.at[room] = c.truth.find(room, p); c.at[room] == nil {
			c.complain("the stream opens at %v of %s, which there is not", p, room)
			c.at[room] = c.truth.root(room)
		}
	}
}

// wants says whether the stream has to show the event.
func (c *simClient) wants(n *simNode) bool {
	if n.event.Exclude != "" && n.event.Exclude == c.stream {
		return false
	}
	return len(c.opt.Types) == 0 || slices.Contains(c.opt.Types, n.event.Type)
}

// move follows an id: where it leads on in a room, nothing that the client
// should have been shown may lie on the way. but is the room of the event or gap
// that has the id, which is judged by itself.
func (c *simClient) move(id, but string) {
	for room, p := range c.positions(id) {
		if room != but {
			c.moveTo(room, p, false)
		}
	}
}

func (c *simClient) moveTo(room string, p Position, event bool) {
	to := c.truth.find(room, p)
	if to == nil {
		c.complain("it is led to %v of %s, which there is not", p, room)
		return
	}
	from := c.at[room]
	c.at[room] = to
	nodes, ok := way(from, to)
	if !ok {
		c.complain("%v of %s comes behind %v: the history does not lead there", p, room, from.pos)
		return
	}
	for i, n := range nodes {
		last := i == len(nodes)-1
		switch {
		case n.purge:
			c.complain("from %v to %v of %s: no word of the purge %v", from.pos, p, room, n.pos)
		case last && event:
		case c.wants(n):
			c.complain("from %v to %v of %s: %v was left out", from.pos, p, room, n.pos)
		}
	}
	if event && len(nodes) == 0 {
		c.complain("%v of %s comes again", p, room)
	}
}

func (c *simClient) judgeEvent(b block) {
	room, data := c.rooms[0], b.data
	if c.opt.Format == Envelope {
		var e struct {
			ID, Room string
			Data     json.RawMessage
		}
		if err := json.Unmarshal([]byte(b.data), &e); err != nil {
			c.complain("the envelope %s: %v", b.data, err)
			return
		}
		room, data = e.Room, string(e.Data)
		if text := ""; json.Unmarshal(e.Data, &text) == nil {
			data = text
		}
		if b.id != "" && c.positions(b.id)[room].String() != e.ID {
			c.complain("the envelope has id %s, the block %s", e.ID, b.id)
		}
	}
	if b.id == "" {
		if !strings.HasPrefix(data, "passing "+room) {
			c.complain("%q of %s has no id", data, room)
		}
		return
	}
	p := c.positions(b.id)[room]
	c.move(b.id, room)
	c.moveTo(room, p, true)
	c.shown++
	n := c.at[room]
	key := fmt.Sprintf("%s %v", room, p)
	switch expected := c.expected[room]; {
	case n == nil || n.draft == nil:
		c.complain("%v of %s is no event", p, room)
	case string(n.event.Data) != data || b.name != n.event.Type:
		c.complain("%v of %s is shown as %s %q, and was %s %q", p, room, b.name, data, n.event.Type, n.event.Data)
	case !c.wants(n):
		c.complain("%v of %s is not for it", p, room)
	case c.seen[key]:
		c.complain("%v of %s comes a second time", p, room)
	case expected != (Position{}) && expected != p && c.wants(c.truth.find(room, expected)):
		c.complain("%v of %s comes behind a gap that resumes at %v", p, room, expected)
	}
	delete(c.expected, room)
	c.seen[key] = true
}

// simGap is a gap as a client reads it.
type simGap struct {
	Room      string
	After     *string
	ResumesAt *string `json:"resumes_at"`
	Missed    *int64
	Reason    Reason
}

func (c *simClient) judgeGap(b block) {
	var gap simGap
	if err := json.Unmarshal([]byte(b.data), &gap); err != nil || gap.After == nil || !slices.Contains(c.rooms, gap.Room) {
		c.complain("the gap %s: %v", b.data, err)
		return
	}
	c.gaps++
	room := gap.Room
	c.move(b.id, room)
	p := c.positions(b.id)[room]
	after, ok := ParsePosition(*gap.After)
	if !ok {
		c.complain("the gap %s is after nothing", b.data)
		return
	}
	// Events that were left out may lie between what the client was told and the gap.
	c.moveTo(room, after, false)
	from, to := c.at[room], c.truth.find(room, p)
	if from == nil || to == nil {
		c.complain("the gap %s leads to %v, which there is not", b.data, p)
		return
	}
	c.justify(b.data, gap, after, from, to)
	c.at[room] = to
	delete(c.expected, room)
	if gap.ResumesAt != nil {
		next, ok := ParsePosition(*gap.ResumesAt)
		if n := c.truth.find(room, next); !ok || n == nil || n.draft == nil {
			c.complain("the gap %s resumes at what there is not", b.data)
			return
		}
		c.expected[room] = next
	}
}

// justify says whether there was cause for a gap, and whether it tells the truth.
func (c *simClient) justify(data string, gap simGap, after Position, from, to *simNode) {
	common := fork(from, to)
	nodes, _ := way(common, to)
	events := int64(to.pos.Seq - common.pos.Seq)
	purged := slices.ContainsFunc(nodes, func(n *simNode) bool { return n.purge })
	gone := len(nodes) > 0 && nodes[0].gone
	on := common == from
	switch gap.Reason {
	case ReasonTrimmed, ReasonSlow, ReasonOutage:
		if !on || !gone || purged {
			c.complain("the gap %s: nothing was trimmed there", data)
		}
		if gap.Missed == nil {
			c.complain("the gap %s does not say how many it missed: %d", data, events)
		}
	case ReasonTruncated:
		if on || purged || len(nodes) > 0 && !gone {
			c.complain("the gap %s: the histories part at %v", data, common.pos)
		}
		// What was lost may come again from a node that does not know of it yet.
		lost, _ := way(common, from)
		for _, n := range lost {
			delete(c.seen, fmt.Sprintf("%s %v", gap.Room, n.pos))
		}
	case ReasonPurged:
		if !purged {
			c.complain("the gap %s: nobody purged", data)
		}
	case ReasonNewHistory:
		if !c.truth.forgotten[after.Epoch] {
			c.complain("the gap %s: the log still knows the epoch", data)
		}
		if common.parent != nil && !c.truth.capped && !c.askedFor(gap.Room, after) {
			c.complain("the gap %s: the histories part at %v only", data, common.pos)
		}
		// It is shown again whatever there is.
		maps.DeleteFunc(c.seen, func(key string, _ bool) bool { return strings.HasPrefix(key, gap.Room+" ") })
	default:
		c.complain("the gap %s has no cause", data)
	}
	if gap.Missed != nil && *gap.Missed != events {
		c.complain("the gap %s: it missed %d", data, events)
	}
}

// askedFor says whether the stream began at p. What a log has forgotten it
// cannot tell a cursor, but an open stream has a node that remembers.
func (c *simClient) askedFor(room string, p Position) bool {
	starts, _ := ParseCursor(c.asked, c.rooms)
	return c.asked != "" && starts[slices.Index(c.rooms, room)].at == p
}
