package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/internal/doctor"
)

func TestDoctorFindsADirectWayGood(t *testing.T) {
	t.Parallel() // it mostly waits
	gateway := realGateway(t, "--heartbeat=200ms")
	stdout, stderr := sluice(t, 0, "doctor", gateway, "--idle=1s")
	for _, want := range []string{"ok   prompt", "ok   resume", "ok   idle", "ok   leaving", "warn http", "the way is good"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
	if stderr != "" {
		t.Errorf("stderr is not a terminal, and says %q", stderr)
	}
}

// examined runs the doctor and reads its findings.
func examined(t *testing.T, code int, args ...string) map[string]doctor.Finding {
	t.Helper()
	stdout, stderr := sluice(t, code, append([]string{"doctor", "--json"}, args...)...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v in:\n%s\nstderr: %s", err, stdout, stderr)
	}
	if r.Good != (code == 0) {
		t.Errorf("exit code %d, good %v", code, r.Good)
	}
	found := map[string]doctor.Finding{}
	for _, f := range r.Findings {
		found[f.Check] = f
	}
	return found
}

// expect checks a finding's level, and that it says all of the words.
func expect(t *testing.T, found map[string]doctor.Finding, check string, level doctor.Level, words ...string) {
	t.Helper()
	f := found[check]
	if f.Level != level {
		t.Errorf("%s is %q, want %q:\n%s", check, f.Level, level, f)
	}
	for _, w := range words {
		if !strings.Contains(f.Seen+f.Means+f.Do, w) {
			t.Errorf("%s says nothing of %q:\n%s", check, w, f)
		}
	}
}

func TestDoctorFindsABufferingProxyBad(t *testing.T) {
	t.Parallel()
	to, err := url.Parse(realGateway(t))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	hoard := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			whole, err := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(whole)))
			return err
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {},
	}
	srv := httptest.NewServer(hoard)
	defer srv.Close()
	defer srv.CloseClientConnections()
	found := examined(t, 1, srv.URL, "--idle=1s")
	expect(t, found, "opening", doctor.Bad, "not even headers")
	expect(t, found, "prompt", doctor.Bad, "no event came")
	expect(t, found, "long poll", doctor.OK)
	expect(t, found, "resume", doctor.OK)
}

func TestDoctorGoesThroughTheProxyItIsTold(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.String():
		default:
		}
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer proxy.Close()
	found := examined(t, 1, "http://gateway.example.com", "--proxy", proxy.URL, "--quick")
	expect(t, found, "reach", doctor.OK, "status 403", proxy.URL)
	expect(t, found, "stream", doctor.Bad, "status 403")
	if got := <-asked; got != "http://gateway.example.com/healthz" {
		t.Errorf("the proxy was asked for %s", got)
	}
}

func TestDoctorWrongUseIsExitCodeTwo(t *testing.T) {
	for _, args := range [][]string{
		{}, {"localhost:8080"}, {"ftp://localhost"}, {"http://localhost", "--proxy=localhost:3128"},
		{"http://localhost", "--idle=0s"}, {"http://localhost", "--token=a b"}, {"http://localhost", "http://localhost"},
	} {
		_, stderr := sluice(t, 2, append([]string{"doctor"}, args...)...)
		if strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: %q, want one line", args, stderr)
		}
	}
}

func TestDoctorShowsNoControlCharactersOfStrangers(t *testing.T) {
	f := findingText(doctor.Finding{Check: "reach", Level: doctor.OK, Seen: "Server: \x1b[2J"})
	if strings.Contains(f, "\x1b") {
		t.Errorf("got %q", f)
	}
	if got := doctorProgress(doctor.Progress{Stage: "holding", Elapsed: 45 * time.Second, Total: 2 * time.Minute}); got != "holding: 45 of 120 s …" {
		t.Errorf("progress is %q", got)
	}
}
