package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/fanout/redistest"
)

const installCaddy = "go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9"

// balancer is a Caddy that runs the project's Caddyfile.
type balancer struct {
	url    string
	client *http.Client // trusts it, and no one else
}

// startCaddy puts a Caddy before nodes and returns when it serves.
func startCaddy(t *testing.T, nodes ...*node) *balancer {
	t.Helper()
	path, err := exec.LookPath("caddy")
	if err != nil {
		t.Fatalf("caddy is not installed, and nothing stands in for it here; install it, and put $(go env GOPATH)/bin in PATH: %s", installCaddy)
	}
	home := t.TempDir()
	_, https, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	_, plain, err := net.SplitHostPort(freeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	var addrs []string
	for _, n := range nodes {
		addrs = append(addrs, n.addr)
	}
	cmd := exec.Command(path, "run", "--config", filepath.Join(top, "Caddyfile"), "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home, "SLUICE_CADDY_ADMIN=off",
		"SLUICE_HOST=localhost", "SLUICE_HTTPS_PORT="+https, "SLUICE_HTTP_PORT="+plain, "SLUICE_NODES="+strings.Join(addrs, " "))
	p := launch(t, cmd)
	p.await(t, p.err, "certificate obtained successfully")
	b := &balancer{url: "https://localhost:" + https, client: clientTrusting(t, filepath.Join(home, "caddy/pki/authorities/local/root.crt"))}
	t.Cleanup(b.client.CloseIdleConnections)
	if err := awaitStatus(t.Context(), b.client, b.url+"/readyz", http.StatusOK); err != nil {
		t.Fatal(err)
	}
	return b
}

// clientTrusting gives a client of HTTP/2 for what one authority signed.
func clientTrusting(t *testing.T, path string) *http.Client {
	t.Helper()
	root, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(root) {
		t.Fatalf("no certificate in %s", path)
	}
	transport := newClient().Transport.(*http.Transport)
	transport.ForceAttemptHTTP2 = true
	transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	return &http.Client{Transport: transport}
}

func TestBehindCaddyNothingIsLost(t *testing.T) {
	t.Parallel() // half of its time it waits
	redis := redistest.Start(t)
	a, b := startNode(t, redis.URL()), startNode(t, redis.URL())
	caddy := startCaddy(t, a, b)
	const events, streams = 6_000, 60
	bases, rooms := []string{caddy.url}, roomNames(6)
	tr := newTrial(t, caddy.client, 4*time.Minute)

	tr.read(readersOf(0, streams, bases, rooms)...)
	tr.publish(publishersOf(4, events, bases, rooms)...)
	tr.await("acknowledged", events/4)
	a.kill()
	tr.await("acknowledged", events/2)
	a.start()
	tr.await("acknowledged", 3*events/4)
	b.kill()
	tr.finish(rooms, bases, events)
	if resumed := tr.tally.of("resumed"); resumed < streams {
		t.Errorf("%d streams were resumed; both nodes were killed, and together they had %d", resumed, streams)
	}
	if repeated := tr.tally.of("repeated"); repeated > 0 {
		t.Errorf("%d POSTs had to be sent again by the client; with a key, Caddy may do that", repeated)
	}
	if n := tr.tally.of("HTTP/2.0"); n < 2*streams {
		t.Errorf("%d of the streams went over HTTP/2, want all of at least %d", n, 2*streams)
	}
}

func TestCaddyCompressesEverythingButStreams(t *testing.T) {
	t.Parallel() // it mostly waits
	caddy := startCaddy(t, startNode(t, ""))
	events := caddy.url + "/rooms/lobby/events"
	post(t, caddy.client, events, "text/plain", strings.Repeat("hello ", 1000), http.StatusCreated)
	for _, c := range []struct{ url, accept, encoding string }{
		{caddy.url + "/", "text/html", "gzip"},
		{events + "?limit=10", "application/json", "gzip"},
		{events + "?last=10", "text/event-stream", "identity"},
		{events + "?last=10", "application/x-ndjson", "identity"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", c.accept)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := caddy.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Content-Encoding"); resp.StatusCode != http.StatusOK || got != c.encoding || resp.ProtoMajor != 2 {
			t.Errorf("%s as %s: %s %s, encoded as %q, want %q", c.url, c.accept, resp.Proto, resp.Status, got, c.encoding)
		}
	}
}

func TestCaddyPassesWhatTheGatewayTakesAndNoMore(t *testing.T) {
	t.Parallel() // it mostly waits
	caddy := startCaddy(t, startNode(t, ""))
	line := `{"data":"` + strings.Repeat("x", 1036) + "\"}\n"
	batch := strings.Repeat(line, 1000)
	if len(batch) > 1<<20 || len(batch) < 1<<20-1000 {
		t.Fatalf("the batch has %d bytes, want almost %d", len(batch), 1<<20)
	}
	post(t, caddy.client, caddy.url+"/rooms/lobby/events", "application/x-ndjson", batch, http.StatusCreated)
	post(t, caddy.client, caddy.url+"/rooms/lobby/events", "application/x-ndjson", batch+batch, http.StatusRequestEntityTooLarge)
}

// TestWithoutNodesCaddyBringsStreamsBack: an EventSource that got an error
// would be closed for ever.
func TestWithoutNodesCaddyBringsStreamsBack(t *testing.T) {
	t.Parallel() // it mostly waits, for as long as Caddy looks for a node
	n := startNode(t, "")
	caddy := startCaddy(t, n)
	n.kill()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, caddy.url+"/rooms/lobby/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := caddy.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	b, err := eventStream{bufio.NewReader(bytes.NewReader(body))}.next()
	want := block{event: "sluice.bye", data: `{"reason":"overload"}`, retry: 5 * time.Second}
	if resp.StatusCode != http.StatusOK || err != nil || b != want {
		t.Errorf("a stream without a node: %s, %q (%v), want 200, a time to come back, and %+v", resp.Status, body, err, want)
	}
}

func TestWithoutNodesCaddySaysWhenToPublishAgain(t *testing.T) {
	t.Parallel() // it mostly waits, for as long as Caddy looks for a node
	n := startNode(t, "")
	caddy := startCaddy(t, n)
	n.kill()
	answer := post(t, caddy.client, caddy.url+"/rooms/lobby/events", "text/plain", "hello", http.StatusServiceUnavailable)
	var problem struct {
		Type   string
		Status int
	}
	if err := json.Unmarshal(answer, &problem); err != nil || problem.Status != http.StatusServiceUnavailable || problem.Type != "urn:sluice:unavailable" {
		t.Errorf("a POST without a node was answered by %q (%v)", answer, err)
	}
}

// post sends a body and checks the status of the answer, which it returns.
func post(t *testing.T, client *http.Client, url, contentType, body string, status int) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != status {
		t.Errorf("POST of %d bytes to %s: %s, want %d: %.300s", len(body), url, resp.Status, status, answer)
	}
	return answer
}
