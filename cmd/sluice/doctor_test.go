package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cmd/sluice/internal/doctor"
)

func TestDoctorFindsADirectWayGood(t *testing.T) {
	t.Parallel() // it mostly waits
	gateway := realGateway(t, "--heartbeat=200ms")
	stdout, stderr := sluice(t, 0, "doctor", gateway, "--idle=4s")
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
	report := reported(t, []byte(stdout))
	if report.Good != (code == 0) || stderr == "" != report.Good {
		t.Errorf("exit code %d, good %v, stderr %q", code, report.Good, stderr)
	}
	return byCheck(report)
}

// reported reads what --json prints.
func reported(t *testing.T, out []byte) (r doctor.Report) {
	t.Helper()
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v in:\n%s", err, out)
	}
	return r
}

func byCheck(r doctor.Report) map[string]doctor.Finding {
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

// examinedAsProcess is examined for a way that is good, in a process of its
// own, whose environment holds more.
func examinedAsProcess(t *testing.T, env []string, args ...string) doctor.Report {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"doctor", "--json"}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return reported(t, out)
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

func TestDoctorGoesThroughTheProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	file := certificatePair(t)
	const secret = "a secret that is long enough for HS256"
	gateway := strings.TrimPrefix(realGateway(t, "--tls-cert="+file, "--tls-key="+file, "--jwt-secret="+secret), "https://")
	token, _ := sluice(t, 0, "token", "--secret="+secret, "--sub=doctor", "--subscribe=doctor-*", "--publish=doctor-*", "--for=1h")
	asked := make(chan string, 100)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.Method + " " + r.Host:
		default:
		}
		tunnel(w, gateway)
	}))
	defer proxy.Close()
	report := examinedAsProcess(t, []string{"HTTPS_PROXY=" + proxy.URL, "NO_PROXY=", "SLUICE_TOKEN=" + strings.TrimSpace(token)}, "https://gateway.example.com", "--insecure", "--quick")
	found := byCheck(report)
	expect(t, found, "reach", doctor.OK, "through "+proxy.URL)
	expect(t, found, "http", doctor.OK, "HTTP/2.0")
	expect(t, found, "opening", doctor.OK, "HTTP/1.1:", "HTTP/1.1, gzip offered:", "HTTP/2:", "HTTP/2, gzip offered:")
	expect(t, found, "prompt", doctor.OK)
	expect(t, found, "leaving", doctor.OK)
	if got := <-asked; got != "CONNECT gateway.example.com:443" || report.Proxy != proxy.URL {
		t.Errorf("the proxy was asked to %s; the report says %q", got, report.Proxy)
	}
}

// tunnel joins a client that said CONNECT with an address, until either ends.
func tunnel(w http.ResponseWriter, address string) {
	up, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer up.Close()
	down, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer down.Close()
	io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
	var pipes sync.WaitGroup
	pipe := func(to, from net.Conn) {
		io.Copy(to, from)
		to.Close()
	}
	pipes.Go(func() { pipe(up, down) })
	pipes.Go(func() { pipe(down, up) })
	pipes.Wait()
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
