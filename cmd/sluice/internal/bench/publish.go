package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// publisher posts messages, one after the other, on one connection.
type publisher struct {
	run *run
	id  int

	conn     net.Conn
	response response
	buf      []byte
	request  []byte

	// What became of the messages; read by others after work has returned.
	seq      map[int]uint32   // by room: the last number used
	doubt    map[int][]uint32 // by room: neither accepted nor refused for certain
	accepted int64            // measured
	owed     int64            // deliveries of those
	refused  int64
	behind   time.Duration // at worst
	answers  histogram     // of measured ones
}

// phase is a time of publishing.
type phase struct {
	begin    time.Duration
	length   time.Duration
	measured bool
}

// overrun is how long publishers that cannot keep their rate go on behind the
// end of a phase with what was due before it.
const overrun = 5 * time.Second

// answerTime is how long a publication may take.
const answerTime = 20 * time.Second

func newPublisher(r *run, id int) *publisher {
	return &publisher{run: r, id: id, buf: make([]byte, 4<<10), seq: map[int]uint32{}, doubt: map[int][]uint32{}}
}

// work publishes this publisher's share of a phase.
func (p *publisher) work(ctx context.Context, ph phase) {
	for j := 0; ; j++ {
		number := p.id + j*p.run.Publishers
		due, ok := p.await(ctx, ph, number)
		if !ok {
			return
		}
		if pause := p.publish(number%p.run.Rooms, due, ph.measured); pause > 0 && !sleep(ctx, pause) {
			return
		}
	}
}

// await waits until message number may go, and returns when it was due: its
// latency counts from there, so that a gateway which holds publishers up is
// charged for it.
func (p *publisher) await(ctx context.Context, ph phase, number int) (due time.Duration, ok bool) {
	r := p.run
	end := ph.begin + ph.length
	if r.Rate == 0 {
		ok = r.gate.pass(ctx, r, end)
		return r.now(), ok
	}
	due = ph.begin + time.Duration(float64(number)/r.Rate*float64(time.Second))
	if due >= end || r.now() > end+overrun || !sleep(ctx, due-r.now()) {
		return 0, false
	}
	p.behind = max(p.behind, r.now()-due)
	return due, true
}

// publish posts one message, and says how long to pause after it.
func (p *publisher) publish(room int, due time.Duration, measured bool) (pause time.Duration) {
	r := p.run
	if err := p.dial(); err != nil {
		p.refused++
		r.fault(kind("publish: connect", err))
		return 100 * time.Millisecond
	}
	deliveries := r.subscribed[room]
	r.due.Add(deliveries)
	p.seq[room]++
	m := message{room: room, pub: p.id, seq: p.seq[room], at: int64(due)}
	sent := r.now()
	status, err := p.post(m)
	switch {
	case err == nil && status/100 == 2:
		r.published.Add(1)
		if measured {
			p.accepted++
			p.owed += deliveries
			p.answers.add(r.now() - sent)
		}
		return 0
	case err == nil && status < 500:
		p.seq[room]-- // certainly not taken: the number is free
		p.refused++
		err = fmt.Errorf("publish: %w", statusError(status))
	default:
		p.doubt[room] = append(p.doubt[room], m.seq)
		if err == nil {
			err = fmt.Errorf("publish: %w", statusError(status))
		}
	}
	r.due.Add(-deliveries)
	r.fault(err)
	return min(max(p.response.retryAfter, 100*time.Millisecond), time.Second)
}

func (p *publisher) dial() (err error) {
	if p.conn == nil {
		node := p.run.publish.addr
		if len(p.run.Nodes) > 0 {
			node = p.run.Nodes[p.id%len(p.run.Nodes)]
		}
		p.conn, err = p.run.publish.dial(context.Background(), node, netip.Addr{}, p.run.Patience)
	}
	return err
}

// post sends m and reads the answer.
func (p *publisher) post(m message) (status int, err error) {
	form := &p.run.requests[m.room]
	p.request = append(p.request[:0], form.before...)
	p.request = p.run.format.append(p.request, m)
	p.request = append(p.request, form.after...)
	p.response = response{}
	p.conn.SetDeadline(time.Now().Add(answerTime))
	_, err = p.conn.Write(p.request)
	for err == nil && p.response.part != complete {
		var n int
		n, err = p.conn.Read(p.buf)
		if n > 0 {
			if _, bad := p.response.feed(p.buf[:n], discard{}); bad != nil {
				err = bad
			}
		}
	}
	if err != nil && p.response.part == toClose {
		err = nil // the connection's end is the answer's
	}
	if err != nil || !p.response.keep {
		p.hangUp()
	}
	if err != nil {
		return 0, kind("publish", err)
	}
	return p.response.status, nil
}

func (p *publisher) hangUp() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// discard takes the body of an answer.
type discard struct{}

func (discard) takeBody([]byte) error { return nil }

// gate holds publishers back while too many deliveries are under way.
type gate struct {
	limit int64 // deliveries; 0 is no limit

	mu         sync.Mutex // held by the one publisher that waits for deliveries; guards the fields below
	writtenOff int64      // deliveries that will not come
	got        int64
	since      time.Duration // when got last grew
}

// stalled is how long nothing may be delivered before the gate takes what is
// under way for lost; it must not hold publishers back for ever.
const stalled = time.Second

// pass waits for room, and says whether there is time left until end.
func (g *gate) pass(ctx context.Context, r *run, end time.Duration) bool {
	if g.limit == 0 {
		return r.now() < end && ctx.Err() == nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		now := r.now()
		if now >= end || ctx.Err() != nil {
			return false
		}
		got := r.delivered()
		if got != g.got || g.since == 0 {
			g.got, g.since = got, now
		}
		if now-g.since > stalled {
			g.writtenOff, g.since = r.due.Load()-got, now
		}
		if r.due.Load()-got-g.writtenOff < g.limit {
			return true
		}
		time.Sleep(100 * time.Microsecond)
	}
}
