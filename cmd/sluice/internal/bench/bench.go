// Package bench measures a gateway of Server-Sent Events from outside.
//
//	Config -> plan -> opener -> engine (epoll, or a goroutine a stream)
//	                               | bytes
//	publishers -> the gateway ->   intake: response -> eventstream -> ledger
//	                                          \-> tally -> Report
//
// It opens many streams, publishes messages that say who sent them, when, and
// which in the row they are, and checks each stream by itself: every message
// that the gateway accepted must come once, whole and in its publisher's
// order. A stream that ends is reopened with its last event id, as a browser
// would, and the check goes on across the reconnect; so a run may well include
// the restart of a gateway.
//
// The tool shares the machine with what it measures more often than not, so
// it is frugal: plain HTTP on Linux takes a few goroutines on epoll for all
// streams, and nothing is allocated for an event.
package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// ErrUsage is wrapped by errors about a Config that cannot be run.
var ErrUsage = errors.New("wrong use")

// ErrNothingOpened is wrapped by the error of a run in which no stream opened.
var ErrNothingOpened = errors.New("no stream could be opened")

// Header is a request header; {room} in its value stands for the room.
type Header struct{ Name, Value string }

// Config says what to measure. Zero values mean what the comments say.
type Config struct {
	Subscribe string // URL of a stream, with {room}
	Publish   string // URL to POST a message to, with {room}; empty: only hold streams

	SubscribeHeader []Header
	PublishHeader   []Header
	Body            string // body of a POST, with {msg} and perhaps {room}; just {msg} if empty
	Room            string // rooms are this name with -0, -1, ... behind it; bench-<random> if empty

	Streams    int     // 1
	Rooms      int     // 1; stream i is in room i mod Rooms
	Publishers int     // 1; each has one message under way at a time
	Rate       float64 // messages a second, of all publishers together; 0 is flat out
	Payload    int     // bytes of a message; MinPayload if less
	Window     int     // flat out: messages not yet delivered to all, at most; 0 is no limit

	Warmup   time.Duration // publishing before the measured part
	Duration time.Duration // the measured part; 10 s
	Settle   time.Duration // from the last stream's opening to the first message
	Grace    time.Duration // how long silence must last for missing deliveries to be lost; 3 s

	ConnectRate float64       // streams to open a second; 0 is no limit
	Connecting  int           // streams being opened at a time; 100
	Patience    time.Duration // for a response head, and for connecting to make progress; 10 s
	Sources     int           // source addresses, where the target is loopback; one for 1000 streams if 0
	FirstSource int           // how many of them others use already
	NoResume    bool          // leave streams that end alone
	Portable    bool          // a goroutine a stream, even where epoll is to be had
	TLS         *tls.Config   // for https; the system's roots if nil

	// Nodes take the place of the URLs' host: stream i begins at node i modulo
	// their number, and goes to another one whenever its connection ends. All
	// must speak what the URLs' scheme says.
	Nodes []netip.AddrPort

	// What processes that measure together agree on, see Crowd; chosen by the run if zero.
	ID    string    // of the messages: eight characters
	Clock time.Time // what times count from

	Stage    func(string)   // told the name of each stage as it begins, and "ended", if not nil; what it does counts to the stage before
	Warn     func(string)   // told what deserves attention before the run, if not nil
	Progress func(Progress) // called a few times a second from one goroutine, if not nil
}

// Progress is how far a run has come.
type Progress struct {
	Stage     string // connecting, settling, warming up, measuring, draining
	Elapsed   time.Duration
	Left      time.Duration // of the stage, where that is known
	Streams   int
	Open      int64
	Published int64
	Delivered int64
	Errors    int64
}

func (c Config) withDefaults() Config {
	c.Body = cmp.Or(c.Body, "{msg}")
	c.Streams = cmp.Or(c.Streams, 1)
	c.Rooms = cmp.Or(c.Rooms, 1)
	c.Publishers = cmp.Or(c.Publishers, 1)
	c.Duration = cmp.Or(c.Duration, 10*time.Second)
	c.Grace = cmp.Or(c.Grace, 3*time.Second)
	c.Connecting = cmp.Or(c.Connecting, 100)
	c.Patience = cmp.Or(c.Patience, 10*time.Second)
	if c.Warn == nil {
		c.Warn = func(string) {}
	}
	if c.Stage == nil {
		c.Stage = func(string) {}
	}
	if 0 < c.Payload && c.Payload < MinPayload {
		c.Warn(fmt.Sprintf("messages have %d bytes; fewer cannot hold what has to be checked", MinPayload))
	}
	c.Payload = max(c.Payload, MinPayload)
	return c
}

// check finds what no run can make sense of.
func (c Config) check() error {
	for _, n := range []struct {
		name     string
		got, max int
	}{
		{"streams", c.Streams, 1 << 20},
		{"rooms", c.Rooms, maxRooms},
		{"publishers", c.Publishers, maxPublishers},
		{"payload", c.Payload, 8 << 20},
		{"connect concurrency", c.Connecting, 1 << 20},
	} {
		if n.got < 1 || n.got > n.max {
			return fmt.Errorf("%w: %s must be between 1 and %d, not %d", ErrUsage, n.name, n.max, n.got)
		}
	}
	if c.Rate < 0 || c.ConnectRate < 0 || c.Window < 0 || c.Sources < 0 || c.Sources > maxSources {
		return fmt.Errorf("%w: rates and the window cannot be negative, sources are at most %d", ErrUsage, maxSources)
	}
	if c.FirstSource < 0 || c.FirstSource > maxFirstSource {
		return fmt.Errorf("%w: the first source must be between 0 and %d", ErrUsage, maxFirstSource)
	}
	if c.ID != "" && len(c.ID) != idLength {
		return fmt.Errorf("%w: an id has %d characters", ErrUsage, idLength)
	}
	if c.Duration < 0 || c.Warmup < 0 || c.Settle < 0 || c.Grace < 0 || c.Patience < 0 {
		return fmt.Errorf("%w: a time cannot be negative", ErrUsage)
	}
	return nil
}

// Run measures once and returns what it saw. When ctx ends while messages are
// being published, the run ends early with a report on what there is; before
// that, with ctx's error.
func Run(ctx context.Context, c Config) (*Report, error) {
	r, err := prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	stop := r.start()
	defer stop()

	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	r.await(ctx, "settling", r.Settle)
	if r.publish == nil {
		r.hold(ctx)
	} else {
		r.publishAll(ctx)
	}
	stop()
	return r.report(), nil
}

// prepare checks a configuration, and makes the run that it asks for.
func prepare(ctx context.Context, c Config) (*run, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	p, err := newPlan(ctx, c)
	if err != nil {
		return nil, err
	}
	return newRun(p)
}
