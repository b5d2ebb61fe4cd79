package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
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
	want(t, r, "tls", OK, "TLS 1.3", `"h2"`, "more days")
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
	want(t, r, "prompt", Bad, "after 47 KiB more", "application/x-ndjson is prompt")
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
		o.pace.opening, o.pace.patience, o.pace.gap = 3*time.Second, 3*time.Second, 250*time.Millisecond
	})
	want(t, r, "prompt", Bad, "HAProxy", "option http-no-delay")
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
	before := f.carried
	r = examine(t, secure.URL, through)
	wantGood(t, r)
	want(t, r, "opening", OK, "HTTP/2:")
	if f.carried == before {
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
	want(t, r, "publish", Warn, "403", "--token")
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
