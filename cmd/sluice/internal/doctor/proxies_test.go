package doctor

import (
	"compress/gzip"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// inFront puts a proxy in front of origin. It passes everything on promptly;
// change spoils that.
func inFront(t *testing.T, origin string, change func(*httputil.ReverseProxy), wrap func(http.Handler) http.Handler) *httptest.Server {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	to := parse(t, origin)
	p := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:     transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	if change != nil {
		change(p)
	}
	var h http.Handler = p
	if wrap != nil {
		h = wrap(p)
	}
	return serve(t, h, nil)
}

// isStream says whether a response is a stream of events.
func isStream(h http.Header) bool {
	return strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
}

// hoarder collects what is written, and passes it on when it is full or over.
type hoarder struct {
	http.ResponseWriter
	size int // 0: never full
	only func(http.Header) bool
	held []byte
}

func (h *hoarder) Write(b []byte) (int, error) {
	if h.only != nil && !h.only(h.Header()) {
		return h.ResponseWriter.Write(b)
	}
	h.held = append(h.held, b...)
	if h.size > 0 && len(h.held) >= h.size {
		h.release()
		http.NewResponseController(h.ResponseWriter).Flush()
	}
	return len(b), nil
}

func (h *hoarder) WriteHeader(status int) {
	if h.only != nil && !h.only(h.Header()) {
		h.ResponseWriter.WriteHeader(status)
		return
	}
	if status != http.StatusOK { // let errors be
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h *hoarder) Flush() {
	if h.only != nil && !h.only(h.Header()) {
		http.NewResponseController(h.ResponseWriter).Flush()
	}
}

func (h *hoarder) release() {
	h.ResponseWriter.Write(h.held)
	h.held = nil
}

// hoard is a proxy that buffers responses.
func hoard(size int, only func(http.Header) bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := &hoarder{ResponseWriter: w, size: size, only: only}
			defer h.release()
			next.ServeHTTP(h, r)
		})
	}
}

// body is what is read of a response, and what is closed.
type body struct {
	io.Reader
	io.Closer
}

// packer compresses responses, and flushes them or not.
type packer struct {
	http.ResponseWriter
	zip   *gzip.Writer
	flush bool
}

func (p *packer) Write(b []byte) (int, error) { return p.zip.Write(b) }

func (p *packer) Flush() {
	if p.flush {
		p.zip.Flush()
	}
	http.NewResponseController(p.ResponseWriter).Flush()
}

// pack is a proxy that compresses for those who take it.
func pack(flush bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				next.ServeHTTP(w, r)
				return
			}
			w = &forcedHeader{w, "Content-Encoding", "gzip"}
			p := &packer{ResponseWriter: w, zip: gzip.NewWriter(w), flush: flush}
			defer p.zip.Close()
			next.ServeHTTP(p, r)
		})
	}
}

// forcedHeader sets a header whatever the handler says.
type forcedHeader struct {
	http.ResponseWriter
	name, value string
}

func (f *forcedHeader) WriteHeader(status int) {
	f.Header().Set(f.name, f.value)
	f.ResponseWriter.WriteHeader(status)
}

func (f *forcedHeader) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// cut is a proxy that ends each response after some time.
func cut(after time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), after)
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// cling is a proxy that keeps its requests to the gateway when their clients
// have gone, until ctx ends.
func cling(ctx context.Context) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(&stoic{w}, r.WithContext(ctx))
		})
	}
}

// stoic hides from its handler that nobody reads any more.
type stoic struct{ http.ResponseWriter }

func (s *stoic) Write(b []byte) (int, error) {
	s.ResponseWriter.Write(b)
	return len(b), nil
}

func (s *stoic) Flush() { http.NewResponseController(s.ResponseWriter).Flush() }

// late passes each piece of a stream on after a while.
type late struct {
	http.ResponseWriter
	by time.Duration
}

func (l *late) Write(b []byte) (int, error) {
	if isStream(l.Header()) {
		time.Sleep(l.by) // this is what the proxy does, no test waits for it
	}
	return l.ResponseWriter.Write(b)
}

func (l *late) Flush() { http.NewResponseController(l.ResponseWriter).Flush() }

// forward is a forward proxy: it takes CONNECT and whole URLs. It counts what
// it carried.
type forward struct {
	transport *http.Transport
	carried   atomic.Int64
}

func (f *forward) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.carried.Add(1)
	if r.Method == http.MethodConnect {
		f.tunnel(w, r)
		return
	}
	p := &httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}, Transport: f.transport, FlushInterval: -1}
	w.Header().Set("Via", "1.1 squid.example.com (squid/5.7)")
	p.ServeHTTP(w, r)
}

func (f *forward) tunnel(w http.ResponseWriter, r *http.Request) {
	up, err := net.Dial("tcp", r.Host)
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
	done := make(chan struct{}, 2)
	pipe := func(to, from net.Conn) {
		io.Copy(to, from)
		to.(*net.TCPConn).CloseWrite()
		done <- struct{}{}
	}
	go pipe(up, down)
	go pipe(down, up)
	<-done
	<-done
}

// renamed makes all streams carry the same name, as one that is shared does.
type renamed struct{ io.ReadCloser }

func (r *renamed) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	for _, digit := range "123456789" {
		s := strings.ReplaceAll(string(b[:n]), `"stream":"s`+string(digit)+`"`, `"stream":"s0"`)
		copy(b, s)
	}
	return n, err
}
