package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxSources       = 250
	maxFirstSource   = 1 << 20 // which leaves all in 127.0.0.0/8
	idLength         = 8
	streamsPerSource = 1000
	// spare descriptors: publishers come on top of it, streams one by one.
	spareDescriptors = 64
)

// plan is a Config made ready: names resolved, templates taken apart.
type plan struct {
	Config
	id        string // of the run, eight characters
	subscribe *target
	nodes     []netip.AddrPort // one, if no others were named
	publish   *target          // nil: hold streams only
	sources   int              // 0: leave the source address to the system
	format    *format
	requests  []form // by room, for publishers
}

// form is a request to publish without its message.
type form struct{ before, after []byte }

// target is one URL template.
type target struct {
	addr netip.AddrPort
	host string      // for the Host header
	path string      // with {room}
	tls  *tls.Config // nil: plain HTTP
}

func newPlan(ctx context.Context, c Config) (*plan, error) {
	p := &plan{Config: c, id: c.ID}
	if p.id == "" {
		var id [idLength / 2]byte
		rand.Read(id[:]) // never fails
		p.id = hex.EncodeToString(id[:])
	}
	if p.Room == "" {
		p.Room = "bench-" + p.id
	}
	p.format = newFormat(p.id, c.Payload)
	var err error
	if p.subscribe, err = newTarget(ctx, c.Subscribe, c.TLS); err != nil {
		return nil, fmt.Errorf("subscribe URL: %w", err)
	}
	if p.nodes = c.Nodes; len(p.nodes) == 0 {
		p.nodes = []netip.AddrPort{p.subscribe.addr}
	}
	if c.Publish != "" {
		if p.publish, err = newTarget(ctx, c.Publish, c.TLS); err != nil {
			return nil, fmt.Errorf("publish URL: %w", err)
		}
		if !strings.Contains(c.Body, "{msg}") {
			return nil, fmt.Errorf("%w: the body %q has no place for {msg}", ErrUsage, c.Body)
		}
		for i := range c.Rooms {
			p.requests = append(p.requests, p.publishRequest(i))
		}
	}
	if c.Rooms > 1 && !strings.Contains(c.Subscribe, "{room}") {
		return nil, fmt.Errorf("%w: %d rooms, but no {room} in the subscribe URL", ErrUsage, c.Rooms)
	}
	if err := ensureDescriptors(c.Streams + c.Publishers + spareDescriptors); err != nil {
		return nil, err
	}
	p.chooseSources()
	p.warn()
	return p, nil
}

// newTarget takes a URL template apart and looks its host up.
func newTarget(ctx context.Context, template string, conf *tls.Config) (*target, error) {
	u, err := url.Parse(strings.ReplaceAll(template, "{room}", "room"))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrUsage, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: %q is not a whole http:// or https:// URL", ErrUsage, template)
	}
	if u.User != nil {
		return nil, fmt.Errorf("%w: credentials in a URL are not sent; use a header", ErrUsage)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%w: port %q is no number up to 65535", ErrUsage, port)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("looking up %s: %w", u.Hostname(), err)
	}
	t := &target{addr: netip.AddrPortFrom(ips[0].Unmap(), uint16(number)), host: u.Host, path: pathOf(template)}
	if u.Scheme == "https" {
		if conf == nil {
			conf = &tls.Config{}
		}
		t.tls = conf.Clone()
		t.tls.ServerName = u.Hostname()
		t.tls.NextProtos = []string{"http/1.1"}
	}
	return t, nil
}

// pathOf cuts scheme, host and fragment off a URL template.
func pathOf(template string) string {
	_, rest, _ := strings.Cut(template, "://")
	rest, _, _ = strings.Cut(rest, "#")
	at := strings.IndexAny(rest, "/?")
	if at < 0 {
		return "/"
	}
	if rest[at] == '?' {
		return "/" + rest[at:]
	}
	return rest[at:]
}

// chooseSources spreads streams over loopback addresses, of which each has
// ports for 28,000 connections to one server.
func (p *plan) chooseSources() {
	if addr := p.nodes[0].Addr(); !addr.IsLoopback() || !addr.Is4() || !manySources {
		return
	}
	p.sources = p.Sources
	if p.sources == 0 {
		p.sources = min((p.Streams+streamsPerSource-1)/streamsPerSource, maxSources)
	}
}

// source is the address that stream i comes from; the zero Addr: any.
func (p *plan) source(i int) netip.Addr {
	if p.sources == 0 {
		return netip.Addr{}
	}
	n := 0x101 + p.FirstSource + i%p.sources
	return netip.AddrFrom4([4]byte{127, byte(n >> 16), byte(n >> 8), byte(n)})
}

func (p *plan) warn() {
	for _, t := range []*target{p.subscribe, p.publish} {
		if t != nil && !t.addr.Addr().IsLoopback() {
			p.Warn(fmt.Sprintf("%s is not on this machine: measure only gateways of your own", t.host))
			return
		}
	}
}

func (p *plan) room(i int) string { return p.Room + "-" + strconv.Itoa(i) }

// fill puts a room's name into a template.
func fill(template, room string) string {
	return strings.ReplaceAll(template, "{room}", room)
}

// streamRequest is the request that opens a stream of room, going on behind
// lastID if there is one.
func (p *plan) streamRequest(b []byte, room int, lastID []byte) []byte {
	name := p.room(room)
	b = appendRequestLine(b, "GET", p.subscribe, name)
	b = appendDefault(b, p.SubscribeHeader, "Accept", "text/event-stream")
	b = appendDefault(b, p.SubscribeHeader, "Cache-Control", "no-cache")
	b = appendHeaders(b, p.SubscribeHeader, name)
	if len(lastID) > 0 {
		b = append(append(append(b, "Last-Event-ID: "...), lastID...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// publishRequest returns the request that publishes to a room.
func (p *plan) publishRequest(room int) form {
	name := p.room(room)
	prefix, suffix, _ := strings.Cut(fill(p.Body, name), "{msg}")
	b := appendRequestLine(nil, "POST", p.publish, name)
	b = appendDefault(b, p.PublishHeader, "Content-Type", "text/plain")
	b = appendHeaders(b, p.PublishHeader, name)
	b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n%s", len(prefix)+p.Payload+len(suffix), prefix)
	return form{b, []byte(suffix)}
}

func appendRequestLine(b []byte, method string, t *target, room string) []byte {
	return fmt.Appendf(b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sluice-bench\r\n", method, fill(t.path, room), t.host)
}

func appendHeaders(b []byte, headers []Header, room string) []byte {
	for _, h := range headers {
		b = fmt.Appendf(b, "%s: %s\r\n", h.Name, fill(h.Value, room))
	}
	return b
}

// appendDefault adds a header that the user has not set.
func appendDefault(b []byte, headers []Header, name, value string) []byte {
	for _, h := range headers {
		if strings.EqualFold(h.Name, name) {
			return b
		}
	}
	return fmt.Appendf(b, "%s: %s\r\n", name, value)
}

// dial opens a connection to a node as to t, for what cannot be left to epoll.
func (t *target) dial(ctx context.Context, node netip.AddrPort, source netip.Addr, patience time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", node.String())
	if err != nil || t.tls == nil {
		return conn, err
	}
	secure := tls.Client(conn, t.tls)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}
