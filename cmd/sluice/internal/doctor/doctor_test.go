package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func honest(t *testing.T) *httptest.Server {
	return serve(t, &gateway{heartbeat: beat}, nil)
}

func TestDirectWayIsGood(t *testing.T) {
	t.Parallel()
	r := examine(t, honest(t).URL, nil)
	wantGood(t, r, "http")
	want(t, r, "http", Warn, "six connections")
	want(t, r, "opening", OK, "HTTP/1.1", "gzip offered", "NDJSON")
	want(t, r, "prompt", OK)
	want(t, r, "publish", OK, "4 events")
	want(t, r, "sharing", OK, "3 different streams")
	want(t, r, "resume", OK, "Last-Event-ID arrives")
	want(t, r, "long poll", OK)
	want(t, r, "body", OK, "900 KiB")
	want(t, r, "idle", OK, "open for 1.5 s", "heartbeats")
	want(t, r, "silent poll", OK)
	want(t, r, "leaving", OK)
	want(t, r, "clock", OK)
	if len(r.Streams) != 3 || len(r.Streams[0].DelaysMS) != 4 || r.Streams[0].DelaysMS[3] == nil || r.Streams[0].Padding != 2048 {
		t.Errorf("streams: %+v", r.Streams)
	}
	if len(r.NotDone) > 0 {
		t.Errorf("not done: %q", r.NotDone)
	}
}

func TestQuickLeavesOutWhatTakesLong(t *testing.T) {
	t.Parallel()
	r := examine(t, honest(t).URL, func(o *Options) { o.Quick = true; o.Idle = time.Hour })
	wantGood(t, r, "http")
	if !slices.ContainsFunc(r.NotDone, func(s string) bool { return strings.HasPrefix(s, "idle") }) {
		t.Errorf("not done: %q", r.NotDone)
	}
}

func TestTLSAndHTTP2AreLookedAt(t *testing.T) {
	t.Parallel()
	srv := serve(t, &gateway{heartbeat: beat}, func(s *httptest.Server) {
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{}
	})
	r := examine(t, srv.URL, func(o *Options) { o.Insecure = true })
	wantGood(t, r)
	want(t, r, "tls", OK, "TLS 1.3", `"h2"`, "more days") // httptest's is good for decades
	want(t, r, "http", OK, "HTTP/2.0")
	want(t, r, "opening", OK, "HTTP/1.1:", "HTTP/2:", "HTTP/2, gzip offered:")
	want(t, r, "sharing", OK, "5 different streams")

	r = examine(t, srv.URL, nil)
	want(t, r, "reach", Bad, "certificate", "--insecure", "Acme Co")
	if r.Good || len(r.Findings) != 1 {
		t.Errorf("%d findings about a gateway that was not reached", len(r.Findings))
	}
}

func TestProxyThatBuffersEverything(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, nil, hoard(0, nil))
	r := examine(t, srv.URL, nil)
	if r.Good {
		t.Error("the way is good")
	}
	want(t, r, "opening", Bad, "HTTP/1.1: never; not even headers", "the gateway has 3 streams open")
	want(t, r, "prompt", Bad, "no event came", "KiB more did not move it")
	want(t, r, "resume", OK)
	want(t, r, "long poll", OK)
	want(t, r, "leaving", OK)
}

func TestSizeOfABufferIsMeasured(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, nil, hoard(40<<10, isStream))
	r := examine(t, srv.URL, func(o *Options) { o.Quick = true })
	want(t, r, "prompt", Bad, "after 48 KiB more", "application/x-ndjson is prompt", "until then clients can read the stream with fetch()")
}

func TestProxyThatHoldsOnlyTheBeginning(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, func(p *httputil.ReverseProxy) {
		p.ModifyResponse = func(r *http.Response) error {
			beginning, err := io.ReadAll(io.LimitReader(r.Body, 40<<10))
			r.Body = body{io.MultiReader(bytes.NewReader(beginning), r.Body), r.Body}
			return err
		}
	}, nil)
	r := examine(t, srv.URL, func(o *Options) { o.Quick = true })
	want(t, r, "prompt", Bad, "after 48 KiB more", "from then on events came promptly", "only the beginning", "--padding 64KiB")
}

func TestProxyThatCompressesAndFlushesIsFine(t *testing.T) {
	t.Parallel()
	r := examine(t, inFront(t, honest(t).URL, nil, pack(true)).URL, func(o *Options) { o.Quick = true })
	wantGood(t, r, "http")
	want(t, r, "prompt", OK, "packed with gzip on the way")
}

func TestProxyThatCompressesAndDoesNotFlush(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, func(p *httputil.ReverseProxy) {
		p.ModifyResponse = func(r *http.Response) error {
			r.Header.Set("Server", "Caddy")
			return nil
		}
	}, pack(false))
	r := examine(t, srv.URL, func(o *Options) { o.Quick = true })
	want(t, r, "opening", Bad, "gzip offered: never; headers after", "encode")
	want(t, r, "prompt", Bad, "only where compression is offered", "update Caddy")
	want(t, r, "resume", OK)
	if r.Good {
		t.Error("the way is good, though every browser offers compression")
	}
}

func TestProxyThatCutsStreams(t *testing.T) {
	t.Parallel()
	r := examine(t, inFront(t, honest(t).URL, nil, cut(time.Second)).URL, func(o *Options) { o.Idle = 2 * time.Second })
	want(t, r, "idle", Bad, "cut after 1.", "heartbeats", "timeouts")
	want(t, r, "prompt", OK)
	if r.Good {
		t.Error("the way is good")
	}
}

func TestProxyThatDropsLastEventID(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, func(p *httputil.ReverseProxy) {
		direct := p.Rewrite
		p.Rewrite = func(r *httputil.ProxyRequest) {
			direct(r)
			r.Out.Header.Del("Last-Event-ID")
		}
	}, nil)
	r := examine(t, srv.URL, func(o *Options) { o.Quick = true })
	want(t, r, "resume", Bad, "Last-Event-ID does not arrive, the cursor in the query arrives", "EventSource")
}

func TestProxyThatDropsTheQuery(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, func(p *httputil.ReverseProxy) {
		direct := p.Rewrite
		p.Rewrite = func(r *httputil.ProxyRequest) {
			direct(r)
			q := r.Out.URL.Query()
			q.Del("lastEventId")
			q.Del("after")
			r.Out.URL.RawQuery = q.Encode()
		}
	}, nil)
	r := examine(t, srv.URL, func(o *Options) { o.Quick = true })
	want(t, r, "resume", Warn, "Last-Event-ID arrives, the cursor in the query does not arrive")
}

func TestProxyThatHidesWhoLeft(t *testing.T) {
	t.Parallel()
	ctx, release := context.WithCancel(t.Context())
	defer release()
	r := examine(t, inFront(t, honest(t).URL, nil, cling(ctx)).URL, nil)
	want(t, r, "leaving", Bad, "not noticed within 500 ms", "--max-age")
	want(t, r, "prompt", OK)
}

func TestProxyThatIsLate(t *testing.T) {
	t.Parallel()
	// A heartbeat would keep this proxy busy.
	origin := serve(t, &gateway{heartbeat: time.Hour}, nil)
	srv := inFront(t, origin.URL, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(&late{w, 200 * time.Millisecond}, r)
		})
	})
	r := examine(t, srv.URL, func(o *Options) {
		o.Quick = true
		o.pace.opening, o.pace.patience = 3*time.Second, 3*time.Second
	})
	want(t, r, "prompt", Bad) // by whom, a busy machine may hide; the next test tells
}

// TestDelaysTellWhoIsLate judges events that came when the table says, which no
// machine is too busy for.
func TestDelaysTellWhoIsLate(t *testing.T) {
	const rtt = 5
	for _, c := range []struct {
		name  string
		took  map[protocol][]int // ms of each event, on a stream of that protocol
		from  product
		level Level
		words string // of the finding
	}{
		{"at once", map[protocol][]int{http1: {6, 6, 7, 6}}, generic(), OK, "nothing holds events back"},
		{"once late", map[protocol][]int{http1: {6, 900, 7, 6}}, generic(), OK, "900 ms at worst"},
		{"as HAProxy", map[protocol][]int{http1: {206, 211, 210, 213}}, generic(), Bad, "option http-no-delay"},
		{"as HAProxy on a busy machine", map[protocol][]int{http1: {900, 1400, 230, 1300}}, generic(), Bad, "option http-no-delay"},
		{"as HAProxy, but not over HTTP/2", map[protocol][]int{http1: {206, 211, 210, 213}, http2: {6, 6, 7, 6}}, generic(), Bad, "over HTTP/2 none does"},
		{"as HAProxy, but it is another", map[protocol][]int{http1: {206, 211, 210, 213}}, nginx(), Bad, "proxy_buffering off"},
		{"over HTTP/2 too", map[protocol][]int{http1: {206, 211, 210, 213}, http2: {206, 211, 210, 213}}, generic(), Bad, "collects bytes for a while"},
		{"each second", map[protocol][]int{http1: {1000, 700, 400, 100}}, generic(), Bad, "collects bytes for a while"},
		{"each much later", map[protocol][]int{http1: {600, 601, 600, 602}}, generic(), Bad, "collects bytes for a while"},
	} {
		x := &examination{rtt: rtt * time.Millisecond, product: c.from, Options: Options{pace: pace{}.withDefaults()}}
		began := time.Now()
		sent := make([]time.Time, 4)
		for n := range sent {
			sent[n] = began.Add(time.Duration(n) * 300 * time.Millisecond)
		}
		for proto, took := range c.took {
			p := &probe{variant: &variant{name: string(proto), proto: proto}}
			for n, ms := range took {
				p.seen.arrivals = append(p.seen.arrivals, arrival{n, sent[n].Add(time.Duration(ms) * time.Millisecond)})
			}
			x.streams = append(x.streams, p)
		}
		x.judgeDelays(t.Context(), sent)
		f := x.report.Findings[0]
		if text := f.Seen + f.Means + f.Do; f.Level != c.level || !strings.Contains(text, c.words) {
			t.Errorf("%s, %v: %s\nwant %s with %q", c.name, c.took, f, c.level, c.words)
		}
	}
}

func TestAWayThatIsFarHoldsNothingBack(t *testing.T) {
	x := &examination{rtt: 1200 * time.Millisecond, posting: 1500 * time.Millisecond, Options: Options{pace: pace{}.withDefaults()}}
	for after, want := range map[time.Duration]bool{1400 * time.Millisecond: true, 1800 * time.Millisecond: true, 2500 * time.Millisecond: false} {
		if got := x.prompt(delays{took: []time.Duration{after}}); got != want {
			t.Errorf("events after %s where a POST takes 1.5 s: prompt is %v, want %v", after, got, want)
		}
	}
}

func TestAWayThatIsSlowAtTheBeginningIsNotTakenForAProxyThatCollects(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/events") && r.Method == http.MethodGet {
				time.Sleep(700 * time.Millisecond) // this is what the way does, no test waits for it
			}
			next.ServeHTTP(w, r)
		})
	})
	r := examine(t, srv.URL, func(o *Options) {
		o.Quick = true
		o.pace.soon, o.pace.opening, o.pace.prompt = 100*time.Millisecond, 10*time.Second, time.Second
	})
	want(t, r, "opening", Warn, "which is late", "not held back", "--padding 0")
	want(t, r, "prompt", OK)
}

func TestProxyThatSharesStreams(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, func(p *httputil.ReverseProxy) {
		p.ModifyResponse = func(r *http.Response) error {
			r.Body = &renamed{r.Body}
			return nil
		}
	}, nil)
	r := examine(t, srv.URL, func(o *Options) { o.Quick = true })
	want(t, r, "sharing", Bad, "cache")
}

func TestProxyThatTakesSmallBodiesOnly(t *testing.T) {
	t.Parallel()
	srv := inFront(t, honest(t).URL, nil, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Server", "nginx/1.22.1")
			if r.ContentLength > 100<<10 {
				http.Error(w, "too large", http.StatusRequestEntityTooLarge)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	r := examine(t, srv.URL, func(o *Options) { o.Quick = true })
	want(t, r, "body", Bad, "60 KiB taken, 900 KiB not: status 413", "client_max_body_size")
}

func TestLimitOfTheGatewayIsNotTheWays(t *testing.T) {
	t.Parallel()
	r := examine(t, serve(t, &gateway{heartbeat: beat, maxBody: 2 << 10}, nil).URL, func(o *Options) { o.Quick = true })
	want(t, r, "body", OK, "1 KiB taken, 60 KiB not: status 413, by the gateway itself")
}

func TestForwardProxyIsUsed(t *testing.T) {
	t.Parallel()
	f := &forward{transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(f.transport.CloseIdleConnections)
	proxy := serve(t, f, nil)
	through := func(o *Options) { o.Proxy = parse(t, proxy.URL); o.Quick, o.Insecure = true, true }

	r := examine(t, honest(t).URL, through)
	wantGood(t, r, "http")
	want(t, r, "reach", OK, proxy.URL, "squid")

	secure := serve(t, &gateway{heartbeat: beat}, func(s *httptest.Server) { s.EnableHTTP2 = true; s.TLS = &tls.Config{} })
	before := f.carried.Load()
	r = examine(t, secure.URL, through)
	wantGood(t, r)
	want(t, r, "opening", OK, "HTTP/2:")
	if f.carried.Load() == before {
		t.Error("nothing went through the proxy")
	}
}

func TestTokenIsPresented(t *testing.T) {
	t.Parallel()
	g := &gateway{heartbeat: beat, token: "secret"}
	srv := serve(t, g, nil)
	r := examine(t, srv.URL, nil)
	want(t, r, "stream", Bad, "status 401", "--token")
	r = examine(t, srv.URL, func(o *Options) { o.Token, o.Quick = "secret", true })
	wantGood(t, r, "http")
}

func TestReadOnlyTokenStillTellsSomething(t *testing.T) {
	t.Parallel()
	srv := serve(t, &gateway{heartbeat: beat, readOnly: true}, nil)
	r := examine(t, srv.URL, func(o *Options) { o.Quick = true })
	wantGood(t, r, "http", "publish")
	want(t, r, "publish", Warn, "403, by the gateway itself: You may only read.", "--token")
	want(t, r, "resume", OK, "leads nowhere")
	want(t, r, "leaving", OK)
}

func TestWhatIsNoGatewayIsSaidSo(t *testing.T) {
	t.Parallel()
	page := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("<html>Please log in"))
	}), nil)
	want(t, examine(t, page.URL, nil), "stream", Bad, "text/html", "/rooms/")

	moved := serve(t, http.RedirectHandler("https://elsewhere.example.com/", http.StatusMovedPermanently), nil)
	want(t, examine(t, moved.URL, nil), "reach", Bad, "301", "https://elsewhere.example.com/")

	moved.Close()
	want(t, examine(t, moved.URL, nil), "reach", Bad, "connection refused")

	full := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Write([]byte("retry: 9000\nevent: sluice.bye\ndata: {\"reason\":\"overload\"}\n\n"))
	}), nil)
	want(t, examine(t, full.URL, nil), "stream", Bad, "overload", "--max-streams")
}

func TestClocksAreCompared(t *testing.T) {
	t.Parallel()
	for ago, level := range map[time.Duration]Level{0: OK, time.Minute: Warn, time.Hour: Bad, -time.Hour: Bad} {
		srv := inFront(t, honest(t).URL, func(p *httputil.ReverseProxy) {
			p.ModifyResponse = func(r *http.Response) error {
				r.Header.Set("Date", time.Now().Add(-ago).UTC().Format(http.TimeFormat))
				return nil
			}
		}, nil)
		want(t, examine(t, srv.URL, func(o *Options) { o.Quick = true }), "clock", level)
	}
}

func TestInterruptedExaminationIsNotGood(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{URL: parse(t, honest(t).URL), pace: hurry()}
	o.Found = func(f Finding) {
		if f.Check == "prompt" {
			cancel()
		}
	}
	r, err := Run(ctx, o)
	if !errors.Is(err, context.Canceled) || r == nil || r.Good || len(r.Findings) == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestProgressIsTold(t *testing.T) {
	t.Parallel()
	var stages []string
	examine(t, honest(t).URL, func(o *Options) {
		o.Tell = func(p Progress) { stages = append(stages, p.Stage) }
	})
	for _, want := range []string{"publishing events", "holding silent streams"} {
		if !slices.Contains(stages, want) {
			t.Errorf("no %q in %q", want, stages)
		}
	}
}

func TestFindingsArePrintedAndMarshalled(t *testing.T) {
	t.Parallel()
	f := Finding{Check: "prompt", Level: Bad, Seen: strings.Repeat("long ", 40), Means: "much", Do: "something"}
	for line := range strings.Lines(f.String()) {
		if len(line) > width+1 {
			t.Errorf("%d characters in %q", len(line), line)
		}
	}
	if !strings.HasPrefix(f.String(), "BAD  prompt") || !strings.Contains(f.String(), "do:       something") {
		t.Errorf("got %s", f)
	}
	r := examine(t, honest(t).URL, func(o *Options) { o.Quick = true })
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(r); err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(buf.Bytes(), &back); err != nil || back["good"] != true || len(back["findings"].([]any)) != len(r.Findings) {
		t.Errorf("%s: %v", buf.Bytes(), err)
	}
}

func FuzzOwnEventsAreTold(f *testing.F) {
	f.Add("abc/1.", 1)
	f.Add(`{"data":"abc/12. and more"}`, 12)
	f.Add("abc/.", 0)
	f.Add("abc/99999999999999999999.", 0)
	f.Fuzz(func(t *testing.T, data string, n int) {
		if got, ok := ours("abc", []byte(data)); ok && !strings.Contains(data, "abc/") {
			t.Fatalf("%q: %d", data, got)
		}
		x := examination{tag: "abc"}
		if n < 0 {
			return
		}
		if got, ok := ours("abc", []byte("{"+x.text(n)+data)); !ok || got != n {
			t.Fatalf("%q: got %d %v, want %d", x.text(n), got, ok, n)
		}
	})
}

func TestCertificatesAreJudgedByTheLifeTheyHave(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		life, left time.Duration
		level      Level
		words      string
	}{
		{90 * day, 60 * day, OK, "60 more days"},
		{90 * day, 13 * day, Warn, "13 more days"},
		{12 * time.Hour, 11 * time.Hour, OK, "11 more hours"},
		{12 * time.Hour, 2 * time.Hour, Warn, "2 more hours"},
		{6 * day, 3 * day, OK, "3 more days"},
		{90 * day, -time.Hour, Bad, "it has expired"},
	} {
		end := time.Now().Add(c.left + time.Minute)
		x := &examination{}
		x.certificate(&answer{tls: &tls.ConnectionState{
			Version:          tls.VersionTLS13,
			PeerCertificates: []*x509.Certificate{{NotBefore: end.Add(-c.life), NotAfter: end}},
		}})
		if f := x.report.Findings[0]; f.Level != c.level || !strings.Contains(f.Seen, c.words) {
			t.Errorf("%v of %v left: %s\nwant %s with %q", c.left, c.life, f, c.level, c.words)
		}
	}
}
