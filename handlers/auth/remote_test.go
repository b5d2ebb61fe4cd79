package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// issuer is an identity provider that serves a key set, and can be made to fail in the
// ways that they do.
type issuer struct {
	t     *testing.T
	srv   *httptest.Server
	hits  atomic.Int64
	serve atomic.Pointer[http.HandlerFunc]
}

// startIssuer serves over connections in memory, so that the clock of a synctest
// bubble governs it; all else of it is net/http as ever. (TLS is left to the network's
// test: over a pipe, both ends wait for the other to read their farewell.)
func startIssuer(t *testing.T) (*issuer, http.RoundTripper) {
	t.Helper()
	i := &issuer{t: t}
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	i.srv = httptest.NewUnstartedServer(http.HandlerFunc(i.handle))
	i.srv.Listener.Close()
	i.srv.Listener = ln
	i.srv.Start()
	t.Cleanup(i.srv.Close)
	return i, &http.Transport{DialContext: ln.dial, DisableKeepAlives: true}
}

func (i *issuer) handle(w http.ResponseWriter, r *http.Request) {
	i.hits.Add(1)
	defer func() {
		if e := recover(); e != nil {
			if e != http.ErrAbortHandler {
				i.t.Error(e)
			}
			panic(http.ErrAbortHandler)
		}
	}()
	(*i.serve.Load())(w, r)
}

func (i *issuer) answer(h http.HandlerFunc) { i.serve.Store(&h) }

func (i *issuer) keys(doc string) {
	i.answer(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(doc)) })
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble runs a test with an issuer and a verifier that trusts it, on a clock of its own.
func bubble(t *testing.T, first http.HandlerFunc, f func(t *testing.T, i *issuer, v *Verifier, log *strings.Builder)) {
	t.Helper()
	pairs() // not within the bubble: keys take real time
	synctest.Test(t, func(t *testing.T) {
		i, transport := startIssuer(t)
		i.answer(first)
		var log strings.Builder
		v := newVerifier(t, Config{JWKSURL: "http://localhost/jwks.json", Transport: transport, Log: slog.New(slog.NewJSONHandler(&log, nil))})
		f(t, i, v, &log)
	})
}

func serveKeys(doc string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(doc)) }
}

func (i *issuer) wantHits(t *testing.T, want int64) {
	t.Helper()
	synctest.Wait()
	if got := i.hits.Load(); got != want {
		t.Errorf("%d fetches, want %d", got, want)
	}
}

func accepted(t *testing.T, v *Verifier, token string) {
	t.Helper()
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatalf("refused: %s", Reason(err))
	}
}

func TestFirstTokenWaitsForTheKeys(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(3 * time.Second)
		serveKeys(jwksOf(t, es256))(w, r)
	}
	bubble(t, slow, func(t *testing.T, i *issuer, v *Verifier, _ *strings.Builder) {
		if err := v.Ready(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("ready before the first fetch: %v", err)
		}
		start := time.Now()
		accepted(t, v, sign(t, keySigner(t, es256, ""), Grant{}))
		if took := time.Since(start); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := v.Ready(); err != nil {
			t.Error(err)
		}
		i.wantHits(t, 1)
	})
}

func TestRotatedKeyIsFetchedWhenATokenNamesIt(t *testing.T) {
	bubble(t, serveKeys(jwksOf(t, rs256)), func(t *testing.T, i *issuer, v *Verifier, _ *strings.Builder) {
		old := sign(t, keySigner(t, rs256, ""), Grant{})
		fresh := sign(t, keySigner(t, es256, ""), Grant{})
		accepted(t, v, old)
		time.Sleep(time.Minute)
		i.keys(jwksOf(t, es256))
		accepted(t, v, old) // known keys ask nobody
		i.wantHits(t, 1)
		accepted(t, v, fresh)
		i.wantHits(t, 2)
		refused(t, v, old, "no key")
		i.wantHits(t, 2) // less than half a minute after the last
	})
}

func TestUnknownKidsCauseOneFetchInHalfAMinute(t *testing.T) {
	bubble(t, serveKeys(jwksOf(t, rs256)), func(t *testing.T, i *issuer, v *Verifier, _ *strings.Builder) {
		accepted(t, v, sign(t, keySigner(t, rs256, ""), Grant{}))
		start := time.Now()
		s := keySigner(t, eddsa, "")
		for n := range 600 { // ten a second
			s.kid = "unknown-" + string(rune('a'+n%26))
			token := sign(t, s, Grant{})
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					if _, err := v.Verify(t.Context(), token); !errors.Is(err, ErrInvalid) {
						t.Errorf("got %v", err)
					}
				})
			}
			all.Wait()
			time.Sleep(100 * time.Millisecond)
		}
		if most := int64(time.Since(start)/refreshFloor) + 1; i.hits.Load() > most {
			t.Errorf("%d fetches in %v", i.hits.Load(), time.Since(start))
		}
	})
}

func TestBadSignaturesCauseNoFetch(t *testing.T) {
	bubble(t, serveKeys(jwksOf(t, rs256, es256)), func(t *testing.T, i *issuer, v *Verifier, _ *strings.Builder) {
		good := sign(t, keySigner(t, es256, ""), Grant{})
		accepted(t, v, good)
		time.Sleep(time.Minute)
		other := sign(t, keySigner(t, rs256, ""), Grant{})
		refused(t, v, good[:strings.LastIndex(good, ".")]+other[strings.LastIndex(other, "."):], "signature")
		refused(t, v, withSecret(secret, `{"alg":"HS256","kid":"new"}`, claimsJSON("")), "no key")
		refused(t, v, withSecret(secret, `{"alg":"RS256"}`, claimsJSON("")), "signature")
		refused(t, v, withSecret(secret, `{"alg":"none","kid":"new"}`, claimsJSON("")), "algorithm")
		i.wantHits(t, 1)
	})
}

func TestTokenWithoutKidIsTriedWithEveryKey(t *testing.T) {
	bubble(t, serveKeys(jwksOf(t, rs256, eddsa)), func(t *testing.T, _ *issuer, v *Verifier, _ *strings.Builder) {
		s := keySigner(t, eddsa, "")
		s.kid = ""
		accepted(t, v, sign(t, s, Grant{}))
	})
}

// failures are what an issuer does wrong, and what the log says of it.
var failures = []struct {
	name   string
	answer http.HandlerFunc
	log    string
}{
	{"500", status(500), "500"},
	{"404", status(404), "404"},
	{"no key set", serveKeys("<html>maintenance</html>"), "no key set"},
	{"no key in it", serveKeys(`{"keys":[]}`), "no key that could be used"},
	{"redirect", http.RedirectHandler("http://169.254.169.254/latest/meta-data/", http.StatusFound).ServeHTTP, "302"},
	{"redirect home", http.RedirectHandler("/jwks.json", http.StatusTemporaryRedirect).ServeHTTP, "307"},
	{"10 MB", func(w http.ResponseWriter, _ *http.Request) {
		block := []byte(strings.Repeat(" ", 64<<10))
		for sent := 0; sent < 10<<20; sent += len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
		panic("all of it was read")
	}, "longer than"},
	{"slow head", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline"},
	{"slow body", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write([]byte(" "))
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	}, "deadline"},
	{"half of it", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5000")
		w.Write([]byte(`{"keys":[`))
		panic(http.ErrAbortHandler)
	}, "EOF"},
}

// TestOldKeysStayThroughFailures: the keys that were fetched before stay in use through
// all of them, and the next good answer is taken.
func TestOldKeysStayThroughFailures(t *testing.T) {
	for _, tt := range failures {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, serveKeys(jwksOf(t, rs256)), func(t *testing.T, i *issuer, v *Verifier, log *strings.Builder) {
				tomorrow := Grant{Expires: time.Now().Add(24 * time.Hour)}
				old, fresh := sign(t, keySigner(t, rs256, ""), tomorrow), sign(t, keySigner(t, es256, ""), tomorrow)
				accepted(t, v, old)
				time.Sleep(time.Minute)
				i.answer(tt.answer)
				start := time.Now()
				refused(t, v, fresh, "no key")
				if took := time.Since(start); took > fetchTimeout+time.Second {
					t.Errorf("a token waited %v for a bad issuer", took)
				}
				accepted(t, v, old)
				time.Sleep(time.Hour)
				accepted(t, v, old)
				i.keys(jwksOf(t, rs256, es256))
				time.Sleep(refreshFloor + fetchTimeout)
				accepted(t, v, fresh)
				if !strings.Contains(log.String(), tt.log) {
					t.Errorf("the log does not say %q:\n%s", tt.log, log)
				}
				if most := int64(time.Since(start)/refreshFloor) + 2; i.hits.Load() > most {
					t.Errorf("%d fetches in %v", i.hits.Load(), time.Since(start))
				}
			})
		})
	}
}

func TestWithoutAnyKeysNobodyIsJudged(t *testing.T) {
	bubble(t, status(500), func(t *testing.T, i *issuer, v *Verifier, log *strings.Builder) {
		token := sign(t, keySigner(t, es256, ""), Grant{Expires: time.Now().Add(24 * time.Hour)})
		for range 100 {
			if _, err := v.Verify(t.Context(), token); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("got %v, want ErrUnavailable", err)
			}
		}
		i.wantHits(t, 1)
		refused(t, v, "not.a.token", "") // what no key could save is judged all the same
		time.Sleep(time.Minute)
		// After 1, 2, 4, 8, 16 seconds; then each half minute.
		i.wantHits(t, 6)
		i.keys(jwksOf(t, es256))
		time.Sleep(refreshFloor)
		accepted(t, v, token)
		if strings.Count(log.String(), "\n") > 10 {
			t.Errorf("too much log:\n%s", log)
		}
	})
}

func TestKeysAreRefreshedUnasked(t *testing.T) {
	bubble(t, serveKeys(jwksOf(t, rs256, es256)), func(t *testing.T, i *issuer, v *Verifier, _ *strings.Builder) {
		gone := sign(t, keySigner(t, es256, ""), Grant{Expires: time.Now().Add(24 * time.Hour)})
		accepted(t, v, gone)
		i.keys(jwksOf(t, rs256))
		time.Sleep(refreshPeriod * 12 / 10)
		i.wantHits(t, 2)
		refused(t, v, gone, "no key")
	})
}

func TestImpatientRequestDoesNotWait(t *testing.T) {
	bubble(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(t *testing.T, _ *issuer, v *Verifier, _ *strings.Builder) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := v.Verify(ctx, sign(t, keySigner(t, es256, ""), Grant{}))
		if !errors.Is(err, ErrUnavailable) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

func TestCloseEndsAFetchAndItsWaiters(t *testing.T) {
	bubble(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(t *testing.T, _ *issuer, v *Verifier, _ *strings.Builder) {
		var waiting sync.WaitGroup
		waiting.Go(func() { v.Verify(t.Context(), sign(t, keySigner(t, es256, ""), Grant{})) })
		synctest.Wait()
		start := time.Now()
		v.Close()
		waiting.Wait()
		v.Close()
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestIgnoredKeysAreLoggedOnce(t *testing.T) {
	doc := `{"keys":[{"kty":"oct","kid":"a\nb","k":"AAAA"},` + strings.TrimPrefix(jwksOf(t, es256), `{
  "keys": [`)
	bubble(t, serveKeys(doc), func(t *testing.T, i *issuer, v *Verifier, log *strings.Builder) {
		accepted(t, v, sign(t, keySigner(t, es256, ""), Grant{}))
		time.Sleep(time.Hour)
		if n := strings.Count(log.String(), "is ignored"); n != 1 || i.hits.Load() < 4 {
			t.Errorf("%d fetches, %d log lines:\n%s", i.hits.Load(), n, log)
		}
	})
}

func TestStaticKeysWorkBesideTheIssuer(t *testing.T) {
	pairs()
	synctest.Test(t, func(t *testing.T) {
		i, transport := startIssuer(t)
		i.answer(status(500))
		v := newVerifier(t, Config{Keys: Keys{PEM: [][]byte{pairs()[eddsa].public}}, JWKSURL: "http://localhost/", Transport: transport})
		accepted(t, v, sign(t, keySigner(t, eddsa, ""), Grant{}))
		if err := v.Ready(); err != nil {
			t.Error(err)
		}
		if err := v.Reload(Keys{}); err != nil {
			t.Error(err)
		}
	})
}

// TestKeysComeOverTheNetwork does without the bubble: sockets, TLS, the transport that
// is used when none is given.
func TestKeysComeOverTheNetwork(t *testing.T) {
	doc := jwksOf(t, es256)
	token := sign(t, keySigner(t, es256, ""), Grant{})
	t.Run("http on loopback", func(t *testing.T) {
		srv := httptest.NewServer(serveKeys(doc))
		defer srv.Close()
		accepted(t, newVerifier(t, Config{JWKSURL: srv.URL}), token)
	})
	t.Run("https with a root of its own", func(t *testing.T) {
		srv := httptest.NewTLSServer(serveKeys(doc))
		defer srv.Close()
		config := srv.Client().Transport.(*http.Transport).TLSClientConfig
		transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
		accepted(t, newVerifier(t, Config{JWKSURL: srv.URL, Transport: transport}), token)
	})
	t.Run("https that nobody vouches for", func(t *testing.T) {
		srv := httptest.NewUnstartedServer(serveKeys(doc))
		srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		srv.StartTLS()
		defer srv.Close()
		if _, err := newVerifier(t, Config{JWKSURL: srv.URL}).Verify(t.Context(), token); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a redirect is not followed", func(t *testing.T) {
		inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was followed") }))
		defer inner.Close()
		srv := httptest.NewServer(http.RedirectHandler(inner.URL, http.StatusFound))
		defer srv.Close()
		if _, err := newVerifier(t, Config{JWKSURL: srv.URL}).Verify(t.Context(), token); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}
