package bench

import (
	"context"
	"sync"
	"time"
)

// engine reads streams. There are two: epoll, and a goroutine a stream.
type engine interface {
	// open connects s and sends its request; it does not wait. From then on s
	// is the engine's, until it calls run.ended.
	open(s *stream)
	// stop ends all streams without a word to run, and waits for its
	// goroutines.
	stop()
}

// portable is the engine for TLS, and for systems without epoll: a goroutine
// and a small buffer for each stream.
type portable struct {
	run    *run
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

const portableBuffer = 4 << 10

func newPortable(r *run) *portable {
	e := &portable{run: r}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

func (e *portable) open(s *stream) {
	e.tasks.Go(func() {
		err := e.read(s)
		if e.ctx.Err() == nil {
			e.run.ended(s, err)
		}
	})
}

func (e *portable) stop() {
	e.cancel()
	e.tasks.Wait()
}

// read carries s through one connection.
func (e *portable) read(s *stream) error {
	conn, err := e.run.subscribe.dial(e.ctx, e.run.node(s), e.run.source(s.source), e.run.Patience)
	if err != nil {
		return kind("connect", err)
	}
	defer conn.Close()
	defer context.AfterFunc(e.ctx, func() { conn.Close() })()

	conn.SetDeadline(time.Now().Add(e.run.Patience))
	if _, err := conn.Write(e.run.streamRequest(nil, s.room, s.decoder.ID())); err != nil {
		return kind("connect", err)
	}
	in := e.run.intakes[s.index%len(e.run.intakes)]
	buf := make([]byte, portableBuffer)
	for opened := false; ; {
		n, err := conn.Read(buf)
		if n > 0 {
			if err := in.take(s, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return readError(s, err)
		}
		if s.open && !opened {
			opened = true
			conn.SetDeadline(time.Time{})
		}
	}
}
