package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// gatewayFlags are embedded by every command that talks to a gateway.
type gatewayFlags struct {
	URL   string `help:"The gateway." default:"http://127.0.0.1:8080"`
	Token string `help:"Token to present; none for an open gateway." placeholder:"JWT"`
}

// gateway is a gateway as its clients see it: where it is, who we are, and the connections.
type gateway struct {
	base  *url.URL
	token string
	http  *http.Client
}

// open checks the flags; it does not connect. The caller owes a close.
func (f gatewayFlags) open() (*gateway, error) {
	base, err := url.Parse(f.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, usagef("--url %q is not the address of a gateway; write it as http://127.0.0.1:8080", f.URL)
	}
	token := strings.TrimSpace(f.Token)
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, usagef("--token holds something that no token holds; give the bare JWT")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 15 * time.Second
	// Compression gathers bytes before it lets any go, which a stream cannot have.
	transport.DisableCompression = true
	return &gateway{
		base:  base,
		token: token,
		http:  &http.Client{Transport: transport, CheckRedirect: keepMethod},
	}, nil
}

// close gives up the connections that are idle; responses must have been closed.
func (g *gateway) close() { g.http.CloseIdleConnections() }

// errRedirected is the end of a request that was sent elsewhere.
var errRedirected = errors.New("the gateway is elsewhere")

// keepMethod follows redirects as usual, but not where a POST would become a GET: that
// would be answered with 200, and nothing would have been published.
func keepMethod(next *http.Request, via []*http.Request) error {
	if next.Method != via[0].Method {
		return fmt.Errorf("%w: use --url %s://%s", errRedirected, next.URL.Scheme, next.URL.Host)
	}
	if len(via) >= 10 {
		return fmt.Errorf("%w: ten redirects in a row; is --url right?", errRedirected)
	}
	return nil
}

// at is the address of a resource: the elements of its path below --url, and its query.
func (g *gateway) at(query url.Values, path ...string) *url.URL {
	escaped := make([]string, len(path))
	for i, element := range path {
		escaped[i] = url.PathEscape(element)
	}
	u := g.base.JoinPath(escaped...)
	u.RawQuery = query.Encode()
	u.Fragment = ""
	return u
}

// request prepares a request with our token. The body may be sent again, which redirects need.
func (g *gateway) request(ctx context.Context, method string, u *url.URL, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if g.token != "" {
		r.Header.Set("Authorization", "Bearer "+g.token)
	}
	return r, nil
}

// refusal is an answer that is not the one asked for.
type refusal struct {
	status     int
	text       string        // what the gateway says about it, made printable
	retryAfter time.Duration // what it asks us to wait, 0 if it does not
}

// Error says what was refused and, where that is known, what to do about it.
func (r *refusal) Error() string {
	text := fmt.Sprintf("the gateway answered %d", r.status)
	if r.text != "" {
		text += ": " + r.text
	}
	switch r.status {
	case http.StatusUnauthorized:
		text += "; give a valid token with --token or SLUICE_TOKEN"
	case http.StatusForbidden:
		text += "; use a token that allows it"
	case http.StatusNotFound:
		text += "; is --url the address of a gateway?"
	}
	return text
}

// temporary says that the same request may fare better later.
func (r *refusal) temporary() bool {
	switch r.status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return r.status >= 500
}

// refused reads an answer that is not the one asked for; the caller closes the body.
func refused(resp *http.Response) *refusal {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	r := &refusal{status: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var problem struct{ Title, Detail string }
	switch {
	case kind == "application/problem+json" && json.Unmarshal(body, &problem) == nil:
		r.text = problem.Detail
		if r.text == "" {
			r.text = problem.Title
		}
	case kind == "text/plain":
		r.text = string(body)
	default:
		// A page for people is of no use here; its kind says that something else answered.
		r.text = strings.ToLower(http.StatusText(resp.StatusCode))
		if kind != "" {
			r.text += " (" + kind + ")"
		}
	}
	r.text = clip(oneLine(strings.TrimSpace(r.text)), 300)
	return r
}

// retryAfter reads the header of that name, seconds or a date; 0 if it is neither.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// plainly says in a few words why a gateway was not reached; err is what net/http returned.
func (g *gateway) plainly(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // what it adds is the method and a long address
	}
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s; start a gateway there or give --url: %w", g.base.Host, errRefused)
	case errors.As(err, &dns):
		return fmt.Errorf("the host %s is not known; check --url: %w", g.base.Hostname(), err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%s broke the connection: %w", g.base.Host, err)
	case errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s does not answer: %w", g.base.Host, err)
	}
	return err
}

// errRefused is the short form of the system's chain of words for a port that nobody holds.
var errRefused = errors.New("connection refused")

// hopeless are failures to connect that only a person can mend.
func hopeless(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &certificate) || errors.As(err, &record)
}

// notSent are failures that happened before a request could reach anyone.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// backoff is how long to wait after so many failures in a row: doubling from base up to
// most, with half of it left to chance, so that many clients do not come back as one.
func backoff(failures int, base, most time.Duration) time.Duration {
	d := most
	if failures < 20 {
		d = min(base<<failures, most)
	}
	return d/2 + rand.N(d/2+1)
}

// sleep waits, or returns the context's error at once when that ends.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// printable makes a stranger's text safe for a terminal: what would move the cursor,
// change colours or turn the direction of writing is shown as an escape instead.
func printable(s string) string {
	clean := func(r rune) bool { return unicode.IsPrint(r) || r == ' ' }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !clean(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// clip shortens a text to about n bytes, between two characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// isTerminal says whether a person looks at w. A device such as /dev/null passes for one,
// which does no harm.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
