package main

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"sluice/cmd/sluice/internal/doctor"
)

// These tests put the real gateway behind real proxies, with the settings that
// people have, and check that the doctor tells what they do.

// doctors bounds how many of them are at work: too many would hold each other
// up, and call each other's ways slow.
var doctors = make(chan struct{}, 8)

// atOnce runs tests at the same time, however few processors there are: they
// wait for the network, not for the machine.
func atOnce(t *testing.T, tests map[string]func(*testing.T)) {
	var running sync.WaitGroup
	for name, test := range tests {
		running.Go(func() {
			doctors <- struct{}{}
			defer func() { <-doctors }()
			t.Run(name, test)
		})
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
			expect(t, found, "idle", doctor.OK, "heartbeats (one is due each 500 ms)")
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
			expect(t, found, "silent poll", doctor.Warn, "after 2.", "status 504")
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

func TestDoctorBehindCaddy(t *testing.T) {
	t.Parallel()
	upstream := realGateway(t, "--heartbeat=500ms")
	atOnce(t, map[string]func(*testing.T){

		"our Caddyfile, plain": func(t *testing.T) {
			port, _ := ourCaddy(t, upstream, "http://localhost")
			found := examined(t, 0, "http://localhost:"+port, "--idle=3s")
			expect(t, found, "reach", doctor.OK, "Caddy")
			expect(t, found, "http", doctor.Warn, "six connections", "host name")
			expect(t, found, "prompt", doctor.OK)
			expect(t, found, "resume", doctor.OK)
			expect(t, found, "body", doctor.OK, "900 KiB")
			expect(t, found, "idle", doctor.OK, "heartbeats (one is due each 500 ms)")
			expect(t, found, "silent poll", doctor.OK)
			expect(t, found, "leaving", doctor.OK)
		},
		"our Caddyfile, TLS and HTTP/2": func(t *testing.T) {
			port, authority := ourCaddy(t, upstream, "localhost")
			found := byCheck(examinedAsProcess(t, []string{"SSL_CERT_FILE=" + authority}, "https://localhost:"+port, "--idle=3s"))
			expect(t, found, "tls", doctor.OK, "TLS 1.3", `ALPN "h2"`, "Caddy Local Authority", "more hours")
			expect(t, found, "http", doctor.OK, "HTTP/2.0")
			expect(t, found, "prompt", doctor.OK, "HTTP/1.1, gzip offered", "HTTP/2, gzip offered")
			expect(t, found, "idle", doctor.OK, "HTTP/2: open for 3.0 s, with")
			expect(t, found, "leaving", doctor.OK)

			found = examined(t, 1, "https://localhost:"+port)
			expect(t, found, "reach", doctor.Bad, "SSL_CERT_FILE", "--insecure")
		},
		"as it comes, and compressing": func(t *testing.T) {
			found := examined(t, 0, "http://"+caddy(t, upstream, "", "encode", ""), "--quick")
			expect(t, found, "prompt", doctor.OK)
			expect(t, found, "leaving", doctor.OK)
		},
		"response_buffers": func(t *testing.T) {
			found := examined(t, 1, "http://"+caddy(t, upstream, "", "", "response_buffers 40KiB"), "--quick", "--idle=1s")
			expect(t, found, "opening", doctor.Bad, "not even headers", "the gateway has 3 streams open here")
			expect(t, found, "prompt", doctor.Bad, "no event came", "Caddy is there", "remove `response_buffers`", "KiB more,", "from then on events came promptly")
			expect(t, found, "long poll", doctor.OK)
			expect(t, found, "resume", doctor.OK)
		},
		"with a time for whole answers, and small bodies": func(t *testing.T) {
			found := examined(t, 1, "http://"+caddy(t, upstream, "servers {\n timeouts {\n write 6s\n }\n }", "request_body {\n max_size 100KB\n }", ""), "--idle=8s")
			expect(t, found, "prompt", doctor.OK)
			expect(t, found, "idle", doctor.Bad, "cut after 6.", "timeouts { write")
			expect(t, found, "body", doctor.Bad, "status 413", "max_size")
		},
	})
}

func TestDoctorBehindAProxyThatCollects(t *testing.T) {
	t.Parallel()
	atOnce(t, map[string]func(*testing.T){

		"until the end": func(t *testing.T) {
			found := examined(t, 1, collecting(t, realGateway(t), 0, false), "--quick", "--idle=3s")
			expect(t, found, "opening", doctor.Bad, "not even headers", "it is the answers that do not arrive")
			expect(t, found, "prompt", doctor.Bad, "no event came", "256 KiB more did not move it", "exempt text/event-stream", "X-Accel-Buffering: no", "long poll")
			expect(t, found, "long poll", doctor.OK)
			expect(t, found, "resume", doctor.OK)
		},
		"each 40 KiB": func(t *testing.T) {
			found := examined(t, 1, collecting(t, realGateway(t), 40<<10, true), "--quick", "--idle=1s")
			expect(t, found, "prompt", doctor.Bad, "no event came", "KiB more,", "exempt text/event-stream")
			if f := found["prompt"]; strings.Contains(f.Do, "--padding") {
				t.Errorf("padding helps only once:\n%s", f)
			}
		},
		"the first 40 KiB, as scanners do": func(t *testing.T) {
			found := examined(t, 1, collecting(t, realGateway(t), 40<<10, false), "--quick", "--idle=1s")
			expect(t, found, "prompt", doctor.Bad, "no event came", "only the beginning of a response is held")
			padding := regexp.MustCompile(`--padding (\d+KiB)`).FindStringSubmatch(found["prompt"].Do)
			if padding == nil {
				t.Fatalf("no padding is advised:\n%s", found["prompt"])
			}
			found = examined(t, 0, collecting(t, realGateway(t, "--padding="+padding[1]), 40<<10, false), "--quick")
			expect(t, found, "prompt", doctor.OK)
		},
	})
}
