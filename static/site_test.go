package static

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/fanout"
	"sluice/handlers"
	"sluice/handlers/auth"
	"sluice/static/browsertest"
)

// site is a gateway and what stands before it: a server that browsers reach
// all the time, while the gateway behind it goes and comes.
type site struct {
	t        *testing.T
	url      string
	log      fanout.Log
	keep     fanout.Retention
	hasty    bool // the client of the chat has little patience
	proxy    *httputil.ReverseProxy
	verifier *auth.Verifier // nil for an open gateway

	stop func() // the node that runs

	mu    sync.Mutex // guards the fields below
	node  *url.URL   // nil while none runs
	beats []string   // streams that were ended by request

	hold   atomic.Value // prefix of the types of responses that are held back whole: a string
	deaf   atomic.Bool  // answers to publications are lost
	cut    atomic.Bool  // nobody reaches the gateway
	narrow atomic.Int64 // responses are cut after so many bytes, if not 0
	silent atomic.Int64 // responses before this number get no further, though they stay open
	number atomic.Int64 // of the next response
	client http.Client  // goes around the front
}

// startSite runs a gateway on a memory log that keeps so many events of a room,
// an open one if there is no verifier.
func startSite(t *testing.T, kept int, verifier ...*auth.Verifier) *site {
	t.Helper()
	s := &site{t: t, keep: fanout.Retention{Events: kept}}
	s.log = fanout.NewMemory(s.keep)
	if len(verifier) > 0 {
		s.verifier = verifier[0]
	}
	s.hold.Store("none")
	transport := &http.Transport{}
	s.client.Transport = transport
	s.proxy = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(s.upstream()); r.Out.Host = r.In.Host },
		Transport:      transport,
		FlushInterval:  -1,
		ModifyResponse: s.spoil,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	front := httptest.NewUnstartedServer(s)
	front.Config.ErrorLog = s.proxy.ErrorLog // streams that are cut while they are copied
	front.Start()
	s.url = front.URL
	t.Cleanup(func() {
		s.stop()
		front.CloseClientConnections()
		front.Close()
		transport.CloseIdleConnections()
	})
	s.start()
	return s
}

func (s *site) upstream() *url.URL {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node
}

// start runs a node. It knows what the one before it has written.
func (s *site) start() {
	s.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	hub := fanout.NewHub(s.log, fanout.Options{Keep: s.keep, Logger: logger})
	gateway := handlers.NewGateway(hub, handlers.Config{Logger: logger, Verifier: s.verifier, Retry: 200 * time.Millisecond, Heartbeat: 2 * time.Second})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	srv := handlers.NewServer(gateway.Handler(), logger)
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = hub.Run(ctx) })
	tasks.Go(func() { gateway.Run(ctx) })
	tasks.Go(func() { _ = srv.Serve(ln) })
	s.mu.Lock()
	s.node = &url.URL{Scheme: "http", Host: ln.Addr().String()}
	s.mu.Unlock()
	s.stop = sync.OnceFunc(func() {
		s.mu.Lock()
		s.node = nil
		s.mu.Unlock()
		_ = srv.Close()
		cancel()
		tasks.Wait()
	})
}

// ServeHTTP gives the pages of the tests, and passes on everything else.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; path {
	case "/module", "/classic", "/blank":
		s.page(w, path)
	case "/page.js", "/classic.js":
		w.Header().Set("Content-Type", "text/javascript")
		body, err := os.ReadFile("testdata" + path)
		if err != nil {
			s.t.Error(err)
		}
		_, _ = w.Write(body)
	case "/favicon.ico":
	default:
		if slices.Contains(Paths(), path) {
			s.asset(w, r)
			return
		}
		if strings.HasPrefix(path, "/streams/") {
			s.mu.Lock()
			s.beats = append(s.beats, r.Method)
			s.mu.Unlock()
		}
		if s.upstream() == nil || s.cut.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		s.proxy.ServeHTTP(w, r)
	}
}

// asset gives a file as it is, but for the client's patience with a way that holds
// streams back, where a test has less.
func (s *site) asset(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/sluice.js" || !s.hasty {
		Handler().ServeHTTP(w, r)
		return
	}
	const usual, hasty = "patience:5000,detour:300_000", "patience:500,detour:3_000"
	body := string(lean(load(asset{file: "sluice.js"}).body))
	if !strings.Contains(body, usual) {
		s.t.Errorf("sluice.js does not say %q", usual)
	}
	w.Header().Set("Content-Type", "text/javascript")
	_, _ = io.WriteString(w, strings.Replace(body, usual, hasty, 1))
}

// page is served under the policy that pages of a gateway have.
func (s *site) page(w http.ResponseWriter, path string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", policy)
	scripts := map[string]string{
		"/module":  `<script type="module" src="/page.js"></script>`,
		"/classic": `<script src="/sluice.global.js"></script><script src="/classic.js"></script>`,
	}
	_, _ = fmt.Fprintf(w, `<!doctype html><html lang="en"><title>a test</title><body></body>%s</html>`, scripts[path])
}

// spoil does what proxies have been seen to do.
func (s *site) spoil(r *http.Response) error {
	if r.Request.Method == http.MethodPost && s.deaf.Load() {
		return fmt.Errorf("the answer got lost")
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), s.hold.Load().(string)) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		_ = r.Body.Close()
		r.Body = io.NopCloser(strings.NewReader(string(body)))
	}
	if n := s.narrow.Load(); n > 0 {
		r.Body = &cutShort{ReadCloser: r.Body, left: n}
	}
	r.Body = &silencer{ReadCloser: r.Body, site: s, number: s.number.Add(1), gone: r.Request.Context().Done()}
	return nil
}

// cutShort is a body that ends after so many bytes.
type cutShort struct {
	io.ReadCloser
	left int64
}

func (b *cutShort) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n + int(b.left), io.EOF
	}
	return n, err
}

// silence leaves all open responses hanging.
func (s *site) silence() { s.silent.Store(s.number.Load()) }

// silencer is a body that may fall silent.
type silencer struct {
	io.ReadCloser
	site   *site
	number int64
	gone   <-chan struct{} // closed when the client has left
}

func (b *silencer) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.number <= b.site.silent.Load() {
		<-b.gone
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// do sends a request to the gateway itself.
func (s *site) do(method, path, body string) string {
	s.t.Helper()
	r, err := http.NewRequest(method, s.upstream().String()+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		s.t.Fatalf("%s %s: status %d, %v: %s", method, path, answer.StatusCode, err, text)
	}
	return string(text)
}

func (s *site) publish(room string, texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		s.do(http.MethodPost, "/rooms/"+room+"/events", text)
	}
}

// awaitThat looks until f holds of what the gateway tells of itself, which nobody announces.
func (s *site) awaitThat(what string, f func() bool) {
	s.t.Helper()
	for end := time.Now().Add(browsertest.Patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("still not: %s", what)
		}
	}
}

// streams counts the streams that are open in a room.
func (s *site) streams(room string) int {
	s.t.Helper()
	var body struct{ Streams int }
	if err := json.Unmarshal([]byte(s.do(http.MethodGet, "/rooms/"+room, "")), &body); err != nil {
		s.t.Fatal(err)
	}
	return body.Streams
}
