package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	refreshPeriod = 10 * time.Minute // between fetches that nobody asked for
	refreshFloor  = 30 * time.Second // between any two, however many unknown kids come
	firstRetry    = time.Second      // while there are no keys at all; doubled up to the floor
	fetchTimeout  = 5 * time.Second  // for all of a fetch
	maxJWKS       = 256 << 10        // bytes of a key set
)

// remote keeps a key set fetched. One goroutine does all fetching; whoever needs a
// fetch joins the round that is under way. What was fetched last stays in use until
// something better arrives, however long that takes.
type remote struct {
	url    string
	client *http.Client
	log    *slog.Logger

	set  atomic.Pointer[keySet] // nil until the first success
	wake chan struct{}          // tells the goroutine that a round was asked for

	stop context.CancelFunc
	done chan struct{} // closed when the goroutine has ended

	mu    sync.Mutex    // guards the fields below
	round chan struct{} // closed at the end of the round; nil between rounds
	began time.Time     // when the last round did

	last [sha256.Size]byte // of the last document; the goroutine's own
}

func newRemote(cfg Config) (*remote, error) {
	if err := checkJWKSURL(cfg.JWKSURL); err != nil {
		return nil, err
	}
	transport := cfg.Transport
	if transport == nil {
		// A connection a fetch: they are minutes apart, and none is left behind.
		transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
			DisableKeepAlives:      true,
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 16 << 10,
		}
	}
	r := &remote{
		url: cfg.JWKSURL,
		client: &http.Client{
			Transport: transport,
			// A redirect could lead the gateway to addresses that only it can reach.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		log:   cfg.Log,
		wake:  make(chan struct{}, 1),
		done:  make(chan struct{}),
		round: make(chan struct{}), // the first, so that early tokens wait for it
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		defer close(r.done)
		r.run(ctx)
	}()
	return r, nil
}

// checkJWKSURL admits https, and http to this machine.
func checkJWKSURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return errors.New("the JWKS URL is not a URL like https://issuer.example/.well-known/jwks.json")
	}
	ip, _ := netip.ParseAddr(u.Hostname())
	local := u.Hostname() == "localhost" || ip.IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && local) {
		return errors.New("the JWKS URL must be https, or everybody on the way could give out keys; http is for loopback hosts only")
	}
	return nil
}

// keys returns what was fetched last, or nil.
func (r *remote) keys() *keySet { return r.set.Load() }

func (r *remote) close() {
	r.stop()
	<-r.done
}

// refresh returns after the round that is under way, or after a new one unless the last
// began less than half a minute ago; it does not wait longer than ctx.
func (r *remote) refresh(ctx context.Context) {
	round := r.join()
	if round == nil {
		return
	}
	select {
	case <-round:
	case <-ctx.Done():
	case <-r.done:
	}
}

func (r *remote) join() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.round != nil {
		return r.round
	}
	if time.Since(r.began) < refreshFloor {
		return nil
	}
	r.round = make(chan struct{})
	r.wake <- struct{}{} // never waits: one is sent a round, and the round takes it
	return r.round
}

// run fetches at once, then when asked to, or when it is time.
func (r *remote) run(ctx context.Context) {
	retry := firstRetry
	for {
		r.begin()
		err := r.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		r.end()
		wait := refreshPeriod + rand.N(refreshPeriod/10)
		if err != nil {
			wait = refreshFloor
			if r.keys() == nil {
				wait, retry = retry, min(2*retry, refreshFloor)
			}
			r.log.Warn("fetching the keys for tokens failed; those there are stay in use", "url", r.url, "err", err, "retry", wait.String())
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-r.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// begin opens the round, where none was asked for, and takes the wake of one that was.
func (r *remote) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = time.Now()
	if r.round == nil {
		r.round = make(chan struct{})
	}
	select {
	case <-r.wake:
	default:
	}
}

func (r *remote) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.round)
	r.round = nil
}

// fetch gets the document and, where it is good, puts its keys into use.
func (r *remote) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	body, err := r.get(ctx)
	if err != nil {
		return err
	}
	set, ignored, err := parseJWKS(body)
	if sum := sha256.Sum256(body); sum != r.last {
		r.last = sum
		for _, why := range ignored {
			r.log.Warn("a key for tokens is ignored", "url", r.url, "reason", why)
		}
	}
	if err != nil {
		return err
	}
	r.set.Store(set)
	return nil
}

func (r *remote) get(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer was %d (redirects are not followed)", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxJWKS+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if len(body) > maxJWKS {
		return nil, fmt.Errorf("the answer is longer than %d bytes", maxJWKS)
	}
	return body, nil
}
