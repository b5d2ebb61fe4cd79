package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// configured is a node with a file, and an operator's listener.
type configured struct {
	*node
	path, admin string
}

func startConfigured(t *testing.T, text string, args ...string) *configured {
	t.Helper()
	c := &configured{path: filepath.Join(t.TempDir(), "sluice.yaml"), admin: freeAddr(t)}
	c.node = &node{t: t, addr: freeAddr(t)}
	c.url = "http://" + c.addr
	c.args = append([]string{"serve", "--config", c.path, "--listen", c.addr, "--admin", c.admin}, args...)
	c.write(text)
	c.start()
	return c
}

func (c *configured) write(text string) {
	c.t.Helper()
	if err := os.WriteFile(c.path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// reload gives the node another file, and waits until it has said n times what
// came of it.
func (c *configured) reload(text, says string, n int) {
	c.t.Helper()
	c.write(text)
	c.proc.signal(c.t, syscall.SIGHUP)
	c.proc.awaitThat(c.t, c.proc.err, says, func(text string) bool { return strings.Count(text, says) == n })
}

// metric gives the value of a line of the node's metrics.
func (c *configured) metric(name string) string {
	c.t.Helper()
	client := newClient()
	defer client.CloseIdleConnections()
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.+)$`).FindStringSubmatch(get(c.t, client, "http://"+c.admin+"/metrics"))
	if found == nil {
		c.t.Fatalf("there is no metric %s", name)
	}
	return found[1]
}

// listen opens a stream and gives it once it has begun.
func listen(t *testing.T, client *http.Client, url string) (eventStream, block) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	s := eventStream{bufio.NewReader(resp.Body)}
	b, err := s.next()
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s begins with %+v, %v, and status %d", url, b, err, resp.StatusCode)
	}
	return s, b
}

// TestANodeThatIsReloadedKeepsItsStreams: limits and namespaces change by
// SIGHUP, for what comes after it; streams go on, and a file that cannot be
// used changes nothing.
func TestANodeThatIsReloadedKeepsItsStreams(t *testing.T) {
	t.Parallel() // it mostly waits
	const before = `
max-body: 1KiB
max-streams-per-ip: 10
max-rooms-per-stream: 1
redis-prefix: a
namespaces: {short: {history-events: 50}}
`
	const after = `
max-body: 4KiB
max-streams-per-ip: 3
max-rooms-per-stream: 2
redis-prefix: b
drain: 3s
namespaces: {live: {ephemeral: true}, short: {history-events: 2}}
`
	n := startConfigured(t, before)
	client := newClient()
	defer client.CloseIdleConnections()
	lobby, body := n.url+"/rooms/lobby/events", strings.Repeat("x", 2<<10)
	var streams []eventStream
	for range 3 {
		s, b := listen(t, client, lobby)
		if b.event != "sluice.open" {
			t.Fatalf("a stream begins with %+v", b)
		}
		streams = append(streams, s)
	}
	post(t, client, lobby, "text/plain", body, http.StatusRequestEntityTooLarge)
	post(t, client, n.url+"/rooms/live:x/events", "text/plain", "kept", http.StatusCreated)
	post(t, client, n.url+"/events?room=a&room=b", "text/plain", "to two", http.StatusBadRequest)

	n.reload(after, "were read again", 1)
	for _, want := range []string{
		`"changed":["max-body","max-rooms-per-stream","max-streams-per-ip","namespaces"]`,
		`"flags":["drain","redis-prefix"]`,
	} {
		n.proc.await(t, n.proc.err, want)
	}
	post(t, client, lobby, "text/plain", body, http.StatusCreated)
	post(t, client, n.url+"/rooms/live:x/events", "text/plain", "gone", http.StatusAccepted)
	post(t, client, n.url+"/events?room=a&room=b", "text/plain", "to two", http.StatusCreated)
	if _, b := listen(t, client, lobby); b.event != "sluice.bye" || !strings.Contains(b.data, "overload") {
		t.Errorf("a fourth stream begins with %+v, want a goodbye, for there may be three now", b)
	}
	for i := range 4 {
		post(t, client, n.url+"/rooms/short:x/events", "text/plain", fmt.Sprint(i), http.StatusCreated)
	}
	if page := get(t, client, n.url+"/rooms/short:x/events?limit=9"); strings.Count(page, `"id"`) != 2 {
		t.Errorf("a room that keeps two events now has %s", page)
	}

	for i, wrong := range []string{
		strings.Replace(after, "4KiB", "4KB", 1),
		strings.Replace(after, "history-events: 2", "history-events: 0", 1),
		after + "max-streams-per-ipp: 1\n",
		after + "max-streams: -1\n",
	} {
		n.reload("max-rooms-per-stream: 9\n"+strings.Replace(wrong, "max-rooms-per-stream: 2\n", "", 1), "stays as it is", i+1)
	}
	log := n.proc.err.String()
	for _, want := range []string{n.path + ":3: ", "history-events is less than 1", `unknown key \"max-streams-per-ipp\"`, "--max-streams is too small"} {
		if !strings.Contains(log, want) {
			t.Errorf("of a file that cannot be used the log does not say %q", want)
		}
	}
	post(t, client, n.url+"/events?room=a&room=b&room=c", "text/plain", "to three", http.StatusBadRequest)
	post(t, client, lobby, "text/plain", body+body+"x", http.StatusRequestEntityTooLarge)
	if ok, failed, fine := n.metric(`sluice_reloads_total{result="ok"}`), n.metric(`sluice_reloads_total{result="failed"}`), n.metric("sluice_reload_successful"); ok != "1" || failed != "4" || fine != "0" {
		t.Errorf("the metrics tell of %s reloads and %s that failed; successful: %s", ok, failed, fine)
	}

	post(t, client, lobby, "text/plain", "the end", http.StatusCreated)
	for i, s := range streams {
		for _, want := range []string{body, "the end"} {
			if b, err := s.next(); err != nil || b.data != want {
				t.Fatalf("stream %d shows %.50q (%v), want %.50q", i, b.data, err, want)
			}
		}
	}
}

// TestAnotherCertificateIsServedWithoutARestart: streams over the old one go on.
func TestAnotherCertificateIsServedWithoutARestart(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first, second := selfSigned(t, "first"), selfSigned(t, "second")
	first.write(t, certificate, key)
	n := &node{t: t, addr: freeAddr(t), args: nil}
	n.proc = launch(t, exec.Command(program, "serve", "--listen", n.addr, "--admin=", "--tls-cert", certificate, "--tls-key", key))
	t.Cleanup(n.stop)
	n.proc.await(t, n.proc.err, `"msg":"serving"`)
	old := first.client()
	defer old.CloseIdleConnections()
	lobby := "https://" + n.addr + "/rooms/lobby/events"
	stream, _ := listen(t, old, lobby)

	second.write(t, certificate, key)
	n.proc.signal(t, syscall.SIGHUP)
	n.proc.await(t, n.proc.err, "were read again")
	fresh := second.client()
	defer fresh.CloseIdleConnections()
	post(t, fresh, lobby, "text/plain", "by the new one", http.StatusCreated)
	if b, err := stream.next(); err != nil || b.data != "by the new one" {
		t.Errorf("a stream over the old certificate shows %+v, %v", b, err)
	}
	first.write(t, certificate, filepath.Join(dir, "other.pem")) // whose key is another
	n.proc.signal(t, syscall.SIGHUP)
	n.proc.await(t, n.proc.err, "stays as it is")
	post(t, fresh, lobby, "text/plain", "still", http.StatusCreated)
}

// pair is a certificate for this machine, and its key.
type pair struct {
	certificate, key []byte // PEM
}

func selfSigned(t *testing.T, name string) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

func (p *pair) write(t *testing.T, certificate, key string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(certificate, p.certificate, 0o600), os.WriteFile(key, p.key, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// client trusts this certificate, and no other.
func (p *pair) client() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.certificate)
	client := newClient()
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	return client
}

// get gives the body of an answer that must be 200.
func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}
