package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// measure runs c on both engines.
func measure(t *testing.T, h *hub, change func(*Config), check func(t *testing.T, r *Report)) {
	t.Helper()
	for _, portable := range []bool{false, true} {
		name := "epoll"
		if portable {
			name = "portable"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &hub{deliver: h.deliver, take: h.take, limit: h.limit, refuse: h.refuse, head: h.head}
			c := config(h.start(t, false))
			c.Portable = portable
			if change != nil {
				change(&c)
			}
			r, err := Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			check(t, r)
			if t.Failed() {
				var text bytes.Buffer
				r.WriteText(&text)
				t.Log(text.String())
			}
		})
	}
}

func TestGoodGatewayGetsAGoodVerdict(t *testing.T) {
	t.Parallel()
	measure(t, &hub{}, func(c *Config) { c.Warmup = 50 * time.Millisecond }, func(t *testing.T, r *Report) {
		if !r.OK() || len(r.Errors) > 0 {
			t.Errorf("verdict %+v, errors %v", r.Verdict, r.Errors)
		}
		if r.Published.Count != 100 {
			t.Errorf("published %d, want 100: 400 a second for 250 ms", r.Published.Count)
		}
		if r.Delivered.Count != 300 || r.Delivered.Due != 300 {
			t.Errorf("delivered %d of %d, want each message three times", r.Delivered.Count, r.Delivered.Due)
		}
		if r.Latency.P50 <= 0 || r.Latency.Max < r.Latency.P99 || r.Delivered.PerSecond <= 0 {
			t.Errorf("latency %+v, %v deliveries a second", r.Latency, r.Delivered.PerSecond)
		}
	})
}

func TestFaultsAreCounted(t *testing.T) {
	t.Parallel()
	var held sync.Map // messages by run and room: there is one stream in each room here
	h := &hub{deliver: func(n int, data string) []string {
		switch n {
		case 5:
			return nil
		case 7:
			return []string{data, data}
		case 9:
			held.Store(data[:atPub], data)
			return nil
		case 10:
			earlier, _ := held.Load(data[:atPub])
			return []string{data, earlier.(string)}
		case 12:
			return []string{strings.Replace(data, "x", "y", 1)}
		case 14:
			return []string{data, "something else"}
		}
		return []string{data}
	}}
	measure(t, h, func(c *Config) { c.Streams = 2 }, func(t *testing.T, r *Report) {
		want := Verdict{Lost: 2 * 2, Doubled: 2, Reordered: 2, Corrupt: 2, Foreign: 2}
		if r.Verdict != want {
			t.Errorf("got %+v, want %+v (a corrupt message is lost, too)", r.Verdict, want)
		}
		if r.OK() {
			t.Error("the verdict is good")
		}
	})
}

func TestStreamsResumeWhereTheyEnded(t *testing.T) {
	t.Parallel()
	measure(t, &hub{limit: 13}, nil, func(t *testing.T, r *Report) {
		if !r.Verdict.Faultless() {
			t.Errorf("verdict %+v", r.Verdict)
		}
		if r.Streams.Resumed == 0 || r.Errors[errEnded.Error()] == 0 {
			t.Errorf("resumed %d times, errors %v", r.Streams.Resumed, r.Errors)
		}
	})
}

func TestStreamsLeftAloneLoseWhatComesAfter(t *testing.T) {
	t.Parallel()
	measure(t, &hub{limit: 13}, func(c *Config) { c.NoResume = true }, func(t *testing.T, r *Report) {
		// 50 messages a room, three streams a room, 13 delivered to each.
		if want := int64((50 - 13) * 6); r.Verdict.Lost != want {
			t.Errorf("lost %d, want %d", r.Verdict.Lost, want)
		}
	})
}

func TestUnclearAnswersAreNeitherLostNorDoubled(t *testing.T) {
	t.Parallel()
	take := func(n int) (int, bool) {
		switch n % 10 {
		case 3:
			return 503, false
		case 6:
			return 503, true
		case 8:
			return 400, false
		}
		return 201, true
	}
	measure(t, &hub{take: take}, func(c *Config) { c.Rate = 0; c.Duration = time.Second }, func(t *testing.T, r *Report) {
		if !r.OK() {
			t.Errorf("verdict %+v", r.Verdict)
		}
		if r.Published.Refused == 0 || r.Published.InDoubt == 0 {
			t.Errorf("published %+v", r.Published)
		}
		if r.Errors["publish: status 503"] != r.Published.InDoubt {
			t.Errorf("errors %v, in doubt %d", r.Errors, r.Published.InDoubt)
		}
	})
}

func TestFlatOutIsAsFastAsDeliveriesAllow(t *testing.T) {
	t.Parallel()
	change := func(c *Config) { c.Rate, c.Window, c.Publishers = 0, 16, 4 }
	measure(t, &hub{}, change, func(t *testing.T, r *Report) {
		if !r.OK() || r.Published.Count < 10 {
			t.Errorf("published %d, verdict %+v", r.Published.Count, r.Verdict)
		}
	})
}

func TestRefusedStreamsAreReported(t *testing.T) {
	t.Parallel()
	for _, portable := range []bool{false, true} {
		c := config((&hub{head: func() int { return 403 }}).start(t, false))
		c.Portable = portable
		_, err := Run(t.Context(), c)
		if !errors.Is(err, ErrNothingOpened) || !strings.Contains(err.Error(), "403") {
			t.Errorf("portable %v: got %v, want the refusal", portable, err)
		}
	}
}

func TestStreamsThatFailAtFirstAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, portable := range []bool{false, true} {
		var n atomic.Int64
		c := config((&hub{head: func() int {
			if n.Add(1) <= 2 {
				return 503
			}
			return 200
		}}).start(t, false))
		c.Portable = portable
		r, err := Run(t.Context(), c)
		if err != nil || !r.OK() || r.Errors["status 503"] != 2 {
			t.Errorf("portable %v: %+v, %v", portable, r, err)
		}
	}
}

func TestStreamsRefusedByByeAreNotOpen(t *testing.T) {
	t.Parallel()
	measure(t, &hub{refuse: 4}, nil, func(t *testing.T, r *Report) {
		if !r.OK() || r.Streams.Opened != 6 || r.Streams.Resumed != 0 {
			t.Errorf("%+v, verdict %+v", r.Streams, r.Verdict)
		}
		if r.Errors["stream ended by the server: sluice.bye, overload"] != 4 {
			t.Errorf("errors %v", r.Errors)
		}
	})
}

func TestNothingListening(t *testing.T) {
	t.Parallel()
	srv := (&hub{}).start(t, false)
	c := config(srv)
	c.Patience = 50 * time.Millisecond
	srv.Close()
	for _, c.Portable = range []bool{false, true} {
		_, err := Run(t.Context(), c)
		if !errors.Is(err, ErrNothingOpened) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v, want connection refused", err)
		}
	}
}

func TestTLSIsMeasuredToo(t *testing.T) {
	t.Parallel()
	srv := (&hub{}).start(t, true)
	c := config(srv)
	c.TLS = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	c.Subscribe = strings.Replace(c.Subscribe, "127.0.0.1", "localhost", 1)
	c.TLS.ServerName = "example.com"
	c.TLS.InsecureSkipVerify = true
	if r, err := Run(t.Context(), c); err != nil || !r.OK() {
		t.Errorf("%+v, %v", r, err)
	}
	c.TLS = &tls.Config{}
	if _, err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want a complaint about the certificate", err)
	}
}

func TestInterruptedRunStillReports(t *testing.T) {
	t.Parallel()
	c := config((&hub{}).start(t, false))
	c.Duration = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	c.Progress = func(p Progress) {
		if p.Delivered > 10 {
			cancel()
		}
	}
	r, err := Run(ctx, c)
	if err != nil || !r.Interrupted || !r.OK() || r.Published.Count == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestHoldingStreamsOnly(t *testing.T) {
	t.Parallel()
	c := config((&hub{}).start(t, false))
	c.Publish = ""
	r, err := Run(t.Context(), c)
	if err != nil || !r.OK() || r.Streams.Opened != 6 || r.Published.Count != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestOtherHubsAreMeasuredByTemplates(t *testing.T) {
	t.Parallel()
	c := config((&hub{}).start(t, false))
	c.Body = `{"topic":"{room}","data":"{msg}"}`
	c.PublishHeader = []Header{{"Content-Type", "application/json"}, {"X-Room", "{room}"}}
	r, err := Run(t.Context(), c)
	if err != nil || !r.OK() || r.Delivered.Count != 300 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWrongUseIsFoundBeforeAnythingIsOpened(t *testing.T) {
	t.Parallel()
	good := Config{Subscribe: "http://127.0.0.1:1/{room}", Publish: "http://127.0.0.1:1/{room}"}
	for name, change := range map[string]func(*Config){
		"no scheme":       func(c *Config) { c.Subscribe = "127.0.0.1/{room}" },
		"another scheme":  func(c *Config) { c.Publish = "ftp://127.0.0.1/{room}" },
		"credentials":     func(c *Config) { c.Subscribe = "http://ann:secret@127.0.0.1/{room}" },
		"body":            func(c *Config) { c.Body = "hello" },
		"rooms, no place": func(c *Config) { c.Subscribe, c.Rooms = "http://127.0.0.1/", 2 },
		"negative rate":   func(c *Config) { c.Rate = -1 },
		"negative time":   func(c *Config) { c.Duration = -1 },
		"no streams":      func(c *Config) { c.Streams = -1 },
		"port":            func(c *Config) { c.Subscribe = "http://127.0.0.1:99999/{room}" },
		"files":           func(c *Config) { c.Streams = 1 << 20; c.Publishers = 1 << 16; c.Portable = true; c.Streams = -5 },
	} {
		c := good
		change(&c)
		if _, err := Run(t.Context(), c); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: got %v, want %v", name, err, ErrUsage)
		}
	}
}

func TestStrangersAreWarnedAbout(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]int{"http://127.0.0.1/{room}": 0, "http://[::1]/": 0, "http://192.0.2.1/": 1} {
		warned := 0
		_, err := newPlan(t.Context(), Config{Subscribe: url, Warn: func(string) { warned++ }, Payload: MinPayload, Streams: 1}.withDefaults())
		if err != nil || warned != want {
			t.Errorf("%s: %d warnings (%v), want %d", url, warned, err, want)
		}
	}
}

func TestSourcesArePutOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url     string
		streams int
		want    int
	}{
		{"http://127.0.0.1/", 1000, 1}, {"http://127.0.0.1/", 1001, 2}, {"http://127.0.0.1/", 15_000, 15},
		{"http://[::1]/", 15_000, 0}, {"http://192.0.2.1/", 15_000, 0},
	} {
		p, err := newPlan(t.Context(), Config{Subscribe: c.url, Streams: c.streams}.withDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if manySources && p.sources != c.want {
			t.Errorf("%s, %d streams: %d sources, want %d", c.url, c.streams, p.sources, c.want)
		}
	}
}

func TestReportSaysTheSameInBothForms(t *testing.T) {
	t.Parallel()
	r := &Report{
		Publish: "x", Rate: 100, Payload: 150,
		Streams:   Streams{Wanted: 10, Opened: 9},
		Published: Published{Count: 5, Behind: 20},
		Verdict:   Verdict{Lost: 7, Announced: 3, Doubled: 1},
		Errors:    map[string]int64{"publish: status 429 (rate limited)": 4},
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"9 of 10 open", "20 ms behind", "4 x publish: status 429", "--publish-rate",
		"BAD: 1 streams could not be opened; 7 deliveries lost (the gateway announced 3 by sluice.gap); 1 doubled",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(raw, &back); err != nil || back.Verdict != r.Verdict {
		t.Errorf("%s: %v", raw, err)
	}
}
