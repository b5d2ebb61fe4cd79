package doctor

import (
	"net/http"
	"strings"
)

// trouble is what a way can do to a stream.
type trouble int

const (
	buffers   trouble = iota // holds events back
	compress                 // and does so only where compression is offered
	cuts                     // ends streams
	hides                    // does not tell the gateway who left
	refuses                  // bodies that the gateway would take
	onlyHTTP1                // to the client
)

// product is what stands in the way, by what it says of itself.
type product struct {
	name string
	does map[trouble]string // what its administrator can do
}

// advice is what to do about a trouble, in the product's own words if they are
// known.
func (p product) advice(t trouble) string {
	if text, ok := p.does[t]; ok {
		return text
	}
	return generic().does[t]
}

// pollUntilThen ends the advice for what holds every stream back.
const pollUntilThen = "; until then clients need the long poll"

func generic() product {
	return product{"", map[trouble]string{
		buffers:   "find the proxy, virus scanner or filter that collects a response before it passes it on, and exempt text/event-stream or this host; it heeds neither X-Accel-Buffering: no nor Cache-Control: no-transform, which the gateway sends" + pollUntilThen,
		compress:  "exempt text/event-stream from compression in the proxy; the gateway already sends Content-Encoding: identity and Cache-Control: no-transform",
		cuts:      "raise the proxy's timeouts for idle and for long responses above the gateway's --heartbeat and --max-age",
		hides:     "let the proxy close its connection to the gateway when a client leaves; the gateway's --max-age bounds how long such streams live",
		refuses:   "raise the proxy's limit for request bodies",
		onlyHTTP1: "offer TLS with HTTP/2 in front of the gateway, or by its --tls-cert and --tls-key",
	}}
}

// products are those whose settings have been tried. sign is looked for in
// Server, Via and X-Powered-By, in lower case.
func products() []struct {
	sign string
	product
} {
	return []struct {
		sign string
		product
	}{
		{"varnish", product{"Varnish", map[trouble]string{
			compress: "in Varnish's VCL do not set beresp.do_gzip for text/event-stream",
			cuts:     "in Varnish's VCL `return (pipe);` for streams, or raise between_bytes_timeout and send_timeout",
			hides:    "in Varnish's VCL `return (pipe);` for streams",
		}}},
		{"lighttpd", product{"lighttpd", map[trouble]string{
			buffers: "in lighttpd set `server.stream-response-body = 2`",
			hides:   "lighttpd does not pass this on; keep the gateway's --max-age short",
		}}},
		{"openresty", nginx()},
		{"nginx", nginx()},
		{"caddy", product{"Caddy", map[trouble]string{
			buffers:   "in Caddy's reverse_proxy remove `response_buffers`; streams are flushed at once without any setting",
			compress:  "update Caddy to 2.11 or later, or keep `encode` away from streams: `@plain not path */events` and `encode @plain gzip`",
			hides:     "remove `flush_interval -1` from Caddy's reverse_proxy; streams are flushed without it",
			cuts:      "remove `servers { timeouts { write … } }` and `transport http { read_timeout … }` from the Caddyfile",
			refuses:   "raise `request_body { max_size … }` in the Caddyfile",
			onlyHTTP1: "give the Caddy site a host name; with TLS, HTTP/2 is on by itself",
		}}},
		{"privoxy", product{"Privoxy", map[trouble]string{
			buffers: "in Privoxy switch filters off for this host: `{-filter}` in user.action",
		}}},
		{"tinyproxy", product{"tinyproxy", map[trouble]string{
			cuts: "raise `Timeout` in tinyproxy.conf",
		}}},
		{"squid", product{"Squid", map[trouble]string{
			cuts: "raise `read_timeout` in squid.conf",
		}}},
		{"apache", product{"Apache", map[trouble]string{
			cuts:    "raise `ProxyTimeout` in Apache's configuration",
			hides:   "Apache notices at the second heartbeat; keep the gateway's --heartbeat short",
			refuses: "raise `LimitRequestBody` in Apache's configuration",
		}}},
		{"haproxy", haproxy()},
	}
}

func nginx() product {
	return product{"nginx", map[trouble]string{
		buffers:   "in nginx set `proxy_buffering off;` and `proxy_http_version 1.1;` for the gateway's location, and remove `proxy_ignore_headers X-Accel-Buffering`",
		compress:  "in nginx set `gzip off;` for the gateway's location, or leave text/event-stream out of gzip_types; `proxy_ignore_headers X-Accel-Buffering` must not be there",
		cuts:      "in nginx set `proxy_read_timeout 1h;` and `send_timeout 1h;` for the gateway's location",
		hides:     "in nginx remove `proxy_ignore_client_abort on;`",
		refuses:   "in nginx set `client_max_body_size 2m;` for the gateway's location",
		onlyHTTP1: "in nginx use `listen 443 ssl http2;`",
	}}
}

// haproxy says nothing of itself; its hand is known by the delay.
func haproxy() product {
	return product{"HAProxy", map[trouble]string{
		buffers:   "in HAProxy set `option http-no-delay`; or let clients use HTTP/2; or start the gateway with --framing close",
		compress:  "in HAProxy take text/event-stream out of `compression type`",
		cuts:      "in HAProxy raise `timeout client` and `timeout server` to 60s or more",
		hides:     "HAProxy notices at the second heartbeat; keep the gateway's --heartbeat short",
		onlyHTTP1: "in HAProxy use `bind :443 ssl crt … alpn h2,http/1.1`",
	}}
}

// identify finds the first known product in headers of answers.
func identify(headers ...http.Header) product {
	for _, known := range products() {
		for _, h := range headers {
			for _, name := range []string{"Server", "Via", "X-Powered-By"} {
				if strings.Contains(strings.ToLower(strings.Join(h.Values(name), ",")), known.sign) {
					return known.product
				}
			}
			if known.sign == "varnish" && h.Get("X-Varnish") != "" {
				return known.product
			}
		}
	}
	return generic()
}

// signs are the headers by which intermediaries show themselves, and those of
// the gateway that they may have changed.
func signs(h http.Header) map[string]string {
	out := map[string]string{}
	for _, name := range []string{
		"Server", "Via", "X-Powered-By", "X-Varnish", "X-Cache", "Age", "Cf-Ray",
		"Content-Type", "Content-Encoding", "Cache-Control", "X-Accel-Buffering",
	} {
		if v := h.Values(name); len(v) > 0 {
			out[name] = strings.Join(v, ", ")
		}
	}
	return out
}

// introduction is how the way presents itself, for people.
func introduction(h http.Header) string {
	var parts []string
	for _, name := range []string{"Via", "Server"} {
		if v := h.Values(name); len(v) > 0 {
			parts = append(parts, name+": "+strings.Join(v, ", "))
		}
	}
	if len(parts) == 0 {
		return "nothing on the way gives its name"
	}
	return strings.Join(parts, "; ")
}
