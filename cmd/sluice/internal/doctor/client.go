package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// protocol is which HTTP a client may speak.
type protocol string

const (
	any1or2 protocol = ""
	http1   protocol = "HTTP/1.1"
	http2   protocol = "HTTP/2"
)

// answerLimit is what of an answer's body is read.
const answerLimit = 4 << 20

// connect makes the clients, one for each protocol.
func (x *examination) connect() {
	x.client = map[protocol]*http.Client{}
	for _, p := range []protocol{any1or2, http1, http2} {
		x.client[p] = &http.Client{
			Transport:     x.transport(p),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if p, err := x.proxyFor(&http.Request{URL: x.URL}); err == nil && p != nil {
		x.report.Proxy = p.Redacted()
	}
}

func (x *examination) proxyFor(r *http.Request) (*url.URL, error) {
	if x.Proxy != nil {
		return x.Proxy, nil
	}
	return http.ProxyFromEnvironment(r)
}

func (x *examination) transport(p protocol) *http.Transport {
	t := &http.Transport{
		Proxy:               x.proxyFor,
		Protocols:           new(http.Protocols),
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true, // what is offered is ours to say
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: x.Insecure},
	}
	t.Protocols.SetHTTP1(p != http2)
	t.Protocols.SetHTTP2(p != http1)
	return t
}

func (x *examination) hangUp() {
	for _, c := range x.client {
		c.CloseIdleConnections()
	}
}

// call is one request.
type call struct {
	method string
	path   []string // below the gateway's address
	query  url.Values
	header http.Header
	body   []byte
}

func (x *examination) request(ctx context.Context, c call) (*http.Request, error) {
	u := x.URL.JoinPath(c.path...)
	u.RawQuery, u.Fragment = c.query.Encode(), ""
	r, err := http.NewRequestWithContext(ctx, c.method, u.String(), bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", "sluice-doctor")
	if x.Token != "" {
		r.Header.Set("Authorization", "Bearer "+x.Token)
	}
	return r, nil
}

// answer is what came of a call that was answered as a whole.
type answer struct {
	status int
	header http.Header
	body   []byte
	proto  string
	tls    *tls.ConnectionState
	sent   time.Time
	took   time.Duration // request to the end of the answer
}

// do makes a call and reads its answer within limit.
func (x *examination) do(ctx context.Context, p protocol, limit time.Duration, c call) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := x.request(ctx, c)
	if err != nil {
		return nil, err
	}
	a := &answer{sent: time.Now()}
	resp, err := x.client[p].Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	a.took = time.Since(a.sent)
	a.status, a.header, a.proto, a.tls = resp.StatusCode, resp.Header, resp.Proto, resp.TLS
	return a, err
}

// fromGateway says whether an answer that refuses something is the gateway's
// own, by the form that it has there; proxies answer with pages.
func (a *answer) fromGateway() bool {
	kind, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	return kind == "application/problem+json"
}

// String is an answer that refuses something, in the gateway's words if they
// are its.
func (a *answer) String() string {
	text := fmt.Sprintf("status %d", a.status)
	if !a.fromGateway() {
		return text + "; " + introduction(a.header)
	}
	text += ", by the gateway itself"
	if detail := jsonString(a.body, "detail"); detail != "" {
		text += ": " + detail
	}
	return text
}

// publish posts one event of ours and returns the answer.
func (x *examination) publish(ctx context.Context, room, text string, query url.Values) (*answer, error) {
	return x.do(ctx, any1or2, x.pace.patience, call{
		method: http.MethodPost, path: []string{"rooms", room, "events"}, query: query,
		header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
		body:   []byte(text),
	})
}

// count asks the gateway how many streams a room has.
func (x *examination) count(ctx context.Context, room string) (streams int, err error) {
	a, err := x.do(ctx, any1or2, x.pace.patience, call{method: http.MethodGet, path: []string{"rooms", room}})
	if err != nil {
		return 0, err
	}
	var v struct{ Streams *int }
	if a.status != http.StatusOK || json.Unmarshal(a.body, &v) != nil || v.Streams == nil {
		return 0, errNoCount
	}
	return *v.Streams, nil
}

var errNoCount = errors.New("the gateway does not say how many streams a room has")

// page is a page of a room's history, or the answer to a long poll.
type page struct {
	Events []struct {
		ID   string          `json:"id"`
		Data json.RawMessage `json:"data"`
	} `json:"events"`
	Next string `json:"next"`
}

// readPage gets a page; it is nil if what answered is none.
func (x *examination) readPage(ctx context.Context, limit time.Duration, query url.Values, header http.Header) (*page, *answer, error) {
	h := http.Header{"Accept": {"application/json"}}
	for name, values := range header {
		h[name] = values
	}
	a, err := x.do(ctx, any1or2, limit, call{method: http.MethodGet, path: []string{"rooms", x.room, "events"}, query: query, header: h})
	if err != nil {
		return nil, a, err
	}
	var p page
	if a.status != http.StatusOK || json.Unmarshal(a.body, &p) != nil {
		return nil, a, nil
	}
	return &p, a, nil
}

// reason is an error of the network in few words.
func reason(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}
