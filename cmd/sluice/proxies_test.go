package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// proxyProgram finds a proxy's program, or fails with how to get it.
func proxyProgram(t *testing.T, name, install string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} { // sbin is not on everybody's path
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing; install it with: %s", name, install)
	return ""
}

// freeAddress is a loopback address that nobody listens at, nor soon will: the
// others all use 127.0.0.1.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+mathrand.IntN(250), mathrand.IntN(250), 1+mathrand.IntN(250)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startUntilTheEnd runs a program until the test ends. The channel is closed when it has ended.
func startUntilTheEnd(t *testing.T, cmd *exec.Cmd) (ended <-chan struct{}) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // killed, as below
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	return done
}

// startProxy runs a proxy until the test ends, and waits until it listens. It
// returns what the proxy writes.
func startProxy(t *testing.T, address, program string, args ...string) *output {
	t.Helper()
	out := new(output)
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	ended := startUntilTheEnd(t, cmd)
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return out
		}
		select {
		case <-ended:
			t.Fatalf("%s has ended:\n%s", program, out)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v\n%s", program, err, out)
		}
	}
}

// nginx starts an nginx in front of upstream, a URL; server and location hold
// more directives. It returns the proxy's address.
func nginx(t *testing.T, upstream, listen, server, location string) string {
	t.Helper()
	program := proxyProgram(t, "nginx", "apt-get install nginx-light")
	dir, address := t.TempDir(), freeAddress(t)
	conf := fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/errors;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	server {
		listen %[2]s %[3]s;
		%[4]s
		location / { proxy_pass %[5]s; %[6]s }
	}
}`, dir, address, listen, server, upstream, location)
	startProxy(t, address, program, "-p", dir, "-e", dir+"/errors", "-c", writeIn(t, dir, "nginx.conf", conf))
	return address
}

// haproxy starts an HAProxy in front of upstream, a URL; options go into its
// defaults, bind behind its address.
func haproxy(t *testing.T, upstream, bind, options string) string {
	t.Helper()
	program := proxyProgram(t, "haproxy", "apt-get install haproxy")
	dir, address := t.TempDir(), freeAddress(t)
	conf := fmt.Sprintf(`
global
	maxconn 256
defaults
	mode http
	timeout connect 5s
	timeout client 50s
	timeout server 50s
	%s
frontend way
	bind %s %s
	default_backend gateway
backend gateway
	server node %s
`, strings.ReplaceAll(options, "; ", "\n\t"), address, bind, strings.TrimPrefix(upstream, "http://"))
	startProxy(t, address, program, "-db", "-f", writeIn(t, dir, "haproxy.cfg", conf))
	return address
}

// caddy starts a Caddy in front of upstream, a URL; global holds options of
// the server, site and proxy more directives. It returns the proxy's address.
func caddy(t *testing.T, upstream, global, site, proxy string) string {
	t.Helper()
	address := freeAddress(t)
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	file := writeIn(t, t.TempDir(), "Caddyfile", fmt.Sprintf(`
{
	admin off
	auto_https off
	%s
}
http://%s {
	bind %s
	%s
	reverse_proxy %s {
		%s
	}
}`, global, address, host, site, upstream, proxy))
	runCaddy(t, address, file)
	return address
}

// runCaddy runs a Caddyfile until the test ends, and waits until it listens.
// It returns what Caddy writes, and the folder with the authority of its
// certificates.
func runCaddy(t *testing.T, address, file string, env ...string) (out *output, home string) {
	t.Helper()
	program := proxyProgram(t, "caddy", "go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.11.9")
	home = t.TempDir()
	env = append(env, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	out = startProxy(t, address, "env", append(env, program, "run", "--config", file, "--adapter", "caddyfile")...)
	return out, home
}

// ourCaddy runs the project's own Caddyfile in front of upstream, for host, a
// name with or without a scheme. It returns the port, and the authority's
// certificate.
func ourCaddy(t *testing.T, upstream, host string) (port, authority string) {
	t.Helper()
	free := func() (string, string) {
		address := freeAddress(t)
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		return port, "127.0.0.1:" + port
	}
	plain, plainAddress := free()
	secure, secureAddress := free()
	certified := !strings.HasPrefix(host, "http://")
	port, address := plain, plainAddress
	if certified {
		port, address = secure, secureAddress
	}
	out, home := runCaddy(t, address, "../../Caddyfile", "SLUICE_CADDY_ADMIN=off", "SLUICE_HOST="+host, "SLUICE_HTTP_PORT="+plain,
		"SLUICE_HTTPS_PORT="+secure, "SLUICE_NODES="+strings.TrimPrefix(upstream, "http://"))
	if certified {
		out.await(t, "certificate obtained successfully")
	}
	return port, filepath.Join(home, "caddy/pki/authorities/local/root.crt")
}

func writeIn(t *testing.T, dir, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// certificatePair makes a key and a certificate for 127.0.0.1, good for ten weeks, in one
// file.
func certificatePair(t *testing.T) (file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sluice test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(70*24*time.Hour + time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	return writeIn(t, t.TempDir(), "pair.pem", string(text))
}

// collecting starts a proxy that passes a response on when it is over, or when
// size bytes of it are there: of its beginning, or each time. 0 is no size.
func collecting(t *testing.T, upstream string, size int, each bool) (address string) {
	t.Helper()
	to, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(r *http.Response) error {
			c := &collector{ReadCloser: r.Body, size: size, each: each}
			r.Body = c
			return c.collect()
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {}, // the client has gone
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL
}

// collector is a body that is held until there is enough of it.
type collector struct {
	io.ReadCloser
	size int // 0: all of it
	each bool
	held []byte
}

// collect waits for enough, or the end.
func (c *collector) collect() error {
	from := io.Reader(c.ReadCloser)
	if c.size > 0 {
		from = io.LimitReader(from, int64(c.size))
	}
	var err error
	c.held, err = io.ReadAll(from)
	return err
}

func (c *collector) Read(b []byte) (int, error) {
	if len(c.held) == 0 && c.each {
		if err := c.collect(); err != nil {
			return 0, err
		}
	}
	if len(c.held) == 0 {
		return c.ReadCloser.Read(b)
	}
	n := copy(b, c.held)
	c.held = c.held[n:]
	return n, nil
}
