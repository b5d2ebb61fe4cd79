package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/cmd/sluice/internal/eventstream"
)

// checker is one client with one stream of one room. It writes down what it is
// shown and comes back with its cursor whenever the stream ends, as fast as it
// can: harder on the gateway than any browser.
//
// The fields of its story belong to its goroutine until that has ended.
type checker struct {
	r     *rig
	name  string
	room  string
	bases []string // host:port of gateways; the next one whenever a stream ends
	begin string   // query of the first stream
	pace  int      // bytes a second that it reads; 0 is as many as there are
	leave func()   // ends its stream and waits for it; set by send

	base    int
	decoder eventstream.Decoder
	retry   time.Duration // what the gateway asked for, behind a goodbye
	story   []note
	at      place // where it is
	begun   place // where its first stream began
	opened  bool

	now    atomic.Pointer[place] // at, for others to read
	calm   atomic.Bool           // reads at full speed from now on, whatever its pace
	opens  atomic.Int64          // streams that were opened
	stalls atomic.Int64          // streams that it gave up for their silence
}

// note is something that a checker was shown: an event, or a gap.
type note struct {
	event
	gap *gap
}

// gap is sluice.gap as clients get it.
type gap struct {
	Room      string  `json:"room"`
	After     *string `json:"after"`
	ResumesAt *string `json:"resumes_at"`
	Missed    *int64  `json:"missed"`
	Reason    string  `json:"reason"`
}

func (c *checker) String() string { return fmt.Sprintf("%s in %s", c.name, c.room) }

// seen is where the checker is.
func (c *checker) seen() place {
	if p := c.now.Load(); p != nil {
		return *p
	}
	return place{}
}

// follow reads until ctx ends.
func (c *checker) follow(ctx context.Context) {
	for ctx.Err() == nil {
		c.retry = 0
		err := c.stream(ctx, c.bases[c.base%len(c.bases)])
		c.base++
		if broken := (*brokenError)(nil); errors.As(err, &broken) {
			c.r.verdict.wrong(other, "%s: %v", c, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(c.retry, 20*time.Millisecond)):
		}
	}
}

// brokenError says that a gateway answered as none may.
type brokenError struct{ what string }

func (e *brokenError) Error() string { return e.what }

// stream opens one stream and reads it to its end.
func (c *checker) stream(ctx context.Context, base string) error {
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", base)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	if c.pace != 0 && !c.calm.Load() {
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10) // so that the gateway feels it
	}
	c.decoder.Restart()
	if _, err := conn.Write(c.request(base)); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(15 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 4<<10), nil)
	if err != nil {
		return err
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(got, "text/event-stream") {
		return &brokenError{fmt.Sprintf("a stream was answered by %s, %q: browsers would never ask again", resp.Status, got)}
	}
	return c.read(conn, resp)
}

func (c *checker) request(base string) []byte {
	var b strings.Builder
	b.WriteString("GET /rooms/" + c.room + "/events")
	if !c.opened && c.begin != "" {
		b.WriteString("?" + c.begin)
	}
	b.WriteString(" HTTP/1.1\r\nHost: " + base + "\r\nAccept: text/event-stream\r\n")
	if c.opened {
		b.WriteString("Last-Event-ID: " + c.at.String() + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// patience is how many heartbeats a checker waits for a sign of life.
const patience = 2.5

func (c *checker) read(conn net.Conn, resp *http.Response) error {
	buf := make([]byte, 4<<10)
	for {
		piece := buf
		if c.pace > 0 && !c.calm.Load() {
			piece = buf[:len(buf)/8]
			c.dawdle(time.Duration(len(piece)) * time.Second / time.Duration(c.pace))
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Duration(patience * float64(c.r.heartbeat))))
		n, err := resp.Body.Read(piece)
		if feed := c.decoder.Feed(piece[:n], c); feed != nil {
			return &brokenError{feed.Error()}
		}
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			c.stalls.Add(1)
		}
		if err != nil {
			return err
		}
	}
}

// dawdle lets so much time pass, unless the checker is told to hurry: its
// slowness is the fault.
func (c *checker) dawdle(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && !c.calm.Load() && c.r.clientsCtx.Err() == nil; {
		time.Sleep(20 * time.Millisecond)
	}
}

// Comment implements eventstream.Sink.
func (c *checker) Comment(int) { c.r.beats.Add(1) }

// Retry implements eventstream.Sink.
func (c *checker) Retry(ms int) { c.retry = time.Duration(ms) * time.Millisecond }

// Event implements eventstream.Sink.
func (c *checker) Event(e eventstream.Event) {
	switch kind := string(e.Type); {
	case kind == "sluice.open":
		c.open(e)
	case kind == "sluice.gap":
		c.gap(e)
	case kind == "sluice.bye":
		c.bye(e)
	case kind == "sluice.degraded":
		c.r.degraded.Add(1)
	case kind == "sluice.restored":
		c.r.restored.Add(1)
	case strings.HasPrefix(kind, "sluice."):
	default:
		c.take(e)
	}
}

// open checks where a stream begins: where the checker was, if it was.
func (c *checker) open(e eventstream.Event) {
	c.retry = 0
	c.opens.Add(1)
	at, err := parsePlace(string(e.ID))
	switch {
	case err != nil:
		c.r.verdict.wrong(other, "%s: sluice.open: %v", c, err)
	case !c.opened:
		c.opened, c.begun = true, at
		c.move(at)
	case at != c.at && !(at.seq == 0 && c.at.seq == 0):
		c.r.verdict.wrong(other, "%s came back from %v and was told that it is at %v", c, c.at, at)
	}
}

func (c *checker) move(to place) {
	if to.epoch == c.at.epoch {
		to.epoch = c.at.epoch // one string for all
	}
	c.at = to
	c.now.Store(&to)
}

func (c *checker) gap(e eventstream.Event) {
	g := &gap{}
	at, err := parsePlace(string(e.ID))
	if err == nil {
		err = json.Unmarshal(e.Data, g)
	}
	if err != nil {
		c.r.verdict.wrong(other, "%s: a gap that cannot be read: %v", c, err)
		return
	}
	c.r.countGap(g.Reason)
	c.story = append(c.story, note{event: event{at: at}, gap: g})
	c.move(at)
}

// bye takes note of a goodbye. A checker hurries back from a deploy; who is
// told that the gateway has no room for it waits as it was asked to.
func (c *checker) bye(e eventstream.Event) {
	var bye struct{ Reason string }
	if err := json.Unmarshal(e.Data, &bye); err != nil {
		c.r.verdict.wrong(other, "%s: a goodbye that cannot be read: %v", c, err)
	}
	c.r.countBye(bye.Reason)
	if bye.Reason != "overload" {
		c.retry = 0
	}
}

// take writes an event down and checks that it is the next one.
func (c *checker) take(e eventstream.Event) {
	at, err := parsePlace(string(e.ID))
	if err != nil {
		c.r.verdict.wrong(other, "%s: an event without a position: %v", c, err)
		return
	}
	switch {
	case at.seq == c.at.seq:
		c.r.verdict.wrong(doubled, "%s got %v twice", c, at)
	case at.seq < c.at.seq:
		c.r.verdict.wrong(reordered, "%s got %v after %v", c, at, c.at)
	}
	// What was skipped is counted by the judge, who knows whether it was acknowledged.
	c.move(at)
	c.story = append(c.story, note{event: event{c.at, sum(e.Data)}})
	c.r.delivered.Add(1)
	if sent, ok := sentAt(e.Data); ok {
		c.r.delays.add(time.Since(sent))
	}
}

// sentAt reads the time that publishers write into their events.
func sentAt(data []byte) (time.Time, bool) {
	_, rest, _ := strings.Cut(string(data[:min(len(data), 80)]), " ")
	digits, _, ok := strings.Cut(rest, " ")
	nanos, err := strconv.ParseInt(digits, 10, 64)
	return time.Unix(0, nanos), ok && err == nil
}
