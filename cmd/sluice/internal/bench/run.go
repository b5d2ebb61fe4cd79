package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// run is one measurement under way.
type run struct {
	*plan
	began      time.Time
	intakes    []*intake
	streams    []*stream
	engine     engine
	opener     *opener
	publishers []*publisher

	open      atomic.Int64 // streams that have their head
	published atomic.Int64 // messages accepted
	due       atomic.Int64 // deliveries that messages under way or accepted should lead to
	measure   atomic.Int64 // when the measured part begins, in ns of the run's clock
	failures  atomic.Int64 // errors of all kinds

	mu         sync.Mutex // guards the fields below
	stage      string
	stageEnd   time.Duration // zero: nobody knows
	errors     map[string]int64
	subscribed []int64 // streams by room that were open when publishing began
	publishing bool    // it has begun: streams never open until now no longer count
	gone       int     // streams given up
	resumed    int64

	gate gate

	connected time.Duration // how long opening all streams took
	begin     time.Duration // of the measured part
	end       time.Duration // last publication of the measured part answered
	cpu       time.Duration // used by us in the measured part
	cut       bool          // interrupted
}

// steady is for how long all streams must be open: one that is refused by
// sluice.bye seems open for a moment.
const steady = 50 * time.Millisecond

// noSign is how long nothing at all may open before connecting is given up.
const noSign = 3 * time.Second

const never = time.Duration(1<<63 - 1)

func newRun(p *plan) (*run, error) {
	r := &run{plan: p, began: p.Clock, errors: map[string]int64{}, subscribed: make([]int64, p.Rooms)}
	if r.began.IsZero() {
		r.began = time.Now()
	}
	r.measure.Store(int64(never))
	for range min(readers(), p.Streams) {
		r.intakes = append(r.intakes, &intake{run: r})
	}
	last := make([]uint32, p.Streams*p.Publishers)
	for i := range p.Streams {
		r.streams = append(r.streams, &stream{
			index: i, room: i % p.Rooms, source: i, node: i, fd: -1,
			ledger: ledger{last: last[i*p.Publishers : (i+1)*p.Publishers]},
		})
	}
	var err error
	if r.engine, err = newEngine(r); err != nil {
		return nil, err
	}
	r.opener = newOpener(r.engine, &p.Config, r.now)
	return r, nil
}

// now is the run's clock.
func (r *run) now() time.Duration { return time.Since(r.began) }

// measuredFrom is when messages begin to count for the figures; for the
// verdict all do.
func (r *run) measuredFrom() time.Duration { return time.Duration(r.measure.Load()) }

// node is where s is to be connected.
func (r *run) node(s *stream) netip.AddrPort { return r.nodes[s.node%len(r.nodes)] }

func (r *run) delivered() (n int64) {
	for _, in := range r.intakes {
		n += in.delivered.Load()
	}
	return n
}

// start sets goroutines going; the function it returns ends them, and may be
// called twice.
func (r *run) start() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { r.opener.run(ctx) })
	if r.Progress != nil {
		tasks.Go(func() { r.report200ms(ctx) })
	}
	return sync.OnceFunc(func() {
		cancel()
		tasks.Wait()
		r.engine.stop()
	})
}

func (r *run) report200ms(ctx context.Context) {
	for sleep(ctx, 200*time.Millisecond) {
		r.mu.Lock()
		p := Progress{Stage: r.stage, Elapsed: r.now(), Streams: r.Streams}
		if r.stageEnd > 0 {
			p.Left = max(0, r.stageEnd-p.Elapsed)
		}
		r.mu.Unlock()
		p.Open, p.Published, p.Delivered, p.Errors = r.open.Load(), r.published.Load(), r.delivered(), r.failures.Load()
		r.Progress(p)
	}
}

func (r *run) enter(stage string, length time.Duration) {
	r.Stage(stage)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stage, r.stageEnd = stage, 0
	if length > 0 {
		r.stageEnd = r.now() + length
	}
}

// await spends a stage of known length doing nothing.
func (r *run) await(ctx context.Context, stage string, length time.Duration) {
	r.enter(stage, length)
	sleep(ctx, length)
}

// fault counts an error by what it says.
func (r *run) fault(err error) {
	r.failures.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors[err.Error()]++
}

// opened notes that s has its response head. It says no if s comes too late to
// be counted. It is called by the goroutine that reads s and does not block.
func (r *run) opened(s *stream) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.opens == 0 && r.publishing {
		return false
	}
	if s.opens == 0 {
		r.subscribed[s.room]++
	} else if r.publishing {
		r.resumed++
	}
	s.open = true
	s.opens++
	r.open.Add(1)
	r.opener.release()
	return true
}

// ended takes s back from the engine, and queues it to be opened again unless
// that is pointless.
func (r *run) ended(s *stream, err error) {
	if s.open {
		r.open.Add(-1)
	} else {
		r.opener.release()
	}
	r.fault(err)
	giveUp := r.account(s, err)
	retry := cmp.Or(s.retry, time.Second)
	s.decoder.Restart()
	s.response, s.open, s.greeted, s.bye, s.retry = response{}, false, false, "", 0
	if n := len(r.nodes); n > 1 {
		s.node += 1 + rand.IntN(n-1) // one node that is gone is not to be the burden of one other
	}
	if !giveUp {
		r.opener.add(s, r.now()+time.Duration(float64(retry)*(0.8+0.4*rand.Float64())))
	}
}

// account notes the end of a connection, and says whether it was the
// last one of s.
func (r *run) account(s *stream, err error) (giveUp bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.open && s.bye != "" && !s.greeted {
		// Limits are answered with 200, since a browser stops for ever on
		// anything else. Nothing was opened.
		s.opens--
		if r.publishing {
			r.resumed--
		} else if s.opens == 0 {
			r.subscribed[s.room]--
		}
	}
	giveUp = final(err) || s.opens == 0 && r.publishing || s.opens > 0 && r.NoResume
	if giveUp {
		r.gone++
	}
	return giveUp
}

// final says that trying again would change nothing.
func final(err error) bool {
	var status statusError
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &status) && status.final() || errors.As(err, &certificate)
}

// connect opens all streams, and returns when they are open or nothing has
// moved for as long as patience allows.
func (r *run) connect(ctx context.Context) error {
	r.enter("connecting", 0)
	from := r.now()
	for _, s := range r.streams {
		r.opener.add(s, 0)
	}
	best, since, whole := int64(-1), from, from
	for {
		now, open := r.now(), r.open.Load()
		if open > best {
			best, since = open, now
			r.connected = since - from
		}
		if r.away() {
			whole = now
		}
		if now-whole > steady || now-since > r.Patience || r.hopeless(now-since) {
			break
		}
		if !sleep(ctx, 2*time.Millisecond) {
			return fmt.Errorf("interrupted while connecting: %w", ctx.Err())
		}
	}
	if r.open.Load() == 0 {
		return fmt.Errorf("%w: %s", ErrNothingOpened, r.commonest())
	}
	return nil
}

// hopeless says that nothing has opened for a while, and that what was tried
// has failed: a gateway that is not there need not be waited for.
func (r *run) hopeless(quiet time.Duration) bool {
	return quiet > noSign && r.open.Load() == 0 && r.failures.Load() > 0
}

// commonest is the error that came most often.
func (r *run) commonest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, most := "no answer in time", int64(0)
	for k, n := range r.errors {
		if n > most || n == most && k < text {
			text, most = k, n
		}
	}
	return text
}

// hold keeps the streams open without publishing anything.
func (r *run) hold(ctx context.Context) {
	r.begin, r.cpu = r.now(), cpuTime()
	r.await(ctx, "holding", r.Duration)
	r.end, r.cpu = r.now(), cpuTime()-r.cpu
	r.cut = ctx.Err() != nil
}

// publishAll publishes, first to warm up, then to measure, and waits for the
// deliveries.
func (r *run) publishAll(ctx context.Context) {
	r.mu.Lock()
	r.publishing = true
	r.mu.Unlock()
	r.gate.limit = int64(r.Window) * max(1, r.open.Load()/int64(r.Rooms))
	for i := range r.Publishers {
		r.publishers = append(r.publishers, newPublisher(r, i))
	}
	if r.Warmup > 0 {
		r.phase(ctx, "warming up", r.Warmup)
	}
	r.begin, r.cpu = r.now(), cpuTime()
	r.measure.Store(int64(r.begin))
	r.phase(ctx, "measuring", r.Duration)
	r.end = r.now()
	r.cut = ctx.Err() != nil
	r.drain()
	r.Stage("ended")
	r.cpu = cpuTime() - r.cpu
	for _, p := range r.publishers {
		p.hangUp()
	}
}

func (r *run) phase(ctx context.Context, stage string, length time.Duration) {
	r.enter(stage, length)
	ph := phase{begin: r.now(), length: length, measured: stage == "measuring"}
	var tasks sync.WaitGroup
	for _, p := range r.publishers {
		tasks.Go(func() { p.work(ctx, ph) })
	}
	tasks.Wait()
}

// drain waits until everything that is due has come, or nothing comes any more
// though no stream is away to be reopened.
func (r *run) drain() {
	r.enter("draining", 0)
	const patience = 30 * time.Second
	got, since, began := r.delivered(), r.now(), r.now()
	for {
		now := r.now()
		if n := r.delivered(); n != got {
			got, since = n, now
		}
		away := r.away()
		quiet := now-since > r.Grace
		if got >= r.due.Load() && !away && (!r.inDoubt() || quiet) {
			return
		}
		if quiet && (!away || now-began > patience) {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// away says whether a stream that is not given up is not open.
func (r *run) away() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int(r.open.Load())+r.gone < r.Streams
}

func (r *run) inDoubt() bool {
	for _, p := range r.publishers {
		if len(p.doubt) > 0 {
			return true
		}
	}
	return false
}
