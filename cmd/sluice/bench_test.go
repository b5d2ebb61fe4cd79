package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/internal/bench"
)

// realGateway runs a gateway of one node and returns its address.
func realGateway(t *testing.T, args ...string) (url string) {
	t.Helper()
	p := start(t, strings.NewReader(""), nil, append([]string{"serve", "--listen=127.0.0.1:0", "--admin=", "--log-format=json", "--drain=0s"}, args...)...)
	p.err.await(t, `"msg":"serving"`)
	for line := range strings.Lines(p.err.String()) {
		var v struct{ Msg, URL string }
		if json.Unmarshal([]byte(line), &v) == nil && v.Msg == "serving" {
			return v.URL
		}
	}
	t.Fatalf("no address in %s", p.err)
	return ""
}

// shortly makes a measurement short.
func shortly(args ...string) []string {
	return append([]string{"bench", "--streams=20", "--rooms=4", "--publishers=2", "--duration=300ms", "--warmup=100ms", "--grace=300ms"}, args...)
}

func TestBenchPassesAGoodGateway(t *testing.T) {
	t.Parallel() // it mostly waits
	url := realGateway(t)
	stdout, stderr := sluice(t, 0, shortly("--url", url, "--rate=100", "--payload=1KiB")...)
	for _, want := range []string{"20 of 20 open", "published  30 in", "delivered  150 of 150 due", "verdict    good"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
	if stderr != "" {
		t.Errorf("stderr is not a terminal, and says %q", stderr)
	}

	stdout, _ = sluice(t, 0, shortly("--url", url, "--rate=0", "--json")...)
	var r bench.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v in:\n%s", err, stdout)
	}
	if !r.OK() || r.Delivered.Count != r.Published.Count*5 {
		t.Errorf("flat out: %+v %+v %+v", r.Published, r.Delivered, r.Verdict)
	}
}

// forgetful takes messages and delivers none.
func forgetful(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "event: sluice.open\ndata: {}\nid: x-0\n\n")
	http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func TestBenchFailsAGatewayThatLoses(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(forgetful))
	defer srv.Close()
	defer srv.CloseClientConnections()
	stdout, stderr := sluice(t, 1, shortly("--url", srv.URL, "--rate=100")...)
	if !strings.Contains(stdout, "BAD: 200 deliveries lost") || !strings.Contains(stderr, "did not pass") {
		t.Errorf("stdout:\n%s\nstderr: %s", stdout, stderr)
	}
	_, stderr = sluice(t, 1, shortly("--subscribe-template=http://127.0.0.1:1/{room}")...)
	if !strings.Contains(stderr, "no stream could be opened: connect: connection refused") {
		t.Errorf("nothing listens: %s", stderr)
	}
}

func TestBenchSendsHeadersAndTemplates(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case seen <- r:
		default:
		}
		forgetful(w, r)
	}))
	defer srv.Close()
	defer srv.CloseClientConnections()
	sluice(t, 1, shortly("--url", srv.URL+"/base/", "--token=abc", "--streams=1", "--rooms=1", "--publishers=1",
		"--subscribe-template=/sub?topic={room}", "--publish-template="+srv.URL+"/pub", "--room-name=chat",
		"--header=X-A: 1, 2", "--header=X-B:3", "--publish-header=Content-Type: application/json", `--body={"to":"{room}","text":"{msg}"}`)...)
	sub, pub := <-seen, <-seen
	if sub.URL.String() != "/base/sub?topic=chat-0" || pub.URL.String() != "/pub" {
		t.Errorf("streams of %s, publications to %s", sub.URL, pub.URL)
	}
	for _, r := range []*http.Request{sub, pub} {
		if r.Header.Get("X-A") != "1, 2" || r.Header.Get("X-B") != "3" || r.Header.Get("Authorization") != "Bearer abc" {
			t.Errorf("%s has %v", r.Method, r.Header)
		}
	}
	if pub.Header.Get("Content-Type") != "application/json" || sub.Header.Get("Content-Type") != "" {
		t.Errorf("content types %q and %q", pub.Header.Get("Content-Type"), sub.Header.Get("Content-Type"))
	}
}

func TestBenchWrongUseIsExitCodeTwo(t *testing.T) {
	for _, c := range []struct{ arg, want string }{
		{"--url=localhost", "--url"}, {"--streams=0", "--streams"}, {"--rooms=-1", "--rooms"}, {"--duration=0s", "--duration"},
		{"--header=no colon", "--header"}, {"--publish-header=a b: c", "--publish-header"}, {"--body=hello", "{msg}"},
		{"--subscribe-template=/fixed", "{room}"}, {"--rate=-1", "rate"}, {"--payload=lots", "--payload"},
	} {
		_, stderr := sluice(t, 2, shortly(c.arg)...)
		if !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: %q, want one line with %q", c.arg, stderr, c.want)
		}
	}
}

func TestStatusLineIsWrittenOverAndRemoved(t *testing.T) {
	var out strings.Builder
	line := &statusLine{w: &out}
	line.clear()
	line.show(progressText(bench.Progress{Stage: "measuring", Open: 5, Streams: 10, Published: 3, Delivered: 15, Errors: 1, Left: 1400 * time.Millisecond}))
	line.show("b")
	line.clear()
	line.clear()
	want := "\r\x1b[Kmeasuring   5 of 10 streams open  3 published  15 delivered  1 errors  1 s left\r\x1b[Kb\r\x1b[K"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
