package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cmd/sluice/internal/doctor"
)

// These tests put the real gateway behind real proxies, with the settings that
// people have, and check that the doctor tells what they do.

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

// startProxy runs a proxy until the test ends, and waits until it listens.
func startProxy(t *testing.T, address, program string, args ...string) {
	t.Helper()
	out := newOutput()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // killed, as below
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
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

// atOnce runs tests at the same time, however few processors there are: they
// wait for the network, not for the machine.
func atOnce(t *testing.T, tests map[string]func(*testing.T)) {
	var running sync.WaitGroup
	for name, test := range tests {
		running.Go(func() { t.Run(name, test) })
	}
	running.Wait()
}

func TestDoctorBehindNginx(t *testing.T) {
	t.Parallel() // it mostly waits
	upstream := realGateway(t, "--heartbeat=500ms")
	atOnce(t, map[string]func(*testing.T){

		"as it comes": func(t *testing.T) {
			found := examined(t, 0, "http://"+nginx(t, upstream, "", "", ""), "--idle=3s")
			expect(t, found, "prompt", doctor.OK)
			expect(t, found, "idle", doctor.OK, "5 heartbeats")
			expect(t, found, "leaving", doctor.OK)
			expect(t, found, "reach", doctor.OK, "Server: nginx")
		},
		"buffering in spite of X-Accel-Buffering": func(t *testing.T) {
			found := examined(t, 1, "http://"+nginx(t, upstream, "", "", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"), "--quick", "--idle=1s")
			expect(t, found, "opening", doctor.Bad, "the gateway has 3 streams open here", "proxy_buffering off")
			expect(t, found, "prompt", doctor.Bad, "no event came", "proxy_ignore_headers")
			expect(t, found, "resume", doctor.OK)
			expect(t, found, "long poll", doctor.OK)
		},
		"proxy_buffering off": func(t *testing.T) {
			found := examined(t, 0, "http://"+nginx(t, upstream, "", "", "proxy_buffering off; proxy_ignore_headers X-Accel-Buffering;"), "--quick")
			expect(t, found, "prompt", doctor.OK)
		},
		"short of patience, with small bodies": func(t *testing.T) {
			quiet := realGateway(t) // a heartbeat each 15 s does not keep this way open
			found := examined(t, 1, "http://"+nginx(t, quiet, "", "client_max_body_size 100k;", "proxy_read_timeout 2s;"), "--idle=3s")
			expect(t, found, "idle", doctor.Bad, "cut after 2.", "proxy_read_timeout 1h")
			expect(t, found, "silent poll", doctor.Warn, "status 504 after 2.")
			expect(t, found, "body", doctor.Bad, "status 413", "client_max_body_size")
		},
		"TLS and HTTP/2": func(t *testing.T) {
			file := certificatePair(t)
			server := fmt.Sprintf("ssl_certificate %[1]s; ssl_certificate_key %[1]s;", file)
			found := examined(t, 0, "https://"+nginx(t, upstream, "ssl http2", server, "proxy_http_version 1.1; proxy_ignore_client_abort on;"), "--insecure", "--idle=3s")
			expect(t, found, "http", doctor.OK, "HTTP/2.0")
			expect(t, found, "tls", doctor.OK, "70 more days")
			expect(t, found, "opening", doctor.OK, "HTTP/2, gzip offered")
		},
	})
}

func TestDoctorBehindHAProxy(t *testing.T) {
	t.Parallel()
	upstream := realGateway(t, "--heartbeat=500ms")
	atOnce(t, map[string]func(*testing.T){

		"as it comes": func(t *testing.T) {
			found := examined(t, 1, "http://"+haproxy(t, upstream, "", ""), "--idle=3s")
			expect(t, found, "prompt", doctor.Bad, "HAProxy", "option http-no-delay", "--framing close")
			expect(t, found, "idle", doctor.OK)
			expect(t, found, "leaving", doctor.OK)
		},
		"http-no-delay": func(t *testing.T) {
			found := examined(t, 0, "http://"+haproxy(t, upstream, "", "option http-no-delay"), "--quick")
			expect(t, found, "prompt", doctor.OK)
		},
		"framing close": func(t *testing.T) {
			found := examined(t, 0, "http://"+haproxy(t, realGateway(t, "--framing=close"), "", ""), "--quick")
			expect(t, found, "prompt", doctor.OK)
		},
		"short of patience": func(t *testing.T) {
			quiet := realGateway(t)
			found := examined(t, 1, "http://"+haproxy(t, quiet, "", "option http-no-delay; timeout client 2s; timeout server 2s"), "--idle=3s")
			expect(t, found, "idle", doctor.Bad, "cut after 2.", "timeouts")
		},
		"TLS and HTTP/2": func(t *testing.T) {
			found := examined(t, 0, "https://"+haproxy(t, upstream, "ssl crt "+certificatePair(t)+" alpn h2,http/1.1", ""), "--insecure", "--quick")
			expect(t, found, "http", doctor.OK, "HTTP/2.0")
			expect(t, found, "prompt", doctor.OK)
		},
	})
}
